//! The contract of skillscript SkillStore: the `# Status:` header, what is signed, metadata, filters, the store's token.
//!
//! A runtime that executes skills reads the status from the body, so the reader here finds a status wherever that
//! runtime's does, in odd spellings too; the writer changes one line and nothing else.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Status;
use crate::error::{Code, Fault, shorten};
use crate::input::{invalid, invalid_pattern, optional};
use crate::interrupt;

/// Namespace of callers that name none.
pub const NAMESPACE: &str = "skillscript";
/// Who implements the contract, in errors and capabilities.
pub const IMPLEMENTATION: &str = "SkillSystemStore";
/// Longest description that is taken from a header, in characters.
const MAX_DESCRIPTION: usize = 4096;
/// Longest label, and how many of them, that other client APIs see.
const MAX_TAG: usize = 100;
const MAX_TAGS: usize = 64;
/// Longest pattern, and the memory that its automaton may take, in bytes.
const MAX_PATTERN: usize = 1000;
const MAX_AUTOMATON: usize = 1 << 20;

/// The contract's word for a status.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Draft => "Draft",
        Status::Approved => "Approved",
        Status::Disabled => "Disabled",
    }
}

/// A status from the contract's word.
pub fn parse_status(text: Option<&str>) -> Result<Status, Fault> {
    let found = [Status::Draft, Status::Approved, Status::Disabled]
        .into_iter()
        .find(|status| text == Some(status_name(*status)));
    found.ok_or_else(|| {
        let given = text.map_or("NULL".into(), |text| format!("\"{}\"", shorten(text)));
        invalid(format!("invalid value for status: {given}")).hint("Use Draft, Approved or Disabled.")
    })
}

/// What JavaScript takes for white space.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// What the `# Status:` header of a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub status: Status,
    /// What stands behind it.
    pub token: Option<&'a str>,
}

/// What JavaScript takes for a line end.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

/// Where the value of the first `# Status:` header begins: `^\s*#\s*Status\s*:\s*(.+?)\s*$` as JavaScript reads it.
fn status_value(body: &str) -> Option<usize> {
    interrupt::each(body.match_indices('#')).find_map(|(at, _)| {
        let before = body[..at].trim_end_matches(|c| is_space(c) && !is_line_end(c));
        let rest = body[at + 1..].trim_start_matches(is_space).strip_prefix("Status")?;
        let value = rest.trim_start_matches(is_space).strip_prefix(':')?.trim_start_matches(is_space);
        let begins_line = before.is_empty() || before.ends_with(is_line_end);
        (begins_line && !value.is_empty()).then(|| body.len() - value.len())
    })
}

/// Reads the first `# Status:` header; `None` where none exists, or where it says something else.
pub fn header(body: &str) -> Option<Header<'_>> {
    let start = status_value(body)?;
    let value = lines(&body[start..]).next().map(|(_, end, _)| body[start..start + end].trim_matches(is_space))?;
    let (status, token) = value.split_once(is_space).unwrap_or((value, ""));
    let status = [Status::Draft, Status::Approved, Status::Disabled]
        .into_iter()
        .find(|known| status.eq_ignore_ascii_case(known.as_str()))?;
    Some(Header { status, token: Some(token.trim_matches(is_space)).filter(|token| !token.is_empty()) })
}

/// The lines of a body: where each begins, where its text ends, and where its line end ends.
fn lines(body: &str) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        interrupt::check();
        if at >= body.len() {
            return None;
        }
        let start = at;
        let (length, end) =
            body[start..].char_indices().find(|(_, c)| is_line_end(*c)).map_or((body.len() - start, 0), |(i, c)| {
                (i, if body[start + i..].starts_with("\r\n") { 2 } else { c.len_utf8() })
            });
        at = start + length + end;
        Some((start, start + length, at))
    })
}

/// What follows `# key:` in a line that is this header.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let rest = line.strip_prefix('#')?.trim_start_matches(is_space).strip_prefix(key)?;
    rest.trim_start_matches(is_space).strip_prefix(':')
}

/// The body with another status, without a token: the header's line is replaced, or put behind `# Skill:`, or put first.
/// No other byte changes, so what was signed stays what was signed.
pub fn with_status(body: &str, status: Status) -> String {
    let line = format!("# Status: {}", status_name(status));
    let find = |key| lines(body).find(|(start, end, _)| value(&body[*start..*end], key).is_some());
    let changed = match (find("Status"), find("Skill")) {
        (Some((start, end, _)), _) => Some(format!("{}{line}{}", &body[..start], &body[end..])),
        (None, Some((_, end, next))) => {
            let line_end = Some(&body[end..next]).filter(|line_end| !line_end.is_empty()).unwrap_or("\n");
            Some(format!("{}{line_end}{line}{}", &body[..end], &body[end..]))
        }
        (None, None) => None,
    };
    // A status in an odd place above would be read first.
    changed
        .filter(|changed| header(changed) == Some(Header { status, token: None }))
        .unwrap_or_else(|| format!("{line}\n{body}"))
}

