//! The history: one row and one audit record for each change, numbered without gaps in the order of commits.

use serde_json::{Value, json};
use skill_core::Fault;
use skill_core::skills::Status;
use skill_pg::spi::{self, As, See};
use skill_pg::{arg, sys};

use super::model::{Head, Version};
use crate::audit;
use crate::versioned::Change;

/// Adds one row of history and one audit record. The caller holds the lock of the namespace.
pub fn record_history(
    head: &Head,
    action: &str,
    version: Option<&Version>,
    previous: Option<Status>,
    status: Option<Status>,
    change: &Change,
) -> Result<(), Fault> {
    let revision = spi::one::<i64>(
        "WITH n AS (UPDATE skill_system.skill_namespaces SET revision = revision + 1 \
                    WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 RETURNING revision) \
         INSERT INTO skill_system.skill_history (namespace, revision, skill_id, skill_name, action, version_id, version, \
             previous_status, status, changed_by, reason, approved_with, channel) \
         SELECT $1, n.revision, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM n RETURNING revision",
        As::Owner,
        See::OwnWrites,
        &[
            arg(&head.namespace),
            arg(head.id),
            arg(&head.skill_name),
            arg(action),
            arg(version.map(|version| version.id)),
            arg(version.map(|version| version.version.as_str())),
            arg(previous.map(Status::as_str)),
            arg(status.map(Status::as_str)),
            arg(&change.changed_by),
            arg(change.reason.as_deref()),
            arg(change.approved_with.as_deref()),
            arg(change.channel.as_deref()),
        ],
    );
    let mut data = json!({
        "skill_id": head.id.to_string(), "namespace": head.namespace, "skill_name": head.skill_name, "revision": revision,
        "version": version.map(|version| &version.version), "digest": version.map(|version| &version.digest),
        "from": previous.map(Status::as_str), "to": status.map(Status::as_str), "reason": change.reason,
        "approved_with": change.approved_with,
    });
    if let Some(metadata) = &change.metadata_change {
        data["said"] = metadata.clone();
    }
    if let Some(channel) = &change.channel {
        data["channel"] = channel.as_str().into();
    }
    audit::append_by(&format!("skill.{action}"), [data], &change.changed_by)
}

/// An audit record about skills by the role that logged in, outside of the history.
pub fn append_audit(event_type: &str, data: Value) -> Result<(), Fault> {
    audit::append_by(event_type, [data], &sys::role_name(sys::session_user()))
}
