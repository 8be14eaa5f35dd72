//! Untrusted values: their bounds, and canonical JSON.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Code, Fault, shorten};
use crate::interrupt;
use crate::limits::{Bounds, LimitError, MAX_JSON_DEPTH, check_value};

/// Largest JSON argument, in bytes of its text.
pub const MAX_JSON_BYTES: usize = 1 << 20;

/// The error for an invalid value of an argument.
pub fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(Code::InvalidParameterValue, message)
}

/// What another library reports, as a sentence for a DETAIL.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '…']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// Why a regular expression is not valid: the last line of what its parser draws.
pub fn invalid_pattern(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    sentence(&shorten(last.strip_prefix("error: ").unwrap_or(last)))
}

/// Parses untrusted JSON, with its size and depth bounded.
pub fn parse_json(what: &str, text: &str) -> Result<Value, Fault> {
    if text.len() > MAX_JSON_BYTES {
        return Err(Fault::new(Code::ProgramLimitExceeded, format!("{what} is larger than {MAX_JSON_BYTES} bytes"))
            .detail(format!("It has {} bytes.", text.len())));
    }
    let too_deep = || {
        Fault::new(Code::ProgramLimitExceeded, format!("{what} is nested too deeply"))
            .detail(format!("At most {MAX_JSON_DEPTH} levels are read."))
    };
    let value = serde_json::from_str(text).map_err(|error| {
        let error = error.to_string();
        if error.starts_with("recursion limit") {
            too_deep()
        } else {
            invalid(format!("could not parse {what}"))
                .detail(sentence(&error))
                .hint("Numbers beyond what a double holds must be written as text.")
        }
    })?;
    match check_value(&value, Bounds::ARGUMENT) {
        Ok(()) => Ok(value),
        Err(LimitError::TooDeep(_)) => Err(too_deep()),
        Err(error) => Err(error.into()),
    }
}

/// A text of 1 to `most` characters.
pub fn required<'a>(what: &str, value: Option<&'a str>, most: usize) -> Result<&'a str, Fault> {
    let value = value.ok_or_else(|| invalid(format!("{what} must not be NULL")))?;
    let length = if value.len() <= most { value.len() } else { interrupt::each(value.chars()).count() };
    if value.trim().is_empty() || length > most {
        return Err(
            invalid(format!("{what} must have 1 to {most} characters")).detail(format!("It has {length} characters."))
        );
    }
    Ok(value)
}

/// As [`required`], where the value may be left out.
pub fn optional<'a>(what: &str, value: Option<&'a str>, most: usize) -> Result<Option<&'a str>, Fault> {
    value.map(|value| required(what, Some(value), most)).transpose()
}

/// One of the given words.
pub fn parse_choice<'a>(what: &str, value: Option<&'a str>, words: &[&str]) -> Result<&'a str, Fault> {
    let value = value.ok_or_else(|| invalid(format!("{what} must not be NULL")))?;
    if words.contains(&value) {
        return Ok(value);
    }
    Err(invalid(format!("invalid value for {what}: \"{}\"", shorten(value)))
        .hint(format!("Use one of {}.", words.join(", "))))
}

/// Compact JSON with the keys of objects in byte order.
pub fn canonical(value: &Value) -> String {
    fn write(value: &Value, out: &mut String) {
        interrupt::check();
        match value {
            Value::Object(members) => {
                let mut keys: Vec<_> = members.keys().collect();
                keys.sort();
                out.push('{');
                for (i, key) in keys.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::String(key.clone()).to_string());
                    out.push(':');
                    write(&members[key], out);
                }
                out.push('}');
            }
            Value::Array(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write(element, out);
                }
                out.push(']');
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// `sha256:` and the hex digest of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// SHA-256 of a call's arguments: it tells a repeated call from another one with the same idempotency key.
pub fn request_digest(function: &str, arguments: &[Option<&[u8]>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(function.as_bytes());
    for argument in arguments {
        match argument {
            None => hash.update([0]),
            Some(bytes) => {
                hash.update([1]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            }
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_known_by_all_of_its_arguments() {
        let digest = request_digest("log_run", &[Some(b"a"), Some(b"b"), None]);
        assert_eq!(digest, request_digest("log_run", &[Some(b"a"), Some(b"b"), None]));
        for other in [
            request_digest("start_run", &[Some(b"a"), Some(b"b"), None]),
            request_digest("log_run", &[Some(b"ab"), Some(b""), None]),
            request_digest("log_run", &[Some(b"a"), Some(b"b"), Some(b"")]),
            request_digest("log_run", &[Some(b"b"), Some(b"a"), None]),
        ] {
            assert_ne!(digest, other);
        }
    }

    #[test]
    fn reports_of_other_libraries_become_sentences() {
        assert_eq!(sentence("expected value at line 1\n"), "Expected value at line 1.");
        assert_eq!(sentence("Done."), "Done.");
        let unclosed = regex::RegexBuilder::new(&"(".repeat(2)).build().unwrap_err();
        assert_eq!(invalid_pattern(&unclosed), "Unclosed group.");
        let large = regex::RegexBuilder::new("a{1000}").size_limit(10).build().unwrap_err();
        assert_eq!(invalid_pattern(&large), "Compiled regex exceeds size limit of 10 bytes.");
    }

    #[test]
    fn canonical_json_is_sorted_and_compact() {
        assert_eq!(
            canonical(&json!({"b": [1, {"z": null, "a": "x\"y"}], "a": 1.5})),
            r#"{"a":1.5,"b":[1,{"a":"x\"y","z":null}]}"#
        );
        assert_eq!(sha256(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bounds() {
        assert!(
            parse_json("x", &format!("{}{}", "[".repeat(65), "]".repeat(65)))
                .is_err_and(|f| f.code == Code::ProgramLimitExceeded)
        );
        assert!(parse_json("x", &"1".repeat(MAX_JSON_BYTES + 1)).is_err_and(|f| f.code == Code::ProgramLimitExceeded));
        assert!(
            required("x", Some("  "), 3).is_err()
                && required("x", None, 3).is_err()
                && required("x", Some("äää"), 3).is_ok()
        );
    }
}
