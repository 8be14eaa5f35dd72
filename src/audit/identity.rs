//! What tells this log from any other.

use std::sync::OnceLock;

use skill_core::{Code, Fault};
use skill_pg::cached::{Cached, Change};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Oid, Uuid, arg, sys};

use super::keys;
use crate::locks;

thread_local! {
    /// What tells this log from any other; part of the signed bytes. The identity may have been created by what is rolled
    /// back.
    static LOG_ID: Cached<u8, [u8; 16]> = const { Cached::new(c"audit_state", 1) };
}

/// Where the identity is kept a second time; the module that does so registers it.
pub struct SecondPlace {
    pub log_id: fn() -> Option<Uuid>,
    /// Written by this database system in this database; `None` where nothing is written yet.
    pub is_of: fn(system_identifier: i64, database: Oid) -> Option<bool>,
}

static SECOND_PLACE: OnceLock<SecondPlace> = OnceLock::new();

/// Called when the library is loaded.
pub fn register(place: SecondPlace) {
    SECOND_PLACE.get_or_init(|| place);
}

/// Has the identity created in another transaction, which is committed at once.
static BEGIN_ELSEWHERE: OnceLock<fn()> = OnceLock::new();

/// Called when the library is loaded.
pub fn register_beginning(begin: fn()) {
    BEGIN_ELSEWHERE.get_or_init(|| begin);
}

/// When audit_state was emptied, nobody begins another log.
fn second_log_id() -> Option<Uuid> {
    SECOND_PLACE.get().and_then(|place| (place.log_id)())
}

/// To be called when something changes that the identity may depend on.
pub fn notice(change: Change) {
    LOG_ID.with(|cache| cache.notice(change));
}

pub fn log_id() -> Option<[u8; 16]> {
    let read = || {
        const SQL: &str = "SELECT log_id FROM skill_system.audit_state";
        let first = spi::first::<Uuid>(SQL, As::Owner, See::Latest, &[]);
        first.or_else(second_log_id).map(|id| *id.as_bytes()).ok_or(())
    };
    LOG_ID.with(|cache| cache.get_or_try_load(&0, read)).ok()
}

/// The identity of a log that has records.
pub fn existing_log_id() -> Result<[u8; 16], Fault> {
    log_id().ok_or_else(identity_lost)
}

fn identity_lost() -> Fault {
    Fault::new(Code::NotInPrerequisiteState, "the identity of the audit log is lost")
        .detail("audit_state and audit_seal_state are empty, and audit_logs has records.")
        .hint("Restore audit_state from a backup, or SELECT * FROM skill_system.repair();")
}

/// The identity, when only the second place has it.
pub fn lost_log_id() -> Option<Uuid> {
    const LOST: &str = "SELECT NOT EXISTS (SELECT FROM skill_system.audit_state)";
    if spi::one(LOST, As::Owner, See::Latest, &[]) { second_log_id() } else { None }
}

/// Something has been recorded here, now or before a restore.
pub fn has_identity() -> bool {
    log_id().is_some()
}

/// The log began here, or was adopted here. False before the first record, and for what a restore has brought so far.
pub fn is_of_this_server() -> bool {
    const SQL: &str = "SELECT xmin::text::bigint = written_by & 4294967295 AND system_identifier = $1 AND database_oid = $2 \
         FROM skill_system.audit_state";
    let Some((system, database, _)) = sys::cluster_identity() else { return false };
    let system = system as i64;
    SECOND_PLACE
        .get()
        .and_then(|place| (place.is_of)(system, database))
        .or_else(|| spi::first(SQL, As::Owner, See::OwnWrites, &[arg(system), arg(database)]))
        .unwrap_or(false)
}

/// The identity, which begins with the first record, together with the keyring.
pub fn log_id_or_new() -> Result<[u8; 16], Fault> {
    if let Some(id) = log_id() {
        return Ok(id);
    }
    if let Some(begin) = BEGIN_ELSEWHERE.get() {
        begin();
    }
    log_id_or_begin()
}

/// The identity, created in this transaction if the log has none.
pub fn log_id_or_begin() -> Result<[u8; 16], Fault> {
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
    if spi::one(LOST, As::Owner, See::Latest, &[]) {
        return Err(identity_lost());
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
