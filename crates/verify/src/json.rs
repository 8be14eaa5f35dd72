//! Reads JSON (RFC 8259) without building it: values go straight to where they are encoded.
//!
//! Numbers stay the text they are. Texts are borrowed from the line unless they hold an escape.

use std::borrow::Cow;

use skill_core::audit::skr1::{EncodeError, JsonWriter};
use skill_core::limits::JsonEvents;

/// Deepest nesting that is read over. What can be signed is flatter.
const MAX_DEPTH: usize = 1024;

/// Why a value was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    Malformed(&'static str),
    /// JSON that cannot be signed.
    Encode(EncodeError),
}

impl From<EncodeError> for JsonError {
    fn from(error: EncodeError) -> JsonError {
        JsonError::Encode(error)
    }
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JsonError::Malformed(what) => write!(f, "no JSON: {what}"),
            JsonError::Encode(error) => write!(f, "{error}"),
        }
    }
}

type Result<T> = std::result::Result<T, JsonError>;

fn malformed<T>(what: &'static str) -> Result<T> {
    Err(JsonError::Malformed(what))
}

/// A place in a text.
pub struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Parser<'a> {
        Parser { text, at: 0 }
    }

    /// How far it is read.
    pub fn position(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte; 0 at the end, which is not JSON either.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn slice(&self, start: usize, end: usize) -> Result<&'a str> {
        self.text.get(start..end).ok_or(JsonError::Malformed("a cut character"))
    }

    pub fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Passes over exactly these bytes, if they come next.
    #[inline]
    pub fn skip_if<const N: usize>(&mut self, expected: &[u8; N]) -> bool {
        // The length is known when this is compiled, so a few wide comparisons do.
        let found = self.rest().first_chunk() == Some(expected);
        if found {
            self.at += N;
        }
        found
    }

    /// Nothing but blanks is left.
    pub fn at_end(&mut self) -> bool {
        self.blanks();
        self.at >= self.text.len()
    }

    /// The digits that come next.
    pub fn digits(&mut self) -> &'a str {
        let length = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        let digits = self.text.get(self.at..self.at + length).unwrap_or_default();
        self.at += length;
        digits
    }

    /// The next `length` bytes, if they are text.
    pub fn fixed(&mut self, length: usize) -> Option<&'a str> {
        let text = self.text.get(self.at..self.at + length)?;
        self.at += length;
        Some(text)
    }

    /// Moves to the next quote, backslash or control character.
    fn seek_special(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = ONES << 7;
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let mut rest = self.rest();
        // Eight bytes at a time; the lowest hit is exact, and only that one counts.
        while let Some((eight, after)) = rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let quote = zero(word ^ (ONES * b'"' as u64));
            let backslash = zero(word ^ (ONES * b'\\' as u64));
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let hits = (quote | backslash | control) & HIGH;
            if hits != 0 {
                self.at += (hits.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
            rest = after;
        }
        self.at += rest.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1F)).count();
    }

    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != b'"' {
            return malformed("a string is missing");
        }
        self.at += 1;
        let start = self.at;
        self.seek_special();
        if self.peek() == b'"' {
            self.at += 1;
            return Ok(Cow::Borrowed(self.slice(start, self.at - 1)?));
        }
        self.escaped(start).map(Cow::Owned)
    }

    #[cold]
    fn escaped(&mut self, mut start: usize) -> Result<String> {
        let mut out = String::new();
        loop {
            out.push_str(self.slice(start, self.at)?);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => {
                    self.at += 1;
                    let c = self.peek();
                    self.at += 1;
                    out.push(match c {
                        b'"' => '"',
                        b'\\' => '\\',
                        b'/' => '/',
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        _ => return malformed("an unknown escape"),
                    });
                }
                _ => return malformed("a string without an end, or with a control character"),
            }
            start = self.at;
            self.seek_special();
        }
    }

    fn unicode(&mut self) -> Result<char> {
        let first = self.hex4()?;
        let code = match first {
            0xD800..=0xDBFF if self.skip_if(b"\\u") => match self.hex4()? {
                second @ 0xDC00..=0xDFFF => 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                _ => return malformed("half of a surrogate pair"),
            },
            _ => first,
        };
        char::from_u32(code).ok_or(JsonError::Malformed("half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.fixed(4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(JsonError::Malformed("\\u without four hex digits"))
    }

    /// A number, as it is written.
    pub fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return malformed("a number without digits, or with a leading zero");
        }
        if self.peek() == b'.' {
            self.at += 1;
            if self.digits().is_empty() {
                return malformed("a number without digits after its point");
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            if self.digits().is_empty() {
                return malformed("a number without digits in its exponent");
            }
        }
        self.slice(start, self.at)
    }

    fn expect_literal<const N: usize>(&mut self, literal: &[u8; N]) -> Result<()> {
        if self.skip_if(literal) { Ok(()) } else { malformed("an unknown word") }
    }

    /// Comma or the closing bracket; true when more follows.
    fn more(&mut self, close: u8) -> Result<bool> {
        self.blanks();
        let next = self.peek();
        self.at += 1;
        if next == b',' {
            self.blanks();
            return Ok(true);
        }
        if next == close { Ok(false) } else { malformed("a comma or a bracket is missing") }
    }

    /// The bracket that opens; true when it does not close at once.
    fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        self.blanks();
        let empty = self.peek() == close;
        if empty {
            self.at += 1;
        }
        !empty
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = self.string()?;
        self.blanks();
        if !self.skip_if(b":") {
            return malformed("a colon is missing");
        }
        self.blanks();
        Ok(key)
    }

    /// Tells the writer the value that comes next. The writer bounds the depth and refuses a key given twice.
    pub fn encode_into(&mut self, writer: &mut JsonWriter<'_>) -> Result<()> {
        match self.peek() {
            b'"' => writer.string(self.string()?.as_bytes())?,
            b'{' => {
                writer.begin_object()?;
                let mut more = self.open(b'}');
                while more {
                    writer.key(self.key()?.as_bytes())?;
                    self.encode_into(writer)?;
                    more = self.more(b'}')?;
                }
                writer.end()?;
            }
            b'[' => {
                writer.begin_array()?;
                let mut more = self.open(b']');
                while more {
                    self.encode_into(writer)?;
                    more = self.more(b']')?;
                }
                writer.end()?;
            }
            b't' => {
                self.expect_literal(b"true")?;
                writer.bool(true)?;
            }
            b'f' => {
                self.expect_literal(b"false")?;
                writer.bool(false)?;
            }
            b'n' => {
                self.expect_literal(b"null")?;
                writer.null()?;
            }
            _ => writer.number(self.number()?.as_bytes())?,
        }
        Ok(())
    }

    fn skip(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return malformed("it is nested too deep");
        }
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b'{' => {
                let mut more = self.open(b'}');
                while more {
                    self.key()?;
                    self.skip(depth + 1)?;
                    more = self.more(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                let mut more = self.open(b']');
                while more {
                    self.skip(depth + 1)?;
                    more = self.more(b']')?;
                }
                Ok(())
            }
            b't' => self.expect_literal(b"true"),
            b'f' => self.expect_literal(b"false"),
            b'n' => self.expect_literal(b"null"),
            _ => self.number().map(|_| ()),
        }
    }
}

