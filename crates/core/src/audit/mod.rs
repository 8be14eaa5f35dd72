//! One record of the audit trail: what is signed, and how a signature is verified.

pub mod keyring;
pub mod shipped;
pub mod skr1;

use crate::audit::keyring::{Keyring, MacKey};
use crate::audit::skr1::{EncodeError, Encoder, JsonWriter};
use crate::error::{Code, Fault};
use crate::interrupt;
use crate::limits::Bounds;
use crate::tree::{self, Hash};
use crate::unicode::{folded, is_invisible};

/// Separates these MACs from any other use of the key.
const CONTEXT: &[u8] = b"skill_system/row-mac/v1\0";
/// SKR1 schema of `audit_logs`; a new column means a new number.
pub const SCHEMA: u16 = 1;

/// Maximum length of `event_type`, in characters (as in AEGIS).
pub const MAX_EVENT_TYPE: usize = 100;
/// Maximum length of `actor_id`, in characters.
pub const MAX_ACTOR_ID: usize = 100;
/// Maximum length of `actor_type`, in characters.
pub const MAX_ACTOR_TYPE: usize = 20;

/// All columns of a row but the signature, in SKR1 order (tags 1 to 12).
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Row id, UUID version 7.
    pub id: &'a [u8; 16],
    pub tenant_id: &'a str,
    /// Claimed by the writer.
    pub event_type: &'a str,
    /// Claimed by the writer.
    pub actor_id: Option<&'a str>,
    /// Claimed by the writer.
    pub actor_type: Option<&'a str>,
    /// Partition key, microseconds since 1970 UTC.
    pub created_at: i64,
    /// The server's clock, microseconds since 1970 UTC.
    pub recorded_at: i64,
    pub transaction_id: u64,
    pub session_user: &'a str,
    /// Whose rights were in force.
    pub current_user: &'a str,
    /// Key that signs the row.
    pub key_id: &'a str,
}

impl Record<'_> {
    /// Appends the signed bytes to `out`; `event_data` is told event by event.
    pub fn encode<E: From<EncodeError>>(
        &self,
        out: &mut Vec<u8>,
        log_id: &[u8; 16],
        bounds: Bounds,
        event_data: impl FnOnce(&mut JsonWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut encoder = RecordEncoder::begin(out, log_id, self.id, self.tenant_id, self.event_type);
        encoder.event_data(bounds, event_data)?;
        encoder.finish(self);
        Ok(())
    }
}

/// [`Record::encode`] in steps, for a reader that meets the columns in this order.
pub struct RecordEncoder<'b>(Encoder<'b>);

impl<'b> RecordEncoder<'b> {
    /// The columns before `event_data`.
    pub fn begin(out: &'b mut Vec<u8>, log_id: &[u8; 16], id: &[u8; 16], tenant_id: &str, event_type: &str) -> Self {
        let mut encoder = Encoder::new(out, log_id, SCHEMA);
        encoder.uuid(1, id);
        encoder.utf8(2, Some(tenant_id));
        encoder.utf8(3, Some(event_type));
        RecordEncoder(encoder)
    }

    /// The column `event_data`.
    pub fn event_data<E: From<EncodeError>>(
        &mut self,
        bounds: Bounds,
        encode_into: impl FnOnce(&mut JsonWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.json(4, bounds, encode_into)
    }

    /// The columns of the record behind `event_data`.
    pub fn finish(mut self, record: &Record<'_>) {
        let encoder = &mut self.0;
        encoder.utf8(5, record.actor_id);
        encoder.utf8(6, record.actor_type);
        encoder.timestamp(7, record.created_at);
        encoder.timestamp(8, record.recorded_at);
        encoder.u64(9, record.transaction_id);
        encoder.utf8(10, Some(record.session_user));
        encoder.utf8(11, Some(record.current_user));
        encoder.utf8(12, Some(record.key_id));
        self.0.finish();
    }
}

/// Writes the signature text `v1:<key id>:<hex of the HMAC-SHA256>` of encoded bytes.
pub fn sign(key: &MacKey, encoded: &[u8]) -> String {
    let mut digits = [0; 64];
    // Cannot fail: the target has twice the length.
    let _ = hex::encode_to_slice(key.sign(&[CONTEXT, encoded]), &mut digits);
    ["v1:", &key.id, ":", std::str::from_utf8(&digits).unwrap_or_default()].concat()
}

/// The leaf of a row in the tree: of its encoded bytes and its signature text.
pub fn leaf_hash(encoded: &[u8], signature: &str) -> Hash {
    tree::leaf_hash_of(&[encoded, signature.as_bytes()])
}

/// The leaf of a row that cannot be encoded, which verification always reports.
pub fn damaged_leaf_hash(log_id: &[u8; 16], id: &[u8; 16]) -> Hash {
    tree::leaf_hash_of(&[b"SKR0", log_id, id])
}

/// The finding of `verify_audit` for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The signature text is not `v1:<key id>:<64 hex digits>`.
    SignatureMalformed,
    /// The signature names another key than the column `key_id`.
    KeyIdDiffers,
    /// The keyring has no such key.
    KeyUnknown,
    /// A column differs from what was signed.
    SignatureMismatch,
}

