//! A client's configuration as its reader, a YAML 1.1 one, would type it.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Value, json};

use super::super::contract::Issue;
use crate::error::{Code, Fault};
use crate::input::MAX_JSON_BYTES;
use crate::interrupt;

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
    pub(super) fn type_name(&self) -> &'static str {
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

    pub(super) fn get(&self, key: &str) -> Option<&Config> {
        match self {
            Config::Map(members) => members.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Config::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Config] {
        match self {
            Config::List(elements) => elements,
            _ => &[],
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
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

pub(super) fn unreadable(reason: impl ToString) -> Issue {
    Issue {
        code: "CLI_CONFIG_LOAD_FAILED",
        message: "Config load failed.",
        details: json!({"path": "", "reason": reason.to_string()}),
    }
}

/// A list or mapping that is not yet complete.
enum Open {
    List(usize, Vec<Config>),
    /// Anchor, members, and the key whose value comes next.
    Map(usize, Vec<(String, Config)>, Option<String>),
}

/// Why a configuration cannot be read.
type Reason = &'static str;

#[derive(Default)]
struct Builder {
    /// The complete values that have an anchor, with their weights.
    anchors: HashMap<usize, (Config, usize)>,
    open: Vec<Open>,
    root: Option<Config>,
    count: usize,
}

impl Builder {
    fn accept(&mut self, event: Event) -> Result<(), Reason> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err("a second document follows"),
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => Err("tags are not read"),
            Event::SequenceStart(anchor, None) => self.start(Open::List(anchor, Vec::new())),
            Event::MappingStart(anchor, None) => self.start(Open::Map(anchor, Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(anchor, elements)) => self.add(Config::List(elements), anchor),
                Some(Open::Map(anchor, members, _)) => self.add(Config::Map(members), anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.add_alias(anchor),
            Event::Scalar(text, style, anchor, tag) => self.add(scalar(&text, style, tag.as_deref())?, anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Reason> {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH { Err("it is nested too deeply") } else { Ok(()) }
    }

    fn add_alias(&mut self, anchor: usize) -> Result<(), Reason> {
        let (value, weight) = self.anchors.get(&anchor).ok_or("an alias of what is not yet complete")?;
        self.count += weight;
        if self.count > MAX_VALUES {
            return Err("its aliases stand for too many values");
        }
        let value = value.clone();
        self.add(value, 0)
    }

    /// Adds a complete value; anchor 0 is none.
    fn add(&mut self, value: Config, anchor: usize) -> Result<(), Reason> {
        self.count += 1;
        if self.count > MAX_VALUES {
            return Err("it has too many values");
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), value.weight()));
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List(_, elements)) => elements.push(value),
            Some(Open::Map(_, members, next)) => match next.take() {
                None => *next = Some(key(value).ok_or("a key must be a text or a number")?),
                Some(name) => add_member(members, name, value)?,
            },
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Config, Reason> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Config::Text(text.to_owned())),
        Some(_) => Err("tags are not read"),
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None => Ok(Config::Text(text.to_owned())),
    }
}

fn add_member(members: &mut Vec<(String, Config)>, name: String, value: Config) -> Result<(), Reason> {
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
        ("<<", _) => return Err("only mappings can be merged"),
        (_, value) => members.push((name, value)),
    }
    Ok(())
}

/// Reads YAML text. What cannot be read is an issue; what is too large is an error.
pub fn parse_yaml(text: &str) -> Result<Result<Config, Issue>, Fault> {
    if text.len() > MAX_JSON_BYTES {
        return Err(Fault::new(Code::ProgramLimitExceeded, format!("config is larger than {MAX_JSON_BYTES} bytes")));
    }
    let unreadable_at = |line: usize, reason: &str| unreadable(format!("line {line}: {reason}"));
    let mut builder = Builder::default();
    // A flow sequence is read whole before its first event.
    for event in Parser::new_from_iter(text.chars().inspect(|_| interrupt::check())) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => return Ok(Err(unreadable_at(error.marker().line(), error.info()))),
        };
        if let Err(reason) = builder.accept(event) {
            return Ok(Err(unreadable_at(span.start.line(), reason)));
        }
    }
    Ok(Ok(builder.root.unwrap_or(Config::Map(Vec::new()))))
}
