//! What the protection of the audit tables lets through in this session, because the extension itself asks for it now.

use std::cell::Cell;

use skill_core::Fault;
use skill_pg::xact::End;

/// What is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// `maintain()` deletes old runs with their events.
    Retention,
    /// A function of the run log writes a run or a step, which it checks and records itself.
    RunLog,
    /// Sealing extends the last tiles.
    Sealing,
    /// Records go from the default partition into that of their month.
    Moving,
    /// The definition of audit tables is changed: the utility guard lets it pass.
    Definition,
    /// A module writes a record, whose event type may be one that is reserved for modules.
    OwnRecord,
}

thread_local! {
    static ACTIVE: Cell<Option<Bypass>> = const { Cell::new(None) };
}

/// This is let through now.
pub fn is_active(what: Bypass) -> bool {
    ACTIVE.get() == Some(what)
}

/// Runs `body` while this is let through; ends with it, or with the rollback of what it does.
pub fn with<T>(what: Bypass, body: impl FnOnce() -> T) -> T {
    let before = ACTIVE.replace(Some(what));
    let result = body();
    ACTIVE.set(before);
    result
}

/// Ends what an error left active.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    if end.is_rollback() {
        ACTIVE.set(None);
    }
    Ok(())
}
