//! A record that outlives the transaction it is about: a background worker of its own commits it, while the session
//! waits. This needs no preloading.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::{PgLogLevel, pg_guard, pg_sys};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skill_core::{Code, Fault};

use crate::audit;
use crate::settings;
use skill_pg::error::report;
use skill_pg::{Arg, Uuid, background, sys};

/// How long a denial waits for a free background worker.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the worker waits for a lock: the denied transaction may hold it, and never ends before the worker does.
const LOCK_TIMEOUT: &CStr = c"5s";
/// What the shared memory holds, and where: each a length and JSON.
const ANSWER: usize = 0;
const REQUEST: usize = 4096;
/// Characters of a denial that are logged when it cannot be recorded.
const MAX_LOGGED: usize = 8000;
/// Characters of an error that fit into the answer, however they are escaped.
const MAX_WHY: usize = 500;

/// What the worker has to know, and what it takes for granted: the session has checked it.
#[derive(Serialize, Deserialize)]
pub struct Denial {
    /// Where.
    pub database: u32,
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

/// A dynamic shared memory segment, mapped as long as this lives; after an error the transaction's abort unmaps it.
struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    /// `None` when the server has no more of them.
    fn new(size: usize) -> Option<Self> {
        // SAFETY: inside a transaction. The server zeroes the memory.
        let segment = unsafe { pg_sys::dsm_create(size, pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32) };
        (!segment.is_null()).then_some(Segment(segment))
    }

    /// Maps what a session made and pinned, and takes the pin away: from here on the memory ends with the last of both.
    fn attach(handle: pg_sys::dsm_handle) -> Option<Self> {
        // SAFETY: the server knows its handles; null is one that it does not know.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_unpin_segment(handle);
            Some(Segment(segment))
        }
    }

    /// The address of what is stored at `at`, and the bytes from there to the end.
    fn place(&self, at: usize) -> (*mut u8, usize) {
        // SAFETY: mapped as long as `self`; `at` is below the length, see `commit_elsewhere`.
        unsafe {
            (pg_sys::dsm_segment_address(self.0).cast::<u8>().add(at), pg_sys::dsm_segment_map_length(self.0) - at)
        }
    }

    fn put(&self, at: usize, text: &[u8]) {
        let (place, room) = self.place(at);
        assert!(size_of::<u32>() + text.len() <= room, "the segment is too small");
        // SAFETY: checked. One process at a time uses the segment: the session until the worker starts and after it has ended.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), place.add(size_of::<u32>()), text.len());
            place.cast::<u32>().write_unaligned(text.len() as u32);
        }
    }

    /// `None` when nothing was put there.
    fn get<T: DeserializeOwned>(&self, at: usize) -> Option<T> {
        let (place, room) = self.place(at);
        // SAFETY: the length is checked against the room; see `put` for who else has access.
        let text = unsafe {
            let length = place.cast::<u32>().read_unaligned() as usize;
            std::slice::from_raw_parts(place.add(size_of::<u32>()), length.min(room - size_of::<u32>()))
        };
        serde_json::from_slice(text).ok()
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

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn not_recorded(why: impl Into<String>) -> Fault {
    Fault::new(Code::ConfigurationLimitExceeded, "the denial could not be recorded").detail(why)
}

/// Has a worker commit the record, and waits until it has. When the wait is cancelled the worker goes on.
pub fn commit_elsewhere(denial: &Denial) -> Result<Uuid, Fault> {
    let answer = ask(denial);
    if let Err(fault) = &answer {
        // The client may catch the error; the server's log has it whatever the client does.
        let data: String = denial.event_data.chars().take(MAX_LOGGED).collect();
        let told = fault.clone().detail(format!(
            "{} {}: {data}",
            fault.detail.as_deref().unwrap_or_default(),
            denial.event_type
        ));
        report(told, PgLogLevel::LOG_SERVER_ONLY);
    }
    answer.map(Uuid::from_bytes)
}

fn ask(denial: &Denial) -> Result<[u8; 16], Fault> {
    let request = json(denial);
    let size = REQUEST + size_of::<u32>() + request.len();
    let segment = Segment::new(size).ok_or_else(|| not_recorded("The server has no shared memory segment left."))?;
    segment.put(REQUEST, &request);
    // SAFETY: mapped.
    let handle = unsafe { pg_sys::dsm_segment_handle(segment.0) };
    let started = Instant::now();
    // No interrupts from here to the worker's registration: a session that is cancelled now would not have been recorded.
    let worker = loop {
        // SAFETY: mapped, and not pinned yet. The pin keeps the memory for a worker that starts after this session has gone.
        unsafe { pg_sys::dsm_pin_segment(segment.0) };
        let worker = background::worker("skill_system denial", "skill_system denial", "skill_system_denial")
            .set_argument(Some(pg_sys::Datum::from(handle)))
            // SAFETY: a plain variable of this process.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .load_dynamic();
        if let Ok(worker) = worker {
            break worker;
        }
        // SAFETY: pinned above, and no worker has the handle.
        unsafe { pg_sys::dsm_unpin_segment(handle) };
        if started.elapsed() > PATIENCE {
            return Err(not_recorded("No background worker was free.").hint("Raise max_worker_processes."));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if worker.wait_for_shutdown().is_err() {
        return Err(not_recorded("The server is shutting down."));
    }
    match segment.get::<Answer>(ANSWER) {
        Some(answer) => answer.map_err(|why| not_recorded(format!("{why}."))),
        None => Err(not_recorded("The recording process ended early; the server's log says why.")),
    }
}

/// Entry point of the worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn skill_system_denial(argument: pg_sys::Datum) {
    // Signals are still blocked, so nothing comes between.
    let Some(segment) = Segment::attach(argument.value() as pg_sys::dsm_handle) else {
        return;
    };
    background::begin();
    let Some(denial) = segment.get::<Denial>(REQUEST) else {
        return;
    };
    // Not as the role that is denied, which could end the worker, or keep it from its work by settings of its own.
    background::connect(Some(denial.database.into()), "skill_system denial");
    background::set(c"lock_timeout", LOCK_TIMEOUT);
    background::set(c"synchronous_commit", c"on");
    settings::set_tenant(&denial.tenant);
    let answer: Answer = background::transaction(c"recording a denial", || append(&denial)).map_err(|error| {
        let why = error.message.chars().take(MAX_WHY).collect();
        error.log("skill_system denial");
        why
    });
    segment.put(ANSWER, &json(&answer));
}

fn append(denial: &Denial) -> [u8; 16] {
    sys::write_on_behalf_of(denial.session_user.into());
    // SAFETY: in a transaction of a superuser's session, which ends with it.
    unsafe { pg_sys::SetUserIdAndSecContext(denial.current_user.into(), 0) };
    audit::append_for(
        &denial.tenant,
        &denial.event_type,
        Arg::json_text(denial.event_data.clone()),
        denial.actor_id.as_deref(),
        denial.actor_type.as_deref(),
    )
    .as_bytes()
    .to_owned()
}
