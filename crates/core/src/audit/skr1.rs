//! SKR1: the bytes that are signed.
//!
//! ```text
//! "SKR1" | log id [16] | u16 schema | u16 n | n × ( u16 tag | u8 type | u32 length | bytes )
//! ```
//!
//! All integers are big-endian, tags ascend strictly, every field of a schema is
//! present (NULL is type 0, length 0, distinct from empty), and nothing depends on
//! a setting of the session or the server. Different rows never give equal bytes.
//!
//! JSON (type 9) is a walk of the value: `00` null, `01` false, `02` true, `03`
//! number (u32 length, its exact decimal text), `04` string (u32 length, UTF-8),
//! `05` array (u32 count, values), `06` object (u32 count, then per member in byte
//! order of the keys u32 length, key, value). A JSON field over
//! [`MAX_JSON_BYTES`] is replaced by the SHA-256 of that walk (type 8).

use std::cell::Cell;
use std::cmp::Ordering;

use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::error::{Code, Fault};
use crate::interrupt;
use crate::limits::{Bounds, JsonEvents, LimitError, Meter};

/// A JSON field whose encoding is longer is signed by its digest.
pub const MAX_JSON_BYTES: usize = 32 * 1024;

const NULL: u8 = 0;
const I64: u8 = 1;
const U64: u8 = 2;
const BOOL: u8 = 3;
const UUID: u8 = 4;
const BYTES: u8 = 5;
const UTF8: u8 = 6;
const TIMESTAMP: u8 = 7;
const DIGEST: u8 = 8;
const JSON: u8 = 9;

/// Why a value cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Out of the bounds that the reader gave.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The same key twice in one object.
    #[error("the JSON value has a key twice in one object")]
    DuplicateKey,
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Fault {
        match error {
            EncodeError::Limit(limit) => limit.into(),
            EncodeError::DuplicateKey => Fault::new(Code::ProgramLimitExceeded, error.to_string()),
        }
    }
}

pub struct Encoder<'b> {
    out: &'b mut Vec<u8>,
    count_at: usize,
    count: u16,
    last_tag: Option<u16>,
}

impl<'b> Encoder<'b> {
    /// Appends the head of a record to `out`.
    pub fn new(out: &'b mut Vec<u8>, log_id: &[u8; 16], schema: u16) -> Self {
        out.extend_from_slice(b"SKR1");
        out.extend_from_slice(log_id);
        out.extend_from_slice(&schema.to_be_bytes());
        let count_at = out.len();
        out.extend_from_slice(&[0, 0]);
        Encoder { out, count_at, count: 0, last_tag: None }
    }

