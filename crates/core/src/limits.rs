//! What is accepted from outside, whatever the entrance: one constant for each bound.
//!
//! What is stored is printed, dumped, exported, put into documents and read by the verifier, so the bounds are those of the
//! text that the server prints, and far below what any of these readers can take.

use thiserror::Error;

use crate::error::{Code, Fault};
use crate::interrupt;

/// Deepest nesting of a JSON value. Readers of the documents that it becomes part of stop at 128 levels.
pub const MAX_JSON_DEPTH: usize = 64;
/// Longest text of a JSON value, as the server prints it: a record, a value of a column.
pub const MAX_JSON_TEXT: usize = 16 << 20;
/// Most members of objects and elements of arrays of a JSON value, nested ones included.
pub const MAX_JSON_VALUES: usize = 1 << 20;
/// Longest text of a number, enough for each double without an exponent.
pub const MAX_NUMBER: usize = 400;
/// Largest argument of a function and value of a column, in bytes: SKILL.md and its files, encoded as base64 in JSON.
pub const MAX_VALUE: usize = 32 << 20;
/// Longest text of a column that is part of a B-tree index, in bytes: two of them and a tenant fit into its pages.
pub const MAX_INDEXED: usize = 1024;
/// What skill_system.max_record_size can be set to, in bytes of `event_data` as text; [`MAX_JSON_TEXT`] is the default.
pub const RECORD_SIZES: std::ops::RangeInclusive<usize> = 1 << 20..=128 << 20;
/// First point in time: 0001-01-01 00:00 UTC, in microseconds since 1970.
pub const MIN_TIME: i64 = -62_135_596_800_000_000;
/// First point in time that is refused: 10000-01-01 00:00 UTC, in microseconds since 1970.
pub const END_OF_TIME: i64 = 253_402_300_800_000_000;
/// How far the clock of a caller may be ahead of the server's, in microseconds.
pub const MAX_AHEAD: i64 = 300_000_000;

/// The time in microseconds since 1970, which is `None` for the infinities, if it is one that is accepted.
pub fn check_time(what: &str, unix_micros: Option<i64>) -> Result<i64, Fault> {
    unix_micros.filter(|micros| (MIN_TIME..END_OF_TIME).contains(micros)).ok_or_else(|| {
        Fault::new(Code::InvalidParameterValue, format!("{what} must be a time in the years 1 to 9999"))
            .hint("NULL, where it is allowed, means none.")
    })
}

/// As [`check_time`], of something that has happened.
pub fn check_past(what: &str, unix_micros: Option<i64>, now: i64) -> Result<i64, Fault> {
    let unix_micros = check_time(what, unix_micros)?;
    if unix_micros <= now.saturating_add(MAX_AHEAD) {
        return Ok(unix_micros);
    }
    Err(Fault::new(Code::InvalidParameterValue, format!("{what} must not be in the future"))
        .detail(format!("It is more than {} minutes ahead of the server's clock.", MAX_AHEAD / 60_000_000))
        .hint("Leave it out for the time of writing."))
}

/// A day in days since 1970, which is `None` for the infinities, if it is one that is accepted.
pub fn check_day(what: &str, unix_days: Option<i64>) -> Result<(), Fault> {
    const DAY: i64 = 86_400_000_000;
    check_time(what, unix_days.and_then(|days| days.checked_mul(DAY))).map(drop)
}

/// Refuses a value that has more than `most` bytes.
pub fn check_size(what: impl Fn() -> String, bytes: usize, most: usize) -> Result<(), Fault> {
    if bytes <= most {
        return Ok(());
    }
    Err(Fault::new(Code::ProgramLimitExceeded, format!("{} is larger than {most} bytes", what()))
        .detail(format!("It has {bytes} bytes."))
        .hint("Store the large value elsewhere and record its SHA-256."))
}

/// Which JSON is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub depth: usize,
    /// Bytes of its text.
    pub text: usize,
    pub values: usize,
    /// Bytes of the text of a number, which must be finite as a double; `None` where every number is read.
    pub number: Option<usize>,
}

impl Bounds {
    /// Of what is stored.
    pub const STORED: Bounds =
        Bounds { depth: MAX_JSON_DEPTH, text: MAX_JSON_TEXT, values: MAX_JSON_VALUES, number: Some(MAX_NUMBER) };
    /// Of an argument, of which perhaps only parts are stored.
    pub const ARGUMENT: Bounds = Bounds { text: MAX_VALUE, ..Bounds::STORED };
    /// Of records that were written when less was refused.
    pub const RECORDED: Bounds = Bounds { depth: 256, text: *RECORD_SIZES.end(), values: usize::MAX, number: None };

    /// The same for another length of the text.
    pub const fn with_text(self, text: usize) -> Bounds {
        Bounds { text, ..self }
    }
}

