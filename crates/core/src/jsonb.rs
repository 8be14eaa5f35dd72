//! Reads PostgreSQL's binary `jsonb` (src/include/utils/jsonb.h, unchanged since 9.4).
//!
//! Signing walks every value of every row, so this goes over the bytes as they
//! lie in the tuple instead of calling the server once per token. All reads are
//! checked: a damaged value is an error, never an out-of-bounds read.

use sha2::{Digest, Sha256};

use crate::audit::skr1::EncodeError;
use crate::error::{Code, Fault};
use crate::interrupt;
use crate::limits::{Bounds, JsonEvents, LimitError, Meter};

/// Why a value could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonbError {
    /// The bytes are not a valid `jsonb`.
    Damaged,
    /// They are, and over a limit.
    Encode(EncodeError),
}

impl From<EncodeError> for JsonbError {
    fn from(error: EncodeError) -> Self {
        JsonbError::Encode(error)
    }
}

impl From<LimitError> for JsonbError {
    fn from(error: LimitError) -> Self {
        JsonbError::Encode(error.into())
    }
}

impl From<JsonbError> for Fault {
    fn from(error: JsonbError) -> Fault {
        match error {
            JsonbError::Encode(error) => error.into(),
            JsonbError::Damaged => Fault::new(Code::Internal, "the stored jsonb value is damaged")
                .hint("Check the table with amcheck and the storage below it."),
        }
    }
}

pub(crate) const COUNT: u32 = 0x0FFF_FFFF;
pub(crate) const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
pub(crate) const ARRAY: u32 = 0x4000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const TYPE: u32 = 0x7000_0000;
/// The type of an entry that is an object or an array.
const CONTAINER: u32 = 0x5000_0000;

/// Tells the value in `root`, the bytes behind the varlena header, event by event.
pub fn encode_into<E>(root: &[u8], events: &mut impl JsonEvents<E>) -> Result<(), JsonbError>
where
    JsonbError: From<E>,
{
    let header = u32_at(root, 0)?;
    if header & ARRAY != 0 && header & SCALAR != 0 {
        let mut entries = Entries { root, table: 4, data: 8, next: 0, offset: 0 };
        return if header & COUNT == 1 { scalar(root, entries.step()?, events) } else { Err(JsonbError::Damaged) };
    }
    // Not by recursion: the server's own values may be deeper than the stack of a thread.
    let mut open = Vec::with_capacity(8);
    open.push(Level::begin(root, 0, events)?);
    while let Some(level) = open.last_mut() {
        interrupt::check();
        if level.left == 0 {
            events.end()?;
            open.pop();
            continue;
        }
        level.left -= 1;
        if let Some(keys) = &mut level.keys {
            let (_, start, length) = keys.step()?;
            events.key(root.get(start..start + length).ok_or(JsonbError::Damaged)?)?;
        }
        match level.values.step()? {
            (CONTAINER, start, _) => open.push(Level::begin(root, aligned(start), events)?),
            entry => scalar(root, entry, events)?,
        }
    }
    Ok(())
}

/// Refuses a value that is out of bounds, and returns about how long its text is.
pub fn measure(root: &[u8], bounds: Bounds) -> Result<usize, JsonbError> {
    let mut meter = Meter::new(bounds);
    encode_into(root, &mut meter)?;
    Ok(meter.text_length())
}

/// `sha256:` with the digest, and the length of the value's text, as `::text` gives it, without building that.
pub fn text_digest(root: &[u8]) -> Result<(String, u64), JsonbError> {
    let (mut sha256, mut length) = (Sha256::new(), 0);
    let mut hash = |bytes: &[u8]| {
        sha256.update(bytes);
        length += bytes.len() as u64;
    };
    encode_into(root, &mut TextWriter { write: &mut hash, open: Vec::new(), after_key: false })?;
    Ok((format!("sha256:{}", hex::encode(sha256.finalize())), length))
}

/// Appends the value's text, as `::text` gives it.
pub fn write_text(root: &[u8], out: &mut Vec<u8>) -> Result<(), JsonbError> {
    encode_into(
        root,
        &mut TextWriter { write: &mut |bytes| out.extend_from_slice(bytes), open: Vec::new(), after_key: false },
    )
}

/// The text of a value, as the server prints it.
struct TextWriter<'w> {
    write: &'w mut dyn FnMut(&[u8]),
    /// The brackets that will close what is open, and whether something precedes the next value.
    open: Vec<(u8, bool)>,
    after_key: bool,
}