impl Problem {
    pub fn code(self) -> &'static str {
        match self {
            Problem::SignatureMalformed => "signature_malformed",
            Problem::KeyIdDiffers => "key_id_differs",
            Problem::KeyUnknown => "key_unknown",
            Problem::SignatureMismatch => "signature_mismatch",
        }
    }

    pub fn explain(self) -> &'static str {
        match self {
            Problem::SignatureMalformed => "the signature is not of the form v1:<key id>:<64 hex digits>",
            Problem::KeyIdDiffers => "the signature names another key than key_id",
            Problem::KeyUnknown => "the keyring has no key with this id, so the row cannot be verified",
            Problem::SignatureMismatch => {
                "a value of this row is not the one that was signed, or the row belongs to another log"
            }
        }
    }
}

/// Verifies a signature over encoded bytes.
pub fn verify(keyring: &Keyring, key_id: &str, signature: &str, encoded: &[u8]) -> Result<(), Problem> {
    let rest = signature.strip_prefix("v1:").ok_or(Problem::SignatureMalformed)?;
    let (id, digits) = rest.split_once(':').ok_or(Problem::SignatureMalformed)?;
    let mut mac = [0; 32];
    // One spelling only, or a signature could be changed without being noticed.
    if digits.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Problem::SignatureMalformed);
    }
    hex::decode_to_slice(digits, &mut mac).map_err(|_| Problem::SignatureMalformed)?;
    if id != key_id {
        return Err(Problem::KeyIdDiffers);
    }
    let key = keyring.get(id).ok_or(Problem::KeyUnknown)?;
    if key.verify(&[CONTEXT, encoded], &mac) { Ok(()) } else { Err(Problem::SignatureMismatch) }
}

/// The name as an `actor_id`, unless it is too long for that column.
pub fn actor_id(name: &str) -> Option<&str> {
    Some(name).filter(|name| name.len() <= MAX_ACTOR_ID || name.chars().count() <= MAX_ACTOR_ID)
}

/// Refuses values that do not fit the columns, which are as long as AEGIS's.
pub fn check_claims(event_type: &str, actor_id: Option<&str>, actor_type: Option<&str>) -> Result<(), Fault> {
    let fits = |column: &str, value: &str, most: usize| {
        if value.is_empty() || value.len() > 4 * most || value.chars().count() > most {
            return Err(Fault::new(
                Code::InvalidParameterValue,
                format!("{column} must be 1 to {most} characters long"),
            )
            .hint("Put long values into event_data."));
        }
        Ok(())
    };
    fits("event_type", event_type, MAX_EVENT_TYPE)?;
    actor_id.map_or(Ok(()), |id| fits("actor_id", id, MAX_ACTOR_ID))?;
    actor_type.map_or(Ok(()), |kind| fits("actor_type", kind, MAX_ACTOR_TYPE))
}

/// The one of `prefixes` with which an event type begins for its readers: case, compatibility forms, blanks and what is
/// not seen do not matter, nor which of the ASCII characters that look alike is written.
pub fn reserved_prefix<'p>(event_type: &str, prefixes: impl IntoIterator<Item = &'p str>) -> Option<&'p str> {
    // Each record that is inserted by hand asks for it.
    let text = if event_type.is_ascii() && event_type.len() <= MAX_EVENT_TYPE {
        event_type.to_ascii_lowercase()
    } else {
        let is_seen = |c: &char| !c.is_whitespace() && !c.is_control() && !is_invisible(*c);
        // No event type is longer, and no prefix.
        let seen: String = interrupt::each(event_type.chars()).filter(is_seen).take(MAX_EVENT_TYPE).collect();
        folded(&seen)
    };
    let mut seen = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_ascii() || c.is_ascii_graphic()) {
        // Two that look like one.
        let pair = match (c, seen.chars().next_back()) {
            ('n', Some('r')) => Some('m'),
            ('v', Some('v')) => Some('w'),
            _ => None,
        };
        if pair.is_some() {
            seen.pop();
        }
        seen.push(pair.unwrap_or_else(|| look(c)));
    }
    prefixes.into_iter().find(|prefix| {
        let mut seen = seen.chars();
        prefix.chars().all(|c| seen.next() == Some(look(c)))
    })
}

/// One for the characters of a folded text that are hard to tell apart.
fn look(c: char) -> char {
    match c {
        '1' | 'i' | '|' => 'l',
        '0' => 'o',
        c => c,
    }
}

