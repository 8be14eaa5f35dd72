//! Locks on what a table stands for, one tenant's rules for instance: only this library takes them, so a right on the table
//! gives nobody a lock, and the rows stay free.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use skill_core::{Code, Fault};

use super::error::{check_for_interrupts, lock_timed_out, raise};
use super::{sys, xact};

/// What a lock conflicts with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Exclusive ones.
    Shared,
    /// All.
    Exclusive,
}

/// A lock of the server's lock manager, shown in `pg_locks` as one on an object of the table.
#[derive(Clone, Copy)]
pub struct Lock {
    pub table: pg_sys::Oid,
    /// A hash in two parts: two locks under one number wait for each other without need.
    pub object: u32,
    pub part: i16,
}

impl Lock {
    /// The lock on what `key` names among the things of this table of the extension.
    pub fn new(table: &CStr, key: &[&str]) -> Self {
        // The same in every process of a server, which has one build of this library.
        let mut hash = DefaultHasher::new();
        key.hash(&mut hash);
        let hash = hash.finish();
        Lock { table: sys::relation(table), object: hash as u32, part: (hash >> 32) as i16 }
    }

    fn tag(&self) -> pg_sys::LOCKTAG {
        pg_sys::LOCKTAG {
            locktag_field1: sys::database().to_u32(),
            locktag_field2: self.table.to_u32(),
            locktag_field3: self.object,
            locktag_field4: self.part as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        }
    }

    fn mode(mode: Mode) -> pg_sys::LOCKMODE {
        let mode = match mode {
            Mode::Shared => pg_sys::ShareLock,
            Mode::Exclusive => pg_sys::ExclusiveLock,
        };
        mode as pg_sys::LOCKMODE
    }

    fn lock(&self, mode: Mode, wait: bool) -> bool {
        // SAFETY: a complete tag; inside a transaction, whose end releases the lock.
        let result = unsafe { pg_sys::LockAcquire(&self.tag(), Lock::mode(mode), false, !wait) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    /// Takes the lock until the end of the transaction; false when others hold it.
    pub fn try_acquire(&self, mode: Mode) -> bool {
        self.lock(mode, false)
    }

    /// As [`Self::try_acquire`], but tries for that long.
    pub fn try_acquire_for(&self, mode: Mode, limit: Duration) -> bool {
        let started = Instant::now();
        while !self.try_acquire(mode) {
            if started.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
            check_for_interrupts();
        }
        true
    }

    /// Takes the lock until the end of the transaction, queueing for at most that long; false when others hold it still. Then an
    /// error must follow, as after `lock_timed_out`.
    pub fn acquire_within(&self, mode: Mode, limit: Duration) -> bool {
        let _timeout = LockTimeout::set_to(limit);
        !lock_timed_out(|| _ = self.lock(mode, true))
    }

    /// Gives back a lock that this statement took, when nothing was written under it.
    pub fn release(&self, mode: Mode) {
        // SAFETY: releases nothing that is not held.
        unsafe { pg_sys::LockRelease(&self.tag(), Lock::mode(mode), false) };
    }
}

/// Runs a statement that may wait for rows of others, each for at most that long; `None` when one of them has them still. Then
/// an error must follow, as after `lock_timed_out`.
pub fn within<T>(limit: Duration, statement: impl FnOnce() -> T) -> Option<T> {
    let _timeout = LockTimeout::set_to(limit);
    let mut result = None;
    if lock_timed_out(|| result = Some(statement())) { None } else { result }
}

/// As [`within`], in a subtransaction, so that other statements may follow; false when another transaction has the rows still.
pub fn attempt_within(limit: Duration, statement: impl FnOnce()) -> bool {
    let _timeout = LockTimeout::set_to(limit);
    xact::attempt_wait(statement)
}

/// Another lock_timeout while it lives, also when an error ends that.
struct LockTimeout(i32);

impl LockTimeout {
    fn set_to(limit: Duration) -> Self {
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: a plain variable of this backend, which the lock manager reads when a wait begins.
        unsafe {
            let before = LockTimeout(pg_sys::LockTimeout);
            pg_sys::LockTimeout = millis;
            before
        }
    }
}

impl Drop for LockTimeout {
    fn drop(&mut self) {
        // SAFETY: as in `set_to`.
        unsafe { pg_sys::LockTimeout = self.0 }
    }
}

/// Milliseconds that this session waits for a lock, if it set a limit.
fn timeout_millis() -> Option<u64> {
    // SAFETY: a plain variable of this backend.
    u64::try_from(unsafe { pg_sys::LockTimeout }).ok().filter(|millis| *millis > 0)
}

/// How long a wait of at most `longest` may take: a smaller lock_timeout counts.
pub fn wait_of(longest: Duration) -> Duration {
    timeout_millis().map_or(longest, |limit| longest.min(Duration::from_millis(limit)))
}

/// Raises 25001 where what the calling statement does would not be committed at its end: its locks would stay as long as
/// somebody's transaction. A superuser may.
pub fn prevent_in_transaction_block(what: &str) {
    // SAFETY: plain reads of this backend.
    if unsafe { pg_sys::IsInTransactionBlock(true) && !pg_sys::superuser() } {
        raise(
            Fault::new(Code::ActiveTransaction, format!("{what} cannot run inside a transaction block"))
                .detail("Its locks would last as long as the transaction, and hold up others.")
                .hint("Call it as a statement by itself, without BEGIN."),
        );
    }
}
