//! Who changes something, and why.

use serde_json::Value;
use skill_core::Fault;
use skill_core::input::optional;
use skill_pg::sys;

const MAX_REASON: usize = 2000;

/// What the history and the audit record keep of a change next to the change itself.
#[derive(Clone)]
pub struct Change {
    pub changed_by: String,
    pub reason: Option<String>,
    /// Key id and signature of an approval.
    pub approved_with: Option<String>,
    /// For the audit record: the metadata as it was given.
    pub metadata_change: Option<Value>,
    /// Where it is about a channel.
    pub channel: Option<String>,
}

impl Change {
    /// By the role that logged in.
    pub fn by_caller() -> Self {
        Change {
            changed_by: sys::role_name(sys::session_user()),
            reason: None,
            approved_with: None,
            metadata_change: None,
            channel: None,
        }
    }

    /// As [`Change::by_caller`], for a reason of any length.
    pub fn for_reason(reason: Option<&str>) -> Self {
        Change { reason: reason.map(str::to_owned), ..Change::by_caller() }
    }

    /// As [`Change::by_caller`], for a reason of bounded length.
    pub fn for_short_reason(reason: Option<&str>) -> Result<Self, Fault> {
        Ok(Change::for_reason(optional("reason", reason, MAX_REASON)?))
    }
}
