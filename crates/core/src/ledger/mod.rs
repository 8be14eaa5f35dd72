//! The ledger: the Merkle tree over signed records and its signed checkpoints.

pub mod checkpoint;
pub mod tree;