    #[inline]
    fn field(&mut self, tag: u16, kind: u8, bytes: &[u8]) {
        self.head(tag, kind, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    fn head(&mut self, tag: u16, kind: u8, length: usize) {
        debug_assert!(self.last_tag < Some(tag), "tags ascend");
        self.last_tag = Some(tag);
        self.count += 1;
        let ([t, a], [l, e, n, g]) = (tag.to_be_bytes(), (length as u32).to_be_bytes());
        self.out.extend_from_slice(&[t, a, kind, l, e, n, g]);
    }

    pub fn null(&mut self, tag: u16) {
        self.field(tag, NULL, &[]);
    }
    pub fn i64(&mut self, tag: u16, value: i64) {
        self.field(tag, I64, &value.to_be_bytes());
    }
    pub fn u64(&mut self, tag: u16, value: u64) {
        self.field(tag, U64, &value.to_be_bytes());
    }
    pub fn bool(&mut self, tag: u16, value: bool) {
        self.field(tag, BOOL, &[u8::from(value)]);
    }
    pub fn uuid(&mut self, tag: u16, value: &[u8; 16]) {
        self.field(tag, UUID, value);
    }
    pub fn bytes(&mut self, tag: u16, value: &[u8]) {
        self.field(tag, BYTES, value);
    }
    pub fn utf8(&mut self, tag: u16, value: Option<&str>) {
        match value {
            Some(text) => self.field(tag, UTF8, text.as_bytes()),
            None => self.null(tag),
        }
    }
    /// A point in time: microseconds since 1970-01-01 00:00 UTC.
    pub fn timestamp(&mut self, tag: u16, unix_micros: i64) {
        self.field(tag, TIMESTAMP, &unix_micros.to_be_bytes());
    }

    /// A JSON value within `bounds`, told to the writer event by event.
    pub fn json<E: From<EncodeError>>(
        &mut self,
        tag: u16,
        bounds: Bounds,
        encode_into: impl FnOnce(&mut JsonWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.head(tag, JSON, 0);
        let start = self.out.len();
        let mut writer = JsonWriter { out: self.out, scratch: SCRATCH.take(), meter: Meter::new(bounds) };
        encode_into(&mut writer)?;
        debug_assert!(writer.scratch.frames.is_empty(), "every array and object is closed");
        if writer.scratch.sorted.capacity() <= MAX_JSON_BYTES {
            SCRATCH.set(writer.scratch);
        }
        let length = self.out.len() - start;
        if length > MAX_JSON_BYTES {
            let digest = Sha256::digest(&self.out[start..]);
            self.out.truncate(start);
            self.out.extend_from_slice(&digest);
            self.out[start - 5] = DIGEST;
        }
        let length = (self.out.len() - start) as u32;
        self.out[start - 4..start].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    pub fn finish(self) {
        self.out[self.count_at..self.count_at + 2].copy_from_slice(&self.count.to_be_bytes());
    }
}

thread_local! {
    /// Memory of the last JSON value for the next one: most are small, and many.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::NEW) };
}

/// The writer's state next to its output. Empty between values.
struct Scratch {
    frames: Vec<Frame>,
    members: Vec<Member>,
    /// Members of the object being sorted, with their ends.
    ranges: Vec<(Member, usize)>,
    sorted: Vec<u8>,
}

impl Scratch {
    const NEW: Scratch = Scratch { frames: Vec::new(), members: Vec::new(), ranges: Vec::new(), sorted: Vec::new() };
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::NEW
    }
}

struct Frame {
    count_at: usize,
    count: u32,
    /// Index of the first member, for an object.
    members_from: Option<usize>,
    sorted: bool,
}

#[derive(Clone, Copy)]
struct Member {
    /// The first bytes of the key, so that most comparisons need no look at the text.
    prefix: u64,
    start: usize,
    key_length: usize,
}

impl Member {
    fn key<'o>(&self, out: &'o [u8]) -> &'o [u8] {
        &out[self.start + 4..self.start + 4 + self.key_length]
    }

    fn cmp(&self, other: &Member, out: &[u8]) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.key(out).cmp(other.key(out)))
    }
}

/// The first eight bytes, as a number that orders like them; a shorter key is filled up with zeros.
#[inline]
fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => key.iter().fold(0, |n, b| n << 8 | u64::from(*b)) << (8 * ((8 - key.len()) % 8)),
    }
}

/// Receives a JSON value as events, in any order of keys.
pub struct JsonWriter<'b> {
    out: &'b mut Vec<u8>,
    scratch: Scratch,
    meter: Meter,
}

impl JsonWriter<'_> {
    #[inline]
    fn value(&mut self, kind: u8) {
        if let Some(frame) = self.scratch.frames.last_mut().filter(|frame| frame.members_from.is_none()) {
            frame.count += 1;
        }
        self.out.push(kind);
    }

    #[inline]
    fn text(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn begin(&mut self, kind: u8, members_from: Option<usize>) {
        self.value(kind);
        self.scratch.frames.push(Frame { count_at: self.out.len(), count: 0, members_from, sorted: true });
        self.out.extend_from_slice(&[0; 4]);
    }

    fn sort(&mut self, from: usize, start: usize) -> Result<(), EncodeError> {
        let end = self.out.len();
        let Scratch { members, ranges, sorted, .. } = &mut self.scratch;
        let members = &members[from..];
        ranges.clear();
        ranges.extend(members.iter().enumerate().map(|(i, m)| (*m, members.get(i + 1).map_or(end, |next| next.start))));
        ranges.sort_unstable_by(|(a, _), (b, _)| {
            interrupt::check();
            a.cmp(b, self.out)
        });
        if ranges.windows(2).any(|pair| pair[0].0.cmp(&pair[1].0, self.out) == Ordering::Equal) {
            return Err(EncodeError::DuplicateKey);
        }
        sorted.clear();
        for (member, end) in interrupt::each(ranges) {
            sorted.extend_from_slice(&self.out[member.start..*end]);
        }
        self.out[start..end].copy_from_slice(sorted);
        Ok(())
    }
}

