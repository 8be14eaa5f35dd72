//! Types of entities: validation of their data, their JSON Schema, import.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};

use crate::error::Fault;
use crate::error::shorten;
use crate::input::{invalid, invalid_pattern};
use crate::interrupt;

/// Longest pattern of a preset, in bytes.
const MAX_PATTERN: usize = 1000;
/// Member of an entity that names the related ones.
pub const RELATIONSHIPS: &str = "relationships";

/// The usual presets: key, pattern, description, example.
pub const PRESETS: [[&str; 4]; 8] = [
    [
        "email",
        r"[A-Za-z0-9._%+'-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}",
        "an e-mail address",
        "land@example.com",
    ],
    [
        "url",
        r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*)?",
        "a web address",
        "https://www.example.com/",
    ],
    ["iso_date", r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", "a date as YYYY-MM-DD", "2026-01-31"],
    [
        "iso_datetime",
        r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})",
        "a time as RFC 3339 writes it",
        "2026-01-31T08:00:00Z",
    ],
    [
        "us_phone",
        r"(\+1[ .-]?)?\(?[0-9]{3}\)?[ .-]?[0-9]{3}[ .-]?[0-9]{4}",
        "a telephone number of the United States",
        "(512) 463-7288",
    ],
    ["us_zip", r"[0-9]{5}(-[0-9]{4})?", "a postal code of the United States", "78701"],
    ["latitude", r"-?([0-8]?[0-9](\.[0-9]+)?|90(\.0+)?)", "a latitude in degrees", "31.8457"],
    ["longitude", r"-?((1[0-7][0-9]|[0-9]?[0-9])(\.[0-9]+)?|180(\.0+)?)", "a longitude in degrees", "-102.3676"],
];

/// Those of the Railroad Commission of Texas.
pub const TEXAS_PRESETS: [[&str; 4]; 4] = [
    [
        "api_well_number",
        r"[0-9]{2}-?[0-9]{3}-?[0-9]{5}(-?[0-9]{2}){0,2}",
        "an API well number of 10, 12 or 14 digits",
        "42-501-20130",
    ],
    ["rrc_district", r"(0[1-6]|7[BC]|08|8A|09|10|6E)", "a district of the Railroad Commission of Texas", "7C"],
    ["rrc_operator_number", r"[0-9]{6}", "an operator number of six digits", "253162"],
    ["rrc_lease_number", r"[0-9]{5,6}", "a lease number of five or six digits", "60481"],
];

/// How a field is entered, which decides the JSON it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputType {
    Text,
    Number,
    Integer,
    Boolean,
    Date,
    DateTime,
    /// One of the options.
    Select,
    /// An array of options.
    MultiSelect,
    Json,
}

impl InputType {
    /// Reads the column `input_type`, whose CHECK allows nothing else.
    pub fn parse(word: &str) -> InputType {
        match word {
            "number" => InputType::Number,
            "integer" => InputType::Integer,
            "boolean" => InputType::Boolean,
            "date" => InputType::Date,
            "datetime" => InputType::DateTime,
            "select" => InputType::Select,
            "multiselect" => InputType::MultiSelect,
            "json" => InputType::Json,
            _ => InputType::Text,
        }
    }
}

/// The form a text must have.
#[derive(Debug, Clone)]
pub struct Preset {
    description: String,
    pattern: String,
    regex: Regex,
}

impl Preset {
    /// Compiles a pattern for whole values, with its size bounded.
    pub fn new(pattern: &str, description: &str) -> Result<Preset, Fault> {
        if pattern.len() > MAX_PATTERN {
            return Err(invalid(format!("a pattern must have at most {MAX_PATTERN} bytes")));
        }
        let compile = |pattern: &str| {
            let built = RegexBuilder::new(pattern).size_limit(1 << 20).dfa_size_limit(1 << 20).nest_limit(50).build();
            built.map_err(|error| {
                invalid("the pattern is not a valid regular expression").detail(invalid_pattern(&error))
            })
        };
        // Alone first: unbalanced parentheses would end the group below.
        compile(pattern)?;
        let regex = compile(&format!(r"\A(?:{pattern})\z"))?;
        Ok(Preset { description: description.to_owned(), pattern: pattern.to_owned(), regex })
    }

