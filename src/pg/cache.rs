//! What a backend remembers, and when it must forget.
//!
//! A change of `policy_profiles` sends a relcache invalidation for that table; it
//! is transactional, reaches every backend at COMMIT and this one at once. The
//! callback only lowers a flag. The same tells that the extension was dropped. What was read under a snapshot that may be older
//! than the last commit (parallel mode) is forgotten when the transaction ends.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;

use super::fault_point;

/// A table whose content is remembered, and whether that still holds.
struct Watch {
    table: Cell<pg_sys::Oid>,
    valid: Cell<bool>,
}

impl Watch {
    const fn new() -> Self {
        Watch { table: Cell::new(pg_sys::InvalidOid), valid: Cell::new(false) }
    }

    fn start(&self, table: &CStr) {
        self.table.set(super::sys::relation(table));
        self.valid.set(true);
    }

    fn changed(&self, table: pg_sys::Oid) {
        if table == pg_sys::InvalidOid || table == self.table.get() {
            self.valid.set(false);
        }
    }
}

thread_local! {
    static POLICIES: Watch = const { Watch::new() };
    static IDENTITY: Watch = const { Watch::new() };
    static SKILLS: Watch = const { Watch::new() };
    static TRANSIENT: Cell<bool> = const { Cell::new(false) };
    static SEALED: Cell<bool> = const { Cell::new(false) };
    static LEAVES: Cell<bool> = const { Cell::new(false) };
    static OPENED: Cell<Option<Opened>> = const { Cell::new(None) };
    static ROLES_SAME: Cell<bool> = const { Cell::new(false) };
}

/// Registers the callbacks; called once when the library is loaded.
pub fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relcache_changed), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(AUTHOID, Some(role_changed), pg_sys::Datum::from(0));
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relcache_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    POLICIES.with(|watch| watch.changed(relation));
    IDENTITY.with(|watch| watch.changed(relation));
    SKILLS.with(|watch| watch.changed(relation));
}

const AUTHOID: i32 = pg_sys::SysCacheIdentifier::AUTHOID as i32;

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn role_changed(_argument: pg_sys::Datum, _cache: i32, _role: u32) {
    ROLES_SAME.set(false);
}

/// No role was made, renamed or dropped since the last call.
pub fn roles_unchanged() -> bool {
    ROLES_SAME.replace(true)
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PARALLEL_ABORT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
    };
    match event {
        XACT_EVENT_PRE_COMMIT => super::keys::before_commit(),
        XACT_EVENT_PRE_PREPARE => super::keys::before_prepare(),
        XACT_EVENT_COMMIT => super::keys::committed(),
        XACT_EVENT_ABORT => super::keys::aborted(),
        _ => {}
    }
    if matches!(event, XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE) {
        super::audit_table::before_commit();
        fault_point::reached("before_commit");
    } else {
        SEALED.set(false);
        LEAVES.set(false);
    }
    if event == XACT_EVENT_COMMIT {
        fault_point::reached("committed");
    }
    if TRANSIENT.replace(false) {
        POLICIES.with(|watch| watch.valid.set(false));
    }
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_PARALLEL_ABORT) {
        super::audit_table::after_abort();
        rolled_back();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            super::keys::subtransaction_aborted(mine);
            rolled_back();
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => super::keys::subtransaction_committed(mine, parent),
        _ => {}
    }
}

/// What the protection of the audit tables lets through in this session, because our own code asks for it just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// `maintain()` deletes old runs with their events.
    Retention,
    /// Sealing extends the last tiles.
    Sealing,
    /// The definition of audit tables is changed: the utility guard lets it pass.
    Definition,
    /// A record of the log about itself, whose event type nobody else may use.
    OwnRecord,
}

/// Which record is which leaf may be remembered until the end of the transaction, or until a part of it is rolled back.
/// False when what was remembered before must be forgotten now.
pub fn leaves_valid() -> bool {
    LEAVES.replace(true)
}

/// The tree grew in this transaction, perhaps in a part of it that was rolled back.
pub fn sealed_in_transaction() -> bool {
    SEALED.get()
}

/// To be called when the tree has grown.
pub fn tree_grew() {
    SEALED.set(true);
}

/// The protection is open for this now.
pub fn opened(what: Opened) -> bool {
    OPENED.get() == Some(what)
}

/// Runs `body` while the protection is open for it; ends with it or with the rollback of what it does.
pub fn opening<T>(what: Opened, body: impl FnOnce() -> T) -> T {
    let before = OPENED.replace(Some(what));
    let result = body();
    OPENED.set(before);
    result
}

fn rolled_back() {
    LEAVES.set(false);
    OPENED.set(None);
    POLICIES.with(|watch| watch.valid.set(false));
    SKILLS.with(|watch| watch.valid.set(false));
    // The identity may have been made by what is rolled back.
    IDENTITY.with(|watch| watch.valid.set(false));
}

/// What was compiled from `policy_profiles` may still be used. Looks at the
/// invalidations other sessions have sent meanwhile, also inside a transaction
/// block, where the server itself would not look before the next table is locked.
pub fn policies_valid() -> bool {
    // SAFETY: inside a transaction; the server does the same at every new lock.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    POLICIES.with(|watch| watch.valid.get())
}

/// To be called before the policies are read: from here on a change is noticed.
pub fn watch_policies() {
    POLICIES.with(|watch| watch.start(c"policy_profiles"));
    // SAFETY: no preconditions.
    if unsafe { pg_sys::IsInParallelMode() } {
        TRANSIENT.set(true);
    }
}

/// The log's identity that was read may still be used.
pub fn identity_valid() -> bool {
    IDENTITY.with(|watch| watch.valid.get())
}

/// To be called before the log's identity is read.
pub fn watch_identity() {
    IDENTITY.with(|watch| watch.start(c"audit_state"));
}

/// Tells all sessions that `policy_profiles` changed.
pub fn policies_changed() {
    let table = super::sys::relation(c"policy_profiles");
    // SAFETY: the table exists; the message goes out when this transaction commits.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}

/// Stands for `skill_heads`, whose own invalidation would also throw away every plan and descriptor that uses it, in all
/// sessions, with each skill that is registered. This table is used by few statements and rarely.
const SKILLS_SIGN: &CStr = c"skill_channels";

/// What was remembered of `skill_heads` may still be used; as [`policies_valid`].
pub fn skills_valid() -> bool {
    // SAFETY: as in `policies_valid`.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    SKILLS.with(|watch| watch.valid.get())
}

/// To be called before skills are read: from here on a change is noticed.
pub fn watch_skills() {
    SKILLS.with(|watch| watch.start(SKILLS_SIGN));
}

/// Tells all sessions that `skill_heads` changed.
pub fn skills_changed() {
    let table = super::sys::relation(SKILLS_SIGN);
    // SAFETY: the table exists; the message goes out when this transaction commits.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}
