//! The ledger: a Merkle tree over the audit trail, its checkpoints and proofs.

mod adopt;
mod export;
mod kept;
mod proof;
mod retention;
mod rotation;
mod seal;
pub mod sealer;
mod state;
mod tiles;
mod verify;
pub mod worker;



pub use proof::current_origin;
pub use rotation::{announce_new_keyring, key_warning, keyring_is_foreign};
pub use seal::{Step, backlog, seal_step, sweep};
pub use verify::count_record;