/// Why a JSON value is not accepted; each names its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitError {
    #[error("the JSON value is nested deeper than {0} levels")]
    TooDeep(usize),
    #[error("the JSON value is larger than {0} bytes as text")]
    TooLarge(usize),
    #[error("the JSON value has more than {0} members and elements")]
    TooMany(usize),
    #[error("the JSON value has a number of more than {0} characters, or beyond what a double holds")]
    Number(usize),
}

impl From<LimitError> for Fault {
    fn from(error: LimitError) -> Fault {
        let hint = match error {
            LimitError::TooDeep(_) => "Store the value as text, or flatten it.",
            LimitError::Number(_) => "Write such a number as text.",
            LimitError::TooLarge(_) | LimitError::TooMany(_) => {
                "Store the large value elsewhere and record its SHA-256."
            }
        };
        Fault::new(Code::ProgramLimitExceeded, error.to_string()).hint(hint)
    }
}

/// Receives a JSON value as events, in the order of its text.
pub trait JsonEvents<E> {
    fn null(&mut self) -> Result<(), E>;
    fn bool(&mut self, value: bool) -> Result<(), E>;
    /// A number by its exact decimal text.
    fn number(&mut self, text: &[u8]) -> Result<(), E>;
    fn string(&mut self, text: &[u8]) -> Result<(), E>;
    /// `[`
    fn begin_array(&mut self) -> Result<(), E>;
    /// `{`
    fn begin_object(&mut self) -> Result<(), E>;
    /// The key of the value that follows.
    fn key(&mut self, key: &[u8]) -> Result<(), E>;
    /// `]` or `}`
    fn end(&mut self) -> Result<(), E>;
}

/// Measures a JSON value against its bounds while it is read.
#[derive(Debug)]
pub struct Meter {
    bounds: Bounds,
    depth: usize,
    values: usize,
    text: usize,
}

impl Meter {
    pub fn new(bounds: Bounds) -> Self {
        Meter { bounds, depth: 0, values: 0, text: 0 }
    }

    /// Bytes of its text up to now, as the server prints it, and at most two more for each value that ends a container.
    pub fn text_length(&self) -> usize {
        self.text
    }

    #[inline]
    fn add(&mut self, bytes: usize) -> Result<(), LimitError> {
        self.text += bytes;
        if self.text > self.bounds.text { Err(LimitError::TooLarge(self.bounds.text)) } else { Ok(()) }
    }

    /// A value with the `, ` that may follow.
    #[inline]
    fn value(&mut self, bytes: usize) -> Result<(), LimitError> {
        self.values += 1;
        if self.values > self.bounds.values {
            return Err(LimitError::TooMany(self.bounds.values));
        }
        self.add(bytes + 2)
    }

    fn begin(&mut self) -> Result<(), LimitError> {
        self.value(2)?;
        self.depth += 1;
        if self.depth > self.bounds.depth { Err(LimitError::TooDeep(self.bounds.depth)) } else { Ok(()) }
    }
}

impl JsonEvents<LimitError> for Meter {
    #[inline]
    fn null(&mut self) -> Result<(), LimitError> {
        self.value(4)
    }

    #[inline]
    fn bool(&mut self, _: bool) -> Result<(), LimitError> {
        self.value(5)
    }

    #[inline]
    fn number(&mut self, text: &[u8]) -> Result<(), LimitError> {
        /// Digits without an exponent that always make a finite double.
        const FINITE: usize = 300;
        if let Some(most) = self.bounds.number {
            let finite =
                || std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite);
            let plain = text.len() <= FINITE && !text.iter().any(|b| matches!(b, b'e' | b'E'));
            if text.len() > most || !plain && !finite() {
                return Err(LimitError::Number(most));
            }
        }
        self.value(text.len())
    }

    #[inline]
    fn string(&mut self, text: &[u8]) -> Result<(), LimitError> {
        self.value(quoted_length(text))
    }

    #[inline]
    fn begin_array(&mut self) -> Result<(), LimitError> {
        self.begin()
    }

    #[inline]
    fn begin_object(&mut self) -> Result<(), LimitError> {
        self.begin()
    }

    #[inline]
    fn key(&mut self, key: &[u8]) -> Result<(), LimitError> {
        self.add(quoted_length(key) + 2)
    }

    #[inline]
    fn end(&mut self) -> Result<(), LimitError> {
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }
}

/// Length of a text as a JSON string of the server (escape_json).
pub fn quoted_length(text: &[u8]) -> usize {
    let escapes = |b: &u8| match b {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0C | b'\r' => 1,
        0..=0x1F => 5,
        _ => 0usize,
    };
    2 + text.len() + text.iter().map(escapes).sum::<usize>()
}