    /// The whole value has the form.
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

/// A field of a kind of entity.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its key in the JSON.
    pub key: String,
    /// Its name for people.
    pub label: String,
    pub input: InputType,
    pub required: bool,
    /// Form of its text.
    pub preset: Option<Preset>,
    /// What may be chosen.
    pub options: Vec<Value>,
}

impl Field {
    /// Reads the column `options`: values, or objects with a member `value`.
    pub fn read_options(options: Option<&Value>) -> Vec<Value> {
        let read = |option: &Value| option.as_object().and_then(|object| object.get("value")).unwrap_or(option).clone();
        options.and_then(Value::as_array).map(|options| options.iter().map(read).collect()).unwrap_or_default()
    }
}

/// What an entity may be related to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Key of the other type.
    pub other: String,
    /// There may be more than one of them.
    pub many: bool,
    /// There must be one.
    pub required: bool,
}

impl Relation {
    /// The relation as one side of a rule sees it. `cardinality` is read from parent to
    /// child; only a child must have its parent.
    pub fn of(other: String, cardinality: &str, required: bool, is_child: bool) -> Relation {
        let (parents, children) = cardinality.split_once("_to_").unwrap_or(("one", "many"));
        Relation { other, many: if is_child { parents } else { children } == "many", required: required && is_child }
    }
}

/// A kind of entity with everything that is defined for it.
#[derive(Debug, Clone, Default)]
pub struct EntityType {
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// Its fields in order.
    pub fields: Vec<Field>,
    /// What it may be related to.
    pub relations: Vec<Relation>,
}

/// A violation found in an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key of the field; `relationships.<type>` for a relationship.
    pub field: String,
    pub code: &'static str,
    pub message: String,
}

/// Null, the empty string and the empty array count as missing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(elements) => elements.is_empty(),
        _ => false,
    }
}

/// JSON Schema of what [`is_empty`].
fn nothing() -> Value {
    json!({"anyOf": [{"enum": [null, []]}, {"type": "string", "pattern": r"^\s*$"}]})
}

/// Year, month and day of `YYYY-MM-DD`, where such a day exists.
fn date(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |from: usize, to: usize| {
        text.get(from..to).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse::<u32>().ok()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then_some(())
}

/// A time as RFC 3339 writes it.
fn datetime(text: &str) -> Option<()> {
    date(text.get(..10)?)?;
    let rest = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let two = |from: usize, most: u32| {
        rest.get(from..from + 2)
            .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?
            .parse::<u32>()
            .ok()
            .filter(|n| *n <= most)
    };
    two(0, 23)?;
    two(3, 59)?;
    two(6, 59)?;
    let separated = rest.as_bytes().get(2) == Some(&b':') && rest.as_bytes().get(5) == Some(&b':');
    let mut zone = rest.get(8..).filter(|_| separated)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if zone.len() == fraction.len() {
            return None;
        }
    }
    let offset = |zone: &str| {
        let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
        (hours.len() == 2 && minutes.len() == 2 && hours.parse::<u8>().ok()? < 24 && minutes.parse::<u8>().ok()? < 60)
            .then_some(())
    };
    if zone.eq_ignore_ascii_case("z") { Some(()) } else { offset(zone) }
}

impl EntityType {
    /// Validates the data of an entity and returns all violations.
    pub fn validate(&self, data: &Value) -> Result<Vec<Problem>, Fault> {
        let object = data.as_object().ok_or_else(|| invalid("data must be a JSON object"))?;
        let mut problems = Vec::new();
        for field in &self.fields {
            match object.get(&field.key).filter(|value| !is_empty(value)) {
                None if field.required => {
                    problems.push(Problem {
                        field: field.key.clone(),
                        code: "required",
                        message: format!("{} is missing", field.label),
                    });
                }
                None => (),
                Some(value) => {
                    if let Err((code, message)) = field.check(value) {
                        problems.push(Problem { field: field.key.clone(), code, message });
                    }
                }
            }
        }
        let known: BTreeSet<&str> = self.fields.iter().map(|field| field.key.as_str()).chain([RELATIONSHIPS]).collect();
        for key in interrupt::each(object.keys()).filter(|key| !known.contains(key.as_str())) {
            let message = format!("{} has no field {}", self.name, shorten(key));
            problems.push(Problem { field: key.clone(), code: "unknown_field", message });
        }
        self.check_relations(object.get(RELATIONSHIPS), &mut problems);
        Ok(problems)
    }

