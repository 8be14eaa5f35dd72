//! A record that outlives the transaction it is about: a background worker of its own commits it, while the session
//! waits. This needs no preloading.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::datum::IntoDatum;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use serde::{Deserialize, Serialize};
use skill_core::{Code, Fault};

use super::error::report;
use super::{background, call, sys};
use crate::audit;

/// How long a denial waits for a free background worker.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the worker waits for a lock: the denied transaction may hold it, and never ends before the worker does.
const LOCK_TIMEOUT: &std::ffi::CStr = c"5s";
/// Room for the worker's answer.
const MAX_ANSWER: usize = 1024;

/// What the worker has to know.
#[derive(Serialize, Deserialize)]
pub struct Denial {
    /// Who logged in.
    pub session_user: u32,
    /// Whose rights were in force.
    pub current_user: u32,
    /// The tenant of the session.
    pub tenant: String,
    /// As in `append_audit()`.
    pub event_type: String,
    /// A JSON object.
    pub event_data: String,
    /// As in `append_audit()`.
    pub actor_id: Option<String>,
    /// As in `append_audit()`.
    pub actor_type: Option<String>,
}

/// What the worker says: the id of the record, or why there is none.
type Answer = Result<[u8; 16], String>;

/// The memory that both share: the denial as JSON, and behind it the answer.
#[repr(C)]
struct Shared {
    database: pg_sys::Oid,
    length: usize,
    answer_length: usize,
    answer: [u8; MAX_ANSWER],
}

/// A dynamic shared memory segment, mapped as long as this lives; after an error the transaction's abort unmaps it.
struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    fn shared(&self) -> &mut Shared {
        // SAFETY: at least as long as `Shared`, page-aligned and zeroed by the server. The session writes before the
        // worker is registered and reads after it has ended; the worker does both in between.
        unsafe { &mut *pg_sys::dsm_segment_address(self.0).cast::<Shared>() }
    }

    fn denial(&self) -> &mut [u8] {
        let length = self.shared().length;
        // SAFETY: `new` made room for it.
        unsafe { std::slice::from_raw_parts_mut(pg_sys::dsm_segment_address(self.0).cast::<u8>().add(size_of::<Shared>()), length) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: mapped, see above.
            unsafe { pg_sys::dsm_detach(self.0) };
        }
    }
}

fn not_recorded(why: impl Into<String>) -> Fault {
    let fault = Fault::new(Code::ConfigurationLimitExceeded, "the denial could not be recorded").detail(why);
    // The client may catch the error; the server's log has it whatever it does.
    report(fault.clone(), PgLogLevel::LOG_SERVER_ONLY);
    fault
}

/// Has a worker commit the record, and waits for it. When the wait is cancelled the worker goes on.
pub fn commit_elsewhere(denial: &Denial) -> Answer2 {
    todo!()
}
