//! The signed document of one filing: what is signed, and how.
//!
//! The document is `{"skill_system_compliance_snapshot": 1, "payload": {...}, "note": text}`.
//! The note is a C2SP signed note of the log's key over four lines: the log, what this
//! is, the filing, and the SHA-256 of the payload's SKR1 encoding, which is the same
//! whatever blanks and order of keys the JSON has.

use sha2::{Digest, Sha256};
use signed_note::Note;

use crate::audit::keyring::SigningKey;
use crate::audit::skr1::{EncodeError, Encoder, JsonWriter};
use crate::ledger::checkpoint::{CheckpointError, MAX_TEXT, VerifierKey, sign_text, verify_text};
use crate::limits::Bounds;

/// Member of the document with its version.
pub const VERSION_MEMBER: &str = "skill_system_compliance_snapshot";
/// SKR1 schema of the payload.
const SCHEMA: u16 = 0x1000;
/// Second line of the note, different from that of every checkpoint.
const KIND: &str = "compliance snapshot v1";

/// SHA-256 of a payload, written event by event.
pub fn digest<E: From<EncodeError>>(
    checklist: &[u8; 16],
    encode_into: impl FnOnce(&mut JsonWriter<'_>) -> Result<(), E>,
) -> Result<[u8; 32], E> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, &[0; 16], SCHEMA);
    encoder.uuid(1, checklist);
    encoder.json(2, Bounds::RECORDED, encode_into)?;
    encoder.finish();
    Ok(Sha256::digest(&out).into())
}

/// The content of the note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The log: `skill_system/<log id>/<incarnation>`.
    pub origin: String,
    pub checklist: [u8; 16],
    /// [`digest`] of the payload.
    pub digest: [u8; 32],
}

impl Statement {
    pub fn sign(&self, key: &SigningKey) -> Result<String, CheckpointError> {
        let checklist = uuid::Uuid::from_bytes(self.checklist);
        let text = format!("{}\n{KIND}\n{checklist}\nsha256:{}\n", self.origin, hex::encode(self.digest));
        sign_text(&self.origin, &text, key)
    }

    /// Reads a note; with keys only one that a key signed for its log.
    pub fn read(note: &str, keys: &[VerifierKey]) -> Result<Statement, CheckpointError> {
        if note.len() > MAX_TEXT {
            return Err(CheckpointError::Malformed);
        }
        let note = Note::from_bytes(note.as_bytes()).map_err(|_| CheckpointError::Malformed)?;
        let text = std::str::from_utf8(note.text()).map_err(|_| CheckpointError::Malformed)?;
        let read = || {
            let mut lines = text.strip_suffix('\n')?.split('\n');
            let origin = lines.next()?.to_owned();
            lines.next().filter(|kind| *kind == KIND)?;
            let checklist = lines.next()?;
            let uuid = uuid::Uuid::try_parse(checklist).ok().filter(|uuid| uuid.to_string() == checklist)?;
            let mut digest = [0; 32];
            hex::decode_to_slice(lines.next()?.strip_prefix("sha256:")?, &mut digest).ok()?;
            lines.next().is_none().then_some(Statement { origin, checklist: uuid.into_bytes(), digest })
        };
        let statement = read().ok_or(CheckpointError::Malformed)?;
        if !keys.is_empty() {
            verify_text(&note, &statement.origin, keys)?;
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::keyring::{Keyring, RANDOM_BYTES};
    use crate::ledger::checkpoint::{Checkpoint, verifier_key};

    #[test]
    fn only_what_was_signed_is_read() {
        let ring = Keyring::parse(&Keyring::generate(&[7; RANDOM_BYTES])).unwrap();
        let origin = "skill_system/01900000-0000-7000-8000-000000000001/1";
        let statement = Statement { origin: origin.into(), checklist: [3; 16], digest: [9; 32] };
        let note = statement.sign(ring.signing().unwrap()).unwrap();
        let key = VerifierKey::parse(&verifier_key(origin, &ring.verifying()[0].key)).unwrap();
        assert_eq!(Statement::read(&note, std::slice::from_ref(&key)).unwrap(), statement);
        assert_eq!(Statement::read(&note, &[]).unwrap(), statement);
        for changed in [note.replace("0303", "0304"), note.replace("0909", "0908"), note.replace("/1\n", "/2\n")] {
            assert!(changed != note && Statement::read(&changed, std::slice::from_ref(&key)).is_err(), "{changed}");
        }
        // Neither can stand for the other.
        assert!(Checkpoint::read(&note).is_err());
        let checkpoint =
            Checkpoint { origin: origin.into(), size: 7, root: [1; 32] }.sign(ring.signing().unwrap()).unwrap();
        assert!(Statement::read(&checkpoint, &[key]).is_err());
    }

    #[test]
    fn the_digest_is_of_all() {
        let of = |checklist: u8, value: &serde_json::Value| {
            digest::<EncodeError>(&[checklist; 16], |writer| crate::audit::skr1::encode_into(value, writer)).unwrap()
        };
        let value = serde_json::json!({"a": [1, null], "b": "x"});
        assert_eq!(of(1, &value), of(1, &serde_json::from_str(r#" {"b":"x", "a":[1,null]} "#).unwrap()));
        assert_ne!(of(1, &value), of(2, &value));
        assert_ne!(of(1, &value), of(1, &serde_json::json!({"a": [1, null], "b": "y"})));
    }
}
