//! The `skill-manifest` block of a SKILL.md: what a skill says it can do and what effects that has.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::findings::{Findings, Mode, Severity};
use crate::error::shorten;
use crate::interrupt;
use crate::policy::MAX_EFFECTS;
use crate::policy::effect::Effect;
use crate::unicode::suspicious_char;

/// Largest manifest, in bytes.
pub const MAX_BYTES: usize = 262_144;
const MAX_ENTRIES: usize = 1000;
const KINDS: [&str; 4] = ["string", "integer", "boolean", "json"];

/// What the registry keeps of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `id`.
    pub id: String,
    /// `version`, where it is a semantic version.
    pub semver: Option<String>,
    /// `capabilities`.
    pub capabilities: Vec<String>,
    /// `effects`.
    pub effects: Vec<String>,
    pub value: Value,
}

/// A fenced block of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// First word behind the fence.
    pub language: &'a str,
    pub content: &'a str,
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// It has a closing fence.
    pub closed: bool,
}

/// The fenced blocks of a Markdown text as CommonMark sees them: a fence in a longer fence or in an HTML comment is text.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block> = Vec::new();
    let mut open: Option<(u8, usize, usize)> = None;
    let mut comment = false;
    let mut offset = 0;
    for (i, line) in interrupt::each(text.split_inclusive('\n')).enumerate() {
        let start = offset;
        offset += line.len();
        let stripped = line.trim_start_matches(' ');
        let rest = stripped.trim_end();
        let indented = line.len() - stripped.len() > 3;
        if comment {
            comment = !rest.contains("-->");
            continue;
        }
        let mark = rest.as_bytes().first().copied().unwrap_or_default();
        let length =
            if indented || !matches!(mark, b'`' | b'~') { 0 } else { rest.bytes().take_while(|b| *b == mark).count() };
        match open {
            Some((opened, least, content)) => {
                if mark == opened && length >= least && length == rest.len() {
                    if let Some(block) = found.last_mut() {
                        (block.content, block.closed) = (&text[content..start], true);
                    }
                    open = None;
                }
            }
            None if length >= 3 && !(mark == b'`' && rest[length..].contains('`')) => {
                let language = rest[length..].split_whitespace().next().unwrap_or_default();
                found.push(Block { language, content: &text[offset..], line: i + 1, closed: false });
                open = Some((mark, length, offset));
            }
            None => comment = !indented && rest.starts_with("<!--") && !rest.contains("-->"),
        }
    }
    found
}

/// JSON whose objects name no member twice: two readers would take different ones.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
                // The server's jsonb cannot hold it.
                if value.contains('\0') { Err(E::custom("a text has the character U+0000")) } else { Ok(value.into()) }
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(Unambiguous(element)) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Value::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut members = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    if key.contains('\0') {
                        return Err(A::Error::custom("a name has the character U+0000"));
                    }
                    let Unambiguous(value) = map.next_value()?;
                    if members.contains_key(&key) {
                        return Err(A::Error::custom(format!("\"{}\" occurs twice", shorten(&key))));
                    }
                    members.insert(key, value);
                }
                Ok(Value::Object(members))
            }
        }
        deserializer.deserialize_any(Any).map(Unambiguous)
    }
}

/// Reads the manifest of a body whose first line is line `first` of the file. `None` where none exists that counts.
///
/// A manifest with an error declares nothing: it is left out as a whole, never read in part. Where a client would load the
/// skill all the same, the lenient do so too.
pub fn read(body: &str, first: usize, mode: Mode, findings: &mut Findings) -> Option<Manifest> {
    let blocks = blocks(body);
    let (block, language) = counting(&blocks)?;
    let line = first + block.line - 1;
    for again in interrupt::each(&blocks).filter(|block| block.language == language).skip(1) {
        findings.add(
            Severity::Warning,
            "manifest_repeated",
            Some("manifest"),
            Some(first + again.line - 1),
            "only the first manifest block counts",
        );
    }
    let mut mine = Findings::default();
    let manifest = check(block, line, &mut mine);
    let broken = mine.any_error();
    if mode == Mode::Lenient {
        mine.soften();
    }
    findings.append(mine);
    manifest.filter(|_| !broken)
}