/// The members of the object in `text`, each value as it is written.
pub fn members<'a>(text: &'a str, mut found: impl FnMut(&str, &'a str) -> Result<()>) -> Result<()> {
    let mut parser = Parser::new(text);
    parser.blanks();
    if parser.peek() != b'{' {
        return malformed("no object");
    }
    let mut more = parser.open(b'}');
    while more {
        let key = parser.key()?;
        let start = parser.position();
        parser.skip(0)?;
        found(&key, parser.slice(start, parser.position())?)?;
        more = parser.more(b'}')?;
    }
    if parser.at_end() { Ok(()) } else { malformed("something follows the object") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use skill_core::audit::skr1::Encoder;
    use skill_core::limits::{Bounds, LimitError};

    fn encode(text: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut parser = Parser::new(text);
        parser.blanks();
        Encoder::new(&mut out, &[0; 16], 1).json(1, Bounds::RECORDED, |writer| parser.encode_into(writer))?;
        if parser.at_end() { Ok(out) } else { malformed("more") }
    }

    fn reference(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::new(&mut out, &[0; 16], 1)
            .json(1, Bounds::RECORDED, |writer| skill_core::audit::skr1::encode_into(value, writer))
            .unwrap();
        out
    }

    fn skips(text: &str) -> bool {
        members(&format!("{{\"x\":{text}}}"), |_, _| Ok(())).is_ok()
    }

    #[test]
    fn strict() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "-",
            "-a",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "nul",
            "tru",
            "NaN",
            "'a'",
            "\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\n\"",
            "\"\\",
            "1 2",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
        ] {
            assert!(encode(bad).is_err(), "{bad}");
            assert!(!skips(bad), "{bad}");
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
        assert_eq!(encode(r#"{"a":1,"b":{"c":1,"c":2}}"#), Err(JsonError::Encode(EncodeError::DuplicateKey)));
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(encode(&deep(256)).is_ok());
        assert_eq!(encode(&deep(257)), Err(JsonError::Encode(LimitError::TooDeep(256).into())));
        assert!(
            skips(&deep(1024)) && !skips(&deep(1026)) && !skips(&deep(1_000_000)) && !skips(&"[".repeat(1_000_000))
        );
    }

    #[test]
    fn escapes_and_numbers() {
        assert_eq!(
            encode(r#""\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00""#),
            Ok(reference(&"\"\\/\u{8}\u{c}\n\r\tä😀".into()))
        );
        // Equal numbers are not equal texts.
        let texts = ["0", "-0", "0.0", "0.00", "1", "10", "1e1", "1E1", "1e+1", "12345678901234567890.1230", "1e400"];
        let mut encoded = texts.map(|text| encode(text).unwrap());
        encoded.sort();
        assert!(encoded.windows(2).all(|pair| pair[0] != pair[1]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Number(n.into())),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,10})?".prop_map(|text| serde_json::from_str(&text).unwrap()),
            "\\PC{0,20}".prop_map(Value::String),
            any::<String>().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map("\\PC{0,9}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn another_reader_agrees(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            prop_assert_eq!(encode(&text).unwrap(), reference(&value));
            prop_assert!(skips(&text));
        }

        #[test]
        fn any_text_is_read_as_by_another_reader(text in "([\\[\\]{},:\"\\\\ ]|\"a\"|[0-9eE.+-]|true|null|\\\\u00e4|\\PC){0,24}") {
            let ours = encode(&text);
            match serde_json::from_str::<Value>(&text) {
                Err(_) => prop_assert!(ours.is_err()),
                Ok(_) => prop_assert!(matches!(ours, Ok(_) | Err(JsonError::Encode(EncodeError::DuplicateKey)))),
            }
            if ours.is_ok() {
                prop_assert!(skips(&text));
            }
        }
    }
}
