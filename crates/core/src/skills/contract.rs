//! Codes, messages and row rules of skills-runtime-sdk 0.1.12.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::error::{Code, Fault, shorten};
use crate::input::invalid;
use crate::interrupt;

/// What the locators of the registry's own skills begin with.
pub const OWN_SOURCE: &str = "skill_system.skills";
/// Longest text searched for mentions, in bytes.
pub const MAX_TEXT: usize = 16 << 20;

/// The contract's word for what failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    /// `SKILL_...`
    pub code: &'static str,
    /// The contract's words for it.
    pub message: &'static str,
    pub details: Value,
}

impl Issue {
    /// An issue as an error: the contract's object stands as JSON in the detail.
    pub fn fault(self, code: Code) -> Fault {
        Fault::new(code, self.message)
            .detail(json!({"code": self.code, "message": self.message, "details": self.details}).to_string())
    }
}

/// A skill that a text asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention<'a> {
    /// As it stands in the text.
    pub text: &'a str,
    pub namespace: &'a str,
    pub skill_name: &'a str,
}

static MENTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    const SEGMENT: &str = "[a-z0-9][a-z0-9-]{0,62}[a-z0-9]";
    Regex::new(&format!(r"\$\[({SEGMENT}(?::{SEGMENT}){{0,6}})\]\.([a-z0-9][a-z0-9_-]{{0,62}}[a-z0-9])")).ok()
});

/// The mentions of a text, each skill once, in their order. What looks like one and is none is plain text; a mention right
/// before `]` is taken for a slip of the brackets.
pub fn mentions(text: &str) -> Result<Vec<Mention<'_>>, Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("the text has {} bytes, more than {MAX_TEXT}", text.len()),
        ));
    }
    let mut found: Vec<Mention> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for captures in interrupt::each(MENTION.iter().flat_map(|pattern| pattern.captures_iter(text))) {
        let (Some(all), Some(namespace), Some(name)) = (captures.get(0), captures.get(1), captures.get(2)) else {
            continue;
        };
        if text[all.end()..].starts_with(']') {
            continue;
        }
        let mention = Mention { text: all.as_str(), namespace: namespace.as_str(), skill_name: name.as_str() };
        if seen.insert((mention.namespace, mention.skill_name)) {
            found.push(mention);
        }
    }
    Ok(found)
}

/// A text that is one mention and nothing else; `None` when it does not begin as one.
pub fn only_mention(text: &str) -> Result<Option<Mention<'_>>, Fault> {
    if !text.starts_with("$[") {
        return Ok(None);
    }
    match mentions(text)?.pop() {
        Some(mention) if mention.text == text => Ok(Some(mention)),
        _ => Err(Issue {
            code: "SKILL_MENTION_FORMAT_INVALID",
            message: "Skill mention format is invalid.",
            details: json!({"mention": shorten(text)}),
        }
        .fault(Code::InvalidParameterValue)
        .hint("A mention is $[namespace].skill_name.")),
    }
}

/// 2 to 64 of a-z, 0-9, `_` and `-`, first and last a letter or digit.
pub fn is_skill_name(text: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (2..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| word(byte) || matches!(byte, b'_' | b'-'))
        && bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
}

/// The skill is in none of the namespaces.
pub fn unknown(mention: &str) -> Issue {
    Issue {
        code: "SKILL_UNKNOWN",
        message: "Referenced skill is not found in configured spaces.",
        details: json!({"mention": mention}),
    }
}

/// The namespace holds no skills.
pub fn no_space(mention: &Mention) -> Issue {
    Issue {
        code: "SKILL_SPACE_NOT_CONFIGURED",
        message: "Skill space is not configured or disabled.",
        details: json!({"mention": mention.text, "namespace": mention.namespace}),
    }
}

/// The text that goes into a prompt.
pub fn injected(skill_name: &str, locator: &str, body: &str) -> String {
    format!("<skill>\n<name>{skill_name}</name>\n<path>{locator}</path>\n{body}\n</skill>")
}

/// The body is larger than the caller takes.
pub fn too_large(skill_name: &str, locator: &str, limit: i64, actual: i64) -> Issue {
    Issue {
        code: "SKILL_BODY_TOO_LARGE",
        message: "Skill body exceeds configured max bytes.",
        details: json!({"skill_name": skill_name, "locator": locator, "limit_bytes": limit, "actual_bytes": actual}),
    }
}

/// What is wrong with a row, by the rules the client has for it: the first field that is not as it should be.
pub fn row_issue(row: &Map<String, Value>, locator: &str) -> Option<Issue> {
    let field = bad_field(row)?;
    let mut details = json!({"locator": locator, "field": field});
    // A name of another form is told; a missing one cannot be.
    if let (true, Some(actual)) =
        (field == "skill_name", row.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()))
    {
        details["actual"] = actual.into();
    }
    Some(Issue { code: "SKILL_SCAN_METADATA_INVALID", message: "Skill metadata is invalid.", details })
}

fn bad_field(row: &Map<String, Value>) -> Option<&'static str> {
    let text = |field: &str| row.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let optional = |field: &str, good: fn(&Value) -> bool| {
        matches!(row.get(field), None | Some(Value::Null)) || row.get(field).is_some_and(good)
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let size = match row.get("body_size") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.is_u64(),
        Some(Value::String(number)) => digits(number.trim()),
        Some(_) => false,
    };
    let checks = [
        ("skill_name", text("skill_name").is_some_and(is_skill_name)),
        ("description", text("description").is_some()),
        ("body_size", size),
        ("created_at", text("created_at").is_some()),
        (
            "required_env_vars",
            optional("required_env_vars", |list| list.as_array().is_some_and(|list| list.iter().all(Value::is_string))),
        ),
        ("metadata", optional("metadata", Value::is_object)),
        ("id", !matches!(row.get("id"), None | Some(Value::Null))),
        ("scope", optional("scope", Value::is_string)),
        ("body_etag", optional("body_etag", Value::is_string)),
    ];
    checks.into_iter().find(|(_, good)| !good).map(|(field, _)| field)
}

