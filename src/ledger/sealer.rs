//! The sealers: with `shared_preload_libraries = 'skill_system'` one worker per database that has the extension.

use std::cell::Cell;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use skill_core::Fault;
use skill_pg::per_database::{self, Kind, Next};
use skill_pg::pg_worker;
use skill_pg::xact::{End, attempt};

use super::seal::{self, Step};
use crate::{audit, settings};

/// Records that one step seals at most, so that it neither holds its transaction open for long nor needs much memory.
const MAX_RECORDS: u32 = 100_000;
/// How often the newest partition is searched for records that no seal takes.
const SWEEP: Duration = Duration::from_secs(3600);
/// How often the coming months are looked for.
const MONTHS: Duration = Duration::from_secs(60);

static SEALERS: Kind = Kind {
    launcher: ("skill_system launcher", "skill_system_launcher"),
    worker: ("skill_system sealer", "skill_system_sealer"),
    activity: c"sealing the audit trail",
    interval: || Duration::from_millis(settings::seal_interval_millis()),
    step,
};

pg_worker!(skill_system_launcher, per_database::launch);
pg_worker!(skill_system_sealer, per_database::run);

thread_local! {
    static SWEPT: Cell<Option<Instant>> = const { Cell::new(None) };
    static LOOKED_FOR_MONTHS: Cell<Option<Instant>> = const { Cell::new(None) };
    /// This transaction fixed what kept the sealer from its work.
    static RETRY: Cell<bool> = const { Cell::new(false) };
}

/// Called once when the library is loaded.
pub fn register() {
    per_database::register(&SEALERS);
}

/// What kept the sealer from its work ends when this transaction commits: it does its next step then.
pub fn retry_at_commit() {
    RETRY.set(true);
}

/// Called at the ends of transactions. A database in which a record was written needs a sealer.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    let has_committed = matches!(end, End::Committed | End::Prepared);
    if !has_committed && end != End::Aborted {
        return Ok(());
    }
    let (written, retry) = (audit::take_written(), RETRY.replace(false));
    if has_committed && written {
        per_database::request_worker();
    }
    if has_committed && retry {
        per_database::retry_step();
    }
    Ok(())
}

/// It is time for something that is done `every` so often.
fn is_due(last: &'static LocalKey<Cell<Option<Instant>>>, every: Duration) -> bool {
    let due = last.get().is_none_or(|last| last.elapsed() >= every);
    if due {
        last.set(Some(Instant::now()));
    }
    due
}

fn step() -> Result<Next, Fault> {
    if is_due(&LOOKED_FOR_MONTHS, MONTHS) {
        // What keeps it from creating a partition does not keep it from sealing; health() names a month without one.
        let created = attempt(audit::create_ahead).map_or(0, |task| task.affected);
        // Without waiting for the seal, writers go on.
        if created > 0 {
            return Ok(Next::Now);
        }
    }
    if is_due(&SWEPT, SWEEP) {
        seal::sweep(true)?;
    }
    Ok(match seal::seal_step(Some(MAX_RECORDS.into()), Duration::ZERO)? {
        Step::Sealed { sealed, .. } if sealed >= MAX_RECORDS.into() => Next::Now,
        Step::Sealed { sealed: 1.., .. } => Next::Soon,
        _ => Next::Later,
    })
}
