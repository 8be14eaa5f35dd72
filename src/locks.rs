//! Locks that nobody can hold for long against those who decide: an approval, or a change of rules, ends the transaction that
//! holds it up.

use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use skill_core::{Code, Fault};
use skill_pg::error::warning;
use skill_pg::lock::{self, Lock, Mode, wait_of};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::xact::End;
use skill_pg::{Arg, arg, sys};

/// How long those who decide wait before they end what they wait for.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How long anybody waits who has set no lock_timeout.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a call of seal_audit(), adopt_log() or maintain() may keep others from the same.
const LONGEST_MAINTENANCE: Duration = Duration::from_secs(60);

thread_local! {
    static ANY_ACQUIRED: Cell<bool> = const { Cell::new(false) };
}

/// Takes the lock on `key`, which names objects of a table, until the end of the transaction; waits for lock_timeout, or for
/// ten seconds. A reviewer, an administrator and a superuser wait a second at a time; then sessions of nobody above them that
/// still hold it, in a transaction older than that, are terminated. `what` completes "another transaction is changing ...".
pub fn acquire(table: &CStr, key: &[&str], mode: Mode, what: &str) -> Result<Lock, Fault> {
    if sys::in_recovery() {
        return Err(Fault::new(Code::ReadOnlyTransaction, format!("cannot change {what} during recovery")));
    }
    ANY_ACQUIRED.set(true);
    let lock = Lock::new(table, key);
    if lock.try_acquire(mode) {
        return Ok(lock);
    }
    let (rank, started, limit) = (rank(), Instant::now(), wait_of(LONGEST_WAIT));
    // A second for each that is given the lock meanwhile.
    let mut left = limit;
    while rank > 0 && !left.is_zero() {
        if lock.try_acquire_for(mode, MAX_WAIT.min(left)) {
            return Ok(lock);
        }
        left = limit.saturating_sub(started.elapsed());
        if limit < MAX_WAIT || end_holders(&holders(&lock), rank, MAX_WAIT, what).is_empty() {
            break;
        }
    }
    // Also when the time is used up: who was just ended gives it back in a moment.
    if lock.acquire_within(mode, left.max(MAX_WAIT.min(limit))) {
        return Ok(lock);
    }
    Err(not_available(what, &holders(&lock)))
}

/// As [`acquire`], for rows that roles may lock with the rights that they have on the table: `rows` follows FROM and calls it
/// `t`, `strength` is that of the lock. Rows that do not exist are none to wait for.
pub fn acquire_rows(rows: &str, strength: &str, args: &[Arg], what: &str) -> Result<(), Fault> {
    let statement = format!("SELECT FROM {rows} {strength} OF t");
    let lock = || _ = spi::execute(Once(&statement), As::Owner, See::OwnWrites, args);
    let (rank, started, limit) = (rank(), Instant::now(), wait_of(LONGEST_WAIT));
    let mut left = limit;
    while !left.is_zero() {
        if lock::attempt_within(if rank > 0 { MAX_WAIT.min(left) } else { left }, lock) {
            return Ok(());
        }
        left = limit.saturating_sub(started.elapsed());
        if rank > 0 && limit >= MAX_WAIT {
            end_holders(&row_holders(rows, args), rank, MAX_WAIT, what);
        }
    }
    Err(not_available(what, &row_holders(rows, args)))
}

/// Runs a statement that may wait for a row that another transaction inserts, as long as others wait for a lock.
pub fn within_limit<T>(what: &str, statement: impl FnOnce() -> T) -> Result<T, Fault> {
    lock::within(wait_of(LONGEST_WAIT), statement).ok_or_else(|| not_available(what, &[]))
}

/// As [`acquire`], but waits for `wait` at most, and ends transactions that are older than a minute only; false when others
/// hold it.
pub fn try_acquire(table: &CStr, key: &[&str], wait: Duration, what: &str) -> bool {
    let lock = Lock::new(table, key);
    if lock.try_acquire(Mode::Exclusive) {
        return true;
    }
    let rank = rank();
    let ended = rank > 0 && end_holders(&holders(&lock), rank, LONGEST_MAINTENANCE, what).contains(&true);
    lock.try_acquire_for(Mode::Exclusive, if ended { wait.max(MAX_WAIT) } else { wait })
}

