//! What a backend remembers, and when it must forget.
//!
//! A change of `policy_profiles` sends a relcache invalidation for that table; it
//! is transactional, reaches every backend at COMMIT and this one at once. The
//! callback only lowers a flag. What was read under a snapshot that may be older
//! than the last commit (parallel mode) is forgotten when the transaction ends.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;

thread_local! {
    static WATCHED: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    static VALID: Cell<bool> = const { Cell::new(false) };
    static TRANSIENT: Cell<bool> = const { Cell::new(false) };
    static RETENTION: Cell<bool> = const { Cell::new(false) };
    static ON_ABORT: RefCell<Vec<fn()>> = const { RefCell::new(Vec::new()) };
}

/// Registers the callbacks; called once when the library is loaded.
pub fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relcache_changed), pg_sys::Datum::from(0));
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
    }
}

/// Calls `forget` whenever a transaction or subtransaction is rolled back.
pub fn on_abort(forget: fn()) {
    ON_ABORT.with_borrow_mut(|list| list.push(forget));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relcache_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || relation == WATCHED.get() {
        VALID.set(false);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_PARALLEL_ABORT};
    if TRANSIENT.replace(false) {
        VALID.set(false);
    }
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_PARALLEL_ABORT) {
        rolled_back();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    _mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        rolled_back();
    }
}

/// `maintain()` is deleting old runs with their events in this session.
pub fn retention_runs() -> bool {
    RETENTION.get()
}

/// Runs `body` while append-only tables let DELETE through; ends with it or with
/// the rollback of what it does.
pub fn during_retention<T>(body: impl FnOnce() -> T) -> T {
    RETENTION.set(true);
    let result = body();
    RETENTION.set(false);
    result
}

fn rolled_back() {
    RETENTION.set(false);
    VALID.set(false);
    ON_ABORT.with_borrow(|list| list.iter().for_each(|forget| forget()));
}

/// What was compiled from `policy_profiles` may still be used. Looks at the
/// invalidations other sessions have sent meanwhile, also inside a transaction
/// block, where the server itself would not look before the next table is locked.
pub fn policies_valid() -> bool {
    // SAFETY: inside a transaction; the server does the same at every new lock.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    VALID.get()
}

/// To be called before the policies are read: from here on a change is noticed.
pub fn watch_policies() {
    WATCHED.set(super::sys::relation(c"policy_profiles"));
    VALID.set(true);
    // SAFETY: no preconditions.
    if unsafe { pg_sys::IsInParallelMode() } {
        TRANSIENT.set(true);
    }
}

/// Tells all sessions that `policy_profiles` changed.
pub fn policies_changed() {
    let table = super::sys::relation(c"policy_profiles");
    // SAFETY: the table exists; the message goes out when this transaction commits.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}
