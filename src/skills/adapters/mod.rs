//! The registry as other products' clients see it.

mod bundles;
mod client_schema;
mod discovery;
mod mcp;
mod redis_export;
mod runtime_sdk;
mod served;
mod skill_store;
