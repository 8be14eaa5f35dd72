//! Preflight of a client's configuration of skills-runtime-sdk 0.1.12: problems that the configuration alone shows.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Value, json};

use super::contract::Issue;
use super::names::is_namespace;
use crate::error::{Code, Fault};
use crate::input::MAX_JSON_BYTES;

/// Most values in a configuration, those that an alias repeats included.
const MAX_VALUES: usize = 100_000;
const MAX_DEPTH: usize = 64;

/// A value as the client's reader would type it.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    Null,
    Bool(bool),
    /// A whole number; one beyond the type is at its end.
    Int(i64),
    Float,
    /// A date or a time.
    Date(&'static str),
    Text(String),
    List(Vec<Config>),
    /// A mapping; of a key that occurs twice the last counts.
    Map(Vec<(String, Config)>),
}

impl From<&Value> for Config {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Config::Null,
            Value::Bool(value) => Config::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.is_u64()) {
                (Some(number), _) => Config::Int(number),
                (None, true) => Config::Int(i64::MAX),
                (None, false) => Config::Float,
            },
            Value::String(text) => Config::Text(text.clone()),
            Value::Array(elements) => Config::List(elements.iter().map(Config::from).collect()),
            Value::Object(members) => {
                Config::Map(members.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl Config {
    /// The client's name of the type.
    fn type_name(&self) -> &'static str {
        match self {
            Config::Null => "NoneType",
            Config::Bool(_) => "bool",
            Config::Int(_) => "int",
            Config::Float => "float",
            Config::Date(name) => name,
            Config::Text(_) => "str",
            Config::List(_) => "list",
            Config::Map(_) => "dict",
        }
    }

    fn get(&self, key: &str) -> Option<&Config> {
        match self {
            Config::Map(members) => members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Config::Text(text) => Some(text),
            _ => None,
        }
    }

    fn list(&self) -> &[Config] {
        match self {
            Config::List(elements) => elements,
            _ => &[],
        }
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let members: &[(String, Config)] = match self {
            Config::Map(members) => members,
            _ => &[],
        };
        members.iter().map(|(key, _)| key.as_str())
    }

    /// How much it counts where an alias repeats it: its values, and long texts for more than one.
    fn weight(&self) -> usize {
        1 + match self {
            Config::Text(text) => text.len() / 64,
            Config::List(elements) => elements.iter().map(Config::weight).sum(),
            Config::Map(members) => members.iter().map(|(key, value)| key.len() / 64 + value.weight()).sum(),
            _ => 0,
        }
    }
}

/// What a plain scalar of a certain form is.
type Reading = fn(&str) -> Config;

/// The types of YAML 1.1, by which the client's reader takes plain scalars.
static TYPES: LazyLock<Vec<(Regex, Reading)>> = LazyLock::new(|| {
    let types: [(&str, Reading); 6] = [
        (r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", |text| {
            Config::Bool(matches!(text.to_ascii_lowercase().as_str(), "yes" | "true" | "on"))
        }),
        (
            r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
            |_| Config::Float,
        ),
        (r"^[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$", |text| {
            Config::Int(whole_number(text))
        }),
        (r"^(?:~|null|Null|NULL|)$", |_| Config::Null),
        (r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", |_| Config::Date("date")),
        (
            r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?$",
            |_| Config::Date("datetime"),
        ),
    ];
    types.into_iter().filter_map(|(pattern, read)| Some((Regex::new(pattern).ok()?, read))).collect()
});

fn whole_number(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let value = match digits.get(..2) {
        Some("0b") => i64::from_str_radix(&digits[2..], 2).unwrap_or(i64::MAX),
        Some("0x") => i64::from_str_radix(&digits[2..], 16).unwrap_or(i64::MAX),
        _ if digits.contains(':') => digits
            .split(':')
            .fold(0, |sum: i64, part| sum.saturating_mul(60).saturating_add(part.parse().unwrap_or(i64::MAX))),
        _ if digits.starts_with('0') => i64::from_str_radix(&digits, 8).unwrap_or(i64::MAX),
        _ => digits.parse().unwrap_or(i64::MAX),
    };
    if negative { -value } else { value }
}

fn plain(text: &str) -> Config {
    TYPES
        .iter()
        .find(|(pattern, _)| pattern.is_match(text))
        .map_or_else(|| Config::Text(text.to_owned()), |(_, read)| read(text))
}

/// The text of a key.
fn key(value: Config) -> Option<String> {
    match value {
        Config::Text(text) => Some(text),
        Config::Bool(value) => Some(if value { "True" } else { "False" }.to_owned()),
        Config::Int(number) => Some(number.to_string()),
        Config::Null => Some("None".to_owned()),
        Config::Float | Config::Date(_) | Config::List(_) | Config::Map(_) => None,
    }
}

fn unreadable(reason: impl ToString) -> Issue {
    Issue {
        code: "CLI_CONFIG_LOAD_FAILED",
        message: "Config load failed.",
        details: json!({"path": "", "reason": reason.to_string()}),
    }
}

enum Open {
    List(usize, Vec<Config>),
    /// Anchor, members, and the key whose value comes next.
    Map(usize, Vec<(String, Config)>, Option<String>),
}

/// Reads YAML text. What cannot be read is an issue; what is too large is an error.
pub fn parse_yaml(text: &str) -> Result<Result<Config, Issue>, Fault> {
    if text.len() > MAX_JSON_BYTES {
        return Err(Fault::new(Code::ProgramLimitExceeded, format!("config is larger than {MAX_JSON_BYTES} bytes")));
    }
    let at = |error: &ScanError| unreadable(format!("line {}: {}", error.marker().line(), error.info()));
    let mut anchors: HashMap<usize, (Config, usize)> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut count = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => return Ok(Err(at(&error))),
        };
        let refuse = |reason: &str| Ok(Err(unreadable(format!("line {}: {reason}", span.start.line()))));
        let (value, anchor) = match event {
            Event::DocumentStart(_) if root.is_some() => return refuse("a second document follows"),
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => return refuse("tags are not read"),
            Event::SequenceStart(anchor, None) => {
                open.push(Open::List(anchor, Vec::new()));
                if open.len() > MAX_DEPTH {
                    return refuse("it is nested too deeply");
                }
                continue;
            }
            Event::MappingStart(anchor, None) => {
                open.push(Open::Map(anchor, Vec::new(), None));
                if open.len() > MAX_DEPTH {
                    return refuse("it is nested too deeply");
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(anchor, elements)) => (Config::List(elements), anchor),
                Some(Open::Map(anchor, members, _)) => (Config::Map(members), anchor),
                None => continue,
            },
            Event::Alias(anchor) => {
                let Some((value, weight)) = anchors.get(&anchor) else {
                    return refuse("an alias of what is not yet complete");
                };
                count += weight;
                if count > MAX_VALUES {
                    return refuse("its aliases stand for too many values");
                }
                (value.clone(), 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let core =
                    |suffix: &str| tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == suffix);
                let value = match style {
                    _ if core("str") => Config::Text(text.into_owned()),
                    _ if tag.is_some() => return refuse("tags are not read"),
                    ScalarStyle::Plain => plain(&text),
                    _ => Config::Text(text.into_owned()),
                };
                (value, anchor)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        count += 1;
        if count > MAX_VALUES {
            return refuse("it has too many values");
        }
        if anchor != 0 {
            anchors.insert(anchor, (value.clone(), value.weight()));
        }
        match open.last_mut() {
            None => root = Some(value),
            Some(Open::List(_, elements)) => elements.push(value),
            Some(Open::Map(_, _, next @ None)) => match key(value) {
                Some(text) => *next = Some(text),
                None => return refuse("a key must be a text or a number"),
            },
            Some(Open::Map(_, members, Some(name))) => {
                let name = std::mem::take(name);
                match (name.as_str(), value) {
                    // What is merged comes first, so that the mapping's own keys count.
                    ("<<", Config::Map(merged)) => drop(members.splice(..0, merged)),
                    ("<<", Config::List(maps)) if maps.iter().all(|map| matches!(map, Config::Map(_))) => {
                        for map in maps {
                            if let Config::Map(merged) = map {
                                members.splice(..0, merged);
                            }
                        }
                    }
                    ("<<", _) => return refuse("only mappings can be merged"),
                    (_, value) => members.push((name, value)),
                }
                if let Some(Open::Map(_, _, next)) = open.last_mut() {
                    *next = None;
                }
            }
        }
    }
    Ok(Ok(root.unwrap_or(Config::Map(Vec::new()))))
}

/// What an option must be for the client's schema.
enum Kind {
    /// A truth value, and nothing that could be read as one.
    Bool,
    /// A truth value or a text that stands for one.
    Lax,
    Text,
    /// A whole number from this on.
    Int(i64),
    /// The same, or null.
    OptionalInt(i64),
    Word(&'static [&'static str]),
}

