//! One request to a background worker, which answers it in its own transaction while the session waits: what it commits
//! outlives the session's transaction. Needs no preloading.

use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::background::{self, Argument};

/// Where the shared memory has the answer and the request: each a length and bytes.
const ANSWER: usize = 0;
const REQUEST: usize = 4096;
/// Bytes that an answer may have.
pub const MAX_ANSWER: usize = REQUEST - size_of::<u32>();

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The server has no dynamic shared memory segment left.
    NoMemory,
    /// No background worker became free.
    NoWorker,
    /// The server is shutting down.
    ShuttingDown,
    /// The worker ended without an answer.
    NoAnswer,
}

/// A dynamic shared memory segment, mapped as long as this lives; after an error the transaction's abort unmaps it.
struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    /// `None` when the server has no more of them.
    fn new(size: usize) -> Option<Self> {
        // SAFETY: inside a transaction. The server zeroes the memory.
        let segment = unsafe { pg_sys::dsm_create(size, pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32) };
        (!segment.is_null()).then_some(Segment(segment))
    }

    /// Maps what a session created and pinned, and takes the pin away: from here on the memory ends with the last of both.
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
    fn part_from(&self, at: usize) -> (*mut u8, usize) {
        // SAFETY: mapped as long as `self`; `at` is below the length, see `request`.
        unsafe {
            (pg_sys::dsm_segment_address(self.0).cast::<u8>().add(at), pg_sys::dsm_segment_map_length(self.0) - at)
        }
    }

    fn put(&self, at: usize, bytes: &[u8], limit: usize) {
        let (start, length_left) = self.part_from(at);
        assert!(size_of::<u32>() + bytes.len() <= length_left.min(limit), "the segment is too small");
        // SAFETY: checked. One process at a time uses the segment: the session until the worker starts and after it has ended.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(size_of::<u32>()), bytes.len());
            start.cast::<u32>().write_unaligned(bytes.len() as u32);
        }
    }

    /// A copy, because the memory is shared; empty when nothing was put there.
    fn get(&self, at: usize) -> Vec<u8> {
        let (start, length_left) = self.part_from(at);
        // SAFETY: the length is checked against the rest of the segment; see `put` for who else has access.
        unsafe {
            let length = start.cast::<u32>().read_unaligned() as usize;
            std::slice::from_raw_parts(start.add(size_of::<u32>()), length.min(length_left - size_of::<u32>())).to_vec()
        }
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

/// Has a worker of this name, whose entry point is `function`, answer a request; waits at most `start_timeout` for a free one.
/// When the wait for the answer is cancelled the worker goes on.
pub fn request(name: &str, function: &str, request: &[u8], start_timeout: Duration) -> Result<Vec<u8>, Failure> {
    let segment = Segment::new(REQUEST + size_of::<u32>() + request.len()).ok_or(Failure::NoMemory)?;
    segment.put(REQUEST, request, usize::MAX);
    // SAFETY: mapped.
    let handle = unsafe { pg_sys::dsm_segment_handle(segment.0) };
    let started = Instant::now();
    // No interrupts from here to the worker's registration: the request of a session that is cancelled now would be lost.
    let worker = loop {
        // SAFETY: mapped, and not pinned yet. The pin keeps the memory for a worker that starts after this session has gone.
        unsafe { pg_sys::dsm_pin_segment(segment.0) };
        let worker = background::worker(name, name, function)
            .set_argument(Some(pg_sys::Datum::from(handle)))
            // SAFETY: a plain variable of this process.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .load_dynamic();
        if let Ok(worker) = worker {
            break worker;
        }
        // SAFETY: pinned above, and no worker has the handle.
        unsafe { pg_sys::dsm_unpin_segment(handle) };
        if started.elapsed() > start_timeout {
            return Err(Failure::NoWorker);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if worker.wait_for_shutdown().is_err() {
        return Err(Failure::ShuttingDown);
    }
    Some(segment.get(ANSWER)).filter(|answer| !answer.is_empty()).ok_or(Failure::NoAnswer)
}

/// In the entry point of such a worker: `answer` gets the request, connects and answers.
pub fn answer_request(argument: Argument, answer: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
    // Signals are still blocked, so nothing comes between.
    let Some(segment) = Segment::attach(argument.as_usize() as pg_sys::dsm_handle) else { return };
    background::begin();
    if let Some(answer) = answer(&segment.get(REQUEST)) {
        segment.put(ANSWER, &answer, REQUEST);
    }
}
