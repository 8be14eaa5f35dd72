//! What tells this log from any other.

use skill_core::{Code, Fault};
use skill_pg::cached::{Cached, Change};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Uuid, arg, sys};

use super::keys;
use crate::locks;

thread_local! {
    /// What tells this log from any other; part of the signed bytes. The identity may have been created by what is rolled
    /// back.
    static LOG_ID: Cached<u8, [u8; 16]> = const { Cached::new(c"audit_state", 1) };
}

/// To be called when something changes that the identity may depend on.
pub fn notice(change: Change) {
    LOG_ID.with(|cache| cache.notice(change));
}

pub fn log_id() -> Option<[u8; 16]> {
    let read = || {
        const SQL: &str = "SELECT log_id FROM skill_system.audit_state";
        let find = |sql| spi::one::<Uuid>(sql, As::Owner, See::Latest, &[]);
        find(SQL).or_else(|| sealed_log().and_then(find)).map(|id| *id.as_bytes()).ok_or(())
    };
    LOG_ID.with(|cache| cache.get_or_try_load(&0, read)).ok()
}

/// Where the state of the seal names the log: when audit_state was emptied, nobody begins another one.
fn sealed_log() -> Option<&'static str> {
    sys::find_relation(c"audit_seal_state").map(|_| "SELECT sealed_log_id FROM skill_system.audit_seal_state")
}

/// Something has been recorded here, now or before a restore.
pub fn has_identity() -> bool {
    log_id().is_some()
}

/// The log began here, or was adopted here. False before the first record, and for what a restore has brought so far.
pub fn is_of_this_server() -> bool {
    const SQL: &str = "SELECT coalesce( \
         (SELECT xmin::text::bigint = written_by & 4294967295 AND system_identifier = $1 AND database_oid = $2 \
          FROM skill_system.audit_seal_state), \
         (SELECT xmin::text::bigint = written_by & 4294967295 AND system_identifier = $1 AND database_oid = $2 \
          FROM skill_system.audit_state), false)";
    sys::cluster_identity().is_some_and(|(system, database, _)| {
        spi::one(SQL, As::Owner, See::OwnWrites, &[arg(system as i64), arg(database)]) == Some(true)
    })
}

/// The identity, created now if this is the first record, together with the keyring.
pub fn log_id_or_new() -> Result<[u8; 16], Fault> {
    if let Some(id) = log_id() {
        return Ok(id);
    }
    // One first writer; the others wait for its commit and then read what it created.
    let first = locks::acquire(c"audit_state", &[], Mode::Exclusive, "the identity of the log")?;
    if let Some(id) = log_id() {
        // Kept to the end of what may be a long transaction, it would hold up the others that wait.
        first.release(Mode::Exclusive);
        return Ok(id);
    }
    if !keys::exists() {
        keys::create()?;
    }
    const LOST: &str = "SELECT EXISTS (SELECT FROM skill_system.audit_logs)";
    if spi::one(LOST, As::Owner, See::Latest, &[]) == Some(true) {
        return Err(Fault::new(Code::NotInPrerequisiteState, "the identity of the audit log is lost")
            .detail("audit_state and audit_seal_state are empty, and audit_logs has records.")
            .hint("Restore audit_state from a backup, or SELECT * FROM skill_system.repair();"));
    }
    let id = sys::new_uuid_v7();
    write_identity(id)?;
    Ok(id)
}

/// Binds a log to this server.
pub fn write_identity(id: [u8; 16]) -> Result<(), Fault> {
    let (system, database, timeline) = sys::cluster_identity()
        .ok_or_else(|| Fault::new(Code::ReadOnlyTransaction, "cannot begin an audit log during recovery"))?;
    spi::execute(
        "INSERT INTO skill_system.audit_state (log_id, system_identifier, database_oid, timeline, written_by) \
         VALUES ($1, $2, $3, $4, $5)",
        As::Owner,
        See::OwnWrites,
        &[
            arg(id),
            arg(system as i64),
            arg(database),
            arg(timeline as i32),
            arg(i64::from(sys::current_transaction_id())),
        ],
    );
    Ok(())
}
