//! SKR1 from outside: the vectors of `tests/vectors`, a strict decoder, and what properties the two must have together.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use skill_core::audit::keyring::Keyring;
use skill_core::audit::skr1::{EncodeError, JsonWriter, MAX_JSON_BYTES};
use skill_core::audit::{Record, damaged_leaf_hash, leaf_hash, sign, verify};
use skill_core::limits::{Bounds, JsonEvents};

// ---- the vectors

#[derive(Deserialize)]
struct Vector {
    name: String,
    log_id: String,
    row: HashMap<String, Option<String>>,
    skr1: Option<String>,
    signature: String,
    leaf_hash: String,
}

/// A printed time in UTC, `2026-01-02 03:04:05.678901+00` or `... BC`, as microseconds since 1970 if they can be counted.
fn unix_micros(text: &str) -> Option<i64> {
    let (text, bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.strip_suffix("+00")?.split_once(' ')?;
    let date: Vec<i128> = date.split('-').map(|part| part.parse().unwrap()).collect();
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    let seconds = seconds.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i128>().unwrap());
    let [year, month, day] = date[..] else { return None };
    // Count from 1 March of the year 0, so that the leap day comes last.
    let year = if bc { 1 - year } else { year } - i128::from(month <= 2);
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * ((month + 9) % 12) + 2) / 5
        + day
        - 1
        - 719_468;
    let micros = (days * 86_400 + seconds) * 1_000_000 + format!("{fraction:0<6}").parse::<i128>().unwrap();
    i64::try_from(micros).ok()
}

/// Keys in any order and numbers as they are spelt, which `serde_json::Value` could not give.
fn encode_into(value: &RawValue, writer: &mut JsonWriter<'_>) -> Result<(), EncodeError> {
    let text = value.get();
    match text.as_bytes()[0] {
        b'n' => writer.null(),
        b't' => writer.bool(true),
        b'f' => writer.bool(false),
        b'"' => writer.string(serde_json::from_str::<String>(text).unwrap().as_bytes()),
        b'[' => {
            writer.begin_array()?;
            serde_json::from_str::<Vec<&RawValue>>(text)
                .unwrap()
                .into_iter()
                .try_for_each(|item| encode_into(item, writer))?;
            writer.end()
        }
        b'{' => {
            writer.begin_object()?;
            for (key, item) in serde_json::from_str::<HashMap<String, &RawValue>>(text).unwrap() {
                writer.key(key.as_bytes())?;
                encode_into(item, writer)?;
            }
            writer.end()
        }
        _ => writer.number(text.as_bytes()),
    }
}

fn uuid(text: &str) -> [u8; 16] {
    *uuid::Uuid::parse_str(text).unwrap().as_bytes()
}

/// The signed bytes; `None` where a column is NULL that must not be, a time is none, or the payload is over a limit.
fn encode(vector: &Vector) -> Option<Vec<u8>> {
    let value = |column: &str| vector.row[column].as_deref();
    let data: &RawValue = serde_json::from_str(value("event_data")?).unwrap();
    let mut out = Vec::new();
    let record = Record {
        id: &uuid(value("id")?),
        tenant_id: value("tenant_id")?,
        event_type: value("event_type")?,
        actor_id: value("actor_id"),
        actor_type: value("actor_type"),
        created_at: unix_micros(value("created_at")?)?,
        recorded_at: unix_micros(value("recorded_at")?)?,
        transaction_id: value("transaction_id")?.parse::<i64>().unwrap() as u64,
        session_user: value("session_user_name")?,
        current_user: value("current_user_name")?,
        key_id: value("key_id")?,
    };
    record.encode(&mut out, &uuid(&vector.log_id), Bounds::RECORDED, |writer| encode_into(data, writer)).ok()?;
    Some(out)
}