impl TextWriter<'_> {
    fn add(&mut self, bytes: &[u8]) {
        (self.write)(bytes);
    }

    /// What separates the next value or key from the one before.
    fn separate(&mut self) {
        let comma = match self.open.last_mut() {
            Some((_, more)) if !self.after_key => std::mem::replace(more, true),
            _ => false,
        };
        self.after_key = false;
        if comma {
            self.add(b", ");
        }
    }

    fn value(&mut self, text: &[u8]) -> Result<(), LimitError> {
        self.separate();
        self.add(text);
        Ok(())
    }

    /// As the server's escape_json writes it.
    fn quoted(&mut self, text: &[u8]) {
        self.add(b"\"");
        let mut rest = text;
        while let Some(at) = rest.iter().position(|b| matches!(b, 0..=0x1F | b'"' | b'\\')) {
            interrupt::check();
            self.add(&rest[..at]);
            match rest[at] {
                b'"' => self.add(b"\\\""),
                b'\\' => self.add(b"\\\\"),
                0x08 => self.add(b"\\b"),
                b'\t' => self.add(b"\\t"),
                b'\n' => self.add(b"\\n"),
                0x0C => self.add(b"\\f"),
                b'\r' => self.add(b"\\r"),
                control => self.add(format!("\\u{control:04x}").as_bytes()),
            }
            rest = &rest[at + 1..];
        }
        self.add(rest);
        self.add(b"\"");
    }
}

impl JsonEvents<LimitError> for TextWriter<'_> {
    fn null(&mut self) -> Result<(), LimitError> {
        self.value(b"null")
    }

    fn bool(&mut self, value: bool) -> Result<(), LimitError> {
        self.value(if value { b"true" } else { b"false" })
    }

    fn number(&mut self, text: &[u8]) -> Result<(), LimitError> {
        self.value(text)
    }

    fn string(&mut self, text: &[u8]) -> Result<(), LimitError> {
        self.separate();
        self.quoted(text);
        Ok(())
    }

    fn begin_array(&mut self) -> Result<(), LimitError> {
        self.value(b"[")?;
        self.open.push((b']', false));
        Ok(())
    }

    fn begin_object(&mut self) -> Result<(), LimitError> {
        self.value(b"{")?;
        self.open.push((b'}', false));
        Ok(())
    }

    fn key(&mut self, key: &[u8]) -> Result<(), LimitError> {
        self.separate();
        self.quoted(key);
        self.add(b": ");
        self.after_key = true;
        Ok(())
    }

    fn end(&mut self) -> Result<(), LimitError> {
        if let Some((bracket, _)) = self.open.pop() {
            self.add(&[bracket]);
        }
        Ok(())
    }
}

/// The value of an object's member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    Text(&'a str),
    /// An object or an array, as `strings` and [`find`] take it.
    Container(&'a [u8]),
    Number,
    Other,
}

/// Members of an object by their names; `None` for a missing one, and for everything but objects.
pub fn find<'a, const N: usize>(root: &'a [u8], names: [&str; N]) -> [Option<Found<'a>>; N] {
    let mut found = [None; N];
    let header = u32_at(root, 0).unwrap_or_default();
    let count = if header & OBJECT == 0 { 0 } else { (header & COUNT) as usize };
    let entries = || Entries { root, table: 4, data: 4 + 8 * count, next: 0, offset: 0 };
    let (mut keys, mut values) = (entries(), entries());
    if interrupt::each(0..count).any(|_| values.step().is_err()) {
        return found;
    }
    for _ in interrupt::each(0..count) {
        let (Ok((_, start, length)), Ok((kind, at, size))) = (keys.step(), values.step()) else {
            return found;
        };
        let key = root.get(start..start + length).unwrap_or_default();
        if let Some(wanted) = names.iter().position(|name| name.as_bytes() == key) {
            found[wanted] = Some(match kind {
                0x0000_0000 => {
                    std::str::from_utf8(root.get(at..at + size).unwrap_or_default()).map_or(Found::Other, Found::Text)
                }
                0x5000_0000 => root.get((at + 3) & !3..at + size).map_or(Found::Other, Found::Container),
                0x1000_0000 => Found::Number,
                _ => Found::Other,
            });
        }
    }
    found
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, JsonbError> {
    let four = bytes.get(at..at + 4).ok_or(JsonbError::Damaged)?;
    Ok(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, JsonbError> {
    let two = bytes.get(at..at + 2).ok_or(JsonbError::Damaged)?;
    Ok(u16::from_ne_bytes([two[0], two[1]]))
}

/// Walks the entries of one container in order.
pub(crate) struct Entries<'a> {
    root: &'a [u8],
    table: usize,
    data: usize,
    next: usize,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// Those of an array that is the whole value.
    pub(crate) fn of_array(root: &'a [u8], count: usize) -> Self {
        Entries { root, table: 4, data: 4 + 4 * count, next: 0, offset: 0 }
    }

    /// The next entry, if it is a string.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        match self.step() {
            Ok((0, start, length)) => std::str::from_utf8(self.root.get(start..start + length)?).ok(),
            _ => None,
        }
    }

    /// Type, start and length of the next entry, relative to the root.
    fn step(&mut self) -> Result<(u32, usize, usize), JsonbError> {
        let entry = u32_at(self.root, self.table + 4 * self.next)?;
        let end =
            if entry & HAS_OFFSET != 0 { (entry & COUNT) as usize } else { self.offset + (entry & COUNT) as usize };
        let length = end.checked_sub(self.offset).ok_or(JsonbError::Damaged)?;
        let start = self.data + self.offset;
        self.offset = end;
        self.next += 1;
        Ok((entry & TYPE, start, length))
    }
}

