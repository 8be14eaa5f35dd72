//! `maintain()`: one row for each task that a module registers.

use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use crate::module::{self, Batch, Task};

pg_function!(maintain);
/// `maintain(max_rows)`
fn maintain(call: &Call) -> Answer {
    let rows = call
        .get::<Option<i32>>(0)
        .filter(|size| (1..=1_000_000).contains(size))
        .ok_or_else(|| Fault::new(Code::InvalidParameterValue, "max_rows must be between 1 and 1000000"))?;
    // Two at once would create the same partition twice. Not an advisory lock, because any role could hold that; only the
    // extension's owner can lock this table.
    const LOCK: &str = "LOCK TABLE skill_system.audit_state IN SHARE UPDATE EXCLUSIVE MODE";
    spi::execute(LOCK, As::Owner, See::OwnWrites, &[]);
    let batch = Batch { rows };
    let mut result = call.row_set();
    for module in module::all() {
        for task in module.maintenance {
            let Task { name, affected, detail } = task(&batch).map_err(|fault| match fault.detail {
                None => fault.detail(format!("A maintenance task of module {} failed.", module.name)),
                Some(_) => fault,
            })?;
            result.push(&[arg(name), arg(affected), arg(detail)]);
        }
    }
    Ok(result.finish())
}
