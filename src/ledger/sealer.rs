//! What a sealer does at each of its steps; `pg::worker` is the process around it.

use skill_pg::error::{OrRaise};
use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::ledger::{self, Step};

/// Records that one step seals at most, so that it neither holds its transaction open for long nor needs much memory.
const MOST: u32 = 100_000;
/// How often the newest partition is searched for records that no seal takes.
const SWEEP: Duration = Duration::from_secs(3600);

/// When the next step shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to seal.
    Now,
    /// After half the interval: records are coming in, and each shall be sealed within the interval.
    Soon,
    /// After the interval.
    Later,
}

thread_local! {
    static SWEPT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One step of sealing.
pub fn seal() -> Next {
    if SWEPT.get().is_none_or(|last| last.elapsed() >= SWEEP) {
        SWEPT.set(Some(Instant::now()));
        ledger::sweep(true).or_raise();
    }
    match ledger::seal_step(Some(MOST.into())).or_raise() {
        Step::Sealed { sealed, .. } if sealed >= MOST.into() => Next::Now,
        Step::Sealed { sealed: 1.., .. } => Next::Soon,
        _ => Next::Later,
    }
}