// Each event is measured before anything of it is copied.
impl JsonEvents<EncodeError> for JsonWriter<'_> {
    fn null(&mut self) -> Result<(), EncodeError> {
        self.meter.null()?;
        self.value(0);
        Ok(())
    }

    fn bool(&mut self, value: bool) -> Result<(), EncodeError> {
        self.meter.bool(value)?;
        self.value(if value { 2 } else { 1 });
        Ok(())
    }

    fn number(&mut self, text: &[u8]) -> Result<(), EncodeError> {
        self.meter.number(text)?;
        self.value(3);
        self.text(text);
        Ok(())
    }

    fn string(&mut self, text: &[u8]) -> Result<(), EncodeError> {
        self.meter.string(text)?;
        self.value(4);
        self.text(text);
        Ok(())
    }

    fn begin_array(&mut self) -> Result<(), EncodeError> {
        self.meter.begin_array()?;
        self.begin(5, None);
        Ok(())
    }

    fn begin_object(&mut self) -> Result<(), EncodeError> {
        self.meter.begin_object()?;
        self.begin(6, Some(self.scratch.members.len()));
        Ok(())
    }

    fn key(&mut self, key: &[u8]) -> Result<(), EncodeError> {
        self.meter.key(key)?;
        let member = Member { prefix: prefix(key), start: self.out.len(), key_length: key.len() };
        self.text(key);
        let Scratch { frames, members, .. } = &mut self.scratch;
        if let Some(frame) = frames.last_mut() {
            if frame.count > 0 {
                match members[members.len() - 1].cmp(&member, self.out) {
                    Ordering::Less => {}
                    Ordering::Equal => return Err(EncodeError::DuplicateKey),
                    Ordering::Greater => frame.sorted = false,
                }
            }
            frame.count += 1;
        }
        members.push(member);
        Ok(())
    }

    fn end(&mut self) -> Result<(), EncodeError> {
        self.meter.end()?;
        let Some(frame) = self.scratch.frames.pop() else { return Ok(()) };
        if let Some(from) = frame.members_from {
            if !frame.sorted {
                self.sort(from, frame.count_at + 4)?;
            }
            self.scratch.members.truncate(from);
        }
        self.out[frame.count_at..frame.count_at + 4].copy_from_slice(&frame.count.to_be_bytes());
        Ok(())
    }
}