fn check(block: &Block, line: usize, findings: &mut Findings) -> Option<Manifest> {
    let mut members = parse(block, line, findings)?;
    check_schema_version(&members, line, findings);
    let id = id(&members, line, findings)?;
    let semver = semver(&members, line, findings);
    let capabilities = texts(&mut members, "capabilities", line, findings);
    let effects = effects(&mut members, line, findings);
    operations(members.get("operations"), line, findings);
    Some(Manifest {
        id,
        semver,
        capabilities: capabilities.unwrap_or_default(),
        effects,
        value: Value::Object(members),
    })
}

fn parse(block: &Block, line: usize, findings: &mut Findings) -> Option<Map<String, Value>> {
    let (code, line, message) = if !block.closed {
        ("manifest_unclosed", line, "the manifest block has no closing fence".to_owned())
    } else if block.content.len() > MAX_BYTES {
        ("manifest_large", line, format!("the manifest has {} bytes, more than {MAX_BYTES}", block.content.len()))
    } else {
        match serde_json::from_str(block.content) {
            Ok(Unambiguous(Value::Object(members))) => return Some(members),
            Ok(_) => ("manifest_json", line, "the manifest must be a JSON object".to_owned()),
            Err(fault) => ("manifest_json", line + fault.line(), format!("the manifest is not valid JSON: {fault}")),
        }
    };
    findings.add(Severity::Error, code, Some("manifest"), Some(line), message);
    None
}

fn check_schema_version(members: &Map<String, Value>, line: usize, findings: &mut Findings) {
    let message = match members.get("schema_version") {
        Some(Value::String(version)) if version == "2.0" => return,
        Some(Value::String(version)) => format!("schema_version is \"{}\", known is \"2.0\"", shorten(version)),
        _ => "schema_version \"2.0\" is missing".to_owned(),
    };
    findings.add(Severity::Warning, "manifest_schema", Some("manifest.schema_version"), Some(line), message);
}

fn id(members: &Map<String, Value>, line: usize, findings: &mut Findings) -> Option<String> {
    match members.get("id") {
        Some(Value::String(id))
            if !id.trim().is_empty()
                && id.chars().count() <= 200
                && !id.chars().any(|c| c.is_control() || suspicious_char(c).is_some()) =>
        {
            Some(id.clone())
        }
        _ => {
            findings.add(
                Severity::Error,
                "manifest_id",
                Some("manifest.id"),
                Some(line),
                "id must be a text of 1 to 200 characters",
            );
            None
        }
    }
}

fn semver(members: &Map<String, Value>, line: usize, findings: &mut Findings) -> Option<String> {
    match members.get("version")? {
        Value::String(version) if semver::Version::parse(version).is_ok() => Some(version.clone()),
        other => {
            findings.add(
                Severity::Error,
                "manifest_version",
                Some("manifest.version"),
                Some(line),
                format!("version must be a semantic version like 1.0.0, not {}", shorten(&other.to_string())),
            );
            None
        }
    }
}

fn effects(members: &mut Map<String, Value>, line: usize, findings: &mut Findings) -> Vec<String> {
    let effects = texts(members, "effects", line, findings);
    let mut error =
        |code, message: String| findings.add(Severity::Error, code, Some("manifest.effects"), Some(line), message);
    if effects.is_none() {
        error("manifest_effects", "effects is missing; use [] if it has none".into());
    }
    let effects = effects.unwrap_or_default();
    if effects.len() > MAX_EFFECTS {
        error("manifest_effects", format!("more than {MAX_EFFECTS} effects"));
    }
    for effect in &effects {
        if let Err(why) = Effect::parse(effect) {
            error("manifest_effect", format!("\"{}\" is not a valid effect: {why}", shorten(effect)));
        }
    }
    effects
}

