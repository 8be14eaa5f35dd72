//! Appending records, for the functions of all modules.

use skill_core::Fault;
use skill_core::audit::actor_id;
use skill_pg::{Arg, Uuid, arg, spi};

use super::record::Appender;
use crate::settings;

/// Appends a record for the current tenant on behalf of the current user.
pub fn append(
    event_type: &str,
    event_data: serde_json::Value,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    append_for(&settings::tenant()?, event_type, arg(event_data), actor_id, actor_type)
}

/// Appends a record of the log about itself, for the default tenant.
pub fn append_system(event_type: &str, event_data: serde_json::Value) -> Result<Uuid, Fault> {
    // With the rights of the owner, because it belongs to no tenant.
    spi::as_owner(|| {
        append_for(settings::DEFAULT_TENANT, event_type, arg(event_data), Some("skill_system"), Some("system"))
    })
}

/// Appends a record for a tenant. `event_data` is a jsonb. The signing trigger adds what the server knows.
pub fn append_for(
    tenant: &str,
    event_type: &str,
    event_data: Arg,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    Appender::open()?.append(tenant, event_type, event_data, actor_id, actor_type)
}

/// Appends one record for each of several things that a person did, for the current tenant. A name too long for the column
/// is left out; the server's own columns say who was logged in.
pub fn append_by(event_type: &str, events: impl IntoIterator<Item = serde_json::Value>, by: &str) -> Result<(), Fault> {
    append_by_for(&settings::tenant()?, event_type, events, by)
}

/// As [`append_by`], for a tenant.
pub fn append_by_for(
    tenant: &str,
    event_type: &str,
    events: impl IntoIterator<Item = serde_json::Value>,
    by: &str,
) -> Result<(), Fault> {
    let (actor, records) = (actor_id(by), Appender::open()?);
    for event in events {
        records.append(tenant, event_type, arg(event), actor, Some("user"))?;
    }
    Ok(())
}