/// Tells the writer a parsed JSON value. Numbers are as exact as the parser kept them.
pub fn encode_into(value: &Value, writer: &mut JsonWriter<'_>) -> Result<(), EncodeError> {
    interrupt::check();
    match value {
        Value::Null => writer.null(),
        Value::Bool(b) => writer.bool(*b),
        Value::Number(n) => writer.number(n.to_string().as_bytes()),
        Value::String(s) => writer.string(s.as_bytes()),
        Value::Array(items) => {
            writer.begin_array()?;
            items.iter().try_for_each(|item| encode_into(item, writer))?;
            writer.end()
        }
        Value::Object(map) => {
            writer.begin_object()?;
            for (key, item) in map {
                writer.key(key.as_bytes())?;
                encode_into(item, writer)?;
            }
            writer.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    fn encode(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out, &[0; 16], 1);
        e.json(1, Bounds::STORED, |w| encode_into(value, w)).unwrap();
        e.finish();
        out
    }

    #[test]
    fn layout() {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out, &[0xab; 16], 1);
        e.null(1);
        e.utf8(2, Some(""));
        e.i64(3, -1);
        e.u64(4, 1);
        e.bool(5, true);
        e.timestamp(7, 0);
        e.finish();
        let expected = format!(
            "{}{}0001{}{}{}{}{}{}{}",
            hex::encode("SKR1"),
            "ab".repeat(16),
            "0006",
            "00010000000000",
            "00020600000000",
            "00030100000008ffffffffffffffff",
            "000402000000080000000000000001",
            "0005030000000101",
            "000707000000080000000000000000"
        );
        assert_eq!(hex::encode(out), expected);
    }

    #[test]
    fn keys_are_sorted_by_bytes_whatever_the_order_told() {
        let mut a = Vec::new();
        let mut e = Encoder::new(&mut a, &[0; 16], 1);
        e.json::<EncodeError>(1, Bounds::STORED, |w| {
            w.begin_object()?;
            for key in ["b", "aa", "c", "a"] {
                w.key(key.as_bytes())?;
                w.begin_array()?;
                w.string(key.as_bytes())?;
                w.end()?;
            }
            w.end()
        })
        .unwrap();
        e.finish();
        assert_eq!(a, encode(&serde_json::json!({"a": ["a"], "aa": ["aa"], "b": ["b"], "c": ["c"]})));
    }

    #[test]
    fn limits_hold() {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out, &[0; 16], 1);
        let twice = e.json::<EncodeError>(1, Bounds::STORED, |w| {
            w.begin_object()?;
            for key in ["b", "a", "b"] {
                w.key(key.as_bytes())?;
                w.null()?;
            }
            w.end()
        });
        assert_eq!(twice, Err(EncodeError::DuplicateKey));
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out, &[0; 16], 1);
        assert_eq!(
            e.json::<EncodeError>(1, Bounds::STORED, |w| (0..300).try_for_each(|_| w.begin_array())),
            Err(LimitError::TooDeep(64).into())
        );
        let large = encode(&Value::String("x".repeat(MAX_JSON_BYTES)));
        assert_eq!(large.len(), 4 + 16 + 4 + 7 + 32);
        assert_eq!(large[4 + 16 + 4 + 2], DIGEST);
    }

    #[test]
    fn prefixes_order_like_keys() {
        let keys: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"aaaaaaa", b"aaaaaaaa", b"aaaaaaaab", b"b"];
        for (a, b) in keys.iter().zip(&keys[1..]) {
            assert!(prefix(a) <= prefix(b), "{a:?} {b:?}");
        }
        assert_eq!(prefix(b"\xff"), 0xff << 56);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Number(n.into())),
            "[a-c]{0,3}".prop_map(Value::String)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect()))
            ]
        })
    }

    /// Reads the walk back: an encoding that can be decoded is injective.
    fn decode(bytes: &mut &[u8]) -> Value {
        fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
            let (head, tail) = bytes.split_at(n);
            *bytes = tail;
            head
        }
        fn length(bytes: &mut &[u8]) -> usize {
            u32::from_be_bytes(take(bytes, 4).try_into().unwrap()) as usize
        }
        fn text(bytes: &mut &[u8]) -> String {
            let n = length(bytes);
            String::from_utf8(take(bytes, n).to_vec()).unwrap()
        }
        match take(bytes, 1)[0] {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => serde_json::from_str(&text(bytes)).unwrap(),
            4 => Value::String(text(bytes)),
            5 => (0..length(bytes)).map(|_| decode(bytes)).collect(),
            6 => Value::Object((0..length(bytes)).map(|_| (text(bytes), decode(bytes))).collect()),
            other => panic!("type {other}"),
        }
    }

    proptest! {
        #[test]
        fn the_encoding_can_be_read_back(value in any_json()) {
            let out = encode(&value);
            let mut body = &out[4 + 16 + 4 + 7..];
            prop_assert_eq!(decode(&mut body), value);
            prop_assert!(body.is_empty());
        }
    }
}
