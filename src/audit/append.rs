//! Appending records, for the functions of all modules.

use skill_core::Fault;
use skill_pg::{Arg, Uuid, arg, spi};

use super::bypass::{self, Bypass};
use super::record::Appender;
use crate::settings;

/// Appends a record for the current tenant on behalf of the current user.
pub fn append(
    event_type: &str,
    event_data: serde_json::Value,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    append_for(&settings::tenant(), event_type, arg(event_data), actor_id, actor_type)
}

/// Appends a record of the log about itself, for the default tenant.
pub fn append_system(event_type: &str, event_data: serde_json::Value) -> Result<Uuid, Fault> {
    // With the rights of the owner, because it belongs to no tenant.
    spi::as_owner(|| {
        bypass::with(Bypass::OwnRecord, || {
            append_for(settings::DEFAULT_TENANT, event_type, arg(event_data), Some("skill_system"), Some("system"))
        })
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

/// Appends several records of one kind for the current tenant.
pub fn append_all(
    event_type: &str,
    events: impl Iterator<Item = serde_json::Value>,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<(), Fault> {
    let (tenant, records) = (settings::tenant(), Appender::open()?);
    for event in events {
        records.append(&tenant, event_type, arg(event), actor_id, actor_type)?;
    }
    Ok(())
}