/// Who holds the lock on `key`, for a message.
pub fn holder(table: &CStr, key: &[&str]) -> Option<String> {
    describe(&holders(&Lock::new(table, key)))
}

/// The caller decides: a member of skill_system_reviewer or skill_system_admin, or a superuser.
pub fn decides() -> bool {
    sys::caller_has_rights_of(c"skill_system_reviewer") || sys::caller_has_rights_of(c"skill_system_admin")
}

/// 3 for superusers, 2 for administrators, 1 for reviewers, 0 for all others, who end nobody.
pub fn rank() -> i32 {
    const SQL: &str = "SELECT CASE WHEN r.rolsuper THEN 3 WHEN pg_has_role(r.oid, 'skill_system_admin', 'USAGE') THEN 2 \
         WHEN pg_has_role(r.oid, 'skill_system_reviewer', 'USAGE') THEN 1 ELSE 0 END FROM pg_roles r WHERE r.oid = $1";
    // Not the owner, with whose rights a statement runs that fires triggers.
    // A role that was dropped meanwhile ends nobody.
    spi::first(SQL, As::Caller, See::Latest, &[arg(sys::caller())]).unwrap_or(0)
}

/// Terminates sessions that hold a lock in a transaction older than `age`; tells of each session that the caller may end, old
/// enough or not, whether it was.
fn end_holders(holders: &[i32], rank: i32, age: Duration, what: &str) -> Vec<bool> {
    const SQL: &str = include_str!("locks_end_holders.sql");
    let args = [arg(holders.to_vec()), arg(rank), arg(age.as_secs_f64())];
    let holders: Vec<(i32, String, bool)> = spi::collect(SQL, As::Owner, See::Latest, &args);
    for (pid, role, ended) in &holders {
        if *ended {
            warning(format!("terminated process {pid} of role \"{role}\", whose open transaction held up {what}"));
        }
    }
    holders.into_iter().map(|(_, _, ended)| ended).collect()
}

/// The processes that hold a lock; 0 is a prepared transaction.
fn holders(lock: &Lock) -> Vec<i32> {
    const SQL: &str = "SELECT coalesce(pid, 0) FROM pg_locks \
         WHERE locktype = 'object' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid = $1 AND objid::bigint = $2 AND objsubid = $3 AND granted";
    let args = [arg(lock.table), arg(i64::from(lock.object)), arg(i32::from(lock.part))];
    spi::collect(SQL, As::Owner, See::Latest, &args)
}

/// As [`holders`], of the locks on rows: those of the transaction in `xmax`, or of those that it stands for.
fn row_holders(rows: &str, args: &[Arg]) -> Vec<i32> {
    let sql =
        format!("WITH locked AS (SELECT t.tableoid, t.xmax FROM {rows}) {}", include_str!("locks_row_holders.sql"));
    spi::collect(Once(&sql), As::Owner, See::Latest, args)
}

fn describe(holders: &[i32]) -> Option<String> {
    const SQL: &str = "SELECT string_agg(CASE h.pid WHEN 0 THEN 'a prepared transaction' \
             ELSE format('process %s of role \"%s\", open since %s', h.pid, a.usename, date_trunc('second', a.xact_start)) END, ', ') \
         FROM unnest($1) h (pid) LEFT JOIN pg_stat_activity a ON a.pid = h.pid";
    if holders.is_empty() {
        return None;
    }
    spi::one(SQL, As::Owner, See::Latest, &[arg(holders.to_vec())])
}

fn not_available(what: &str, holders: &[i32]) -> Fault {
    let fault = Fault::new(Code::LockNotAvailable, format!("another transaction is changing {what}"))
        .hint("Try again, or set a longer lock_timeout.");
    match describe(holders) {
        Some(holders) => fault.detail(format!("It is held by {holders}.")),
        None => fault,
    }
}

/// Called at the ends of transactions. A prepared transaction would keep its locks, and nobody could end it.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    if end == End::BeforePrepare && ANY_ACQUIRED.get() && rank() < 3 {
        let message = "cannot PREPARE a transaction that changed policies, skills, rules or filings";
        return Err(Fault::new(Code::NotInPrerequisiteState, message)
            .detail("It would hold up those who decide about them until somebody ends it.")
            .hint("COMMIT it."));
    }
    if matches!(end, End::Committed | End::Prepared | End::Aborted) {
        ANY_ACQUIRED.set(false);
    }
    Ok(())
}
