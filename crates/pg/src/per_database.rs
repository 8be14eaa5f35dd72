//! One background worker per database that has the extension, and a launcher that starts them; only in a server that
//! preloads the library.
//!
//! The launcher looks once into every database, by starting a worker there, which leaves when the extension does not exist.
//! After that a session that has work for a worker asks for one, through a table in shared memory. A worker never blocks
//! anyone: it holds neither snapshot nor lock between its steps, and like autovacuum it is ended by whatever needs its
//! database exclusively (DROP DATABASE, CREATE DATABASE ... TEMPLATE, ALTER DATABASE ... RENAME).

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgrx::bgworkers::BackgroundWorkerStatus;
use pgrx::{PGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_shmem_init, pg_sys};
use skill_core::Fault;

use super::background::{self, Argument};
use super::sys;

/// What the workers are, given by the module that registers them.
pub struct Kind {
    /// The launcher's name in ps and pg_stat_activity, and its entry point.
    pub launcher: (&'static str, &'static str),
    /// The same of the workers; the database's name is added.
    pub worker: (&'static str, &'static str),
    /// What a step does, for pg_stat_activity.
    pub activity: &'static CStr,
    /// The time between two steps.
    pub interval: fn() -> Duration,
    /// One step, in a transaction.
    pub step: fn() -> Result<Next, Fault>,
}

/// When the next step is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: more is to be done.
    Now,
    /// After half the interval: work is coming in.
    Soon,
    /// After the interval.
    Later,
}

/// Databases that can have a worker at the same time; each needs one of max_worker_processes.
const MAX_DATABASES: usize = 256;
/// Bytes of an error that are kept for `status`.
const MAX_ERROR: usize = 400;
/// The longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the launcher waits for one look into a database before it starts the next.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A database that has, or asked for, a worker.
#[derive(Clone, Copy)]
struct Entry {
    database: pg_sys::Oid,
    /// The worker's process; 0 when none runs.
    pid: i32,
    /// The latch of that process; of no use when `pid` is 0.
    latch: *mut pg_sys::Latch,
    /// The worker, this one or the last, has come as far as to be connected.
    connected: bool,
    /// It has found the extension and finished a step.
    at_work: bool,
    /// Somebody has asked since the worker looked last.
    is_requested: bool,
    error: [u8; MAX_ERROR],
    error_length: usize,
}

struct Table {
    /// The launcher's latch; null before it runs. A latch stays valid as long as the server.
    launcher: *mut pg_sys::Latch,
    entries: [Option<Entry>; MAX_DATABASES],
}

// SAFETY: plain values, behind a lock; every process of a server sees shared memory at the same address.
unsafe impl PGRXSharedMemory for Table {}

impl Default for Table {
    fn default() -> Self {
        Table { launcher: std::ptr::null_mut(), entries: [None; MAX_DATABASES] }
    }
}

impl Table {
    fn find(&mut self, database: pg_sys::Oid) -> Option<&mut Entry> {
        self.entries.iter_mut().flatten().find(|entry| entry.database == database)
    }

    /// Marks that `database` wants a worker; false when the table is full.
    fn request_worker(&mut self, database: pg_sys::Oid) -> bool {
        if let Some(entry) = self.find(database) {
            entry.is_requested = true;
            return true;
        }
        let Some(free) = self.entries.iter_mut().find(|entry| entry.is_none()) else {
            return false;
        };
        *free = Some(Entry {
            database,
            pid: 0,
            latch: std::ptr::null_mut(),
            connected: false,
            at_work: false,
            is_requested: true,
            error: [0; MAX_ERROR],
            error_length: 0,
        });
        true
    }