/// Two rows of one name.
pub fn duplicate(namespace: &str, skill_name: &str, locators: &[String]) -> Issue {
    let conflicts: Vec<_> = locators.iter().map(|locator| json!({"locator": locator})).collect();
    Issue {
        code: "SKILL_DUPLICATE_NAME",
        message: "Duplicate skill found in namespace.",
        details: json!({"namespace": namespace, "skill_name": skill_name, "conflicts": conflicts}),
    }
}

/// Refuses a row that the client would not read.
pub fn writable(row: &Map<String, Value>) -> Result<(), Fault> {
    match row_issue(row, "new row") {
        None => Ok(()),
        Some(issue) => {
            let field = issue.details["field"].as_str().unwrap_or_default().to_owned();
            Err(Fault { message: format!("the client would not read this row: {field} is invalid"), ..issue.fault(Code::InvalidParameterValue) }
                .hint("skill_name: 2 to 64 of a-z, 0-9, _ and -, first and last a letter or digit; description: not empty; required_env_vars: a list of texts; metadata: an object."))
        }
    }
}

/// The limit given for a body.
pub fn limit(max_bytes: Option<i32>) -> Result<Option<i64>, Fault> {
    match max_bytes {
        Some(limit) if limit < 1 => Err(invalid("max_bytes must be at least 1")),
        limit => Ok(limit.map(i64::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<&str> {
        mentions(text).unwrap().into_iter().map(|mention| mention.text).collect()
    }

    #[test]
    fn the_longest_name_wins_and_a_bracket_spoils_it() {
        assert_eq!(found("see $[ab:cd].x_y_ and $[ab:cd].x_y, then $[ef].zz"), ["$[ab:cd].x_y", "$[ef].zz"]);
        for nothing in [
            "$[ab:cd].xy]",
            "$[ab:cd].x",
            "$[a:cd].xy",
            "$[AB].xy",
            "$[ab_c].xy",
            "$ [ab].xy",
            "$[ab]. xy",
            "$[aa:bb:cc:dd:ee:ff:gg:hh].xy",
        ] {
            assert!(found(nothing).is_empty(), "{nothing}");
        }
        assert_eq!(found(&format!("$[ab].{}", "x".repeat(70))), [format!("$[ab].{}", "x".repeat(64))]);
    }

    #[test]
    fn a_single_mention() {
        assert_eq!(only_mention("$[ab].xy").unwrap().unwrap().skill_name, "xy");
        assert!(only_mention("pdf-forms").unwrap().is_none());
        for bad in ["$[ab].xy ", "$[ab].x", "$[ab].xy $[ab].zz", "$[ab].xy]"] {
            let fault = only_mention(bad).unwrap_err();
            assert!(fault.detail.unwrap().contains("SKILL_MENTION_FORMAT_INVALID"), "{bad}");
        }
    }

    #[test]
    fn the_first_bad_field_is_told() {
        let row = |changes: Value| {
            let mut row =
                json!({"id": 1, "skill_name": "ab", "description": "d", "created_at": "2026-01-01T00:00:00Z"});
            row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            row_issue(row.as_object().unwrap(), "s.t#1")
                .map(|issue| issue.details["field"].as_str().unwrap().to_owned())
        };
        assert_eq!(row(json!({})), None);
        for (changes, field) in [
            (json!({"skill_name": "A"}), "skill_name"),
            (json!({"skill_name": "A", "description": ""}), "skill_name"),
            (json!({"description": null}), "description"),
            (json!({"body_size": -1}), "body_size"),
            (json!({"body_size": 1.5}), "body_size"),
            (json!({"created_at": 5}), "created_at"),
            (json!({"required_env_vars": [1]}), "required_env_vars"),
            (json!({"metadata": []}), "metadata"),
            (json!({"id": null}), "id"),
            (json!({"scope": 1}), "scope"),
            (json!({"body_etag": 1}), "body_etag"),
        ] {
            assert_eq!(row(changes.clone()).as_deref(), Some(field), "{changes}");
        }
        assert_eq!(row(json!({"body_size": " 12 "})), None);
        assert!(writable(json!({"skill_name": "ab"}).as_object().unwrap()).is_err());
    }

    proptest! {
        /// Whatever stands around it, a mention is found, and every mention found is one.
        #[test]
        fn a_mention_is_found_in_any_text(before in "[^\\[\\]$]*", namespace in "[a-z0-9]{2,64}(:[a-z0-9]{2,5}){0,6}", name in "[a-z0-9][a-z0-9_-]{0,62}[a-z0-9]", after in "( [^\\[\\]$]*)?") {
            let mention = format!("$[{namespace}].{name}");
            let text = format!("{before}{mention}{after}");
            prop_assert_eq!(found(&text), [mention.as_str()]);
        }

        #[test]
        fn what_is_found_is_a_mention(text in "[$\\[\\]a-c0:._ é-]{0,60}") {
            for mention in mentions(&text).unwrap() {
                prop_assert!(crate::skills::names::is_namespace(mention.namespace) && is_skill_name(mention.skill_name));
                prop_assert!(only_mention(mention.text).unwrap().is_some());
            }
        }
    }
}