/// A list of texts without repeats; `None` where it is missing.
fn texts(members: &mut Map<String, Value>, name: &str, line: usize, findings: &mut Findings) -> Option<Vec<String>> {
    let mut list: Vec<String> = Vec::new();
    let ok = match members.get(name)? {
        Value::Array(elements) => {
            elements.len() <= MAX_ENTRIES
                && elements.iter().all(|element| match element {
                    Value::String(text) if !text.is_empty() => {
                        if !list.contains(text) {
                            list.push(text.clone());
                        }
                        true
                    }
                    _ => false,
                })
        }
        _ => false,
    };
    if !ok {
        findings.add(
            Severity::Error,
            "manifest_list",
            Some(&format!("manifest.{name}")),
            Some(line),
            format!("{name} must be a list of at most {MAX_ENTRIES} texts"),
        );
    }
    Some(list)
}

fn operations(operations: Option<&Value>, line: usize, findings: &mut Findings) {
    let mut error = |field: &str, message: String| {
        findings.add(Severity::Error, "manifest_operation", Some(field), Some(line), message)
    };
    let operations = match operations {
        None => return,
        Some(Value::Object(operations)) if operations.len() <= MAX_ENTRIES => operations,
        Some(_) => {
            return error(
                "manifest.operations",
                format!("operations must be an object of at most {MAX_ENTRIES} operations"),
            );
        }
    };
    for (name, operation) in operations {
        let field = format!("manifest.operations.{}", shorten(name));
        let Value::Object(operation) = operation else {
            error(&field, "an operation must be an object".into());
            continue;
        };
        if !matches!(operation.get("description"), None | Some(Value::String(_))) {
            error(&field, "description must be a text".into());
        }
        match operation.get("input") {
            None => {}
            Some(Value::Object(parameters)) => {
                for (parameter, about) in parameters {
                    let known = about.as_object().is_some_and(|about| {
                        matches!(about.get("type"), Some(Value::String(kind)) if KINDS.contains(&kind.as_str()))
                            && matches!(about.get("required"), None | Some(Value::Bool(_)))
                    });
                    if !known {
                        error(
                            &field,
                            format!(
                                "the parameter \"{}\" must be an object whose type is one of {}",
                                shorten(parameter),
                                KINDS.join(", ")
                            ),
                        );
                    }
                }
            }
            Some(_) => error(&field, "input must be an object of parameters".into()),
        }
    }
}

/// The parameters of each operation of a body's manifest in the order in which they were written, which jsonb does not keep.
pub fn parameters(body: &str) -> Vec<(String, Vec<String>)> {
    /// The names of an object's members, with what a value is read as.
    struct Members<T>(Vec<(String, T)>);
    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Names<T>(std::marker::PhantomData<T>);
            impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
                type Value = Vec<(String, T)>;
                fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(members)
                }
            }
            deserializer.deserialize_map(Names(std::marker::PhantomData)).map(Members)
        }
    }
    #[derive(serde::Deserialize)]
    struct Operation {
        input: Option<Members<serde::de::IgnoredAny>>,
    }
    #[derive(serde::Deserialize)]
    struct Operations {
        operations: Option<Members<Operation>>,
    }
    let blocks = blocks(body);
    let Some((block, _)) = counting(&blocks) else {
        return Vec::new();
    };
    let operations = serde_json::from_str::<Operations>(block.content).ok().and_then(|all| all.operations);
    let names = |operation: Operation| {
        operation.input.map(|input| input.0.into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
    };
    operations
        .map(|all| all.0.into_iter().map(|(name, operation)| (name, names(operation))).collect())
        .unwrap_or_default()
}

