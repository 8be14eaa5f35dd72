//! One audit record as JSON: its signed bytes, its leaf.

use std::borrow::Cow;

use skill_core::audit::keyring::Keyring;
use skill_core::audit::skr1::EncodeError;
use skill_core::audit::{self, Record, RecordEncoder};
use skill_core::limits::Bounds;
use skill_core::tree::Hash;

use crate::json::{JsonError, Parser, members};
use crate::pieces::MAX_LINE;
use crate::time::{server_time, unix_micros};

/// The columns of a record in the order of an export line, after the leaf.
const COLUMNS: [&str; 13] = [
    "id",
    "tenant_id",
    "event_type",
    "event_data",
    "actor_id",
    "actor_type",
    "created_at",
    "recorded_at",
    "transaction_id",
    "session_user_name",
    "current_user_name",
    "key_id",
    "signature",
];

/// A record that was read; its signed bytes are in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its place in the log, in an export.
    pub leaf: Option<u64>,
    pub id: [u8; 16],
    /// What of it matters to the verifier; nothing for a row that the server could not encode either.
    pub whole: Option<Whole<'a>>,
}

/// What is used of a record in addition to its signed bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    pub tenant_id: Cow<'a, str>,
    pub event_type: Cow<'a, str>,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// The JSON text of `event_data`.
    pub event_data: &'a str,
    pub session_user: Cow<'a, str>,
    /// Key that signs the row.
    pub key_id: Cow<'a, str>,
    pub signature: Cow<'a, str>,
}

impl Line<'_> {
    /// The leaf that the sealer made of this row.
    pub fn leaf_hash(&self, log_id: &[u8; 16], encoded: &[u8]) -> Hash {
        match &self.whole {
            Some(whole) => audit::leaf_hash(encoded, &whole.signature),
            None => audit::damaged_leaf_hash(log_id, &self.id),
        }
    }
}

impl Whole<'_> {
    /// Judges the signature; the error is a stable word and a sentence.
    pub fn verify(&self, keyring: &Keyring, encoded: &[u8]) -> Result<(), (&'static str, &'static str)> {
        audit::verify(keyring, &self.key_id, &self.signature, encoded)
            .map_err(|problem| (problem.code(), problem.explain()))
    }
}

/// Reads a row as `to_jsonb` prints it, or a line of an export.
pub fn from_row<'a>(line: &'a str, log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Result<Line<'a>, String> {
    in_any_order(line, log_id, buffer, false)
}

fn text<'a, const N: usize>(at: &mut Parser<'a>, name: &[u8; N]) -> Option<Cow<'a, str>> {
    if at.skip_if(name) { at.string().ok() } else { None }
}

fn nullable<'a, const N: usize>(at: &mut Parser<'a>, name: &[u8; N]) -> Option<Option<Cow<'a, str>>> {
    if !at.skip_if(name) {
        return None;
    }
    if at.skip_if(b"null") { Some(None) } else { at.string().ok().map(Some) }
}

fn time<const N: usize>(at: &mut Parser<'_>, name: &[u8; N]) -> Option<i64> {
    let micros = if at.skip_if(name) { server_time(at.fixed(27)?.as_bytes())? } else { return None };
    at.skip_if(b"\"").then_some(micros)
}

