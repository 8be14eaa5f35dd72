//! One audit record as JSON.

use serde_json::{Map, Value};
use skill_core::audit::{Record, verify};
use skill_core::keyring::Keyring;
use skill_core::skr1;

/// Checks one line; the error says which record and what is wrong.
pub fn check(line: &[u8], keyring: &Keyring, log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Result<(), String> {
    let value: Value = serde_json::from_slice(line).map_err(|e| format!("no JSON: {e}"))?;
    let row = value.as_object().ok_or("no JSON object")?;
    let id = text(row, "id")?;
    let named = |problem: String| format!("record {id}: {problem}");
    judge(row, id, keyring, log_id, buffer).map_err(named)
}

fn judge(row: &Map<String, Value>, id: &str, keyring: &Keyring, log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Result<(), String> {
    let uuid = uuid::Uuid::parse_str(id).map_err(|e| format!("id: {e}"))?;
    let record = Record {
        id: uuid.as_bytes(),
        tenant_id: text(row, "tenant_id")?,
        event_type: text(row, "event_type")?,
        actor_id: text_or_null(row, "actor_id")?,
        actor_type: text_or_null(row, "actor_type")?,
        created_at: time(row, "created_at")?,
        recorded_at: time(row, "recorded_at")?,
        transaction_id: row
            .get("transaction_id")
            .and_then(|n| n.as_number())
            .and_then(|n| n.to_string().parse().ok())
            .ok_or("transaction_id is no whole number")?,
        session_user: text(row, "session_user_name")?,
        current_user: text(row, "current_user_name")?,
        key_id: text(row, "key_id")?,
    };
    let data = row.get("event_data").ok_or("event_data is missing")?;
    buffer.clear();
    record.encode(buffer, log_id, |writer| skr1::tell(data, writer)).map_err(|e: skr1::EncodeError| e.to_string())?;
    verify(keyring, record.key_id, text(row, "signature")?, buffer).map_err(|problem| format!("{}: {}", problem.code(), problem.explain()))
}

fn text<'v>(row: &'v Map<String, Value>, name: &str) -> Result<&'v str, String> {
    row.get(name).and_then(Value::as_str).ok_or(format!("{name} is missing or no text"))
}

fn text_or_null<'v>(row: &'v Map<String, Value>, name: &str) -> Result<Option<&'v str>, String> {
    match row.get(name) {
        Some(Value::Null) => Ok(None),
        _ => text(row, name).map(Some),
    }
}

/// A time with an offset, as `to_jsonb` writes it in any time zone.
fn time(row: &Map<String, Value>, name: &str) -> Result<i64, String> {
    unix_micros(text(row, name)?).ok_or(format!("{name} is no time with an offset"))
}

fn unix_micros(text: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_any_zone() {
        for (text, micros) in [
            ("1970-01-01T00:00:00+00:00", 0),
            ("2000-02-29T23:59:59.5+00:00", 951_868_799_500_000),
            ("2026-11-21T12:12:57.699023+00:00", 1_795_263_177_699_023),
            ("2026-11-21T17:42:57.699023+05:30", 1_795_263_177_699_023),
            ("1969-12-31T16:00:00-08:00", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
        ] {
            assert_eq!(unix_micros(text), Some(micros), "{text}");
        }
        for bad in ["", "2026-11-21", "2026-11-21T12:12", "2026-13-01T00:00:00Z", "infinity"] {
            assert_eq!(unix_micros(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_lines_are_an_error_and_never_a_panic(line in "\\PC{0,200}") {
            let ring = Keyring::parse(&Keyring::generate(&[1; skill_core::keyring::RANDOM_BYTES])).unwrap();
            proptest::prop_assert!(check(line.as_bytes(), &ring, &[0; 16], &mut Vec::new()).is_err());
            let _ = unix_micros(&line);
        }
    }
}
