//! What a sealer does at each of its steps; `worker` is the process around it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use skill_core::Fault;

use super::seal::{self, Step};

/// Records that one step seals at most, so that it neither holds its transaction open for long nor needs much memory.
const MAX_RECORDS: u32 = 100_000;
/// How often the newest partition is searched for records that no seal takes.
const SWEEP: Duration = Duration::from_secs(3600);

/// When the next step is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to seal.
    Now,
    /// After half the interval: records are coming in, and each is to be sealed within the interval.
    Soon,
    /// After the interval.
    Later,
}

thread_local! {
    static SWEPT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One step of sealing.
pub fn seal() -> Result<Next, Fault> {
    if SWEPT.get().is_none_or(|last| last.elapsed() >= SWEEP) {
        SWEPT.set(Some(Instant::now()));
        seal::sweep(true)?;
    }
    Ok(match seal::seal_step(Some(MAX_RECORDS.into()))? {
        Step::Sealed { sealed, .. } if sealed >= MAX_RECORDS.into() => Next::Now,
        Step::Sealed { sealed: 1.., .. } => Next::Soon,
        _ => Next::Later,
    })
}
