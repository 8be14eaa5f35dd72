//! Reads PostgreSQL's binary `jsonb` (src/include/utils/jsonb.h, unchanged since 9.4).
//!
//! Signing walks every value of every row, so this goes over the bytes as they
//! lie in the tuple instead of calling the server once per token. All reads are
//! checked: a damaged value is an error, never a wild read.

use crate::skr1::{EncodeError, JsonWriter};

/// Why a value could not be told to the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonbError {
    /// The bytes are no `jsonb`.
    Damaged,
    /// They are, and over a limit.
    Encode(EncodeError),
}

impl From<EncodeError> for JsonbError {
    fn from(error: EncodeError) -> Self {
        JsonbError::Encode(error)
    }
}

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const TYPE: u32 = 0x7000_0000;

/// Tells the writer the value in `root`, the bytes behind the varlena header.
pub fn tell(root: &[u8], writer: &mut JsonWriter<'_>) -> Result<(), JsonbError> {
    container(root, 0, writer, true)
}

/// The elements of an array of strings. `Err` carries the strings that could be
/// read and why the value is no such array.
pub fn strings(root: &[u8]) -> Result<Vec<&str>, (Vec<String>, String)> {
    let wrong = |found: Vec<&str>, reason: String| Err((found.into_iter().map(str::to_owned).collect(), reason));
    let header = u32_at(root, 0).unwrap_or_default();
    if header & ARRAY == 0 || header & SCALAR != 0 {
        return wrong(Vec::new(), "the effects are JSON, but no array".into());
    }
    let count = (header & COUNT) as usize;
    let mut entries = Entries { root, table: 4, data: 4 + 4 * count, next: 0, offset: 0 };
    let (mut found, mut reason) = (Vec::new(), None);
    for i in 0..count {
        let text = match entries.step() {
            Ok((0, start, length)) => root.get(start..start + length).and_then(|bytes| std::str::from_utf8(bytes).ok()),
            _ => None,
        };
        match text {
            Some(text) => found.push(text),
            None => {
                reason.get_or_insert_with(|| format!("element {} of the effects is no string", i + 1));
            }
        }
    }
    match reason {
        None => Ok(found),
        Some(reason) => wrong(found, reason),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, JsonbError> {
    let four = bytes.get(at..at + 4).ok_or(JsonbError::Damaged)?;
    Ok(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, JsonbError> {
    let two = bytes.get(at..at + 2).ok_or(JsonbError::Damaged)?;
    Ok(u16::from_ne_bytes([two[0], two[1]]))
}

/// Walks the entries of one container in order.
struct Entries<'a> {
    root: &'a [u8],
    table: usize,
    data: usize,
    next: usize,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// Type, start and length of the next entry, relative to the root.
    fn step(&mut self) -> Result<(u32, usize, usize), JsonbError> {
        let entry = u32_at(self.root, self.table + 4 * self.next)?;
        let end = if entry & HAS_OFFSET != 0 { (entry & COUNT) as usize } else { self.offset + (entry & COUNT) as usize };
        let length = end.checked_sub(self.offset).ok_or(JsonbError::Damaged)?;
        let start = self.data + self.offset;
        self.offset = end;
        self.next += 1;
        Ok((entry & TYPE, start, length))
    }
}

fn container(root: &[u8], at: usize, writer: &mut JsonWriter<'_>, top: bool) -> Result<(), JsonbError> {
    let header = u32_at(root, at)?;
    let count = (header & COUNT) as usize;
    let table = at + 4;
    let children = if header & OBJECT != 0 { count * 2 } else { count };
    let data = table + 4 * children;
    if data > root.len() {
        return Err(JsonbError::Damaged);
    }
    let mut entries = Entries { root, table, data, next: 0, offset: 0 };
    if header & OBJECT != 0 {
        // All keys come first, then all values.
        let mut keys = Entries { root, table, data, next: 0, offset: 0 };
        for _ in 0..count {
            entries.step()?;
        }
        writer.begin_object()?;
        for _ in 0..count {
            let (_, start, length) = keys.step()?;
            writer.key(root.get(start..start + length).ok_or(JsonbError::Damaged)?)?;
            value(root, entries.step()?, writer)?;
        }
        writer.end()?;
    } else if header & ARRAY != 0 {
        if header & SCALAR != 0 {
            return if top && count == 1 { value(root, entries.step()?, writer) } else { Err(JsonbError::Damaged) };
        }
        writer.begin_array()?;
        for _ in 0..count {
            value(root, entries.step()?, writer)?;
        }
        writer.end()?;
    } else {
        return Err(JsonbError::Damaged);
    }
    Ok(())
}

fn value(root: &[u8], (kind, start, length): (u32, usize, usize), writer: &mut JsonWriter<'_>) -> Result<(), JsonbError> {
    // Numbers and containers are aligned to four bytes; their length includes the padding.
    let aligned = (start + 3) & !3;
    match kind {
        0x0000_0000 => writer.string(root.get(start..start + length).ok_or(JsonbError::Damaged)?)?,
        0x1000_0000 => {
            let bytes = root.get(aligned..start + length).ok_or(JsonbError::Damaged)?;
            let mut text = Vec::with_capacity(24);
            numeric_text(varlena_payload(bytes)?, &mut text)?;
            writer.number(&text)?;
        }
        0x2000_0000 => writer.bool(false)?,
        0x3000_0000 => writer.bool(true)?,
        0x4000_0000 => writer.null()?,
        0x5000_0000 => container(root, aligned, writer, false)?,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skr1::Encoder;
    use proptest::prelude::*;

    fn walk(bytes: &[u8]) -> Result<Vec<u8>, JsonbError> {
        let mut out = Vec::new();
        Encoder::new(&mut out, &[0; 16], 1).json(1, |w| tell(bytes, w))?;
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

    proptest! {
        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = walk(&bytes);
        }
    }
}
