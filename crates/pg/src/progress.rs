//! Progress of a long command, reported like that of the server's own commands: it needs no shared memory, and any
//! session can see it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// Tells these entries from those of VACUUM, COPY and the like, whose numbers are small.
const COMMAND: pg_sys::ProgressCommandType::Type = 0x5353;
const PHASE: i32 = 0;
const DONE: i32 = 1;
const TOTAL: i32 = 2;
/// Steps between two updates of the server's memory.
const STRIDE: i64 = 1024;
/// Time between two lines for psql.
const NOTICE: Duration = Duration::from_secs(5);

/// One process at work.
pub struct Entry {
    /// Its process id.
    pub pid: i32,
    pub phase: usize,
    /// Steps done by this process.
    pub done: i64,
    /// Steps in all, of all processes.
    pub total: i64,
}

thread_local! {
    static STEPS: Cell<i64> = const { Cell::new(0) };
    static STARTED: Cell<bool> = const { Cell::new(false) };
    static NOTICED: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn put(index: i32, value: i64) {
    // SAFETY: writes into this backend's own entry.
    unsafe { pg_sys::pgstat_progress_update_param(index, value) };
}

/// Begins a phase with `total` steps.
pub fn start(phase: usize, total: i64) {
    // SAFETY: writes into this backend's own entry; an abort ends it.
    unsafe { pg_sys::pgstat_progress_start_command(COMMAND, pg_sys::InvalidOid) };
    put(PHASE, phase as i64);
    put(TOTAL, total);
    STEPS.set(0);
    STARTED.set(true);
    NOTICED.set(Some(Instant::now()));
}

/// Adds steps. `line` formats the line for psql.
pub fn advance(steps: i64, line: impl FnOnce(i64) -> String) {
    let before = STEPS.get();
    let done = before + steps;
    STEPS.set(done);
    if before / STRIDE == done / STRIDE {
        return;
    }
    let worker = super::sys::is_parallel_worker();
    if worker && !STARTED.replace(true) {
        // SAFETY: as in `start`; the entry goes with the process.
        unsafe { pg_sys::pgstat_progress_start_command(COMMAND, pg_sys::InvalidOid) };
    }
    put(DONE, done);
    if !worker && NOTICED.get().is_some_and(|last| last.elapsed() >= NOTICE) {
        NOTICED.set(Some(Instant::now()));
        super::error::notice(line(done));
    }
}

/// Ends the report.
pub fn finish() {
    // SAFETY: as in `start`.
    unsafe { pg_sys::pgstat_progress_end_command() };
    STARTED.set(false);
    NOTICED.set(None);
}

/// All processes at work now.
pub fn entries() -> Vec<Entry> {
    // SAFETY: the server makes a copy of the entries for this transaction; indexes are counted from 1.
    unsafe {
        (1..=pg_sys::pgstat_fetch_stat_numbackends())
            .filter_map(|i| {
                #[cfg(feature = "pg15")]
                let entry = pg_sys::pgstat_fetch_stat_local_beentry(i);
                #[cfg(not(feature = "pg15"))]
                let entry = pg_sys::pgstat_get_local_beentry_by_index(i);
                let status = &entry.as_ref()?.backendStatus;
                let param = |index: i32| status.st_progress_param[index as usize];
                (status.st_progress_command == COMMAND).then(|| Entry {
                    pid: status.st_procpid,
                    phase: param(PHASE) as usize,
                    done: param(DONE),
                    total: param(TOTAL),
                })
            })
            .collect()
    }
}
