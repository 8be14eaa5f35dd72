//! Records of the log about itself that outlive the partition they are in: `audit_kept`.
//!
//! A copy has every column of the record, so it proves itself by its signature and its leaf, and nothing is believed
//! that only stands in a table.

use const_format::concatcp;
use serde_json::Value;
use skill_core::tree::TILE_WIDTH;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, Timestamptz, Uuid, arg, columns, sys};

use super::state::{self, State};
use super::tiles::{self, hash_in, read_tile};
use crate::audit::{self, LEAF_HASH, PROBLEM};
use crate::{locks, settings};

/// Longest text that a person gives with one of these records, in characters.
const MAX_TEXT: usize = 1000;

#[derive(Debug)]
pub struct Kept {
    /// Of the record.
    pub id: Uuid,
    /// Of the record.
    pub event_type: String,
    pub data: Value,
    /// Who logged in.
    pub session_user: String,
    /// Who signed.
    pub key_id: String,
    /// The clock.
    pub recorded_at: Timestamptz,
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
pub fn begin_change(what: &std::ffi::CStr) -> Result<(), Fault> {
    sys::prevent_if_read_only(what);
    if !settings::is_tenant(settings::DEFAULT_TENANT)? {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            format!("{} concerns the records of all tenants", what.to_string_lossy()),
        )
        .hint("Call it as an administrator of the default tenant."));
    }
    locks::acquire(c"audit_kept", &[], Mode::Exclusive, "legal holds, retirements or keys of the log").map(|_| ())
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
pub fn append_kept(event_type: &str, data: Value) -> Result<Uuid, Fault> {
    let id = audit::append_system(event_type, data)?;
    const COPY: &str = "INSERT INTO skill_system.audit_kept (id, tenant_id, event_type, event_data, actor_id, actor_type, \
             created_at, signature, recorded_at, transaction_id, session_user_name, current_user_name, key_id) \
         SELECT id, tenant_id, event_type, event_data, actor_id, actor_type, created_at, signature, \
             recorded_at, transaction_id, session_user_name, current_user_name, key_id \
         FROM skill_system.audit_logs WHERE id = $1 AND created_at = transaction_timestamp()";
    spi::execute(COPY, As::Owner, See::OwnWrites, &[arg(id)]);
    Ok(id)
}

columns! {
    struct StoredRecord {
        id: Uuid = "a.id",
        event_type: String = "a.event_type",
        data: String = "a.event_data::text",
        session_user: String = "a.session_user_name",
        key_id: String = "a.key_id",
        recorded_at: Timestamptz = "a.recorded_at",
        transaction_id: i64 = "a.transaction_id",
    }
}

/// All kept records, oldest first.
pub fn kept_records() -> Result<Vec<Kept>, Fault> {
    const SQL: &str = concatcp!(
        "SELECT ",
        StoredRecord::COLUMNS,
        ", ",
        LEAF_HASH,
        ", ",
        PROBLEM,
        " IS NULL FROM skill_system.audit_kept a ORDER BY a.recorded_at, a.id"
    );
    spi::as_owner(|| {
        let log_id = state::log_id();
        let state = State::read()?;
        let mut found = Vec::new();
        spi::each(SQL, As::Caller, See::Statement, &[arg(log_id)], |row| {
            let stored = StoredRecord::from_row(row);
            let is_signed = log_id.is_some() && row.get::<bool>(9);
            let proven = is_signed && is_leaf(&stored, row.get(8), state.as_ref());
            found.push(Kept {
                id: stored.id,
                event_type: stored.event_type,
                // What cannot be read was not written by the extension, and means nothing.
                data: serde_json::from_str(&stored.data).unwrap_or_default(),
                session_user: stored.session_user,
                key_id: stored.key_id,
                recorded_at: stored.recorded_at,
                proven,
            });
            Ok(())
        })?;
        Ok(found)
    })
}

/// The record is a leaf of the tree, or too young to be one.
fn is_leaf(record: &StoredRecord, hash: Option<&[u8]>, state: Option<&State>) -> bool {
    let Some(leaf) = tiles::leaf_of(record.id.as_bytes()) else {
        return state.is_none_or(|state| !state.snapshot.sees(record.transaction_id));
    };
    let tile = read_tile(0, leaf / TILE_WIDTH as u64).ok().flatten();
    hash.is_some() && tile.as_ref().and_then(|tile| hash_in(tile, leaf)) == hash
}