/// The bytes under an approval: line ends as LF, without the lines that an approval may change or does not cover.
pub fn canonical(body: &str) -> String {
    let body = body.replace("\r\n", "\n").replace('\r', "\n");
    let is_left_out = |line: &str| {
        let Some(rest) = line.trim_start_matches(is_space).strip_prefix('#') else {
            return false;
        };
        let rest = rest.trim_start_matches(is_space);
        ["status", "tags"].iter().any(|key| {
            let prefix = rest.get(..key.len());
            prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(key))
                && rest[key.len()..].trim_start_matches(is_space).starts_with(':')
        })
    };
    interrupt::each(body.split('\n')).filter(|line| !is_left_out(line)).collect::<Vec<_>>().join("\n")
}

/// Why a body is not an approved one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says Draft, Disabled or nothing.
    #[error("the body does not say Approved")]
    NotApproved,
    /// It only says Approved.
    #[error("the body says Approved without a signature")]
    NoSignature,
    /// What follows Approved is not a token.
    #[error("the approval's token is not of the form vN:token")]
    Shape,
    /// `v0:`
    #[error("the version v0 of approval tokens is reserved")]
    Reserved,
    /// Not `v3:`
    #[error("only approval tokens of the version v3 are accepted")]
    Version,
    /// An administrator has not switched them on for the namespace.
    #[error("signatures in bodies, which do not name what they approve, are not accepted in the namespace")]
    NotAccepted,
    /// Nobody is registered whose signature it could be.
    #[error("no approver is registered")]
    NoApprover,
    /// Of another text, or by another key.
    #[error("no registered approver signed this text")]
    Signature,
}

/// The signature in the body's header, to be verified over [`canonical`].
pub fn signature(body: &str) -> Result<[u8; 64], Refusal> {
    let header = header(body).filter(|header| header.status == Status::Approved).ok_or(Refusal::NotApproved)?;
    let (version, token) = header.token.ok_or(Refusal::NoSignature)?.split_once(':').ok_or(Refusal::Shape)?;
    let number = version
        .strip_prefix('v')
        .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    let well_formed =
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match number {
        Some("0") if well_formed => Err(Refusal::Reserved),
        Some("3") if well_formed => super::approval::signature(token).ok_or(Refusal::Signature),
        Some(_) if well_formed => Err(Refusal::Version),
        _ => Err(Refusal::Shape),
    }
}

/// What `store()` writes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The body, verbatim unless an approval was taken back.
    pub body: Cow<'a, str>,
    pub status: Status,
}

/// Decides what `store()` writes: `in_metadata` is `metadata.status`, `signed` whether the body has a valid signature, `secured`
/// whether an approval needs one, `may_approve` whether the caller may approve at all.
pub fn decide(body: &str, in_metadata: Option<Status>, signed: bool, secured: bool, may_approve: bool) -> Decision<'_> {
    let in_body = header(body).map(|header| header.status);
    let wanted = in_metadata.or(in_body).unwrap_or(Status::Draft);
    let refused = wanted == Status::Approved && (!may_approve || (secured && !signed));
    let status = if refused { Status::Draft } else { wanted };
    // Without secured mode a runtime takes the body's word, so who may not approve cannot bring a body that says Approved.
    let taken_back = refused || (!may_approve && in_body == Some(Status::Approved));
    Decision { body: if taken_back { with_status(body, status).into() } else { body.into() }, status }
}

/// The arguments of `store()` next to the body.
#[derive(Debug, Default, PartialEq)]
pub struct Metadata {
    /// `author`
    pub author: Option<String>,
    /// `description`
    pub description: Option<String>,
    /// `status`
    pub status: Option<Status>,
    /// `metadata_bag`, with the author in it.
    pub bag: Map<String, Value>,
}

/// A member of an object; `null` counts as absent.
fn member<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn text<'a>(object: &'a Map<String, Value>, what: &str, key: &str) -> Result<Option<&'a str>, Fault> {
    member(object, key)
        .map(|value| value.as_str().ok_or_else(|| invalid(format!("{key} of {what} must be a string"))))
        .transpose()
}

fn object<'a>(what: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Fault> {
    value.as_object().ok_or_else(|| invalid(format!("{what} must be a JSON object")))
}

