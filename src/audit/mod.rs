//! The audit trail: signing at insert, appending, protecting tables, verifying records.

pub mod bypass;
pub mod denial;
mod guard;
pub mod keys;
mod partitions;
pub mod protection;
mod record;
mod recorder;
mod tables;

use skill_core::Fault;
use skill_pg::cached::Cached;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Timestamptz, Uuid, arg, fault_point, pg_function, sys, xact};

use crate::module::Module;
use crate::settings;

pub use record::{
    LEAF_HASH, PROBLEM, RECORD_DIGEST, explain_problem, leaf_digest, missing, signing_with, take_written,
};

pub const MODULE: Module = Module {
    load: || {
        sys::register_owner_table(c"audit_logs");
        guard::register();
    },
    caches: &[|change| LOG_ID.with(|cache| cache.notice(change))],
    transaction_ends: &[keys::at_transaction_end, bypass::at_transaction_end, fault_points],
    health: &[protection::check, guard::check, partitions::check],
    maintenance: &[partitions::create_ahead],
    ..Module::new("audit")
};

/// Event types of the log's own records begin so.
const OWN: &str = "audit.";

thread_local! {
    /// What tells this log from any other; part of the signed bytes. The identity may have been created by what is rolled
    /// back.
    static LOG_ID: Cached<u8, [u8; 16]> = const { Cached::new(c"audit_state", 1) };
}

fn fault_points(end: xact::End) {
    match end {
        xact::End::BeforeCommit | xact::End::BeforePrepare => fault_point::reached("before_commit"),
        xact::End::Committed => fault_point::reached("committed"),
        _ => {}
    }
}

fn log_id() -> Option<[u8; 16]> {
    let read = || {
        const SQL: &str = "SELECT log_id FROM skill_system.audit_state";
        spi::one::<Uuid>(SQL, As::Owner, See::Latest, &[]).map(|id| *id.as_bytes()).ok_or(())
    };
    LOG_ID.with(|cache| cache.get_or_try_load(&0, read)).ok()
}

/// Something has been recorded here, now or before a restore.
pub fn has_identity() -> bool {
    log_id().is_some()
}

/// The identity, created now if this is the first record, together with the keyring.
fn log_id_or_new() -> Result<[u8; 16], Fault> {
    if let Some(id) = log_id() {
        return Ok(id);
    }
    // One first writer; the others wait for its commit and then read what it created.
    let state = sys::relation(c"audit_state");
    sys::lock_exclusive(state);
    if let Some(id) = log_id() {
        // Kept to the end of what may be a long transaction, it would hold up the others that wait.
        sys::unlock_exclusive(state);
        return Ok(id);
    }
    if !keys::exists() {
        keys::create()?;
    }
    let id = sys::new_uuid_v7();
    spi::execute("INSERT INTO skill_system.audit_state (log_id) VALUES ($1)", As::Owner, See::OwnWrites, &[arg(id)]);
    Ok(id)
}

/// Appends a record for the current tenant on behalf of the current user.
pub fn append(
    event_type: &str,
    event_data: serde_json::Value,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    append_for(&settings::tenant(), event_type, arg(event_data), actor_id, actor_type)
}

/// Appends a record of the log about itself, for the default tenant.
pub fn append_system(event_type: &str, event_data: serde_json::Value) -> Result<Uuid, Fault> {
    // With the rights of the owner, because it belongs to no tenant.
    spi::as_owner(|| {
        bypass::with(bypass::Bypass::OwnRecord, || {
            append_for(settings::DEFAULT_TENANT, event_type, arg(event_data), Some("skill_system"), Some("system"))
        })
    })
}

/// Appends a record for a tenant. `event_data` is a jsonb. The signing trigger adds what the server knows.
pub fn append_for(
    tenant: &str,
    event_type: &str,
    event_data: Arg,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    record::Appender::open()?.append(tenant, event_type, event_data, actor_id, actor_type)
}

/// Appends several records of one kind for the current tenant.
pub fn append_all(
    event_type: &str,
    events: impl Iterator<Item = serde_json::Value>,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<(), Fault> {
    let (tenant, records) = (settings::tenant(), record::Appender::open()?);
    for event in events {
        records.append(&tenant, event_type, arg(event), actor_id, actor_type)?;
    }
    Ok(())
}

pg_function!(append_audit);
/// `append_audit(event_type, event_data, actor_id, actor_type)` → id of the record.
fn append_audit(call: &Call) -> Answer {
    let event_type = call.text(0).ok_or_else(|| missing("event_type"))?;
    let event_data = call.arg(1);
    if event_data.is_null() {
        return Err(missing("event_data"));
    }
    Ok(call.answer(append_for(&settings::tenant(), event_type, event_data, call.text(2), call.text(3))?))
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