fn number<const N: usize>(at: &mut Parser<'_>, name: &[u8; N]) -> Option<u64> {
    let digits = if at.skip_if(name) { at.digits() } else { "" };
    // Eighteen digits always fit; "007" is another text for the same number.
    let plain = digits == "0" || (!digits.is_empty() && digits.len() < 19 && !digits.starts_with('0'));
    plain.then(|| digits.bytes().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// Leaf and id at the beginning of an export line.
pub fn leaf_and_id(head: &[u8]) -> (Option<u64>, Option<[u8; 16]>) {
    let valid = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let mut at = Parser::new(valid);
    let leaf = number(&mut at, b"{\"leaf\":");
    let id = at.skip_if(b",\"id\":\"").then(|| at.fixed(36)).flatten();
    (leaf, id.and_then(|id| uuid::Uuid::try_parse_ascii(id.as_bytes()).ok()).map(uuid::Uuid::into_bytes))
}

/// Reads a record of an export as the server writes it, byte for byte; nothing for any other text. `buffer` gets the signed bytes.
pub fn in_order<'a>(line: &'a str, log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Option<Line<'a>> {
    let mut at = Parser::new(line);
    let leaf = number(&mut at, b"{\"leaf\":")?;
    let id = at.skip_if(b",\"id\":\"").then(|| at.fixed(36))??;
    if id.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let id = uuid::Uuid::try_parse_ascii(id.as_bytes()).ok()?.into_bytes();
    let tenant_id = text(&mut at, b"\",\"tenant_id\":")?;
    let event_type = text(&mut at, b",\"event_type\":")?;
    if !at.skip_if(b",\"event_data\":") {
        return None;
    }
    buffer.clear();
    let mut encoder = RecordEncoder::begin(buffer, log_id, &id, &tenant_id, &event_type);
    let start = at.position();
    encoder.event_data(Bounds::RECORDED.with_text(MAX_LINE), |writer| at.encode_into(writer)).ok()?;
    let event_data = line.get(start..at.position())?;
    let actor_id = nullable(&mut at, b",\"actor_id\":")?;
    let actor_type = nullable(&mut at, b",\"actor_type\":")?;
    let created_at = time(&mut at, b",\"created_at\":\"")?;
    let recorded_at = time(&mut at, b",\"recorded_at\":\"")?;
    let transaction_id = number(&mut at, b",\"transaction_id\":")?;
    let session_user = text(&mut at, b",\"session_user_name\":")?;
    let current_user = text(&mut at, b",\"current_user_name\":")?;
    let key_id = text(&mut at, b",\"key_id\":")?;
    let signature = text(&mut at, b",\"signature\":")?;
    if !at.skip_if(b"}") || !at.at_end() {
        return None;
    }
    encoder.finish(&Record {
        id: &id,
        tenant_id: &tenant_id,
        event_type: &event_type,
        actor_id: actor_id.as_deref(),
        actor_type: actor_type.as_deref(),
        created_at,
        recorded_at,
        transaction_id,
        session_user: &session_user,
        current_user: &current_user,
        key_id: &key_id,
    });
    let whole = Whole { tenant_id, event_type, created_at, event_data, session_user, key_id, signature };
    Some(Line { leaf: Some(leaf), id, whole: Some(whole) })
}

/// The columns of a record and the leaf of an export line, each as it is written.
struct Columns<'a> {
    leaf: Option<&'a str>,
    values: [Option<&'a str>; COLUMNS.len()],
    exact: bool,
}

/// The values that the signed bytes are made of, after the id.
struct Values<'a> {
    tenant_id: Cow<'a, str>,
    event_type: Cow<'a, str>,
    event_data: &'a str,
    actor_id: Option<Cow<'a, str>>,
    actor_type: Option<Cow<'a, str>>,
    created_at: i64,
    recorded_at: i64,
    transaction_id: u64,
    session_user: Cow<'a, str>,
    current_user: Cow<'a, str>,
    key_id: Cow<'a, str>,
    signature: Cow<'a, str>,
}

fn integer(name: &str, text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("{name} is not an integer"))
}

/// In an export: UTC, six digits, no year with zeros before it.
fn is_server_spelling(time: &str) -> bool {
    let time = time.strip_suffix(" BC").unwrap_or(time);
    time.ends_with('Z')
        && time.len() >= 27
        && time.as_bytes()[time.len() - 8] == b'.'
        && (time.len() == 27 || !time.starts_with('0'))
}

impl<'a> Columns<'a> {
    fn collect(line: &'a str, exact: bool) -> Result<Self, String> {
        let mut columns = Columns { leaf: None, values: [None; COLUMNS.len()], exact };
        let mut wrong = None;
        members(line, |key, value| {
            let place = match COLUMNS.iter().position(|name| *name == key) {
                Some(column) => &mut columns.values[column],
                None if key == "leaf" => &mut columns.leaf,
                None if exact => {
                    wrong.get_or_insert_with(|| format!("\"{key}\" is not a column of a record"));
                    return Ok(());
                }
                None => return Ok(()),
            };
            if place.replace(value).is_some() {
                wrong.get_or_insert_with(|| format!("\"{key}\" occurs twice"));
            }
            Ok(())
        })
        .map_err(|e| e.to_string())?;
        wrong.map_or(Ok(columns), Err)
    }