impl Kind {
    fn holds(&self, value: &Config) -> bool {
        const TRUTHS: [&str; 12] = ["true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0"];
        match (self, value) {
            (Kind::Bool | Kind::Lax, Config::Bool(_))
            | (Kind::Text, Config::Text(_))
            | (Kind::OptionalInt(_), Config::Null) => true,
            (Kind::Lax, Config::Int(number)) => matches!(number, 0 | 1),
            (Kind::Lax, Config::Text(text)) => TRUTHS.contains(&text.to_ascii_lowercase().as_str()),
            (Kind::Int(least) | Kind::OptionalInt(least), Config::Int(number)) => number >= least,
            (Kind::Word(words), Config::Text(text)) => words.contains(&text.as_str()),
            _ => false,
        }
    }

    fn expected(&self) -> String {
        match self {
            Kind::Bool | Kind::Lax => "true or false".to_owned(),
            Kind::Text => "a text".to_owned(),
            Kind::Int(least) => format!("a whole number from {least} on"),
            Kind::OptionalInt(least) => format!("a whole number from {least} on, or null"),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// The options of each part of the configuration.
const PARTS: [(&str, &[(&str, Kind)]); 6] = [
    ("strictness", &[("unknown_mention", Kind::Text), ("duplicate_name", Kind::Text), ("mention_format", Kind::Text)]),
    (
        "scan",
        &[
            ("ignore_dot_entries", Kind::Bool),
            ("max_depth", Kind::Int(0)),
            ("max_dirs_per_root", Kind::Int(0)),
            ("max_frontmatter_bytes", Kind::Int(1)),
            ("refresh_policy", Kind::Word(&["always", "ttl", "manual"])),
            ("ttl_sec", Kind::Int(1)),
        ],
    ),
    ("injection", &[("max_bytes", Kind::OptionalInt(1))]),
    (
        "bundles",
        &[
            ("max_bytes", Kind::Int(1)),
            ("cache_dir", Kind::Text),
            ("max_extracted_bytes", Kind::OptionalInt(1)),
            ("max_files", Kind::OptionalInt(1)),
            ("max_single_file_bytes", Kind::OptionalInt(1)),
        ],
    ),
    ("actions", &[("enabled", Kind::Lax)]),
    ("references", &[("enabled", Kind::Lax), ("allow_assets", Kind::Lax), ("default_max_bytes", Kind::Int(1))]),
];
const SPACE: &[(&str, Kind)] = &[("id", Kind::Text), ("namespace", Kind::Text), ("enabled", Kind::Lax)];
const SOURCE: &[(&str, Kind)] = &[("id", Kind::Text), ("type", Kind::Text)];
const VERSIONING: &[(&str, Kind)] = &[("enabled", Kind::Bool), ("strategy", Kind::Text)];
const POLICIES: Kind = Kind::Word(&["fail_fast", "ask_human", "skip_skill"]);

/// What the sources of each type need.
const SOURCES: [(&str, &[&str]); 4] = [
    ("filesystem", &["root"]),
    ("in-memory", &["namespace"]),
    ("pgsql", &["dsn_env", "schema", "table"]),
    ("redis", &["dsn_env", "key_prefix"]),
];

/// The other parts of a whole configuration.
const WHOLE: [&str; 7] = ["config_version", "run", "safety", "llm", "models", "sandbox", "prompt"];

fn is_env_var(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    name.bytes().next().is_some_and(word) && name.bytes().all(|byte| word(byte) || byte.is_ascii_digit())
}

struct Findings(Vec<Issue>);

impl Findings {
    fn add(&mut self, code: &'static str, message: &'static str, path: String, more: Value) {
        let mut details = json!({"path": path});
        if let (Some(details), Value::Object(more)) = (details.as_object_mut(), more) {
            details.extend(more);
        }
        self.0.push(Issue { code, message, details });
    }

    /// The client's schema refuses it.
    fn shape(&mut self, path: String, reason: String) {
        self.add("CLI_CONFIG_INVALID", "Config is invalid.", path, json!({"reason": reason}));
    }

    /// Checks the options of a mapping; `others` are keys that are checked elsewhere. True when it is a mapping.
    fn options(
        &mut self,
        path: &str,
        value: &Config,
        options: &[(&str, Kind)],
        others: &[&str],
        unknown_keys: bool,
    ) -> bool {
        if !matches!(value, Config::Map(_)) {
            self.shape(path.to_owned(), format!("expected an object, found {}", value.type_name()));
            return false;
        }
        for (key, kind) in options {
            match value.get(key) {
                Some(found) if !kind.holds(found) => self.shape(
                    format!("{path}.{key}"),
                    format!("expected {}, found {}", kind.expected(), found.type_name()),
                ),
                _ => (),
            }
        }
        let known = |key: &str| others.contains(&key) || options.iter().any(|(name, _)| *name == key);
        for key in value.keys().filter(|key| unknown_keys && !known(key)) {
            self.shape(format!("{path}.{key}"), "unknown key".to_owned());
        }
        true
    }

    /// The text of a member that must be there.
    fn text<'c>(&mut self, path: &str, value: &'c Config, key: &str) -> Option<&'c str> {
        if value.get(key).is_none() {
            self.shape(format!("{path}.{key}"), "it is missing".to_owned());
        }
        value.get(key).and_then(Config::text)
    }
}

/// What is wrong with a configuration: a whole one with a part `skills`, or that part alone.
pub fn preflight(config: &Config) -> Vec<Issue> {
    let mut found = Findings(Vec::new());
    let nothing = Config::Map(Vec::new());
    let skills = match config.get("skills") {
        Some(skills) => skills,
        None if WHOLE.iter().any(|part| config.get(part).is_some()) => &nothing,
        None => config,
    };
    let parts: Vec<&str> = PARTS
        .iter()
        .map(|(part, _)| *part)
        .chain(["spaces", "sources", "versioning", "env_var_missing_policy"])
        .collect();
    found.options("skills", skills, &[("env_var_missing_policy", POLICIES)], &parts, true);
    for (part, options) in &PARTS {
        if let Some(value) = skills.get(part) {
            found.options(&format!("skills.{part}"), value, options, &[], true);
        }
    }
    for (part, keys) in [("spaces", SPACE), ("sources", SOURCE)] {
        if let Some(value) = skills.get(part).filter(|value| !matches!(value, Config::List(_))) {
            found.shape(format!("skills.{part}"), format!("expected a list, found {}", value.type_name()));
        }
        for (i, entry) in skills.get(part).unwrap_or(&nothing).list().iter().enumerate() {
            let path = format!("skills.{part}[{i}]");
            if !found.options(&path, entry, keys, &["sources", "options"], true) {
                continue;
            }
            for key in keys.iter().map(|(key, _)| *key).filter(|key| *key != "enabled") {
                found.text(&path, entry, key);
            }
        }
    }
    versioning(&mut found, skills.get("versioning").unwrap_or(&nothing));
    let entries = |part: &str| {
        skills
            .get(part)
            .unwrap_or(&nothing)
            .list()
            .iter()
            .enumerate()
            .filter(|(_, entry)| matches!(entry, Config::Map(_)))
    };
    let id = |entry: &Config| entry.get("id").and_then(Config::text).unwrap_or_default().to_owned();
    let mut ids: HashMap<String, usize> = HashMap::new();
    for (i, space) in entries("spaces") {
        let space = id(space);
        if let Some(first) = ids.get(&space) {
            found.add(
                "SKILL_CONFIG_DUPLICATE_SPACE_ID",
                "Duplicate skills space id found.",
                format!("skills.spaces[{i}].id"),
                json!({"space_id": space, "first_index": first}),
            );
        } else {
            ids.insert(space, i);
        }
    }
    for (i, space) in entries("spaces") {
        if let Some(namespace) =
            space.get("namespace").and_then(Config::text).filter(|namespace| !is_namespace(namespace))
        {
            found.add(
                "SKILL_CONFIG_INVALID_SPACE_NAMESPACE",
                "Invalid skills space namespace.",
                format!("skills.spaces[{i}].namespace"),
                json!({
                    "space_id": id(space), "field": "namespace", "actual": namespace,
                    "expected": "namespace: 1..7 segments joined by ':'; each segment lowercase slug 2~64 ([a-z0-9-], start/end with [a-z0-9])",
                }),
            );
        }
    }
    let mut ids: HashMap<String, usize> = HashMap::new();
    for (i, source) in entries("sources") {
        let source = id(source);
        if let Some(first) = ids.get(&source) {
            found.add(
                "SKILL_CONFIG_DUPLICATE_SOURCE_ID",
                "Duplicate skills source id found.",
                format!("skills.sources[{i}].id"),
                json!({"source_id": source, "first_index": first}),
            );
        } else {
            ids.insert(source, i);
        }
    }
    for (i, space) in entries("spaces") {
        let sources = space.get("sources").unwrap_or(&Config::Null);
        if !matches!(sources, Config::List(_)) && space.get("sources").is_some() {
            found.shape(
                format!("skills.spaces[{i}].sources"),
                format!("expected a list, found {}", sources.type_name()),
            );
        }
        for (j, source) in sources.list().iter().enumerate() {
            let path = format!("skills.spaces[{i}].sources[{j}]");
            match source.text() {
                None => found.shape(path, format!("expected a text, found {}", source.type_name())),
                Some(name) if !ids.contains_key(name) => {
                    found.add(
                        "SKILL_CONFIG_SPACE_SOURCE_NOT_FOUND",
                        "Skills space references an unknown source id.",
                        path,
                        json!({"space_id": id(space), "source_id": name}),
                    );
                }
                Some(_) => (),
            }
        }
    }
    for (i, source) in entries("sources") {
        if let Some(kind) = source.get("type").and_then(Config::text) {
            check_source(&mut found, i, &id(source), kind, source.get("options").unwrap_or(&nothing));
        }
    }
    found.0
}

fn versioning(found: &mut Findings, versioning: &Config) {
    const PATH: &str = "skills.versioning";
    if !found.options(PATH, versioning, VERSIONING, &[], false) {
        return;
    }
    let enabled = versioning.get("enabled") == Some(&Config::Bool(true));
    let strategy = versioning.get("strategy").and_then(Config::text).unwrap_or_default();
    if enabled || !strategy.is_empty() {
        let strategy = if strategy.is_empty() { "(empty)" } else { strategy };
        found.add(
            "SKILL_CONFIG_VERSIONING_IGNORED",
            "skills.versioning is currently a placeholder and has no runtime effect.",
            PATH.to_owned(),
            json!({"level": "warning", "enabled": enabled, "strategy": strategy}),
        );
    }
    let mut unknown: Vec<&str> =
        versioning.keys().filter(|key| !VERSIONING.iter().any(|(name, _)| name == key)).collect();
    if !unknown.is_empty() {
        unknown.sort_unstable();
        found.add(
            "SKILL_CONFIG_VERSIONING_UNKNOWN_KEYS",
            "Unknown keys under skills.versioning are not supported.",
            PATH.to_owned(),
            json!({"unknown_keys": unknown}),
        );
    }
}

fn check_source(found: &mut Findings, i: usize, id: &str, kind: &str, options: &Config) {
    let path = format!("skills.sources[{i}]");
    let Some((_, required)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        found.add(
            "SKILL_CONFIG_UNKNOWN_SOURCE_TYPE",
            "Unknown skills source type.",
            format!("{path}.type"),
            json!({"source_id": id, "actual": kind, "supported": SOURCES.map(|(name, _)| name)}),
        );
        return;
    };
    if !matches!(options, Config::Map(_)) {
        found.add(
            "SKILL_CONFIG_INVALID_OPTION",
            "Skills source options must be an object.",
            format!("{path}.options"),
            json!({"source_id": id, "expected": "object", "actual": options.type_name()}),
        );
        return;
    }
    for option in *required {
        let path = format!("{path}.options.{option}");
        match options.get(option).unwrap_or(&Config::Null) {
            Config::Null => found.add(
                "SKILL_CONFIG_MISSING_REQUIRED_OPTION",
                "Missing required skills source option.",
                path,
                json!({"source_id": id, "source_type": kind, "option": option}),
            ),
            Config::Text(text) if !text.trim().is_empty() => (),
            value => found.add(
                "SKILL_CONFIG_INVALID_OPTION",
                "Invalid skills source option.",
                path,
                json!({"source_id": id, "source_type": kind, "option": option, "expected": "non-empty string", "actual": value.type_name()}),
            ),
        }
    }
    if let Some(name) =
        options.get("dsn_env").and_then(Config::text).filter(|name| !name.trim().is_empty() && !is_env_var(name))
    {
        found.add(
            "SKILL_CONFIG_INVALID_ENV_VAR_NAME",
            "Invalid environment variable name in skills source option.",
            format!("{path}.options.dsn_env"),
            json!({"source_id": id, "source_type": kind, "option": "dsn_env", "actual": name, "expected": "^[A-Z_][A-Z0-9_]*$"}),
        );
    }
}

/// `error` or `warning`.
pub fn level(issue: &Issue) -> &str {
    issue.details["level"].as_str().unwrap_or("error")
}

/// The issue as the one finding of text that cannot be read.
pub fn of_yaml(text: &str) -> Result<Vec<Issue>, Fault> {
    Ok(match parse_yaml(text)? {
        Ok(config @ Config::Map(_)) => preflight(&config),
        Ok(other) => vec![unreadable(format!("expected an object, found {}", other.type_name()))],
        Err(issue) => vec![issue],
    })
}

#[cfg(test)]
mod tests;
