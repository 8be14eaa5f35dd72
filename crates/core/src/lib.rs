//! The parts of `skill_system` that need no database.
//!
//! Nothing here knows PostgreSQL: the extension (`src/`) and the offline
//! verifier (`crates/verify/`) are both built on this crate, and `cargo test` tries it
//! without a server.

pub mod audit;
pub mod compliance;
pub mod error;
pub mod input;
pub mod jsonb;
pub mod ledger;
pub mod policy;
pub mod runs;
pub mod skills;
pub mod text_array;

pub use error::{Code, Fault};