/// A container whose elements are being told.
struct Level<'a> {
    /// Of an object: all keys come first, then all values.
    keys: Option<Entries<'a>>,
    values: Entries<'a>,
    left: usize,
}

impl<'a> Level<'a> {
    fn begin<E>(root: &'a [u8], at: usize, events: &mut impl JsonEvents<E>) -> Result<Self, JsonbError>
    where
        JsonbError: From<E>,
    {
        let header = u32_at(root, at)?;
        let left = (header & COUNT) as usize;
        let table = at + 4;
        let is_object = header & OBJECT != 0;
        let data = table + 4 * if is_object { left * 2 } else { left };
        if data > root.len() || header & SCALAR != 0 {
            return Err(JsonbError::Damaged);
        }
        let entries = || Entries { root, table, data, next: 0, offset: 0 };
        let mut values = entries();
        if is_object {
            interrupt::each(0..left).try_for_each(|_| values.step().map(drop))?;
            events.begin_object()?;
        } else if header & ARRAY != 0 {
            events.begin_array()?;
        } else {
            return Err(JsonbError::Damaged);
        }
        Ok(Level { keys: is_object.then(entries), values, left })
    }
}

/// Numbers and containers are aligned to four bytes; their length includes the padding.
fn aligned(start: usize) -> usize {
    (start + 3) & !3
}

fn scalar<E>(
    root: &[u8],
    (kind, start, length): (u32, usize, usize),
    events: &mut impl JsonEvents<E>,
) -> Result<(), JsonbError>
where
    JsonbError: From<E>,
{
    match kind {
        0x0000_0000 => events.string(root.get(start..start + length).ok_or(JsonbError::Damaged)?)?,
        0x1000_0000 => {
            let bytes = root.get(aligned(start)..start + length).ok_or(JsonbError::Damaged)?;
            let mut text = Vec::with_capacity(24);
            numeric_text(varlena_payload(bytes)?, &mut text)?;
            events.number(&text)?;
        }
        0x2000_0000 => events.bool(false)?,
        0x3000_0000 => events.bool(true)?,
        0x4000_0000 => events.null()?,
        _ => return Err(JsonbError::Damaged),
    }
    Ok(())
}

/// A `numeric` inside `jsonb` always has the plain four-byte header.
fn varlena_payload(bytes: &[u8]) -> Result<&[u8], JsonbError> {
    let header = u32_at(bytes, 0)?;
    let total = if cfg!(target_endian = "little") { (header >> 2) as usize } else { (header & 0x3FFF_FFFF) as usize };
    bytes.get(4..total).ok_or(JsonbError::Damaged)
}

/// What `numeric_out` prints (src/backend/utils/adt/numeric.c, get_str_from_var).
fn numeric_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), JsonbError> {
    let header = u16_at(bytes, 0)?;
    let (negative, scale, weight, digits) = match header & 0xC000 {
        0x8000 => {
            let low = (header & 0x3F) as i32;
            let weight = if header & 0x40 != 0 { low - 64 } else { low };
            (header & 0x2000 != 0, ((header & 0x1F80) >> 7) as usize, weight, &bytes[2..])
        }
        0xC000 => return Err(JsonbError::Damaged), // NaN and infinities are not JSON
        sign => {
            let weight = u16_at(bytes, 2)? as i16;
            (sign == 0x4000, (header & 0x3FFF) as usize, i32::from(weight), &bytes[4..])
        }
    };
    let groups = digits.len() / 2;
    let group = |at: i32| -> Result<u16, JsonbError> {
        match usize::try_from(at) {
            Ok(at) if at < groups => Ok(u16_at(digits, at * 2)?),
            _ => Ok(0),
        }
    };
    if negative {
        out.push(b'-');
    }
    if weight < 0 {
        out.push(b'0');
    }
    for at in 0..=weight {
        let four = digits_of(group(at)?)?;
        let skip = if at == 0 { four.iter().take(3).take_while(|d| **d == b'0').count() } else { 0 };
        out.extend_from_slice(&four[skip..]);
    }
    if scale > 0 {
        out.push(b'.');
        let start = out.len();
        let mut at = weight + 1;
        while out.len() - start < scale {
            out.extend_from_slice(&digits_of(group(at)?)?);
            at += 1;
        }
        out.truncate(start + scale);
    }
    Ok(())
}

