//! Caches of table contents in a backend, and their invalidation.
//!
//! A change sends a relcache invalidation for a table, which is transactional and reaches every backend at COMMIT and this
//! one at once; DROP EXTENSION sends one too. The callback only clears a flag. Values read under a snapshot that may be
//! older than the last commit (parallel mode) are dropped when the transaction ends, and values read in a subtransaction
//! that is rolled back are dropped with it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::Hash;

use pgrx::pg_sys;

use super::sys;
use super::xact::{self, End};

/// Why a cached value may no longer be valid.
#[derive(Clone, Copy)]
pub enum Change {
    /// The relation with this oid changed; `InvalidOid` means any.
    Relation(pg_sys::Oid),
    /// This transaction, or a subtransaction, is rolled back.
    Rollback,
    /// The transaction ends.
    TransactionEnd,
}

thread_local! {
    static LISTENERS: RefCell<Vec<fn(Change)>> = const { RefCell::new(Vec::new()) };
    static ROLES_UNCHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Registers functions to be called at each change, usually `|change| CACHE.with(|cache| cache.notice(change))`. Called
/// while the library is loaded.
pub fn listen(listeners: &[fn(Change)]) {
    LISTENERS.with_borrow_mut(|all| all.extend_from_slice(listeners));
}

/// Registers the callbacks; called once when the library is loaded.
pub(crate) fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHOID as i32,
            Some(role_changed),
            pg_sys::Datum::from(0),
        );
    }
    xact::listen(|end| {
        if end.is_rollback() {
            call_listeners(Change::Rollback);
        }
        if !matches!(end, End::SubCommitted(..) | End::SubAborted(_)) {
            call_listeners(Change::TransactionEnd);
        }
        Ok(())
    });
}

fn call_listeners(change: Change) {
    LISTENERS.with_borrow(|all| all.iter().for_each(|listener| listener(change)));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    call_listeners(Change::Relation(relation));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn role_changed(_argument: pg_sys::Datum, _cache: i32, _role: u32) {
    ROLES_UNCHANGED.set(false);
}

/// No role was created, renamed or dropped since the last call.
pub fn roles_unchanged() -> bool {
    ROLES_UNCHANGED.replace(true)
}

/// Values by key, until a table changes.
pub struct Cached<K, V> {
    table: &'static CStr,
    limit: usize,
    watched: Cell<pg_sys::Oid>,
    /// Changes noticed, and how many of them are older than the values.
    changes: Cell<u64>,
    heeded: Cell<u64>,
    /// Filled under a snapshot that may be older than the last commit.
    transient: Cell<bool>,
    values: RefCell<Option<HashMap<K, V>>>,
}

impl<K: Hash + Eq, V: Clone> Cached<K, V> {
    /// An empty cache of at most `limit` values that depend on `table` of the extension. Invalidations are sent for that
    /// table; it may be a substitute for another one whose own invalidations are too frequent, see [`announce_change`].
    pub const fn new(table: &'static CStr, limit: usize) -> Self {
        Cached {
            table,
            limit,
            watched: Cell::new(pg_sys::InvalidOid),
            changes: Cell::new(1),
            heeded: Cell::new(0),
            transient: Cell::new(false),
            values: RefCell::new(None),
        }
    }

    /// Handles a change; to be called by the listener given to [`listen`].
    pub fn notice(&self, change: Change) {
        match change {
            Change::Relation(oid) if oid != pg_sys::InvalidOid && oid != self.watched.get() => {}
            Change::TransactionEnd if !self.transient.get() => {}
            _ => self.changes.set(self.changes.get() + 1),
        }
    }

    /// The value of `key`, loaded when it is not cached. Accepts pending invalidations of other sessions, also inside a
    /// transaction block, where the server would not do so before the next table is locked.
    pub fn get_or_load<Q>(&self, key: &Q, load: impl FnOnce() -> V) -> V
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        match self.get_or_try_load(key, || Ok::<_, std::convert::Infallible>(load())) {
            Ok(value) => value,
        }
    }

    /// The same with a `load` that may fail; an error is not cached.
    pub fn get_or_try_load<Q, E>(&self, key: &Q, load: impl FnOnce() -> Result<V, E>) -> Result<V, E>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        // SAFETY: inside a transaction; the server does the same at every new lock.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        if self.heeded.get() == self.changes.get() {
            let known = self.values.borrow().as_ref().and_then(|values| values.get(key).cloned());
            if let Some(known) = known {
                return Ok(known);
            }
        } else {
            self.values.replace(None);
            self.watched.set(sys::relation(self.table));
            self.transient.set(false);
        }
        // SAFETY: no preconditions.
        if unsafe { pg_sys::IsInParallelMode() } {
            self.transient.set(true);
        }
        // Taken before the value is read: from here on a change is noticed.
        let changes = self.changes.get();
        self.heeded.set(changes);
        let value = load()?;
        if self.changes.get() != changes {
            return Ok(value);
        }
        let mut values = self.values.borrow_mut();
        let values = values.get_or_insert_default();
        if values.len() >= self.limit {
            values.clear();
        }
        values.insert(key.to_owned(), value.clone());
        Ok(value)
    }
}

/// Invalidates the caches of `table` in all sessions when this transaction commits.
pub fn announce_change(table: &CStr) {
    let table = sys::relation(table);
    // SAFETY: the table exists.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}
