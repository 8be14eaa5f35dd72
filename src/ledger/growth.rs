//! What this transaction did to the tree, forgotten when it ends.

use std::cell::Cell;

use skill_core::Fault;
use skill_pg::xact::End;

thread_local! {
    static GREW: Cell<bool> = const { Cell::new(false) };
    static LEAVES_VALID: Cell<bool> = const { Cell::new(false) };
}

/// The tree grew in this transaction, perhaps in a part of it that was rolled back.
pub fn grew_in_transaction() -> bool {
    GREW.get()
}

/// To be called when the tree has grown.
pub fn tree_grew() {
    GREW.set(true);
}

/// Which record is which leaf may be remembered until the end of the transaction, or until a part of it is rolled back.
/// False when what was remembered before must be forgotten now.
pub fn leaves_valid() -> bool {
    LEAVES_VALID.replace(true)
}

pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    if end.is_rollback() {
        LEAVES_VALID.set(false);
    }
    if matches!(end, End::Committed | End::Prepared | End::Aborted | End::ParallelCommitted | End::ParallelAborted) {
        GREW.set(false);
        LEAVES_VALID.set(false);
    }
    Ok(())
}
