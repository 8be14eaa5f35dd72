//! A turn of a session among all that wait for the same: what takes few at a time stays fair, whichever session asks most.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(2);

/// A lock that no SQL takes and that no table has, held until this ends or the transaction is rolled back.
pub struct Turn(pg_sys::LOCKTAG);

impl Turn {
    /// One of `places` turns for `what`, if one becomes free in time. Interrupts wait meanwhile: a session that is cancelled
    /// must not lose what it waits for.
    pub fn acquire(what: impl Hash, places: u16, deadline: Instant) -> Option<Self> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let hash = hasher.finish();
        loop {
            for place in 0..places {
                let tag = pg_sys::LOCKTAG {
                    locktag_field1: 0,
                    locktag_field2: (hash >> 32) as u32,
                    locktag_field3: hash as u32,
                    locktag_field4: place,
                    locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
                    locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
                };
                // SAFETY: inside a transaction; without waiting.
                let taken = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
                match taken {
                    pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => {}
                    _ => return Some(Turn(tag)),
                }
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // After an error the transaction's rollback does it.
        if !std::thread::panicking() {
            // SAFETY: taken above.
            unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, false) };
        }
    }
}