impl Metadata {
    /// Reads a part of SkillMeta. What follows from the body or the store itself is not taken from it.
    pub fn parse(value: Option<&Value>) -> Result<Self, Fault> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(Metadata::default());
        };
        let given = object("metadata", value)?;
        let author = optional("author", text(given, "metadata", "author")?, 255)?.map(str::to_owned);
        let mut bag = match member(given, "metadata_bag") {
            None => Map::new(),
            Some(bag) => object("metadata_bag", bag)?.clone(),
        };
        if let Some(author) = &author {
            bag.insert("author".into(), author.clone().into());
        }
        let status = text(given, "metadata", "status")?.map(|status| parse_status(Some(status))).transpose()?;
        Ok(Metadata { author, description: text(given, "metadata", "description")?.map(str::to_owned), status, bag })
    }

    /// The description: the given one, or the header's.
    pub fn description(&self, body: &str) -> String {
        let in_body = || {
            lines(body)
                .filter_map(|(start, end, _)| value(&body[start..end], "Description"))
                .map(|text| text.trim_matches(is_space))
                .find(|text| !text.is_empty())
        };
        match &self.description {
            Some(given) => given.clone(),
            None => in_body().unwrap_or_default().chars().take(MAX_DESCRIPTION).collect(),
        }
    }

    /// The labels that other client APIs and the search see: those of the bag and of the header `# Tags:`.
    pub fn tags(&self, body: &str) -> Vec<String> {
        let in_bag = match self.bag.get("tags") {
            Some(Value::Array(tags)) => tags.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(tag)) => vec![tag.as_str()],
            _ => vec![],
        };
        let in_body = lines(body).find_map(|(start, end, _)| value(&body[start..end], "Tags")).unwrap_or_default();
        let mut tags: Vec<String> = Vec::new();
        for tag in in_bag.into_iter().chain(in_body.split(',')) {
            let tag = tag.trim_matches(is_space);
            if !tag.is_empty()
                && tag.chars().count() <= MAX_TAG
                && tags.len() < MAX_TAGS
                && !tags.iter().any(|there| there == tag)
            {
                tags.push(tag.to_owned());
            }
        }
        tags
    }
}

/// What `query()` asks for.
#[derive(Debug, Default)]
pub struct Filter {
    /// One of these statuses, in the words of the tables.
    pub statuses: Option<Vec<String>>,
    /// All of these tags.
    pub tags: Vec<String>,
    pub author: Option<String>,
    /// Changed at this second or later.
    pub since: Option<f64>,
    /// Somewhere in the name.
    pub pattern: Option<Regex>,
    /// At most so many, after all other conditions.
    pub limit: Option<i64>,
    /// Without so many first.
    pub offset: i64,
}

impl Filter {
    /// Reads a SkillFilter. Members that are not known are ignored, as the contract has it.
    pub fn parse(value: Option<&Value>) -> Result<Self, Fault> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(Filter::default());
        };
        let given = object("filter", value)?;
        let list = |key: &str| -> Result<Option<Vec<&str>>, Fault> {
            let wrong = || invalid(format!("{key} of the filter must be a string or a list of strings"));
            match member(given, key) {
                None => Ok(None),
                Some(Value::String(one)) => Ok(Some(vec![one])),
                Some(Value::Array(several)) => {
                    several.iter().map(|one| one.as_str().ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
                }
                Some(_) => Err(wrong()),
            }
        };
        let count = |key: &str| match member(given, key) {
            None => Ok(None),
            Some(value) => {
                let count = value
                    .as_i64()
                    .or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && *n < 1e15).map(|n| n as i64))
                    .filter(|n| *n >= 0);
                count.map(Some).ok_or_else(|| invalid(format!("{key} of the filter must be a whole number, 0 or more")))
            }
        };
        let since = match member(given, "since") {
            None => None,
            Some(value) => Some(
                value.as_f64().ok_or_else(|| invalid("since of the filter must be a number of seconds since 1970"))?,
            ),
        };
        // No skill has an invalid status.
        let known = |word: &str| parse_status(Some(word)).ok().map(|status| status.as_str().to_owned());
        Ok(Filter {
            statuses: list("status")?.map(|words| words.into_iter().filter_map(known).collect()),
            tags: list("tag")?.unwrap_or_default().into_iter().map(str::to_owned).collect(),
            author: text(given, "the filter", "author")?.map(str::to_owned),
            since,
            pattern: text(given, "the filter", "name_pattern")?.map(pattern).transpose()?,
            limit: count("limit")?,
            offset: count("offset")?.unwrap_or(0),
        })
    }
}

/// A pattern for names that matches in linear time, even if it is untrusted.
fn pattern(text: &str) -> Result<Regex, Fault> {
    if text.len() > MAX_PATTERN {
        return Err(Fault::new(Code::ProgramLimitExceeded, format!("name_pattern has more than {MAX_PATTERN} bytes")));
    }
    RegexBuilder::new(text).size_limit(MAX_AUTOMATON).dfa_size_limit(MAX_AUTOMATON).build().map_err(|error| match error
    {
        regex::Error::CompiledTooBig(_) => {
            Fault::new(Code::ProgramLimitExceeded, "name_pattern is too large").hint("Use smaller repetitions.")
        }
        error => invalid("name_pattern is not a valid regular expression")
            .detail(invalid_pattern(&error))
            .hint("It cannot have look-around or back-references."),
    })
}

/// The store-wide token: moves with every skill that comes, goes, or gets another status or version.
#[derive(Debug, Default)]
pub struct Token {
    digest: Sha256,
    any: bool,
}

impl Token {
    /// Adds a skill. They come in the order of the bytes of their names.
    pub fn add(&mut self, name: &str, status: Status, version: &str) {
        if self.any {
            self.digest.update("\n");
        }
        self.any = true;
        for part in [name, ":", status_name(status), ":", version] {
            self.digest.update(part);
        }
    }

    pub fn finish(self) -> String {
        hex::encode(&self.digest.finalize()[..8])
    }
}

#[cfg(test)]
mod tests;
