//! The ledger: the Merkle tree over signed records, its signed checkpoints, and which records a seal takes.

pub mod checkpoint;
pub mod snapshot;
pub mod tree;