    fn value(&self, name: &str) -> Result<&'a str, String> {
        let column = COLUMNS.iter().position(|column| *column == name);
        column.and_then(|column| self.values[column]).ok_or_else(|| format!("{name} is missing or not a text"))
    }

    fn nullable(&self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        match self.value(name)? {
            "null" => Ok(None),
            text => Parser::new(text).string().map(Some).map_err(|_| format!("{name} is missing or not a text")),
        }
    }

    fn leaf(&self) -> Result<Option<u64>, String> {
        let leaf = self.leaf.map(|text| integer("leaf", text)).transpose()?;
        leaf.map(|leaf| u64::try_from(leaf).map_err(|_| "leaf is not an integer".into())).transpose()
    }

    fn id(&self) -> Result<[u8; 16], String> {
        let id = self.nullable("id")?.ok_or("id is missing or not a text")?;
        let uuid = uuid::Uuid::parse_str(&id).map_err(|e| format!("id: {e}"))?;
        if self.exact && uuid.to_string() != id {
            return Err("id is spelled in another way than the server does".into());
        }
        Ok(uuid.into_bytes())
    }

    fn time(&self, name: &str) -> Result<Option<i64>, String> {
        match self.nullable(name)?.as_deref() {
            None | Some("infinity" | "-infinity") => Ok(None),
            // The last years of PostgreSQL's calendar are beyond what can be signed.
            Some(text) if !self.exact || is_server_spelling(text) => unix_micros(text)
                .map(|micros| i64::try_from(micros).ok())
                .ok_or_else(|| format!("{name} is not a time with an offset")),
            Some(_) => Err(format!("{name} is not a time as the server writes it")),
        }
    }

    fn transaction_id(&self) -> Result<Option<u64>, String> {
        match self.value("transaction_id")? {
            "null" => Ok(None),
            text => Ok(Some(integer("transaction_id", text)? as u64)),
        }
    }

    /// Nothing for a row that the server could not encode either.
    fn parse(&self) -> Result<Option<Values<'a>>, String> {
        let transaction_id = self.transaction_id()?;
        let event_data = self.value("event_data")?;
        let (actor_id, actor_type) = (self.nullable("actor_id")?, self.nullable("actor_type")?);
        let required = (
            self.nullable("tenant_id")?,
            self.nullable("event_type")?,
            self.time("created_at")?,
            self.time("recorded_at")?,
            transaction_id,
            self.nullable("session_user_name")?,
            self.nullable("current_user_name")?,
            self.nullable("key_id")?,
            self.nullable("signature")?,
        );
        // event_data is not among them: its NULL reads like the JSON null, which gives another leaf, and so another root.
        let (
            Some(tenant_id),
            Some(event_type),
            Some(created_at),
            Some(recorded_at),
            Some(transaction_id),
            Some(session_user),
            Some(current_user),
            Some(key_id),
            Some(signature),
        ) = required
        else {
            return Ok(None);
        };
        Ok(Some(Values {
            tenant_id,
            event_type,
            event_data,
            actor_id,
            actor_type,
            created_at,
            recorded_at,
            transaction_id,
            session_user,
            current_user,
            key_id,
            signature,
        }))
    }
}

impl<'a> Values<'a> {
    /// Puts the signed bytes into `buffer`; nothing where the server could not have signed them either.
    fn encode(self, id: &[u8; 16], log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Result<Option<Whole<'a>>, String> {
        buffer.clear();
        let record = Record {
            id,
            tenant_id: &self.tenant_id,
            event_type: &self.event_type,
            actor_id: self.actor_id.as_deref(),
            actor_type: self.actor_type.as_deref(),
            created_at: self.created_at,
            recorded_at: self.recorded_at,
            transaction_id: self.transaction_id,
            session_user: &self.session_user,
            current_user: &self.current_user,
            key_id: &self.key_id,
        };
        match record.encode(buffer, log_id, Bounds::RECORDED.with_text(MAX_LINE), |writer| {
            Parser::new(self.event_data).encode_into(writer)
        }) {
            Ok(()) => {}
            Err(JsonError::Encode(error)) if error != EncodeError::DuplicateKey => return Ok(None),
            Err(error) => return Err(format!("event_data: {error}")),
        }
        let Values { tenant_id, event_type, created_at, event_data, session_user, key_id, signature, .. } = self;
        Ok(Some(Whole { tenant_id, event_type, created_at, event_data, session_user, key_id, signature }))
    }
}

