//! Callbacks at the ends of transactions and subtransactions.

use std::cell::RefCell;

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};
use skill_core::Fault;

use super::error::{self, OrRaise};

/// What ends, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The transaction is about to be committed, and can still fail.
    BeforeCommit,
    /// The transaction is about to be prepared, and can still fail.
    BeforePrepare,
    /// The transaction is committed; nothing may be raised.
    Committed,
    /// The transaction is prepared; nothing may be raised.
    Prepared,
    /// The transaction is rolled back; nothing may be raised.
    Aborted,
    /// A parallel worker's part ends well.
    ParallelCommitted,
    /// A parallel worker's part is rolled back.
    ParallelAborted,
    /// A savepoint is released: the first subtransaction becomes part of the second.
    SubCommitted(pg_sys::SubTransactionId, pg_sys::SubTransactionId),
    /// This subtransaction is rolled back.
    SubAborted(pg_sys::SubTransactionId),
}

/// What is called at each end. An error before a commit or a prepare rolls the transaction back; later it is only reported.
pub type Listener = fn(End) -> Result<(), Fault>;

impl End {
    pub fn is_rollback(self) -> bool {
        matches!(self, End::Aborted | End::ParallelAborted | End::SubAborted(_))
    }
}

thread_local! {
    static LISTENERS: RefCell<Vec<Listener>> = const { RefCell::new(Vec::new()) };
}

/// Registers a function to be called at each end, in the order of registration. Called while the library is loaded.
pub fn listen(listener: Listener) {
    if LISTENERS.with_borrow(Vec::is_empty) {
        // SAFETY: the callbacks live as long as the library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
        }
    }
    LISTENERS.with_borrow_mut(|all| all.push(listener));
}

fn call_listeners(end: End) {
    let count = LISTENERS.with_borrow(Vec::len);
    for i in 0..count {
        match LISTENERS.with_borrow(|all| all[i])(end) {
            Ok(()) => {}
            Err(fault) if matches!(end, End::BeforeCommit | End::BeforePrepare) => error::raise(fault),
            Err(fault) => error::report_warning(fault),
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _argument: *mut std::ffi::c_void) {
    use pg_sys::XactEvent as E;
    call_listeners(match event {
        E::XACT_EVENT_PRE_COMMIT => End::BeforeCommit,
        E::XACT_EVENT_PRE_PREPARE => End::BeforePrepare,
        E::XACT_EVENT_COMMIT => End::Committed,
        E::XACT_EVENT_PREPARE => End::Prepared,
        E::XACT_EVENT_ABORT => End::Aborted,
        E::XACT_EVENT_PARALLEL_ABORT => End::ParallelAborted,
        E::XACT_EVENT_PARALLEL_COMMIT => End::ParallelCommitted,
        _ => return,
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => call_listeners(End::SubAborted(mine)),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => call_listeners(End::SubCommitted(mine, parent)),
        _ => {}
    }
}

/// Runs `body` in a subtransaction: an error takes back what it did, and nothing else. Cancellation and termination pass.
pub fn attempt<T>(body: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    in_subtransaction(|| body().or_raise()).map_err(|caught| error::caught(*caught))
}

/// Runs a statement that may wait for a lock, in a subtransaction: false when lock_timeout ended it. All other errors pass.
pub(crate) fn attempt_wait(statement: impl FnOnce()) -> bool {
    match in_subtransaction(statement) {
        Ok(()) => true,
        Err(caught) if error::is_lock_timeout(&caught) => false,
        Err(caught) => caught.rethrow(),
    }
}

fn in_subtransaction<T>(body: impl FnOnce() -> T) -> Result<T, Box<CaughtError>> {
    // SAFETY: as PL/pgSQL runs a block with EXCEPTION: memory context and resource owner are restored in both ways.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result =
            PgTryBuilder::new(AssertUnwindSafe(|| Ok(body()))).catch_others(|caught| Err(Box::new(caught))).execute();
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}
