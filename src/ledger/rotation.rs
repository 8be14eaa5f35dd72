//! New keys, announced under a key that the log knows already.
//!
//! The log knows the key of its first record, and each key that an `audit.key_rotated` record names which a known key
//! signed. `audit.keyring_created` starts again after the loss of all keys.

use std::rc::Rc;

use skill_core::audit::keyring::Keyring;
use skill_core::ledger::checkpoint::verifier_key;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use super::kept::{self, Kept};
use super::proof::{origin, public_jwk};
use super::retention::retired_first_key;
use super::state::State;
use super::tiles::{ID, read_ids};
use crate::audit::{self, keys};

const ROTATED: &str = "audit.key_rotated";
const CREATED: &str = "audit.keyring_created";

/// The keys that the log knows, oldest first; none in an empty log.
fn known_key_ids(kept: &[Kept]) -> Vec<String> {
    let mut known: Vec<String> = first_key(kept).into_iter().collect();
    for record in
        kept.iter().filter(|record| record.proven && (record.event_type == ROTATED || record.event_type == CREATED))
    {
        if record.event_type == CREATED || known.contains(&record.key_id) {
            let named = record.data.get("key_ids").and_then(serde_json::Value::as_array);
            known.extend(named.into_iter().flatten().filter_map(|id| id.as_str()).map(str::to_owned));
        }
    }
    known
}

/// Key of the record that is leaf 0; of the oldest one as long as nothing is sealed.
fn first_key(kept: &[Kept]) -> Option<String> {
    const OF_RECORD: &str = "SELECT key_id FROM skill_system.audit_logs WHERE id = $1";
    const OLDEST: &str = "SELECT key_id FROM skill_system.audit_logs ORDER BY recorded_at, id LIMIT 1";
    let found = spi::as_owner(|| match read_ids(0).get(..ID).and_then(|id| <[u8; ID]>::try_from(id).ok()) {
        Some(id) => spi::first::<Option<String>>(OF_RECORD, As::Caller, See::Statement, &[arg(id)]),
        None => spi::first(OLDEST, As::Caller, See::Statement, &[]),
    });
    found.flatten().or_else(|| retired_first_key(kept).map(str::to_owned))
}

/// Those of the keys that the log does not know, in order; none as long as it has no record.
pub fn unannounced_keys(used: &[String]) -> Result<Vec<String>, Fault> {
    let known = known_key_ids(&kept::kept_records()?);
    let mut found: Vec<String> =
        if known.is_empty() { Vec::new() } else { used.iter().filter(|key| !known.contains(key)).cloned().collect() };
    found.sort();
    Ok(found)
}

/// Keys that have signed records and are not among these; none as long as none exist.
fn unknown_key_ids(known: &[String]) -> Vec<String> {
    if known.is_empty() {
        return Vec::new();
    }
    const SQL: &str = "SELECT DISTINCT key_id FROM skill_system.audit_logs WHERE key_id <> ALL ($1) ORDER BY 1";
    spi::collect(SQL, As::Owner, See::Statement, &[arg(known)])
}

/// What is wrong with the announcements of the keyring's keys, for `health()`.
pub fn key_warning(ring: &Keyring) -> Option<String> {
    let kept = kept::kept_records().ok()?;
    let known = known_key_ids(&kept);
    let active = &ring.active().id;
    if !known.is_empty() && !known.contains(active) {
        return Some(format!("{active} signs, but no record announces it"));
    }
    let last = kept.iter().rfind(|record| record.proven && record.event_type == ROTATED)?.text("active_key_id")?;
    ring.get(last).is_none().then(|| format!("the rotation to {last} was announced, but the keyring does not have it"))
}

/// The keyring can be read and has no key that the log knows.
fn keyring_is_foreign() -> Result<bool, Fault> {
    let Ok(ring) = keys::keyring() else { return Ok(false) };
    let known = known_key_ids(&kept::kept_records()?);
    Ok(!known.is_empty() && !known.iter().any(|id| ring.get(id).is_some()))
}

pg_function!(create_keyring);
/// `create_keyring()`: creates the file if none exists, and records that the log goes on with this keyring.
fn create_keyring(call: &Call) -> Answer {
    if !keys::exists() {
        keys::create()?;
    } else if !keyring_is_foreign()? {
        return Err(Fault::new(Code::NotInPrerequisiteState, "a keyring already exists")
            .detail("skill_system.keyring_command is set, or skill_system.keyring_file exists.")
            .hint("SELECT * FROM skill_system.health() shows whether it can be used; to add a key, edit it."));
    }
    kept::begin_change(c"create_keyring()")?;
    let ring = keys::keyring()?;
    kept::append_kept(CREATED, announcement(&ring, &[])?)?;
    Ok(call.void())
}

/// The active keys of a ring, for those who check the log later.
fn announcement(ring: &Keyring, used: &[String]) -> Result<serde_json::Value, Fault> {
    let active = &ring.active().id;
    let mut key_ids = vec![active.clone()];
    key_ids.extend(used.iter().filter(|id| *id != active && ring.get(id).is_some()).cloned());
    let mut data = serde_json::json!({"key_ids": key_ids, "active_key_id": active});
    if let (Some(key), Some(members)) = (ring.signing(), data.as_object_mut()) {
        members.insert("checkpoint_key_id".into(), key.id.clone().into());
        members.insert("jwk".into(), public_jwk(&key.id, key.public().as_bytes()));
        if audit::has_identity() {
            let incarnation = spi::as_owner(State::read)?.map_or(1, |state| state.incarnation);
            members.insert("verifier_key".into(), verifier_key(&origin(incarnation)?, &key.public()).into());
        }
    }
    Ok(data)
}

pg_function!(rotate_audit_key);
/// `rotate_audit_key()` → id of the key that signs records from the commit on.
fn rotate_audit_key(call: &Call) -> Answer {
    kept::begin_change(c"rotate_audit_key()")?;
    if !audit::has_identity() {
        return Err(Fault::new(Code::NotInPrerequisiteState, "nothing is recorded yet, so no key can be rotated"));
    }
    keys::forget();
    let ring = keys::keyring()?;
    let active = &ring.active().id;
    let known = spi::with_latest_snapshot(kept::kept_records).map(|kept| known_key_ids(&kept))?;
    let trusted = |id: &String| if known.is_empty() { id == active } else { known.contains(id) };
    // The active one, or else the newest that the keyring still has.
    let signer = Some(active).filter(|id| trusted(id)).or_else(|| known.iter().rfind(|id| ring.get(id).is_some()));
    let signer = signer.ok_or_else(|| {
        Fault::new(Code::NotInPrerequisiteState, "the keyring has no key that the log knows, so no new key can be announced")
            .hint("Add the old keys again; or, when they are lost, let a superuser start again with SELECT skill_system.create_keyring();")
    })?;
    let used = spi::with_latest_snapshot(|| unknown_key_ids(&known));
    // A key that the log does not know yet is announced before another one is created.
    let next = if signer == active { Rc::new(keys::rotate()?) } else { ring.clone() };
    let data = announcement(&next, &used)?;
    audit::signing_with(signer, || kept::append_kept(ROTATED, data))?;
    spi::commit_synchronously();
    Ok(call.answer(&next.active().id))
}
