//! Records of the log about itself that outlive the partition they are in: `audit_kept`.
//!
//! A copy has every column of the record, so it proves itself by its signature and its leaf, and nothing is believed
//! that only stands in a table.

use skill_pg::{Call, Uuid, arg, sys};
use skill_pg::spi::{self, As, See};
use crate::{settings, compat};
use skill_core::ledger::tree::TILE_WIDTH;
use skill_core::{Code, Fault};

use super::state::{self, State};
use super::tiles::{self, hash_in, read_tile};
use crate::audit::{self, LEAF_HASH, PROBLEM};

/// Longest text that a person gives with one of these records, in characters.
const MAX_TEXT: usize = 1000;

/// One kept record.
#[derive(Debug)]
pub struct Kept {
    /// Of the record.
    pub id: Uuid,
    /// Of the record.
    pub event_type: String,
    /// `event_data`
    pub data: serde_json::Value,
    /// Who logged in.
    pub by: String,
    /// Who signed.
    pub key_id: String,
    /// The clock, a server timestamp.
    pub recorded_at: i64,
    /// Its signature is true, and it is a leaf of the tree or younger than the last seal.
    pub proven: bool,
}

impl Kept {
    /// A text of `event_data`.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.data.get(member)?.as_str()
    }
}

/// Makes sure that the caller speaks for all tenants, and that nobody else changes these records until the end of the transaction.
pub fn begin(what: &std::ffi::CStr) -> Result<(), Fault> {
    sys::prevent_if_read_only(what);
    if !settings::is_tenant(settings::DEFAULT_TENANT) {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            format!("{} concerns the records of all tenants", what.to_string_lossy()),
        )
        .hint("Call it as an administrator of the default tenant."));
    }
    spi::as_owner(|| {
        compat::run("LOCK TABLE skill_system.audit_kept IN SHARE ROW EXCLUSIVE MODE", As::Caller, See::OwnWrites, &[], |_| ());
    });
    Ok(())
}

/// A text that a person must give.
pub fn given_text<'t>(name: &str, text: Option<&'t str>) -> Result<&'t str, Fault> {
    let text = text.map(str::trim).filter(|text| !text.is_empty() && text.chars().count() <= MAX_TEXT);
    text.ok_or_else(|| {
        Fault::new(Code::InvalidParameterValue, format!("the {name} must be a text of 1 to {MAX_TEXT} characters"))
            .hint("It goes into the audit trail.")
    })
}

/// Appends a record and keeps a copy.
pub fn keep(event_type: &str, data: serde_json::Value) -> Uuid {
    let id = Uuid::from_bytes(audit::append_system(event_type, data));
    spi::as_owner(|| {
        compat::run(
            "INSERT INTO skill_system.audit_kept (id, tenant_id, event_type, event_data, actor_id, actor_type, created_at, signature, \
                 recorded_at, transaction_id, session_user_name, current_user_name, key_id) \
             SELECT id, tenant_id, event_type, event_data, actor_id, actor_type, created_at, signature, \
                 recorded_at, transaction_id, session_user_name, current_user_name, key_id \
             FROM skill_system.audit_logs WHERE id = $1 AND created_at = transaction_timestamp()",
            As::Caller, See::OwnWrites,
            &[arg(id)],
            |_| (),
        );
    });
    id
}

/// All kept records, oldest first.
pub fn all() -> Result<Vec<Kept>, Fault> {
    spi::as_owner(|| {
        let log_id = state::log_id();
        let state = State::read()?;
        let mut found = Vec::new();
        compat::run_once(
            &format!(
                "SELECT a.id, a.event_type::text, a.event_data, a.session_user_name, a.key_id, a.recorded_at, a.transaction_id, \
                     {LEAF_HASH}, {PROBLEM} IS NULL FROM skill_system.audit_kept a ORDER BY a.recorded_at, a.id"
            ),
            As::Caller, See::Statement,
            &[arg(log_id)],
            |row| {
                let (Some(id), Some(pgrx::JsonB(data))) = (row.get::<Option<Uuid>>(1), row.get(3)) else { return };
                let signed = log_id.is_some() && row.get(9) == Some(true);
                let proven = signed && is_leaf(&id, row.bytes(8), row.get(7), state.as_ref());
                found.push(Kept {
                    id,
                    event_type: row.get(2),
                    data,
                    by: row.get(4),
                    key_id: row.get(5),
                    recorded_at: row.arg(6).map_or(0, |datum| datum.value() as i64),
                    proven,
                });
            },
        );
        Ok(found)
    })
}

/// The record is a leaf of the tree, or too young to be one.
fn is_leaf(id: &Uuid, hash: Option<&[u8]>, transaction: Option<i64>, state: Option<&State>) -> bool {
    let Some(leaf) = tiles::leaf_of(id.as_bytes()) else {
        return transaction.zip(state).is_none_or(|(transaction, state)| !state.snapshot.sees(transaction));
    };
    let tile = read_tile(0, leaf / TILE_WIDTH as u64).ok().flatten();
    hash.is_some() && tile.as_ref().and_then(|tile| hash_in(tile, leaf)) == hash
}