/// Refuses event types of callers with other characters than the printable ones of ASCII: among those of other scripts are
/// some that look like the letters and the dot of a reserved type.
pub fn check_characters(event_type: &str) -> Result<(), Fault> {
    let is_printable = |c: char| c == ' ' || c.is_ascii_graphic();
    match interrupt::each(event_type.chars()).find(|c| !is_printable(*c)) {
        None => Ok(()),
        Some(c) => {
            Err(Fault::new(Code::InvalidParameterValue, "event_type must consist of printable ASCII characters")
                .detail(format!("It contains U+{:04X}.", u32::from(c)))
                .hint("Put other texts into event_data."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::skr1::EncodeError;
    use crate::limits::JsonEvents;

    #[test]
    fn what_reads_like_a_reserved_prefix_is_one() {
        let prefix = |event_type| reserved_prefix(event_type, ["run.", "audit."]);
        for event_type in [
            "audit.x",
            "Audit.x",
            "AUDIT.",
            " audit.x",
            "\u{a0}audit .x",
            "au\u{200b}dit.x",
            "au\u{200d}dit.x",
            "audit\u{fe0f}.x",
            "\u{ff41}\u{ff55}dit\u{ff0e}x",
            "audit\u{2024}x",
            "\taudit.x",
            "\u{202e}audit.x",
            "aud1t.x",
            "AUDlT.x",
            "aud|t.x",
        ] {
            assert_eq!(prefix(event_type), Some("audit."), "{event_type:?}");
        }
        for event_type in ["audit", "audits.x", "auditor.came", "x.audit.y", "my-audit.x", "form.sent", "ü", "aud.x"] {
            assert_eq!(prefix(event_type), None, "{event_type:?}");
        }
        for (event_type, reserved) in [("rovv.x", "row."), ("p0llcy.x", "policy."), ("ski1I.x", "skill.")] {
            assert_eq!(reserved_prefix(event_type, ["row.", "policy.", "skill."]), Some(reserved), "{event_type:?}");
        }
    }

    #[test]
    fn letters_and_dots_of_other_scripts_are_refused() {
        for event_type in [
            "r\u{443}n.logged",
            "run\u{b7}logged",
            "\u{455}kill.x",
            "run\u{a4f8}logged",
            "run\u{0}.x",
            "run.x\u{301}",
            "\u{fc}",
            "a\tb",
            "a\u{7f}",
        ] {
            assert_eq!(check_characters(event_type).unwrap_err().code, Code::InvalidParameterValue, "{event_type:?}");
        }
        for event_type in ["form.sent", "never happened", "urn:x/y#z-1_2", "~!"] {
            assert_eq!(check_characters(event_type), Ok(()), "{event_type:?}");
        }
    }

    fn record() -> Record<'static> {
        Record {
            id: &[1; 16],
            tenant_id: "default",
            event_type: "run.logged",
            actor_id: Some("agent"),
            actor_type: None,
            created_at: 1_700_000_000_000_000,
            recorded_at: 1_700_000_000_000_001,
            transaction_id: 42,
            session_user: "alice",
            current_user: "alice",
            key_id: "k",
        }
    }
    fn encode(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        record
            .encode::<EncodeError>(&mut out, &[9; 16], Bounds::STORED, |w| {
                w.begin_object()?;
                w.end()
            })
            .unwrap();
        out
    }

    #[test]
    fn leaves_are_those_of_the_whole_entry() {
        let encoded = encode(&record());
        let entry = [&encoded[..], b"v1:k:00"].concat();
        assert_eq!(leaf_hash(&encoded, "v1:k:00"), tree::leaf_hash(&entry));
        assert_eq!(
            damaged_leaf_hash(&[9; 16], &[1; 16]),
            tree::leaf_hash(&[&b"SKR0"[..], &[9; 16], &[1; 16]].concat())
        );
    }

    #[test]
    fn every_column_is_signed() {
        let text = Keyring::generate(&[7; crate::audit::keyring::RANDOM_BYTES]);
        let ring = Keyring::parse(&text.replace("hs-0707070707070707", "k")).unwrap();
        let base = record();
        let signature = sign(ring.active(), &encode(&base));
        let judge = |record: &Record<'_>| verify(&ring, record.key_id, &signature, &encode(record));
        assert_eq!(judge(&base), Ok(()));
        let changed = [
            Record { id: &[2; 16], ..base },
            Record { tenant_id: "other", ..base },
            Record { event_type: "run.logge", ..base },
            Record { actor_id: None, ..base },
            Record { actor_id: Some(""), ..base },
            Record { actor_type: Some(""), ..base },
            Record { created_at: 0, ..base },
            Record { recorded_at: 0, ..base },
            Record { transaction_id: 41, ..base },
            Record { session_user: "bob", ..base },
            Record { current_user: "bob", ..base },
        ];
        for record in changed {
            assert_eq!(judge(&record), Err(Problem::SignatureMismatch), "{record:?}");
        }
        assert_eq!(judge(&Record { key_id: "other", ..base }), Err(Problem::KeyIdDiffers));
        for bad in [
            "",
            "v1:k",
            "v2:k:00",
            "v1:k:zz",
            &signature.to_uppercase(),
            &signature[..signature.len() - 2],
            &format!("{signature}00"),
        ] {
            assert_eq!(verify(&ring, "k", bad, &encode(&base)), Err(Problem::SignatureMalformed), "{bad}");
        }
    }
}
