//! Compliance: entities, what a filing needs and is subject to, reports about it.

pub mod artifacts;
pub mod checklists;
pub mod entities;
pub mod oscal;
pub mod report;
pub mod rules;
pub mod snapshot;