/// The block that is the manifest, and its name.
fn counting<'b, 'a>(blocks: &'b [Block<'a>]) -> Option<(&'b Block<'a>, &'static str)> {
    ["skill-manifest", "router-manifest"]
        .into_iter()
        .find_map(|name| blocks.iter().find(|block| block.language == name).map(|block| (block, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: &str = r#"{"schema_version": "2.0", "id": "x", "version": "1.2.3", "capabilities": ["c"], "effects": ["db.read"],
        "operations": {"go": {"description": "d", "input": {"p": {"type": "json", "required": true}}}}}"#;

    fn block(json: &str) -> String {
        format!("# t\n\n```skill-manifest\n{json}\n```\n")
    }
    fn codes(body: &str) -> (Option<Manifest>, Vec<(&'static str, Option<usize>)>) {
        let mut findings = Findings::default();
        let manifest = read(body, 5, Mode::Strict, &mut findings);
        (manifest, findings.into_vec().into_iter().map(|finding| (finding.code, finding.line)).collect())
    }

    #[test]
    fn a_manifest_is_read() {
        let (manifest, found) = codes(&block(PLAIN));
        let manifest = manifest.unwrap();
        assert_eq!(found, []);
        assert_eq!((manifest.id.as_str(), manifest.semver.as_deref()), ("x", Some("1.2.3")));
        assert_eq!((manifest.capabilities, manifest.effects), (vec!["c".to_owned()], vec!["db.read".to_owned()]));
        let old = block(PLAIN).replace("skill-manifest", "router-manifest");
        assert!(codes(&old).0.is_some());
        let both = format!("{}{}", old.replace("\"x\"", "\"old\""), block(PLAIN));
        assert_eq!(codes(&both).0.unwrap().id, "x");
    }

    #[test]
    fn parameters_keep_their_order() {
        let manifest = r#"{"operations": {"b": {"input": {"z": {}, "a": {"type": "json"}}}, "a": {}}}"#;
        assert_eq!(
            parameters(&block(manifest)),
            [("b".to_owned(), vec!["z".to_owned(), "a".to_owned()]), ("a".to_owned(), vec![])]
        );
        assert_eq!(parameters("none"), []);
    }

    #[test]
    fn traps() {
        for (json, code) in [
            ("{\"id\": \"x\", \"effects\": [\"db.read\"], \"effects\": []}", "manifest_json"),
            ("{\"id\": \"x\", \"effects\": [],}", "manifest_json"),
            ("[]", "manifest_json"),
            ("{\"id\": \"x\\u0000\", \"effects\": []}", "manifest_json"),
            ("{\"schema_version\": \"2.0\", \"effects\": []}", "manifest_id"),
            ("{\"schema_version\": \"2.0\", \"id\": \"x\"}", "manifest_effects"),
            ("{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": null}", "manifest_list"),
            ("{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": [\"DB.read\"]}", "manifest_effect"),
            ("{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": [\"db.*\"]}", "manifest_effect"),
            (
                "{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": [], \"version\": \"1.10\"}",
                "manifest_version",
            ),
            ("{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": [], \"operations\": []}", "manifest_operation"),
            (
                "{\"schema_version\": \"2.0\", \"id\": \"x\", \"effects\": [], \"operations\": {\"a\": {\"input\": {\"p\": {\"type\": \"text\"}}}}}",
                "manifest_operation",
            ),
        ] {
            let (manifest, found) = codes(&block(json));
            assert_eq!((manifest, found[0].0), (None, code), "{json}");
        }
        // Line 5 is the first of the body; the block opens on its third.
        assert_eq!(codes(&block("{\n\n}}")).1, [("manifest_json", Some(10))]);
        assert_eq!(codes("```skill-manifest\n{}").1, [("manifest_unclosed", Some(5))]);
        assert_eq!(codes(&format!("{}{}", block(PLAIN), block(PLAIN))).1, [("manifest_repeated", Some(13))]);
        let deep = block(&format!("{{\"id\": \"x\", \"effects\": {}{}}}", "[".repeat(200), "]".repeat(200)));
        assert_eq!(codes(&deep).1[0].0, "manifest_json");
    }

    #[test]
    fn only_what_a_reader_sees_as_a_block_counts() {
        for hidden in [
            format!("````markdown\n{}````\n", block(PLAIN)),
            format!("<!--\n{}-->\n", block(PLAIN)),
            block(PLAIN).replace('\n', "\n    "),
            block(PLAIN).replace("skill-manifest", "json skill-manifest"),
            format!("~~~\n{}~~~\n", block(PLAIN)),
        ] {
            assert_eq!(codes(&hidden), (None, vec![]), "{hidden}");
        }
        assert!(codes(&block(PLAIN).replace("```", "~~~~")).0.is_some());
        assert!(codes(&block(PLAIN).replace('\n', "\r\n")).0.is_some());
        assert!(codes(&format!("<!-- one line -->\n{}", block(PLAIN))).0.is_some());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[`~ <!\\->a\n\r{}\":\\[\\]]{0,120}") {
            let _ = codes(&text);
            let _ = codes(&block(&text));
        }
    }
}
