//! Checkpoints, public keys and proofs.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use skill_core::ledger::checkpoint::{Checkpoint, Proof, VerifierKey, verifier_key};
use skill_core::tree::{self, Hash};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, fault_point, pg_function, sys};

use super::growth;
use super::state::{self, State};
use super::tiles::{self, StoredTiles};
use crate::audit::keys;

/// The tree is empty.
pub fn nothing_sealed() -> Fault {
    Fault::new(Code::NotInPrerequisiteState, "nothing is sealed yet").hint("SELECT * FROM skill_system.seal_audit();")
}

/// Which log this is, for the world outside.
pub fn origin(incarnation: i32) -> Result<String, Fault> {
    let log_id = spi::as_owner(state::log_id);
    let log_id = log_id.ok_or_else(nothing_sealed)?;
    Ok(format!("skill_system/{log_id}/{incarnation}"))
}

/// The log as it is now, sealed or not.
pub fn current_origin() -> Result<String, Fault> {
    origin(spi::as_owner(State::read)?.map_or(1, |state| state.incarnation))
}

/// The keyring's public keys, as they verify checkpoints of an origin.
pub fn verifier_keys(origin: &str) -> Result<Vec<VerifierKey>, Fault> {
    let keys = keys::keyring()?
        .verifying()
        .iter()
        .map(|key| VerifierKey::parse(&verifier_key(origin, &key.key)))
        .collect::<Result<_, _>>()?;
    Ok(keys)
}

/// A public key as a JWK (RFC 8037).
pub fn public_jwk(id: &str, key: &[u8; 32]) -> serde_json::Value {
    serde_json::json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": id, "x": URL_SAFE_NO_PAD.encode(key),
    })
}

pub struct StoredCheckpoint {
    pub checkpoint: Checkpoint,
    pub note: String,
}

/// The newest stored checkpoint of the log as it is now.
pub fn newest(state: &State) -> Result<Option<StoredCheckpoint>, Fault> {
    let found: Option<(i64, Vec<u8>, String)> = spi::first(
        "SELECT tree_size, root_hash, note FROM skill_system.audit_checkpoints WHERE incarnation = $1 \
         ORDER BY tree_size DESC LIMIT 1",
        As::Owner,
        See::Statement,
        &[arg(state.incarnation)],
    );
    let Some((size, root, note)) = found else {
        return Ok(None);
    };
    let root = Hash::try_from(root)
        .map_err(|_| Fault::new(Code::DataCorrupted, "audit_checkpoints.root_hash is not a SHA-256 hash"))?;
    Ok(Some(StoredCheckpoint {
        checkpoint: Checkpoint { origin: origin(state.incarnation)?, size: size as u64, root },
        note,
    }))
}

pg_function!(audit_checkpoint);
/// `audit_checkpoint()` → the signed note.
fn audit_checkpoint(call: &Call) -> Answer {
    sys::prevent_if_read_only(c"audit_checkpoint()");
    Ok(call.answer(printable(&sign_checkpoint()?.note)))
}

/// A text without its last line feed: psql, which writes it into a file, ends every value with one.
fn printable(text: &str) -> &str {
    text.trim_end_matches('\n')
}

/// The checkpoint of what is sealed, signed now or before.
pub fn sign_checkpoint() -> Result<StoredCheckpoint, Fault> {
    // What this transaction sealed itself may yet be rolled back, and a signature cannot be taken back.
    if growth::grew_in_transaction() {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            "the tree was sealed in this transaction, which may still be rolled back",
        )
        .hint("COMMIT first."));
    }
    spi::with_latest_snapshot(|| {
        let state = spi::as_owner(State::read)?.filter(|state| state.size > 0).ok_or_else(nothing_sealed)?;
        state.check_place()?;
        if let Some(stored) = newest(&state)?.filter(|stored| stored.checkpoint.size == state.size) {
            return Ok(stored);
        }
        let checkpoint = Checkpoint { origin: origin(state.incarnation)?, size: state.size, root: state.root };
        let ring = keys::keyring()?;
        let key = keys::signing(&ring, "no checkpoint can be signed")?;
        let note = checkpoint.sign(key)?;
        fault_point::reached("checkpoint_signed");
        // Two sessions may sign the same tree at once: the notes are equal.
        spi::execute(
            "INSERT INTO skill_system.audit_checkpoints (incarnation, tree_size, root_hash, key_id, note) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            As::Owner,
            See::OwnWrites,
            &[arg(state.incarnation), arg(state.size as i64), arg(&state.root), arg(&key.id), arg(&note)],
        );
        spi::commit_synchronously();
        fault_point::reached("checkpoint_stored");
        Ok(StoredCheckpoint { checkpoint, note })
    })
}

