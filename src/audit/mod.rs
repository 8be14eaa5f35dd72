//! The audit trail: signing at insert, appending, protecting tables, verifying records.

mod append;
mod beginning;
pub mod bypass;
pub mod denial;
mod expected;
mod guard;
pub mod identity;
pub mod keys;
mod partitions;
pub mod protection;
mod record;
mod recorder;
mod repair;
mod structure;
mod tables;

use skill_core::Fault;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Jsonb, Timestamptz, arg, fault_point, pg_function, sys, xact};

use crate::module::{Module, check_event_type};
use crate::settings;

pub use append::{append, append_by, append_by_for, append_for, append_system};
pub use identity::{existing_log_id, has_identity};
pub use partitions::create_ahead;
pub use record::{
    LEAF_HASH, PROBLEM, RECORD_DIGEST, TOO_LARGE, explain_problem, leaf_digest, missing, signing_with, take_written,
    verified,
};

pub const MODULE: Module = Module {
    event_types: &["audit.", "row.", "table."],
    load: || {
        sys::register_owner_table(c"audit_logs");
        guard::register();
        identity::register_beginning(beginning::begin_elsewhere);
    },
    caches: &[identity::notice],
    transaction_ends: &[keys::at_transaction_end, bypass::at_transaction_end, tables::at_transaction_end, fault_points],
    health: &[
        ("audit_protection", protection::check),
        ("utility_guard", guard::check),
        ("roles", expected::roles),
        ("objects", expected::objects),
        ("privileges", expected::privileges),
        ("row_security", expected::row_security),
        ("audit_partitions", partitions::check),
    ],
    maintenance: &[("audit_partitions", |_| partitions::create_ahead())],
    ..Module::new("audit")
};

fn fault_points(end: xact::End) -> Result<(), Fault> {
    match end {
        xact::End::BeforeCommit | xact::End::BeforePrepare => fault_point::reached("before_commit"),
        xact::End::Committed => fault_point::reached("committed"),
        _ => {}
    }
    Ok(())
}

pg_function!(append_audit);
/// `append_audit(event_type, event_data, actor_id, actor_type)` → id of the record.
fn append_audit(call: &Call) -> Answer {
    let (event_type, event_data, actor_id, actor_type): (Option<&str>, Option<Jsonb>, _, _) = call.arguments();
    let event_type = event_type.ok_or_else(|| missing("event_type"))?;
    let event_data = event_data.ok_or_else(|| missing("event_data"))?;
    check_event_type(event_type)?;
    Ok(call.answer(append_for(&settings::tenant()?, event_type, arg(event_data), actor_id, actor_type)?))
}

pg_function!(audit_status);
/// `audit_status()` → one row for each key that has signed.
fn audit_status(call: &Call) -> Answer {
    let ring = keys::keyring().ok();
    let mut rows = call.row_set();
    type Row = (String, i64, Option<Timestamptz>, Option<Timestamptz>);
    let found: Vec<Row> = spi::collect(
        "SELECT key_id, count(*), min(recorded_at), max(recorded_at) FROM skill_system.audit_logs \
         GROUP BY key_id ORDER BY min(recorded_at)",
        As::Caller,
        See::Statement,
        &[],
    );
    for (key_id, records, first, last) in found {
        let is_present = ring.as_ref().is_some_and(|ring| ring.get(&key_id).is_some());
        let is_active = ring.as_ref().is_some_and(|ring| ring.active().id == key_id);
        rows.push(&[arg(&key_id), arg(records), arg(first), arg(last), arg(is_present), arg(is_active)]);
    }
    Ok(rows.finish())
}