    fn check_relations(&self, given: Option<&Value>, problems: &mut Vec<Problem>) {
        let empty = Map::new();
        let given = match given {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(given)) => given,
            Some(_) => {
                let message = "relationships must be an object of arrays of ids by type".to_owned();
                return problems.push(Problem { field: RELATIONSHIPS.into(), code: "wrong_type", message });
            }
        };
        let mut problem = |other: &str, code, message| {
            problems.push(Problem { field: format!("{RELATIONSHIPS}.{other}"), code, message })
        };
        for (other, ids) in interrupt::each(given) {
            let Some(relation) = self.relations.iter().find(|relation| &relation.other == other) else {
                problem(
                    other,
                    "relationship_not_allowed",
                    format!("{} cannot be related to {}", self.name, shorten(other)),
                );
                continue;
            };
            let Some(ids) =
                ids.as_array().filter(|ids| ids.iter().all(|id| id.as_str().is_some_and(|id| !id.trim().is_empty())))
            else {
                problem(other, "wrong_type", format!("relationships.{other} must be an array of ids"));
                continue;
            };
            if ids.len() > 1 && !relation.many {
                problem(
                    other,
                    "too_many_related",
                    format!("{} can have one {other}, but {} are named", self.name, ids.len()),
                );
            }
        }
        for relation in self.relations.iter().filter(|relation| relation.required) {
            if given.get(&relation.other).is_none_or(is_empty) {
                problem(&relation.other, "relationship_required", format!("{} needs a {}", self.name, relation.other));
            }
        }
    }

    /// JSON Schema 2020-12 of an entity. `id` is its `$id`.
    pub fn json_schema(&self, id: &str) -> Value {
        let mut properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.key.clone(), field.schema())).collect();
        let mut required: Vec<&str> =
            self.fields.iter().filter(|field| field.required).map(|field| field.key.as_str()).collect();
        let relations: Map<String, Value> =
            self.relations.iter().map(|relation| (relation.other.clone(), relation.schema())).collect();
        let needed: Vec<&str> = self
            .relations
            .iter()
            .filter(|relation| relation.required)
            .map(|relation| relation.other.as_str())
            .collect();
        if !needed.is_empty() {
            required.push(RELATIONSHIPS);
        }
        let mut relationships =
            json!({"type": "object", "properties": relations, "required": needed, "additionalProperties": false});
        if needed.is_empty() {
            relationships = json!({"anyOf": [relationships, {"type": "null"}]});
        }
        properties.insert(RELATIONSHIPS.into(), relationships);
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": id, "title": self.name, "type": "object",
            "properties": properties, "required": required, "additionalProperties": false, "$defs": {"nothing": nothing()},
        })
    }

    /// Turns a source record into an entity by `mappings` (name in the source → fields).
    /// Returns the entity, the members without a mapping, and the required fields that are missing.
    pub fn import(
        &self,
        mappings: &BTreeMap<String, Vec<String>>,
        record: &Value,
    ) -> Result<(Value, Value, Vec<String>), Fault> {
        let record = record.as_object().ok_or_else(|| invalid("record must be a JSON object"))?;
        let (mut entity, mut unmapped) = (Map::new(), Map::new());
        for (name, value) in interrupt::each(record) {
            let keys = mappings.get(name).map(Vec::as_slice).unwrap_or_default();
            let mut fields = self.fields.iter().filter(|field| keys.contains(&field.key)).peekable();
            if fields.peek().is_none() {
                unmapped.insert(name.clone(), value.clone());
            }
            for field in fields {
                let value = field.convert(value);
                // A second source for one field fills it only while it is empty.
                if !is_empty(&value) && entity.get(&field.key).is_none_or(is_empty) {
                    entity.insert(field.key.clone(), value);
                }
            }
        }
        let missing = self
            .fields
            .iter()
            .filter(|field| field.required && !entity.contains_key(&field.key))
            .map(|field| field.key.clone());
        let missing = missing.collect();
        Ok((entity.into(), unmapped.into(), missing))
    }
}

