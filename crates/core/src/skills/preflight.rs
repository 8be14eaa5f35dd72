//! Preflight of a client's configuration of skills-runtime-sdk 0.1.12: problems that the configuration alone shows.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::contract::Issue;
use super::names::is_namespace;
use crate::error::Fault;

mod config;

pub use config::{Config, parse_yaml};

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

/// A missing part.
static NOTHING: Config = Config::Map(Vec::new());

/// What is wrong with a configuration: a whole one with a part `skills`, or that part alone.
pub fn preflight(config: &Config) -> Vec<Issue> {
    let skills = match config.get("skills") {
        Some(skills) => skills,
        None if WHOLE.iter().any(|part| config.get(part).is_some()) => &NOTHING,
        None => config,
    };
    let mut found = Findings(Vec::new());
    check_parts(&mut found, skills);
    check_lists(&mut found, skills);
    check_versioning(&mut found, skills.get("versioning").unwrap_or(&NOTHING));
    check_unique_ids(&mut found, skills, &SPACE_IDS);
    check_namespaces(&mut found, skills);
    let source_ids = check_unique_ids(&mut found, skills, &SOURCE_IDS);
    check_sources_of_spaces(&mut found, skills, &source_ids);
    for (i, source) in entries(skills, "sources") {
        if let Some(kind) = source.get("type").and_then(Config::text) {
            check_source(&mut found, i, id(source), kind, source.get("options").unwrap_or(&NOTHING));
        }
    }
    found.0
}

fn check_parts(found: &mut Findings, skills: &Config) {
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
}

fn check_lists(found: &mut Findings, skills: &Config) {
    for (part, keys) in [("spaces", SPACE), ("sources", SOURCE)] {
        if let Some(value) = skills.get(part).filter(|value| !matches!(value, Config::List(_))) {
            found.shape(format!("skills.{part}"), format!("expected a list, found {}", value.type_name()));
        }
        for (i, entry) in skills.get(part).unwrap_or(&NOTHING).list().iter().enumerate() {
            let path = format!("skills.{part}[{i}]");
            if !found.options(&path, entry, keys, &["sources", "options"], true) {
                continue;
            }
            for key in keys.iter().map(|(key, _)| *key).filter(|key| *key != "enabled") {
                found.text(&path, entry, key);
            }
        }
    }
}

/// The mappings in a list, with their indexes.
fn entries<'c>(skills: &'c Config, part: &str) -> impl Iterator<Item = (usize, &'c Config)> + use<'c> {
    let list = skills.get(part).unwrap_or(&NOTHING).list();
    list.iter().enumerate().filter(|(_, entry)| matches!(entry, Config::Map(_)))
}

fn id(entry: &Config) -> &str {
    entry.get("id").and_then(Config::text).unwrap_or_default()
}

/// A list whose entries have unique ids, and how a duplicate is reported.
struct UniqueIds {
    part: &'static str,
    member: &'static str,
    code: &'static str,
    message: &'static str,
}

const SPACE_IDS: UniqueIds = UniqueIds {
    part: "spaces",
    member: "space_id",
    code: "SKILL_CONFIG_DUPLICATE_SPACE_ID",
    message: "Duplicate skills space id found.",
};
const SOURCE_IDS: UniqueIds = UniqueIds {
    part: "sources",
    member: "source_id",
    code: "SKILL_CONFIG_DUPLICATE_SOURCE_ID",
    message: "Duplicate skills source id found.",
};

/// Returns the ids.
fn check_unique_ids<'c>(found: &mut Findings, skills: &'c Config, unique: &UniqueIds) -> HashSet<&'c str> {
    let mut first_indexes = HashMap::new();
    for (i, entry) in entries(skills, unique.part) {
        let id = id(entry);
        if let Some(first) = first_indexes.get(id) {
            let path = format!("skills.{}[{i}].id", unique.part);
            found.add(unique.code, unique.message, path, json!({unique.member: id, "first_index": first}));
        } else {
            first_indexes.insert(id, i);
        }
    }
    first_indexes.into_keys().collect()
}

fn check_namespaces(found: &mut Findings, skills: &Config) {
    for (i, space) in entries(skills, "spaces") {
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
}

fn check_sources_of_spaces(found: &mut Findings, skills: &Config, source_ids: &HashSet<&str>) {
    for (i, space) in entries(skills, "spaces") {
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
                Some(name) if !source_ids.contains(name) => {
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
}

fn check_versioning(found: &mut Findings, versioning: &Config) {
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
        Ok(other) => vec![config::unreadable(format!("expected an object, found {}", other.type_name()))],
        Err(issue) => vec![issue],
    })
}

#[cfg(test)]
mod tests;
