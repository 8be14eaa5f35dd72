//! Skills: one registry, four client APIs (adapters).
//!
//! `model` ← `index`, `history`, `dependencies`, `approval`, `effects` ← `registry` ← `api`, `adapters`. `registry` and
//! `definition` are the only ones that write heads, versions and files, in fixed statements for the session's tenant.

mod adapters;
mod agents;
mod api;
mod approval;
mod content;
mod definition;
mod dependencies;
mod effects;
mod history;
mod index;
mod links;
mod model;
mod registry;
mod requirements;

use crate::module::Module;

pub use links::{LinkedVersion, linked_version};

pub const MODULE: Module = Module {
    event_types: &["skill."],
    caches: &[links::notice],
    transaction_ends: &[history::at_transaction_end],
    health: &[("skills_integrity", api::integrity::health)],
    maintained_tables: &["agents", "skill_artifacts", "skill_personas", "skill_code_blocks", "agent_definitions"],
    ..Module::new("skills")
};
