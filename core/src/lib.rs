//! The parts of `skill_system` that need no database.
//!
//! Nothing here knows PostgreSQL: the extension (`src/`) and the offline
//! verifier (`verify/`) are both built on this crate, and `cargo test` tries it
//! without a server.

pub mod audit;
pub mod checkpoint;
pub mod compliance;
pub mod effect;
pub mod error;
pub mod input;
pub mod jsonb;
pub mod keyring;
pub mod otlp;
pub mod policy;
pub mod runs;
pub mod shipped;
pub mod skills;
pub mod skr1;
pub mod tree;

pub use error::{Code, Fault};