#[test]
fn all_vectors_agree() {
    let ring = Keyring::parse(include_str!("../../../tests/vectors/keyring.json")).unwrap();
    let lines = include_str!("../../../tests/vectors/skr1.jsonl").lines();
    assert!(lines.clone().count() >= 200);
    for line in lines {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let name = &vector.name;
        let encoded = encode(&vector);
        assert_eq!(encoded.as_ref().map(hex::encode), vector.skr1, "{name}");
        let leaf = match encoded {
            Some(encoded) => {
                let key_id = vector.row["key_id"].as_deref().unwrap();
                assert_eq!(sign(ring.get(key_id).unwrap(), &encoded), vector.signature, "{name}");
                assert_eq!(verify(&ring, key_id, &vector.signature, &encoded), Ok(()), "{name}");
                let (log_id, row) = decode(&encoded).unwrap_or_else(|| panic!("{name} is not decoded"));
                let long = matches!(row.data, Json::Digest(_));
                assert_eq!(row.encode(&log_id), (!long).then(|| encoded.clone()), "{name}");
                leaf_hash(&encoded, &vector.signature)
            }
            None => damaged_leaf_hash(&uuid(&vector.log_id), &uuid(vector.row["id"].as_deref().unwrap())),
        };
        assert_eq!(hex::encode(leaf), vector.leaf_hash, "{name}");
    }
}

// ---- a strict decoder

#[derive(Debug, Clone, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
    /// All that the signed bytes say of a long payload.
    Digest([u8; 32]),
}

impl Json {
    fn encode_into(&self, writer: &mut JsonWriter<'_>) -> Result<(), EncodeError> {
        match self {
            Json::Null => writer.null(),
            Json::Bool(value) => writer.bool(*value),
            Json::Number(text) => writer.number(text.as_bytes()),
            Json::Text(text) => writer.string(text.as_bytes()),
            Json::Array(items) => {
                writer.begin_array()?;
                items.iter().try_for_each(|item| item.encode_into(writer))?;
                writer.end()
            }
            Json::Object(members) => {
                writer.begin_object()?;
                // Backwards, so that the encoder has to sort.
                for (key, item) in members.iter().rev() {
                    writer.key(key.as_bytes())?;
                    item.encode_into(writer)?;
                }
                writer.end()
            }
            Json::Digest(_) => unreachable!("nobody has such a payload"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: [u8; 16],
    tenant_id: String,
    event_type: String,
    data: Json,
    actor_id: Option<String>,
    actor_type: Option<String>,
    created_at: i64,
    recorded_at: i64,
    transaction_id: u64,
    session_user: String,
    current_user: String,
    key_id: String,
}

impl Row {
    /// `None` when only the digest of the payload is known.
    fn encode(&self, log_id: &[u8; 16]) -> Option<Vec<u8>> {
        if matches!(self.data, Json::Digest(_)) {
            return None;
        }
        let mut out = Vec::new();
        Record {
            id: &self.id,
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
        }
        .encode(&mut out, log_id, Bounds::RECORDED, |writer| self.data.encode_into(writer))
        .unwrap();
        Some(out)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    fn length(&mut self) -> Option<usize> {
        self.array().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }
    fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
    /// The next field if it has the tag.
    fn field(&mut self, tag: u16) -> Option<(u8, &'a [u8])> {
        (self.array()? == tag.to_be_bytes()).then_some(())?;
        let [kind] = self.array()?;
        let length = self.length()?;
        Some((kind, self.take(length)?))
    }
    fn typed(&mut self, tag: u16, kind: u8) -> Option<&'a [u8]> {
        self.field(tag).filter(|field| field.0 == kind).map(|field| field.1)
    }
    fn utf8(&mut self, tag: u16) -> Option<String> {
        String::from_utf8(self.typed(tag, 6)?.to_vec()).ok()
    }
    fn nullable(&mut self, tag: u16) -> Option<Option<String>> {
        match self.field(tag)? {
            (0, []) => Some(None),
            (6, text) => Some(Some(String::from_utf8(text.to_vec()).ok()?)),
            _ => None,
        }
    }
    fn json(&mut self, room: usize) -> Option<Json> {
        Some(match self.array()? {
            [0] => Json::Null,
            [1] => Json::Bool(false),
            [2] => Json::Bool(true),
            [3] => Json::Number(self.text().filter(|text| is_numeric(text))?),
            [4] => Json::Text(self.text()?),
            [5] => Json::Array((0..self.length()?).map(|_| self.json(room.checked_sub(1)?)).collect::<Option<_>>()?),
            [6] => {
                let mut members = BTreeMap::new();
                for _ in 0..self.length()? {
                    let key = self.text()?;
                    (members.last_key_value().is_none_or(|(last, _)| *last < key)).then_some(())?;
                    members.insert(key, self.json(room.checked_sub(1)?)?);
                }
                Json::Object(members)
            }
            _ => return None,
        })
    }
}

/// What `numeric` prints: no exponent, no superfluous zero in front.
fn is_numeric(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(all_digits)
}

/// The row that has these signed bytes; `None` when no row has.
fn decode(bytes: &[u8]) -> Option<([u8; 16], Row)> {
    let mut reader = Reader(bytes);
    (reader.take(4)? == b"SKR1").then_some(())?;
    let log_id = reader.array()?;
    (reader.array()? == [0, 1, 0, 12]).then_some(())?;
    let row = Row {
        id: reader.typed(1, 4)?.try_into().ok()?,
        tenant_id: reader.utf8(2)?,
        event_type: reader.utf8(3)?,
        data: match reader.field(4)? {
            (9, walk) if walk.len() <= MAX_JSON_BYTES => {
                let mut walk = Reader(walk);
                let value = walk.json(256)?;
                walk.0.is_empty().then_some(value)?
            }
            (8, digest) => Json::Digest(digest.try_into().ok()?),
            _ => return None,
        },
        actor_id: reader.nullable(5)?,
        actor_type: reader.nullable(6)?,
        created_at: i64::from_be_bytes(reader.typed(7, 7)?.try_into().ok()?),
        recorded_at: i64::from_be_bytes(reader.typed(8, 7)?.try_into().ok()?),
        transaction_id: u64::from_be_bytes(reader.typed(9, 2)?.try_into().ok()?),
        session_user: reader.utf8(10)?,
        current_user: reader.utf8(11)?,
        key_id: reader.utf8(12)?,
    };
    reader.0.is_empty().then_some((log_id, row))
}

// ---- properties

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?".prop_map(Json::Number),
        any::<String>().prop_map(Json::Text),
        "[ab]{0,2}".prop_map(Json::Text)
    ];
    leaf.prop_recursive(5, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
            prop::collection::btree_map(prop_oneof!["[ab]{0,2}", any::<String>()], inner, 0..5).prop_map(Json::Object)
        ]
    })
}

