//! The parts of `skill_system` that need no database.
//!
//! Nothing here calls PostgreSQL or links to it, so the extension (`src/`) and the offline verifier
//! (`crates/verify/`) are both built on this crate and `cargo test` runs without a server. It does know
//! PostgreSQL's formats: [`jsonb`] reads the binary form, [`text_array`] array literals,
//! [`ledger::snapshot`] snapshots and [`audit::shipped`] the install script; hints are SQL.

pub mod audit;
pub mod compliance;
pub mod error;
pub mod input;
pub mod interrupt;
pub mod jsonb;
pub mod jsonb_strings;
pub mod ledger;
pub mod limits;
pub mod page;
pub mod policy;
pub mod runs;
pub mod skills;
pub mod text_array;
pub mod tree;
pub mod unicode;

pub use error::{Code, Fault};
