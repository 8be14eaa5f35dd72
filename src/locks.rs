//! Locks that nobody can hold for long against those who decide: an approval, or a change of rules, ends the transaction that
//! holds it up.

use std::cell::Cell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use const_format::concatcp;
use skill_core::{Code, Fault};
use skill_pg::error::warning;
use skill_pg::lock::{Lock, Mode, wait_of};
use skill_pg::spi::{self, As, See};
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
        if limit < MAX_WAIT || end_holders(&lock, rank, MAX_WAIT, what).is_empty() {
            break;
        }
    }
    // Also when the time is used up: who was just ended gives it back in a moment.
    if lock.acquire_within(mode, left.max(MAX_WAIT.min(limit))) {
        return Ok(lock);
    }
    let fault = Fault::new(Code::LockNotAvailable, format!("another transaction is changing {what}"))
        .hint("Try again, or set a longer lock_timeout.");
    Err(match holders(&lock) {
        Some(holders) => fault.detail(format!("It is held by {holders}.")),
        None => fault,
    })
}

/// As [`acquire`], but waits for `wait` at most, and ends transactions that are older than a minute only; false when others
/// hold it.
pub fn try_acquire(table: &CStr, key: &[&str], wait: Duration, what: &str) -> bool {
    let lock = Lock::new(table, key);
    if lock.try_acquire(Mode::Exclusive) {
        return true;
    }
    let rank = rank();
    let ended = rank > 0 && end_holders(&lock, rank, LONGEST_MAINTENANCE, what).contains(&true);
    lock.try_acquire_for(Mode::Exclusive, if ended { wait.max(MAX_WAIT) } else { wait })
}

/// Who holds the lock on `key`, for a message.
pub fn holder(table: &CStr, key: &[&str]) -> Option<String> {
    holders(&Lock::new(table, key))
}

/// The caller decides: a member of skill_system_reviewer or skill_system_admin, or a superuser.
pub fn decides() -> bool {
    sys::caller_has_rights_of(c"skill_system_reviewer") || sys::caller_has_rights_of(c"skill_system_admin")
}

/// 3 for superusers, 2 for administrators, 1 for reviewers, 0 for all others, who end nobody.
pub fn rank() -> i32 {
    const SQL: &str = "SELECT CASE WHEN r.rolsuper THEN 3 WHEN pg_has_role('skill_system_admin', 'USAGE') THEN 2 \
         WHEN pg_has_role('skill_system_reviewer', 'USAGE') THEN 1 ELSE 0 END FROM pg_roles r WHERE r.rolname = current_user";
    // A role that was dropped meanwhile ends nobody.
    spi::first(SQL, As::Caller, See::Latest, &[]).unwrap_or(0)
}

/// Terminates the sessions that hold the lock in a transaction older than `age`; tells of each session that the caller may
/// end, old enough or not, whether it was.
fn end_holders(lock: &Lock, rank: i32, age: Duration, what: &str) -> Vec<bool> {
    const SQL: &str = concatcp!(HOLDERS, include_str!("locks_end_holders.sql"));
    let [table, object, part] = arguments(lock);
    let args = [table, object, part, arg(age.as_secs_f64()), arg(rank)];
    let holders: Vec<(i32, String, bool)> = spi::collect(SQL, As::Owner, See::Latest, &args);
    for (pid, role, ended) in &holders {
        if *ended {
            warning(format!("terminated process {pid} of role \"{role}\", whose open transaction held up {what}"));
        }
    }
    holders.into_iter().map(|(_, _, ended)| ended).collect()
}

/// Those who hold a lock, given its [`arguments`].
const HOLDERS: &str = include_str!("locks_holders.sql");

fn arguments(lock: &Lock) -> [Arg<'static>; 3] {
    [arg(lock.table), arg(i64::from(lock.object)), arg(i32::from(lock.part))]
}

fn holders(lock: &Lock) -> Option<String> {
    const SQL: &str = concatcp!(
        HOLDERS,
        "SELECT string_agg(CASE WHEN pid IS NULL THEN 'a prepared transaction' \
             ELSE format('process %s of role \"%s\", open since %s', pid, usename, date_trunc('second', xact_start)) END, ', ') \
         FROM holder"
    );
    spi::one(SQL, As::Owner, See::Latest, &arguments(lock))
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
