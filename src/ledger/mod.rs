//! The ledger: a Merkle tree over the audit trail, its checkpoints and proofs.

mod adopt;
mod export;
mod proof;
mod seal;
mod state;
mod tiles;

pub use seal::{Step, seal_step};
