//! The extension's own functions over the registry.

pub mod catalog;
pub mod changes;
pub mod definitions;
pub mod documents;
pub mod integrity;
pub mod loading;
pub mod namespaces;
pub mod search;
pub mod versions;