/// Refuses a parsed JSON value that is out of bounds.
pub fn check_value(value: &serde_json::Value, bounds: Bounds) -> Result<(), LimitError> {
    fn measure_value(value: &serde_json::Value, meter: &mut Meter) -> Result<(), LimitError> {
        use serde_json::Value;
        interrupt::check();
        match value {
            Value::Null => meter.null(),
            Value::Bool(b) => meter.bool(*b),
            Value::Number(n) => meter.number(n.to_string().as_bytes()),
            Value::String(text) => meter.string(text.as_bytes()),
            Value::Array(items) => {
                meter.begin_array()?;
                items.iter().try_for_each(|item| measure_value(item, meter))?;
                meter.end()
            }
            Value::Object(members) => {
                meter.begin_object()?;
                for (key, value) in members {
                    meter.key(key.as_bytes())?;
                    measure_value(value, meter)?;
                }
                meter.end()
            }
        }
    }
    measure_value(value, &mut Meter::new(bounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deep(levels: usize) -> serde_json::Value {
        (0..levels).fold(json!(1), |inner, i| if i % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
    }

    #[test]
    fn each_bound_is_named() {
        let of = |value: &serde_json::Value| check_value(value, Bounds::STORED);
        assert_eq!(of(&deep(MAX_JSON_DEPTH)), Ok(()));
        assert_eq!(of(&deep(MAX_JSON_DEPTH + 1)), Err(LimitError::TooDeep(MAX_JSON_DEPTH)));
        assert_eq!(of(&json!(vec![0; MAX_JSON_VALUES - 1])), Ok(()));
        assert_eq!(of(&json!(vec![0; MAX_JSON_VALUES])), Err(LimitError::TooMany(MAX_JSON_VALUES)));
        // A control character is six bytes of text.
        assert_eq!(of(&json!("\u{1}".repeat(MAX_JSON_TEXT / 6 - 10))), Ok(()));
        assert_eq!(of(&json!("\u{1}".repeat(MAX_JSON_TEXT / 6 + 1))), Err(LimitError::TooLarge(MAX_JSON_TEXT)));
        assert_eq!(of(&json!({"x".repeat(MAX_JSON_TEXT): 1})), Err(LimitError::TooLarge(MAX_JSON_TEXT)));
    }

    #[test]
    fn numbers_are_those_that_a_double_holds() {
        let number = |text: &str| Meter::new(Bounds::STORED).number(text.as_bytes());
        let tiny = format!("0.{}49406564584124654", "0".repeat(323));
        for good in ["0", "-12345678901234567890.1230", &"9".repeat(300), &f64::MAX.to_string(), &tiny] {
            assert_eq!(number(good), Ok(()), "{good}");
        }
        for bad in ["1e400".to_owned(), format!("2{}", "0".repeat(308)), format!("0.{}", "1".repeat(400))] {
            assert_eq!(number(&bad), Err(LimitError::Number(MAX_NUMBER)), "{bad}");
        }
        assert_eq!(Meter::new(Bounds::RECORDED).number(&[b'1'; 131_072]), Ok(()));
    }

    #[test]
    fn the_length_is_that_of_the_servers_text() {
        for (value, text) in [
            (
                json!({"a": 1, "b": [true, null, "x\"\n\u{1}é"]}),
                "{\"a\": 1, \"b\": [true, null, \"x\\\"\\n\\u0001é\"]}",
            ),
            (json!([]), "[]"),
            (json!("\u{7f}"), "\"\u{7f}\""),
        ] {
            let mut least = Bounds::STORED.with_text(text.len() + 16);
            assert_eq!(check_value(&value, least), Ok(()), "{text}");
            least.text = text.len() - 1;
            assert!(check_value(&value, least).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (micros, good) in [
            (None, false),
            (Some(MIN_TIME - 1), false),
            (Some(MIN_TIME), true),
            (Some(0), true),
            (Some(END_OF_TIME - 1), true),
            (Some(END_OF_TIME), false),
            (Some(i64::MAX), false),
        ] {
            assert_eq!(check_time("at", micros).is_ok(), good, "{micros:?}");
            assert_eq!(check_past("at", micros, END_OF_TIME).is_ok(), good, "{micros:?}");
        }
        let day = |micros: i64| Some(micros / 86_400_000_000);
        assert!(check_day("on", day(MIN_TIME)).is_ok() && check_day("on", day(END_OF_TIME - 1)).is_ok());
        for bad in [None, day(END_OF_TIME), day(MIN_TIME).map(|day| day - 1), Some(i64::MAX)] {
            assert_eq!(check_day("on", bad).unwrap_err().code, Code::InvalidParameterValue, "{bad:?}");
        }
    }

    #[test]
    fn what_happened_is_not_in_the_future() {
        let now = 1_700_000_000_000_000;
        assert!(check_past("ts", Some(now + MAX_AHEAD), now).is_ok());
        assert!(check_past("ts", Some(now + MAX_AHEAD + 1), now).is_err());
    }
}