    fn remove(&mut self, database: pg_sys::Oid) {
        for entry in &mut self.entries {
            if entry.is_some_and(|entry| entry.database == database) {
                *entry = None;
            }
        }
        REMOVED.get().fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: the names are this extension's.
static TABLE: PgLwLock<Table> = unsafe { PgLwLock::new(c"skill_system_workers") };
/// Counts what left the table, so that a session need not lock it to know that it has asked already.
// SAFETY: as above.
static REMOVED: PgAtomic<AtomicU32> = unsafe { PgAtomic::new(c"skill_system_workers_removed") };
/// Set where the library is preloaded.
static KIND: OnceLock<&'static Kind> = OnceLock::new();

thread_local! {
    /// The value of REMOVED when this session asked for a worker.
    static REQUESTED_AT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Called once when the library is loaded.
#[allow(unexpected_cfgs)] // in pgrx's macro
pub fn register(kind: &'static Kind) {
    // SAFETY: plain variables of the server's. Nothing may write while pg_upgrade runs.
    if unsafe { !pg_sys::process_shared_preload_libraries_in_progress || pg_sys::IsBinaryUpgrade } {
        return;
    }
    if KIND.set(kind).is_err() {
        return;
    }
    pg_shmem_init!(TABLE);
    pg_shmem_init!(REMOVED);
    // Not before recovery has ended, so never on a standby.
    let (name, function) = kind.launcher;
    background::worker(name, name, function).set_restart_time(Some(Duration::from_secs(5))).load();
}

/// The last error is history, and the worker of this database does its next step now.
pub fn retry_step() {
    if KIND.get().is_none() {
        return;
    }
    let mut table = TABLE.exclusive();
    if let Some(entry) = table.find(sys::database()).filter(|entry| entry.pid != 0) {
        entry.error_length = 0;
        wake(entry.latch);
    }
}

/// This database has work for a worker. Cheap when it has asked before.
pub fn request_worker() {
    if KIND.get().is_none() {
        return;
    }
    let removed = REMOVED.get().load(Ordering::SeqCst);
    if REQUESTED_AT.get() == Some(removed) {
        return;
    }
    let mut table = TABLE.exclusive();
    if table.request_worker(sys::database()) {
        REQUESTED_AT.set(Some(removed));
        wake(table.launcher);
    }
}

fn wake(latch: *mut pg_sys::Latch) {
    if !latch.is_null() {
        // SAFETY: a latch in shared memory, see `Table`. Set without need it does no harm.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

/// The state of the worker of this database.
pub enum Status {
    /// The library was not preloaded, so no workers exist.
    NotPreloaded,
    /// No worker runs here.
    Missing,
    /// Its process, and the error that its last step ended with.
    Running(i32, Option<String>),
}

/// The worker of this database.
pub fn status() -> Status {
    if KIND.get().is_none() {
        return Status::NotPreloaded;
    }
    let table = TABLE.share();
    match table.entries.iter().flatten().find(|entry| entry.database == sys::database()) {
        Some(entry) if entry.pid != 0 => {
            let error = String::from_utf8_lossy(&entry.error[..entry.error_length]).into_owned();
            Status::Running(entry.pid, Some(error).filter(|error| !error.is_empty()))
        }
        _ => Status::Missing,
    }
}

// ---- the launcher

/// What the launcher knows of a database whose worker does not run.
struct Plan {
    due: Instant,
    started: bool,
    /// How often in a row it could not connect, or could not be started.
    failures: u32,
    logged: bool,
}

/// The launcher, called by its entry point.
pub fn launch(_argument: Argument) {
    let Some(kind) = KIND.get() else { return };
    background::begin();
    background::connect(None, kind.launcher.0);
    // SAFETY: the latch of this process, in shared memory.
    TABLE.exclusive().launcher = unsafe { pg_sys::MyLatch };
    let mut plans = HashMap::new();
    // The first look: one database after the other, so that it needs one worker more.
    let known = loop {
        match databases(kind) {
            Some(known) => break known,
            None => background::wait(Some(PROBE_TIMEOUT)),
        }
    };
    for (database, name) in known {
        if !TABLE.exclusive().request_worker(database) {
            background::log(format!("{} cannot serve more than {MAX_DATABASES} databases", kind.launcher.0), None);
            break;
        }
        start_due(kind, &mut plans, &[(database, name)]);
    }
    loop {
        let pause = match missing().is_empty() {
            true => None,
            false => match databases(kind) {
                Some(known) => {
                    forget_dropped(&mut plans, &known);
                    start_due(kind, &mut plans, &known)
                }
                None => Some(PROBE_TIMEOUT),
            },
        };
        background::wait(pause);
    }
}

/// The databases that accept connections, templates excepted: a worker there would block CREATE DATABASE.
fn databases(kind: &Kind) -> Option<Vec<(pg_sys::Oid, String)>> {
    let found = background::transaction(c"reading the list of databases", || {
        let mut found = Vec::new();
        // SAFETY: as autovacuum reads the list; in a transaction.
        unsafe {
            let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
            let scan = pg_sys::systable_beginscan(
                relation,
                pg_sys::InvalidOid,
                false,
                std::ptr::null_mut(),
                0,
                std::ptr::null_mut(),
            );
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
                // -2 marks a database whose removal was interrupted.
                if form.datallowconn && !form.datistemplate && form.datconnlimit != -2 {
                    found.push((form.oid, CStr::from_ptr(form.datname.data.as_ptr()).to_string_lossy().into_owned()));
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        }
        Ok(found)
    });
    found.map_err(|error| error.log(kind.launcher.0)).ok()
}

/// Databases in the table whose worker does not run.
fn missing() -> Vec<pg_sys::Oid> {
    TABLE.share().entries.iter().flatten().filter(|entry| entry.pid == 0).map(|entry| entry.database).collect()
}

fn forget_dropped(plans: &mut HashMap<pg_sys::Oid, Plan>, known: &[(pg_sys::Oid, String)]) {
    for database in missing() {
        if !known.iter().any(|(oid, _)| *oid == database) {
            TABLE.exclusive().remove(database);
        }
    }
    let table = TABLE.share();
    plans.retain(|database, _| table.entries.iter().flatten().any(|entry| entry.database == *database));
}

/// Starts the workers whose time has come; returns when the next one is due.
fn start_due(kind: &Kind, plans: &mut HashMap<pg_sys::Oid, Plan>, known: &[(pg_sys::Oid, String)]) -> Option<Duration> {
    for database in missing() {
        let Some((_, name)) = known.iter().find(|(oid, _)| *oid == database) else {
            continue;
        };
        let now = Instant::now();
        let plan = plans.entry(database).or_insert(Plan { due: now, started: false, failures: 0, logged: false });
        if std::mem::take(&mut plan.started) {
            // It has ended. Where somebody ended it, they get the database for a moment at least.
            let connected = TABLE.exclusive().find(database).is_some_and(|entry| entry.connected);
            plan.failures = if connected { 0 } else { plan.failures + 1 };
            plan.due = now + longer(Duration::from_millis(500), plan.failures);
        }
        if plan.due > now {
            continue;
        }
        plan.started = start(kind, database, name);
        if plan.started {
            plan.logged = false;
        } else {
            if !plan.logged {
                background::log(
                    format!(
                        "no background worker is free for the {} of database \"{name}\"; trying again",
                        kind.worker.0
                    ),
                    Some("Raise max_worker_processes: each database with the extension needs one."),
                );
            }
            plan.logged = true;
            plan.failures += 1;
            plan.due = now + longer(Duration::from_secs(1), plan.failures);
        }
    }
    // What has ended, or has asked, while others were started has no time yet: look again at once.
    missing()
        .iter()
        .map(|database| {
            plans
                .get(database)
                .filter(|plan| !plan.started)
                .map_or(Duration::ZERO, |plan| plan.due.saturating_duration_since(Instant::now()))
        })
        .min()
}

/// `pause`, doubled for each failure.
fn longer(pause: Duration, failures: u32) -> Duration {
    pause.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE.max(pause))
}

/// Starts a worker and waits until it has looked for the extension; false when none is free.
fn start(kind: &Kind, database: pg_sys::Oid, name: &str) -> bool {
    let (worker, function) = kind.worker;
    let worker = background::worker(&format!("{worker} {name}"), worker, function)
        .set_argument(Some(pg_sys::Datum::from(database)))
        // SAFETY: a plain variable of this process.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .load_dynamic();
    let Ok(worker) = worker else {
        return false;
    };
    let started = Instant::now();
    loop {
        let at_work = TABLE.exclusive().find(database).is_none_or(|entry| entry.at_work);
        if at_work || started.elapsed() > PROBE_TIMEOUT || matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped))
        {
            return true;
        }
        background::wait(Some(Duration::from_millis(100)));
    }
}

// ---- the worker

/// A worker, called by its entry point.
pub fn run(argument: Argument) {
    let Some(kind) = KIND.get() else { return };
    let database = argument.oid();
    let name = kind.worker.0;
    if !register_process(database) {
        return;
    }
    background::begin();
    background::connect(Some(database), name);
    yield_to_ddl();
    if let Some(entry) = TABLE.exclusive().find(database) {
        entry.connected = true;
    }
    let mut failures = 0;
    let mut last_error = String::new();
    loop {
        let started = Instant::now();
        let interval = (kind.interval)();
        let step = background::transaction(kind.activity, || sys::hold_extension().then(kind.step).transpose());
        let pause = match step {
            Ok(None) => {
                if remove_if_unused(database) {
                    return;
                }
                interval
            }
            Ok(Some(next)) => {
                report_step(database, "");
                if failures > 0 {
                    background::log(format!("{name} works again"), None);
                }
                failures = 0;
                last_error.clear();
                match next {
                    Next::Now => Duration::ZERO,
                    Next::Soon => interval / 2,
                    Next::Later => interval,
                }
            }
            Err(error) => {
                report_step(database, &error.message);
                failures += 1;
                if error.message != last_error {
                    last_error.clone_from(&error.message);
                    error.log(name);
                }
                longer(interval.max(Duration::from_secs(1)), failures - 1)
            }
        };
        background::wait(Some(pause.saturating_sub(started.elapsed())));
    }
}

/// Puts this process into the table; false when another one is there.
fn register_process(database: pg_sys::Oid) -> bool {
    let mut table = TABLE.exclusive();
    match table.find(database) {
        Some(entry) if entry.pid == 0 => {
            // SAFETY: a plain variable of this process; the callback is called while shared memory is still there.
            unsafe {
                (entry.pid, entry.latch) = (pg_sys::MyProcPid, pg_sys::MyLatch);
                pg_sys::before_shmem_exit(Some(leave_table), pg_sys::Datum::from(database));
            }
            (entry.connected, entry.at_work) = (false, false);
            true
        }
        _ => false,
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave_table(_code: std::ffi::c_int, database: pg_sys::Datum) {
    let mut table = TABLE.exclusive();
    if let Some(entry) = table.find(pg_sys::Oid::from(database.value() as u32)) {
        entry.pid = 0;
    }
    wake(table.launcher);
}

/// A step has ended, with this error or with none.
fn report_step(database: pg_sys::Oid, error: &str) {
    let mut table = TABLE.exclusive();
    let launcher = table.launcher;
    if let Some(entry) = table.find(database) {
        let kept = &error.as_bytes()[..error.floor_char_boundary(MAX_ERROR)];
        entry.error[..kept.len()].copy_from_slice(kept);
        entry.error_length = kept.len();
        if !std::mem::replace(&mut entry.at_work, true) {
            wake(launcher);
        }
    }
}

/// Takes the database out of the table, unless it has the extension after all.
fn remove_if_unused(database: pg_sys::Oid) -> bool {
    if let Some(entry) = TABLE.exclusive().find(database) {
        entry.is_requested = false;
    }
    // From here on a session with work asks again, and whatever was committed before is seen below.
    REMOVED.get().fetch_add(1, Ordering::SeqCst);
    if !matches!(background::transaction(c"looking for the extension", || Ok(sys::hold_extension())), Ok(false)) {
        return false;
    }
    let mut table = TABLE.exclusive();
    if table.find(database).is_some_and(|entry| entry.is_requested) {
        return false;
    }
    table.remove(database);
    wake(table.launcher);
    true
}

/// What needs the database exclusively waits up to five seconds for the sessions there, and ends only those that are marked
/// as autovacuum's. A worker is marked so, too; it also gives way to those that wait for one of its locks.
fn yield_to_ddl() {
    /// Place of ProcArrayLock among the server's individual locks (lwlocknames.h): the same in the versions named here.
    /// Look it up before a new one is added.
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
    const PROC_ARRAY_LOCK: usize = 4;
    // SAFETY: as VACUUM sets its marks: the process's copy and the dense array's, under the lock.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(PROC_ARRAY_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let me = pg_sys::MyProc;
        (*me).statusFlags |= pg_sys::PROC_IS_AUTOVACUUM as u8;
        *(*pg_sys::ProcGlobal).statusFlags.add((*me).pgxactoff as usize) = (*me).statusFlags;
        pg_sys::LWLockRelease(lock);
    }
}
