//! The ledger: signed checkpoints of the Merkle tree over the records, and which records a seal takes.

pub mod checkpoint;
pub mod snapshot;