pg_function!(audit_public_key);
/// `audit_public_key()` → one row a key.
fn audit_public_key(call: &Call) -> Answer {
    let mut rows = call.row_set();
    let Some(state) = spi::as_owner(State::read)? else {
        return Err(nothing_sealed());
    };
    let (origin, ring) = (origin(state.incarnation)?, keys::keyring()?);
    let active = ring.signing().map(|key| key.id.as_str());
    for key in ring.verifying() {
        rows.push(&[
            arg(&key.id),
            arg(active == Some(key.id.as_str())),
            arg(verifier_key(&origin, &key.key)),
            arg(public_jwk(&key.id, key.key.as_bytes())),
        ]);
    }
    Ok(rows.finish())
}

pg_function!(audit_inclusion_proof);
/// `audit_inclusion_proof(id)` → the leaf and its path in the tree of the newest checkpoint.
fn audit_inclusion_proof(call: &Call) -> Answer {
    let id: Option<Uuid> = call.arguments();
    let Some(id) = id else {
        return Err(Fault::new(Code::InvalidParameterValue, "record id must not be NULL"));
    };
    let Some(leaf) = spi::as_owner(|| tiles::leaf_of(id.as_bytes())) else {
        return Err(Fault::new(Code::UndefinedObject, format!("no sealed audit record has the id {id}"))
            .hint("Seal with SELECT * FROM skill_system.seal_audit(); a record of an open transaction is sealed after its commit."));
    };
    let state = spi::as_owner(State::read)?.ok_or_else(nothing_sealed)?;
    let stored = newest(&state)?.filter(|stored| stored.checkpoint.size > leaf).ok_or_else(|| {
        Fault::new(Code::NotInPrerequisiteState, format!("no checkpoint covers leaf {leaf} yet"))
            .hint("SELECT skill_system.audit_checkpoint();")
    })?;
    let Checkpoint { size, root, .. } = stored.checkpoint;
    let (hash, hashes) = spi::as_owner(|| {
        let tiles = StoredTiles::default();
        let hash = tiles.leaf(leaf)?;
        Ok::<_, Fault>((hash, tree::inclusion_proof(leaf, size, &tiles)?))
    })?;
    let text = Proof { index: leaf, hashes: hashes.clone(), extra: None, checkpoint: stored.note }.print();
    let mut rows = call.row_set();
    rows.push(&[
        arg(leaf as i64),
        arg(size as i64),
        arg(&hash),
        arg(&root),
        arg(hashes.as_slice()),
        arg(printable(&text)),
    ]);
    Ok(rows.finish())
}

pg_function!(audit_consistency_proof);
/// `audit_consistency_proof(old_size, new_size)` → both roots and what leads from one to the other.
fn audit_consistency_proof(call: &Call) -> Answer {
    let (old, new): (Option<i64>, Option<i64>) = call.arguments();
    let state = spi::as_owner(State::read)?.ok_or_else(nothing_sealed)?;
    let new = new.unwrap_or(state.size as i64);
    let Some(old) = old.filter(|old| (0..=new).contains(old) && new <= state.size as i64) else {
        return Err(Fault::new(Code::InvalidParameterValue, "the sizes must be 0 <= old_size <= new_size")
            .detail(format!("The sealed tree has {} leaves.", state.size)));
    };
    let (old, new) = (old as u64, new as u64);
    let (old_root, new_root, hashes) = spi::as_owner(|| {
        let tiles = StoredTiles::default();
        Ok::<_, Fault>((tree::root(old, &tiles)?, tree::root(new, &tiles)?, tree::consistency_proof(old, new, &tiles)?))
    })?;
    let text: String = hashes.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
    let mut rows = call.row_set();
    rows.push(&[arg(&old_root), arg(&new_root), arg(hashes.as_slice()), arg(printable(&text))]);
    Ok(rows.finish())
}

pg_function!(audit_tile);
/// `audit_tile(level, n)` → the hashes of a tile.
fn audit_tile(call: &Call) -> Answer {
    let (level, n): (Option<i32>, Option<i64>) = call.arguments();
    let (Some(level), Some(n)) = (level.and_then(|level| u8::try_from(level).ok()), n.filter(|n| *n >= 0)) else {
        return Err(Fault::new(Code::InvalidParameterValue, "level and n must not be NULL or negative")
            .hint("Levels are 0 to 7."));
    };
    let tile = spi::as_owner(|| tiles::read_tile(level, n as u64))?;
    Ok(call.answer(tile.as_deref()))
}