/// Few and small values, so that rows are often alike.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab]{0,2}", 1 => any::<String>()]
}

fn any_row() -> impl Strategy<Value = Row> {
    let number = || prop_oneof![0..3i64, any::<i64>()];
    let nullable = || prop::option::of(any_text());
    (
        (any::<[u8; 16]>(), any_text(), any_text(), any_json(), nullable(), nullable()),
        (number(), number(), number(), any_text(), any_text(), any_text()),
    )
        .prop_map(
            |(
                (id, tenant_id, event_type, data, actor_id, actor_type),
                (created_at, recorded_at, transaction, session_user, current_user, key_id),
            )| {
                let transaction_id = transaction as u64;
                Row {
                    id,
                    tenant_id,
                    event_type,
                    data,
                    actor_id,
                    actor_type,
                    created_at,
                    recorded_at,
                    transaction_id,
                    session_user,
                    current_user,
                    key_id,
                }
            },
        )
}

/// `base` with column `column` of `other`.
fn with_column(base: &Row, other: &Row, column: usize) -> Row {
    let (mut row, other) = (base.clone(), other.clone());
    match column {
        0 => row.id = other.id,
        1 => row.tenant_id = other.tenant_id,
        2 => row.event_type = other.event_type,
        3 => row.data = other.data,
        4 => row.actor_id = other.actor_id,
        5 => row.actor_type = other.actor_type,
        6 => row.created_at = other.created_at,
        7 => row.recorded_at = other.recorded_at,
        8 => row.transaction_id = other.transaction_id,
        9 => row.session_user = other.session_user,
        10 => row.current_user = other.current_user,
        _ => row.key_id = other.key_id,
    }
    row
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What can be read back was written from one row only.
    #[test]
    fn rows_survive_encoding_and_decoding(log_id: [u8; 16], row in any_row()) {
        prop_assert_eq!(decode(&row.encode(&log_id).unwrap()), Some((log_id, row)));
    }

    #[test]
    fn rows_that_differ_in_one_column_have_other_bytes(log_id: [u8; 16], base in any_row(), other in any_row(), column in 0usize..12) {
        let changed = with_column(&base, &other, column);
        prop_assert_eq!(base == changed, base.encode(&log_id) == changed.encode(&log_id));
    }

    #[test]
    fn another_log_has_other_bytes(one: [u8; 16], other: [u8; 16], row in any_row()) {
        prop_assert_eq!(one == other, row.encode(&one) == row.encode(&other));
    }

    /// The same characters, distributed over the text columns in another way.
    #[test]
    fn boundaries_between_columns_count(row in any_row(), text in "[ab]{4,8}", cuts in prop::collection::vec(0usize..=4, 4), others in prop::collection::vec(0usize..=4, 4)) {
        let divided = |mut cuts: Vec<usize>| {
            cuts.sort_unstable();
            let part = |from: usize, to: usize| text[from..to].to_owned();
            Row {
                tenant_id: part(0, cuts[0]), event_type: part(cuts[0], cuts[1]), actor_id: Some(part(cuts[1], cuts[2])), actor_type: Some(part(cuts[2], cuts[3])),
                session_user: part(cuts[3], text.len()), ..row.clone()
            }
        };
        let (one, other) = (divided(cuts), divided(others));
        prop_assert_eq!(one == other, one.encode(&[0; 16]) == other.encode(&[0; 16]));
    }

    /// No row has two encodings: changed bytes are those of another row or of none.
    #[test]
    fn a_changed_bit_is_another_row_or_none(row in any_row(), place: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = row.encode(&[7; 16]).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Some((log_id, other)) = decode(&bytes) {
            prop_assert_ne!((&log_id, &other), (&[7; 16], &row));
            prop_assert!(other.encode(&log_id).is_none_or(|again| again == bytes));
        }
    }

    #[test]
    fn bytes_cut_added_or_repeated_are_another_row_or_none(row in any_row(), from: prop::sample::Index, until: prop::sample::Index, more: Vec<u8>) {
        let bytes = row.encode(&[7; 16]).unwrap();
        let (from, until) = (from.index(bytes.len() + 1), until.index(bytes.len() + 1));
        let changed = [&bytes[..from], &more[..], &bytes[until..]].concat();
        if let Some((log_id, other)) = decode(&changed) {
            prop_assert_eq!(changed == bytes, (log_id, &other) == ([7; 16], &row));
            prop_assert!(other.encode(&log_id).is_none_or(|again| again == changed));
        }
    }

    /// Over the limit the digest stands for the payload, and below it never.
    #[test]
    fn long_payloads_differ_by_their_digests(row in any_row(), length in MAX_JSON_BYTES - 6..MAX_JSON_BYTES + 6, place: prop::sample::Index) {
        let text = "x".repeat(length);
        let mut other = text.clone();
        let place = place.index(length);
        other.replace_range(place..=place, "y");
        let encode = |text: String| Row { data: Json::Text(text), ..row.clone() }.encode(&[0; 16]).unwrap();
        let (one, two) = (encode(text), encode(other));
        prop_assert_ne!(&one, &two);
        let (_, read) = decode(&one).unwrap();
        // Type and length of the string are five bytes.
        prop_assert_eq!(matches!(read.data, Json::Digest(_)), length + 5 > MAX_JSON_BYTES);
    }
}
