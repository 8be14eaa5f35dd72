//! What a sealer does at each of its steps; `pg::worker` is the process around it.

use crate::ledger::{Step, seal_step};
use crate::pg::error::OrRaise;

/// Records that one step seals at most, so that it neither holds its transaction open for long nor needs much memory.
const MOST: u32 = 100_000;

/// One step of sealing; true when there is more to seal at once.
pub fn seal() -> bool {
    matches!(seal_step(Some(MOST.into())).or_raise(), Step::Sealed { sealed, .. } if sealed >= MOST.into())
}
