//! `maintain()`: one row for each task that a module registers.

use std::time::Duration;

use skill_core::{Code, Fault};
use skill_pg::spi;
use skill_pg::xact::attempt;
use skill_pg::{Answer, Call, arg, lock, pg_function, sys};

use crate::locks;
use crate::module::{self, Batch, Task};

pg_function!(maintain);
fn maintain(call: &Call) -> Answer {
    let max_rows: Option<i32> = call.arguments();
    sys::prevent_if_read_only(c"maintain()");
    lock::prevent_in_transaction_block("maintain()");
    let rows = max_rows
        .filter(|size| (1..=1_000_000).contains(size))
        .ok_or_else(|| Fault::new(Code::InvalidParameterValue, "max_rows must be between 1 and 1000000"))?;
    // Two at once would create the same partition twice.
    if !locks::try_acquire(c"audit_state", &["maintain"], Duration::ZERO, "maintain()") {
        let fault = Fault::new(Code::LockNotAvailable, "another session is running maintain()")
            .hint("Try again when it has ended.");
        return Err(match locks::holder(c"audit_state", &["maintain"]) {
            Some(holder) => fault.detail(format!("It is {holder}.")),
            None => fault,
        });
    }
    let batch = Batch { rows };
    let mut result = call.row_set();
    let tasks =
        module::all().iter().flat_map(|module| module.maintenance.iter().map(|(name, task)| (module.name, name, task)));
    for (module, name, task) in tasks {
        // What one cannot do does not keep the others from their work; nor does a lock that somebody holds.
        let done = attempt(|| spi::with_settings(&[(c"lock_timeout", c"5s")], || task(&batch)));
        let Task { affected, detail } = done.unwrap_or_else(|fault| {
            let detail = fault.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            Task { affected: 0, detail: format!("failed in module {module}: {}{detail}", fault.message) }
        });
        result.push(&[arg(*name), arg(affected), arg(detail)]);
    }
    Ok(result.finish())
}