fn digits_of(group: u16) -> Result<[u8; 4], JsonbError> {
    if group > 9999 {
        return Err(JsonbError::Damaged);
    }
    let digit = |n: u16| b'0' + (n % 10) as u8;
    Ok([digit(group / 1000), digit(group / 100), digit(group / 10), digit(group)])
}

/// Distance of the entries that hold their end offset instead of their length.
const OFFSET_STRIDE: usize = 32;

/// Writes one object in the binary form: first all keys, in the order of `jsonb`
/// ([`key_order`]), then as many values.
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    table: usize,
    data: usize,
    next: usize,
    entries: usize,
}

/// How `jsonb` orders keys: shorter first, then by bytes.
pub fn key_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl<'o> ObjectWriter<'o> {
    /// Starts an object of `count` members at the end of `out`, which must lie at a
    /// multiple of four from the root.
    pub fn new(out: &'o mut Vec<u8>, count: usize) -> Self {
        pad(out);
        out.extend_from_slice(&(count as u32 | OBJECT).to_ne_bytes());
        let table = out.len();
        out.resize(table + 8 * count, 0);
        ObjectWriter { data: out.len(), out, table, next: 0, entries: 2 * count }
    }

    fn entry(&mut self, kind: u32, start: usize) {
        debug_assert!(self.next < self.entries, "no more entries than announced");
        let mut word = kind | (self.out.len() - start) as u32;
        if self.next.is_multiple_of(OFFSET_STRIDE) {
            word = kind | HAS_OFFSET | (self.out.len() - self.data) as u32;
        }
        let at = self.table + 4 * self.next;
        self.out[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        self.next += 1;
    }

    /// A key, or a string value.
    pub fn string(&mut self, text: &[u8]) {
        let start = self.out.len();
        self.out.extend_from_slice(text);
        self.entry(0, start);
    }
    /// `null`
    pub fn null(&mut self) {
        self.entry(0x4000_0000, self.out.len());
    }
    /// `true` or `false`
    pub fn bool(&mut self, value: bool) {
        self.entry(if value { 0x3000_0000 } else { 0x2000_0000 }, self.out.len());
    }
    /// A finite `numeric`, with its plain header of four bytes.
    pub fn numeric(&mut self, varlena: &[u8]) {
        let start = self.out.len();
        pad(self.out);
        self.out.extend_from_slice(varlena);
        self.entry(0x1000_0000, start);
    }
    pub fn integer(&mut self, value: i64) {
        let mut rest = value.unsigned_abs();
        let mut groups = [0u16; 5];
        let mut count = 0;
        while rest > 0 {
            groups[count] = (rest % 10_000) as u16;
            rest /= 10_000;
            count += 1;
        }
        // The short form of numeric.c: sign and weight in one word, no zeros at the end.
        let sign = if value < 0 { 0x2000 } else { 0 };
        let header = 0x8000 | sign | (count.max(1) - 1) as u16;
        let skip = groups[..count].iter().take_while(|group| **group == 0).count();
        let length = 4 + 2 + 2 * (count - skip);
        let mut varlena = [0; 16];
        let head = if cfg!(target_endian = "little") { (length as u32) << 2 } else { length as u32 };
        varlena[..4].copy_from_slice(&head.to_ne_bytes());
        varlena[4..6].copy_from_slice(&header.to_ne_bytes());
        for (i, group) in groups[skip..count].iter().rev().enumerate() {
            varlena[6 + 2 * i..8 + 2 * i].copy_from_slice(&group.to_ne_bytes());
        }
        self.numeric(&varlena[..length]);
    }
    /// A `jsonb` value: the bytes behind its varlena header.
    pub fn jsonb(&mut self, root: &[u8]) -> Result<(), JsonbError> {
        let header = u32_at(root, 0)?;
        let start = self.out.len();
        if header & SCALAR != 0 {
            // A top-level scalar is stored as an array of one element, which is unwrapped here.
            let mut entries = Entries { root, table: 4, data: 8, next: 0, offset: 0 };
            let (kind, at, length) = entries.step()?;
            let aligned = if kind == 0x1000_0000 { (at + 3) & !3 } else { at };
            let bytes = root.get(aligned..at + length).ok_or(JsonbError::Damaged)?;
            if kind == 0x1000_0000 {
                pad(self.out);
            }
            self.out.extend_from_slice(bytes);
            self.entry(kind, start);
        } else {
            pad(self.out);
            self.out.extend_from_slice(root);
            self.entry(0x5000_0000, start);
        }
        Ok(())
    }
    pub fn object<E>(
        &mut self,
        count: usize,
        write: impl FnOnce(&mut ObjectWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.out.len();
        let mut inner = ObjectWriter::new(self.out, count);
        write(&mut inner)?;
        debug_assert_eq!(inner.next, inner.entries, "as many entries as announced");
        self.entry(0x5000_0000, start);
        Ok(())
    }
}

/// A value of a small object.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    Text(&'a str),
    Integer(i64),
    /// A `jsonb` value without its varlena header.
    Jsonb(&'a [u8]),
}

/// An object of the members that are there.
pub fn object(members: &[(&str, Option<Member<'_>>)]) -> Result<Vec<u8>, JsonbError> {
    let mut present: Vec<(&str, Member<'_>)> =
        members.iter().filter_map(|(key, value)| value.map(|value| (*key, value))).collect();
    present.sort_by(|a, b| key_order(a.0.as_bytes(), b.0.as_bytes()));
    let mut out = Vec::with_capacity(256);
    let mut writer = ObjectWriter::new(&mut out, present.len());
    present.iter().for_each(|(key, _)| writer.string(key.as_bytes()));
    for (_, value) in present {
        match value {
            Member::Text(text) => writer.string(text.as_bytes()),
            Member::Integer(number) => writer.integer(number),
            Member::Jsonb(root) => writer.jsonb(root)?,
        }
    }
    Ok(out)
}

fn pad(out: &mut Vec<u8>) {
    out.resize((out.len() + 3) & !3, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::skr1::{self, Encoder};
    use proptest::prelude::*;

    fn walk(bytes: &[u8]) -> Result<Vec<u8>, JsonbError> {
        let mut out = Vec::new();
        Encoder::new(&mut out, &[0; 16], 1).json(1, Bounds::RECORDED, |w| encode_into(bytes, w))?;
        Ok(out[4 + 16 + 4 + 7..].to_vec())
    }
    fn text(weight: i16, scale: u16, negative: bool, groups: &[u16]) -> String {
        let mut bytes = (scale | if negative { 0x4000 } else { 0 }).to_ne_bytes().to_vec();
        bytes.extend(weight.to_ne_bytes());
        groups.iter().for_each(|g| bytes.extend(g.to_ne_bytes()));
        let mut out = Vec::new();
        numeric_text(&bytes, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_print_as_numeric_out_prints_them() {
        assert_eq!(text(0, 0, false, &[]), "0");
        assert_eq!(text(0, 2, false, &[]), "0.00");
        assert_eq!(text(0, 0, true, &[42]), "-42");
        assert_eq!(text(1, 0, false, &[1]), "10000");
        assert_eq!(text(1, 3, false, &[12, 3456, 7890]), "123456.789");
        assert_eq!(text(-1, 5, false, &[1234, 5000]), "0.12345");
        assert_eq!(text(-2, 8, false, &[1234]), "0.00001234");
    }

    fn written(value: &serde_json::Value, out: &mut ObjectWriter<'_>) {
        use serde_json::Value;
        match value {
            Value::Null => out.null(),
            Value::Bool(b) => out.bool(*b),
            Value::Number(n) => out.integer(n.as_i64().unwrap()),
            Value::String(s) => out.string(s.as_bytes()),
            Value::Object(map) => out
                .object::<()>(map.len(), |inner| {
                    members(map, inner);
                    Ok(())
                })
                .unwrap(),
            Value::Array(_) => unreachable!("not generated"),
        }
    }
    fn members(map: &serde_json::Map<String, serde_json::Value>, out: &mut ObjectWriter<'_>) {
        let mut sorted: Vec<_> = map.iter().collect();
        sorted.sort_by(|a, b| key_order(a.0.as_bytes(), b.0.as_bytes()));
        sorted.iter().for_each(|(key, _)| out.string(key.as_bytes()));
        sorted.iter().for_each(|(_, value)| written(value, out));
    }
    /// As the server prints a jsonb.
    fn printed(value: &serde_json::Value) -> String {
        let serde_json::Value::Object(map) = value else { return value.to_string() };
        let mut sorted: Vec<_> = map.iter().collect();
        sorted.sort_by(|a, b| key_order(a.0.as_bytes(), b.0.as_bytes()));
        let members: Vec<_> = sorted
            .iter()
            .map(|(key, value)| format!("{}: {}", serde_json::Value::from(key.as_str()), printed(value)))
            .collect();
        format!("{{{}}}", members.join(", "))
    }
    fn any_object() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            "[a-c]{0,9}".prop_map(Value::String),
            prop_oneof![any::<i64>(), -20_000i64..20_000, Just(0), Just(10_000), Just(-100_000_000), Just(i64::MIN)]
                .prop_map(|n| Value::Number(n.into()))
        ];
        fn object(inner: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
            prop::collection::btree_map("[a-z]{0,4}", inner, 0..40)
                .prop_map(|m| Value::Object(m.into_iter().collect()))
                .boxed()
        }
        let leaf = leaf.boxed();
        object(prop_oneof![leaf.clone(), object(leaf)].boxed())
    }

    proptest! {
        /// What is written is read back as the same value.
        #[test]
        fn objects_survive_writing_and_reading(value in any_object()) {
            let serde_json::Value::Object(map) = &value else { unreachable!() };
            let mut bytes = Vec::new();
            members(map, &mut ObjectWriter::new(&mut bytes, map.len()));
            let mut expected = Vec::new();
            Encoder::new(&mut expected, &[0; 16], 1).json(1, Bounds::RECORDED, |w| skr1::encode_into(&value, w)).unwrap();
            prop_assert_eq!(walk(&bytes), Ok(expected[4 + 16 + 4 + 7..].to_vec()));
        }

        /// Members are found in an object, and in an object inside of it.
        #[test]
        fn members_are_found_by_name(value in any_object()) {
            let serde_json::Value::Object(map) = &value else { unreachable!() };
            let mut bytes = Vec::new();
            members(map, &mut ObjectWriter::new(&mut bytes, map.len()));
            for (name, value) in map {
                let [found, none] = find(&bytes, [name, "not there"]);
                prop_assert_eq!(none, None);
                match (value, found) {
                    (serde_json::Value::String(text), Some(Found::Text(found))) => prop_assert_eq!(text, found),
                    (serde_json::Value::Object(inner), Some(Found::Container(found))) => {
                        for name in inner.keys() {
                            prop_assert!(find(found, [name])[0].is_some());
                        }
                    }
                    (serde_json::Value::String(_) | serde_json::Value::Object(_), found) => prop_assert!(false, "{:?}", found),
                    (serde_json::Value::Number(_), found) => prop_assert_eq!(found, Some(Found::Number)),
                    (_, found) => prop_assert_eq!(found, Some(Found::Other)),
                }
            }
        }

        /// The digest is that of the text, which the meter never finds shorter.
        #[test]
        fn texts_are_hashed_as_they_are_printed(value in any_object()) {
            let serde_json::Value::Object(map) = &value else { unreachable!() };
            let mut bytes = Vec::new();
            members(map, &mut ObjectWriter::new(&mut bytes, map.len()));
            let text = printed(&value);
            prop_assert_eq!(text_digest(&bytes), Ok((crate::input::sha256(text.as_bytes()), text.len() as u64)));
            let mut written = Vec::new();
            write_text(&bytes, &mut written).unwrap();
            prop_assert_eq!(String::from_utf8(written).unwrap(), text.clone());
            prop_assert!(measure(&bytes, Bounds::STORED).unwrap() >= text.len());
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = walk(&bytes);
            let _ = find(&bytes, ["a"]);
            let _ = text_digest(&bytes);
        }
    }
}
