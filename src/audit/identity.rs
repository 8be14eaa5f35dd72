//! What tells this log from any other.

use skill_core::Fault;
use skill_pg::cached::{Cached, Change};
use skill_pg::spi::{self, As, See};
use skill_pg::{Uuid, arg, sys};

use super::keys;

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
        spi::one::<Uuid>(SQL, As::Owner, See::Latest, &[]).map(|id| *id.as_bytes()).ok_or(())
    };
    LOG_ID.with(|cache| cache.get_or_try_load(&0, read)).ok()
}

/// Something has been recorded here, now or before a restore.
pub fn has_identity() -> bool {
    log_id().is_some()
}

/// The identity, created now if this is the first record, together with the keyring.
pub fn log_id_or_new() -> Result<[u8; 16], Fault> {
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