/// Reads a record with its members in any order and blanks anywhere. `exact` refuses what only a row has: other
/// members, times in any zone, ids in any spelling. So an export has one text for each value.
pub fn in_any_order<'a>(
    line: &'a str,
    log_id: &[u8; 16],
    buffer: &mut Vec<u8>,
    exact: bool,
) -> Result<Line<'a>, String> {
    let columns = Columns::collect(line, exact)?;
    let (leaf, id) = (columns.leaf()?, columns.id()?);
    let whole = match columns.parse()? {
        Some(values) => values.encode(&id, log_id, buffer)?,
        None => None,
    };
    Ok(Line { leaf, id, whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(data: &str) -> String {
        format!(
            r#"{{"leaf":7,"id":"01a1fe1c-509a-711b-9572-85a8c450d751","tenant_id":"default","event_type":"a\"b","event_data":{data},"actor_id":null,"actor_type":"agent","created_at":"2026-11-21T12:12:57.699023Z","recorded_at":"2026-11-21T12:12:57.699024Z","transaction_id":42,"session_user_name":"a","current_user_name":"b","key_id":"k","signature":"v1:k:00"}}"#
        )
    }
    type Read<'a> = (Line<'a>, Vec<u8>);
    fn both(line: &str) -> (Option<Read<'_>>, Result<Read<'_>, String>) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let fast = in_order(line, &[9; 16], &mut a);
        let general = in_any_order(line, &[9; 16], &mut b, true);
        (fast.map(|line| (line, a)), general.map(|line| (line, b)))
    }

    #[test]
    fn a_line_of_the_server_is_read_by_both() {
        let line = line(r#"{"a": 1.50, "b": [null, true, "x"]}"#);
        let (fast, general) = both(&line);
        assert_eq!(fast, general.ok());
        let (read, encoded) = fast.unwrap();
        assert_eq!((read.leaf, read.whole.as_ref().unwrap().event_type.as_ref()), (Some(7), "a\"b"));
        assert_eq!(read.whole.as_ref().unwrap().event_data, r#"{"a": 1.50, "b": [null, true, "x"]}"#);
        assert_eq!(read.leaf_hash(&[9; 16], &encoded), audit::leaf_hash(&encoded, "v1:k:00"));
    }

    #[test]
    fn other_spellings_are_read_by_the_second_reader() {
        let plain = line("{}");
        let expected = both(&plain).0.unwrap();
        for other in [
            plain.replace("\"leaf\":7,", "").replace("\"v1:k:00\"", "\"v1:k:00\" , \"leaf\" : 7 "),
            plain.replace(":\"b\"", ":\"\\u0062\""),
            plain.replace(":{}", ": { }"),
        ] {
            let (fast, general) = both(&other);
            let general = general.unwrap();
            assert_eq!(general.1, expected.1, "{other}");
            assert!(fast.is_none_or(|fast| fast == general));
        }
    }

    #[test]
    fn years_of_any_length() {
        let plain = line("{}").replace("\"2026-", "\"12026-");
        assert!(both(&plain).0.is_none());
        let (read, encoded) = both(&plain).1.unwrap();
        assert!(read.whole.is_some() && encoded != both(&line("{}")).0.unwrap().1);
        let mut row = Vec::new();
        assert!(from_row(&plain.replace("Z\"", "+00:00\""), &[9; 16], &mut row).is_ok() && row == encoded);
        // Beyond what can be signed, for the server as well.
        assert_eq!(both(&plain.replace("12026-", "294276-")).1.unwrap().0.whole, None);
        assert!(both(&plain.replace("12026-", "2026-").replace("Z\"", "Z BC\"")).1.unwrap().0.whole.is_some());
        assert!(both(&plain.replace("12026-", "012026-")).1.is_err());
    }

    /// In a row, as psql prints it; an export has one text for each value.
    #[test]
    fn rows_come_in_any_zone_and_spelling() {
        let plain = line("{}");
        let expected = both(&plain).0.unwrap();
        for other in [
            plain.replace("57.699023Z", "57.699023+00:00"),
            plain.replace("T12:12:57.699023Z", "T17:42:57.699023+05:30"),
            plain.replace("01a1fe1c-509a", "01A1fe1c-509a"),
            plain.replace("}}", "},\"more\":1}").replace(":{},", ":{},\"added\":null,"),
        ] {
            let mut encoded = Vec::new();
            let row = from_row(&other, &[9; 16], &mut encoded).unwrap();
            assert_eq!((row.id, encoded), (expected.0.id, expected.1.clone()));
            assert!(other == plain || both(&other).0.is_none() && both(&other).1.is_err(), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let plain = line("{}");
        for (bad, word) in [
            (plain.replace("\"key_id\":\"k\"", "\"key_id\":\"k\",\"key_id\":\"k\""), "\"key_id\" occurs twice"),
            (plain.replace("\"key_id\"", "\"keyid\""), "not a column"),
            (plain.replace(",\"actor_id\":null", ""), "actor_id is missing"),
            (plain.replace(":\"b\"", ":5"), "current_user_name is missing or not a text"),
            (plain.replace(":42", ":42.0"), "transaction_id is not an integer"),
            (plain.replace(":42", ":9223372036854775808"), "transaction_id is not an integer"),
            (plain.replace("{}", "{\"a\":1,\"a\":1}"), "twice in one object"),
            (plain.replace("2026-11-21T12:12:57.699023Z", "2026-02-30T12:12:57.699023Z"), "created_at is not a time"),
            (plain.replace("01a1fe1c-", "1a1fe1c-"), "id: "),
            (plain.replace(":7,", ":-7,"), "leaf is not an integer"),
        ] {
            let error = in_any_order(&bad, &[9; 16], &mut Vec::new(), true).unwrap_err();
            assert!(error.contains(word), "{error}: {bad}");
        }
        // What the server could not encode has the leaf that says so.
        for damaged in [
            plain.replace("\"default\"", "null"),
            plain.replace("\"2026-11-21T12:12:57.699024Z\"", "\"infinity\""),
            plain.replace(":42", ":null"),
            plain.replace("{}", &("[".repeat(300) + &"]".repeat(300))),
        ] {
            let read = in_any_order(&damaged, &[9; 16], &mut Vec::new(), true).unwrap();
            assert_eq!(read.whole, None);
            assert_eq!(read.leaf_hash(&[9; 16], &[]), audit::damaged_leaf_hash(&[9; 16], &read.id));
        }
    }

    proptest! {
        /// Two readers, one answer.
        #[test]
        fn any_change_is_read_alike(data in "(\\{\"[a-c]{1,2}\": ?(-?[0-9]{1,3}(\\.[0-9])?|\"\\PC{0,5}\"|null|\\[\\])\\}|\"x\"|1)", at in any::<prop::sample::Index>(), bytes in "(\\PC|[0-9\",:{}\\[\\]\\\\ ])?", cut in 0usize..3) {
            let mut line = line(&data);
            let mut start = at.index(line.len() + 1);
            while !line.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = (start + cut).min(line.len());
            while !line.is_char_boundary(end) {
                end += 1;
            }
            line.replace_range(start..end, &bytes);
            let (fast, general) = both(&line);
            if let Some(fast) = fast {
                prop_assert_eq!(Ok(fast), general);
            }
        }

        #[test]
        fn times_are_read_alike(text in "[0-9]{4}-[0-3][0-9]-[0-9]{2}T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{6}Z", micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let other = chrono::DateTime::parse_from_rfc3339(&text).ok().filter(|_| &text[17..19] != "60").map(|time| time.timestamp_micros());
            prop_assert_eq!(server_time(text.as_bytes()), other, "{}", text);
            prop_assert_eq!(unix_micros(&text), other.map(i128::from), "{}", text);
            let text = chrono::DateTime::from_timestamp_micros(micros).unwrap().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(server_time(text.as_bytes()), Some(micros), "{}", text);
        }

        #[test]
        fn hostile_lines_are_an_error_and_never_a_panic(line in "\\PC{0,200}") {
            prop_assert!(in_order(&line, &[0; 16], &mut Vec::new()).is_none());
            prop_assert!(from_row(&line, &[0; 16], &mut Vec::new()).is_err());
            let _ = unix_micros(&line);
        }
    }
}