impl Field {
    fn check(&self, value: &Value) -> Result<(), (&'static str, String)> {
        let wrong = |wanted: &str| Err(("wrong_type", format!("{} must be {wanted}", self.label)));
        let not_an_option = |value: &Value| {
            Err(("not_an_option", format!("{}: {} is not one of the options", self.label, shorten(&value.to_string()))))
        };
        match self.input {
            InputType::Json => {}
            InputType::Boolean if !value.is_boolean() => return wrong("true or false"),
            InputType::Number if !value.is_number() => return wrong("a number"),
            InputType::Integer if !is_whole(value) => return wrong("a whole number"),
            InputType::Text if !value.is_string() => return wrong("a text"),
            InputType::Date if value.as_str().and_then(date).is_none() => return wrong("a date as YYYY-MM-DD"),
            InputType::DateTime if value.as_str().and_then(datetime).is_none() => {
                return wrong("a time such as 2026-01-31T08:00:00Z");
            }
            InputType::Select if !self.options.contains(value) => return not_an_option(value),
            InputType::MultiSelect => {
                let Some(chosen) = value.as_array() else { return wrong("an array of options") };
                if let Some(other) = chosen.iter().find(|value| !self.options.contains(value)) {
                    return not_an_option(other);
                }
                if (1..chosen.len()).any(|i| chosen[..i].contains(&chosen[i])) {
                    return wrong("an array without repeats");
                }
            }
            _ => {}
        }
        match (&self.preset, value.as_str()) {
            (Some(preset), Some(text)) if !preset.matches(text) => {
                Err(("invalid_format", format!("{}: {} is not {}", self.label, shorten(text), preset.description)))
            }
            _ => Ok(()),
        }
    }

    fn schema(&self) -> Value {
        let mut schema = match self.input {
            InputType::Text => json!({"type": "string"}),
            InputType::Number => json!({"type": "number"}),
            InputType::Integer => json!({"type": "integer"}),
            InputType::Boolean => json!({"type": "boolean"}),
            InputType::Date => json!({"type": "string", "format": "date"}),
            InputType::DateTime => json!({"type": "string", "format": "date-time"}),
            InputType::Select => json!({"enum": self.options}),
            InputType::MultiSelect => json!({"type": "array", "items": {"enum": self.options}, "uniqueItems": true}),
            InputType::Json => json!({}),
        };
        if let (Some(preset), InputType::Text | InputType::Date | InputType::DateTime) = (&self.preset, self.input) {
            schema["pattern"] = format!("^(?:{})$", preset.pattern).into();
        }
        // An empty value is invalid for a required field and valid for any other.
        let nothing = json!({"$ref": "#/$defs/nothing"});
        if self.required {
            schema["not"] = nothing;
        } else {
            schema = json!({"anyOf": [schema, nothing]});
        }
        schema["title"] = self.label.clone().into();
        schema
    }

    /// Converts a value of a source to the field's type, where that is unambiguous.
    fn convert(&self, value: &Value) -> Value {
        let text = match value {
            Value::String(text) => text.trim(),
            Value::Number(number) if matches!(self.input, InputType::Text | InputType::Select) => {
                return number.to_string().into();
            }
            other => return other.clone(),
        };
        let converted = match self.input {
            InputType::Integer => text.parse::<i64>().ok().map(Value::from),
            InputType::Number => {
                let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
                text.parse::<f64>().ok().filter(|_| plain).and_then(|number| {
                    text.parse::<i64>()
                        .ok()
                        .map(Value::from)
                        .or_else(|| serde_json::Number::from_f64(number).map(Value::from))
                })
            }
            InputType::Boolean => match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "true" | "1" => Some(true.into()),
                "n" | "no" | "false" | "0" => Some(false.into()),
                _ => None,
            },
            InputType::Date => iso_date(text).map(Value::from),
            // A choice may be a number.
            InputType::Select => self
                .options
                .iter()
                .find(|option| option.as_str().map_or_else(|| option.to_string(), str::to_owned) == text)
                .cloned(),
            _ => None,
        };
        converted.unwrap_or_else(|| text.into())
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// YYYYMMDD and MM/DD/YYYY as YYYY-MM-DD.
fn iso_date(text: &str) -> Option<String> {
    let all_digits = text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = text.split('/').collect();
    let iso = match parts[..] {
        [_] if all_digits && text.len() == 8 => format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..]),
        [month, day, year] => format!("{year:0>4}-{month:0>2}-{day:0>2}"),
        _ => return None,
    };
    date(&iso).map(|()| iso)
}

impl Relation {
    fn schema(&self) -> Value {
        let mut schema = json!({"type": "array", "items": {"type": "string", "pattern": r"\S"}});
        if !self.many {
            schema["maxItems"] = 1.into();
        }
        if self.required {
            schema["minItems"] = 1.into();
        }
        schema
    }
}

#[cfg(test)]
mod tests;
