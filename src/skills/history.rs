//! The history: one row and one audit record for each change, numbered without gaps in the order of commits.

use std::cell::RefCell;

use serde_json::{Value, json};
use skill_core::Fault;
use skill_core::skills::Status;
use skill_pg::spi::{self, As, See};
use skill_pg::xact::End;
use skill_pg::{arg, sys};

use super::model::{Head, NAMESPACES, Version};
use crate::versioned::Change;
use crate::{audit, locks, settings};

/// One change, with what its row of history and its audit record hold.
struct Entry {
    tenant: String,
    head: Head,
    action: String,
    version: Option<Version>,
    previous: Option<Status>,
    status: Option<Status>,
    change: Change,
    /// In which it was made.
    subtransaction: u32,
}

thread_local! {
    /// Changes by those who do not decide: they get their numbers when the transaction commits, so that it holds the lock
    /// of a namespace for a moment only, however long it stays open.
    static PENDING: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Adds one row of history and one audit record; the caller holds the lock of the namespace.
pub fn record_history(
    head: &Head,
    action: &str,
    version: Option<&Version>,
    previous: Option<Status>,
    status: Option<Status>,
    change: &Change,
) -> Result<(), Fault> {
    let entry = Entry {
        tenant: settings::tenant()?,
        head: head.clone(),
        action: action.to_owned(),
        version: version.cloned(),
        previous,
        status,
        change: change.clone(),
        subtransaction: sys::subtransaction(),
    };
    if locks::decides() {
        return write(&entry);
    }
    PENDING.with_borrow_mut(|pending| pending.push(entry));
    Ok(())
}

/// Called at the ends of transactions.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    match end {
        End::BeforeCommit => {
            for entry in PENDING.take() {
                NAMESPACES.lock_of(&entry.tenant, &entry.head.namespace)?;
                write(&entry)?;
            }
        }
        End::SubCommitted(mine, parent) => PENDING.with_borrow_mut(|pending| {
            for entry in pending.iter_mut().filter(|entry| entry.subtransaction == mine) {
                entry.subtransaction = parent;
            }
        }),
        End::SubAborted(mine) => {
            PENDING.with_borrow_mut(|pending| pending.retain(|entry| entry.subtransaction != mine))
        }
        End::Aborted => drop(PENDING.take()),
        _ => {}
    }
    Ok(())
}

fn write(entry: &Entry) -> Result<(), Fault> {
    let Entry { tenant, head, action, version, previous, status, change, .. } = entry;
    let (version, previous, status) = (version.as_ref(), *previous, *status);
    let revision: i64 = spi::one(
        "WITH n AS (UPDATE skill_system.skill_namespaces SET revision = revision + 1 \
                    WHERE tenant_id = $13 AND namespace = $1 RETURNING revision) \
         INSERT INTO skill_system.skill_history (tenant_id, namespace, revision, skill_id, skill_name, action, version_id, \
             version, previous_status, status, changed_by, reason, approved_with, channel) \
         SELECT $13, $1, n.revision, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM n RETURNING revision",
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
            arg(tenant),
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
    audit::append_by_for(tenant, &format!("skill.{action}"), [data], &change.changed_by)
}

/// An audit record about skills by the role that logged in, outside of the history.
pub fn append_audit(event_type: &str, data: Value) -> Result<(), Fault> {
    audit::append_by(event_type, [data], &sys::role_name(sys::session_user()))
}
