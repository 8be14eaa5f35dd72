//! The front matter of a SKILL.md: where it is, and its YAML as text.
//!
//! The YAML is read event by event and no scalar is interpreted: `1.10`, `no` and `2026-01-01` stay what was written, so
//! that every reader of the tables finds the same. What two YAML readers would take differently (duplicate keys, aliases,
//! tags) is refused.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};

use crate::error::shorten;

/// Largest front matter, in bytes.
pub const MAX_BYTES: usize = 65_536;
const MAX_DEPTH: usize = 16;
const NO_MAPPING: &str = "it must be a mapping of names to values";

/// A SKILL.md in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// It began with a byte order mark.
    pub bom: bool,
    /// Between the two lines `---`.
    pub yaml: &'a str,
    pub body: &'a str,
}

/// Why the front matter is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The first line is not `---`.
    Start,
    /// No second line `---`.
    End,
    /// Larger than [`MAX_BYTES`].
    TooLarge,
}

/// Finds the front matter. A line of three hyphens and nothing but blanks after them ends it; hyphens elsewhere do not.
pub fn split(source: &str) -> Result<Parts<'_>, Missing> {
    let (bom, text) = match source.strip_prefix('\u{feff}') {
        Some(text) => (true, text),
        None => (false, source),
    };
    let fence =
        |line: &str| line.strip_prefix("---").is_some_and(|rest| rest.trim_matches([' ', '\t', '\r', '\n']).is_empty());
    let first =
        text.split_inclusive('\n').next().filter(|line| line.ends_with('\n') && fence(line)).ok_or(Missing::Start)?;
    let rest = &text[first.len()..];
    let mut length = 0;
    for line in rest.split_inclusive('\n') {
        if fence(line) {
            return Ok(Parts { bom, yaml: &rest[..length], body: &rest[length + line.len()..] });
        }
        length += line.len();
        if length > MAX_BYTES {
            return Err(Missing::TooLarge);
        }
    }
    Err(Missing::End)
}

/// Why YAML is refused, and in which of its lines, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code of a finding.
    pub code: &'static str,
    /// Line of the YAML.
    pub line: usize,
    pub message: String,
}

/// A mapping of the front matter, and the line on which each of its direct keys stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Every scalar is a JSON string.
    pub values: Map<String, Value>,
    pub lines: Vec<(String, usize)>,
    /// Lines where a comment follows a value without quotes, so that a reader of the values does not see the rest.
    pub comments: Vec<usize>,
}

impl Fields {
    /// The line of a key.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, line)| *line)
    }
}

enum Open {
    List(Vec<Value>),
    /// What is there, and the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

/// Reads the YAML between the fences.
pub fn parse(yaml: &str) -> Result<Fields, Refusal> {
    let mut parser = Parser::new_from_str(yaml);
    let mut builder = Builder::default();
    let text: Vec<&str> = yaml.lines().collect();
    while let Some(event) = parser.next_event() {
        crate::interrupt::check();
        let (event, span) = event.map_err(|error| syntax(&error))?;
        let line = span.start.line();
        if matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..)) && has_comment(&text, &span.end) {
            builder.fields.comments.push(span.end.line());
        }
        builder.accept(event, line).map_err(|(code, message)| Refusal { code, line, message: message.into_owned() })?;
    }
    if builder.documents == 0 || builder.fields.values.is_empty() {
        return Err(Refusal { code: "yaml_mapping", line: 1, message: "the front matter is empty".into() });
    }
    Ok(builder.fields)
}

/// What follows a plain scalar that ends here, in its line, is a comment.
fn has_comment(lines: &[&str], end: &Marker) -> bool {
    let line = lines.get(end.line().wrapping_sub(1)).copied().unwrap_or_default();
    let rest = line.char_indices().nth(end.col()).map_or("", |(at, _)| &line[at..]);
    rest.trim_start().starts_with('#')
}

/// Code and message of a refusal.
type Reason = (&'static str, Cow<'static, str>);

fn refuse<T>(code: &'static str, message: &'static str) -> Result<T, Reason> {
    Err((code, message.into()))
}

#[derive(Default)]
struct Builder {
    fields: Fields,
    open: Vec<Open>,
    documents: usize,
}

impl Builder {
    fn accept(&mut self, event: Event, line: usize) -> Result<(), Reason> {
        check_properties(&event)?;
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return refuse("yaml_documents", "the front matter has a second YAML document");
                }
                Ok(())
            }
            Event::SequenceStart(..) if self.open.is_empty() => refuse("yaml_mapping", NO_MAPPING),
            Event::SequenceStart(..) => self.start(Open::List(Vec::new())),
            Event::MappingStart(..) => self.start(Open::Mapping(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(elements)) => self.add(Value::Array(elements)),
                Some(Open::Mapping(members, _)) if self.open.is_empty() => {
                    self.fields.values = members;
                    Ok(())
                }
                Some(Open::Mapping(members, _)) => self.add(Value::Object(members)),
                None => Ok(()),
            },
            Event::Scalar(text, ..) => {
                if let Some(Open::Mapping(_, None)) = self.open.last() {
                    self.add_key(text.into_owned(), line)
                } else {
                    self.add(Value::String(text.into_owned()))
                }
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Reason> {
        if let Some(Open::Mapping(_, None)) = self.open.last() {
            return refuse("yaml_key", "a key must be plain text");
        }
        if self.open.len() == MAX_DEPTH {
            return refuse("yaml_depth", "it is nested too deeply");
        }
        self.open.push(open);
        Ok(())
    }

    fn add_key(&mut self, name: String, line: usize) -> Result<(), Reason> {
        let top_level = self.open.len() == 1;
        if let Some(Open::Mapping(members, key)) = self.open.last_mut() {
            if members.contains_key(&name) {
                return Err(("duplicate_key", format!("the key \"{}\" occurs twice", shorten(&name)).into()));
            }
            if top_level {
                self.fields.lines.push((name.clone(), line));
            }
            *key = Some(name);
        }
        Ok(())
    }

    fn add(&mut self, value: Value) -> Result<(), Reason> {
        match self.open.last_mut() {
            Some(Open::List(elements)) => elements.push(value),
            Some(Open::Mapping(members, key)) => {
                members.insert(key.take().unwrap_or_default(), value);
            }
            None => return refuse("yaml_mapping", NO_MAPPING),
        }
        Ok(())
    }
}

/// Refuses anchors, aliases and tags.
fn check_properties(event: &Event) -> Result<(), Reason> {
    let (anchor, tagged) = match event {
        Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
            (*anchor, tag.is_some())
        }
        _ => (0, false),
    };
    if anchor != 0 || matches!(event, Event::Alias(_)) {
        return refuse(
            "yaml_alias",
            "anchors and aliases are not read: a few lines of them stand for any amount of text",
        );
    }
    if tagged {
        return refuse("yaml_tag", "tags are not read: every value is text, a list or a mapping");
    }
    Ok(())
}

fn syntax(error: &ScanError) -> Refusal {
    Refusal { code: "yaml_syntax", line: error.marker().line(), message: error.info().to_owned() }
}

/// The same YAML with quotes around the plain values of keys and items that a reader would stumble over (`description: Use
/// when: asked`), also in their later lines, and the lines that were quoted; `None` if nothing is to be quoted.
pub fn quoted(yaml: &str) -> Option<(String, Vec<usize>)> {
    let lines: Vec<&str> = yaml.split_inclusive('\n').collect();
    let (mut out, mut changed) = (String::with_capacity(yaml.len() + 64), Vec::new());
    let mut i = 0;
    while i < lines.len() {
        let Some(Entry { column, value_at, is_item }) = Entry::find(lines[i]) else {
            out.push_str(lines[i]);
            i += 1;
            continue;
        };
        let first = lines[i][value_at..].trim();
        let mut end = i + 1;
        if !(first.starts_with('#') || first.is_empty() && begins_block(&lines[end..], column)) {
            end += following(&lines[end..], column);
        }
        let all = lines[i..end].concat();
        let value = all[value_at..].trim();
        // A mapping of one member is an item as well.
        let is_member = is_item && value.matches(": ").count() == 1 && value.starts_with(char::is_alphanumeric);
        if needs_quotes(value) && !is_member {
            out.push_str(&format!("{} '{}'\n", all[..value_at].trim_end(), value.replace('\'', "''")));
            changed.push(i + 1);
        } else {
            out.push_str(&all);
        }
        i = end;
    }
    (!changed.is_empty()).then_some((out, changed))
}

/// A line with a key or an item: `key: value`, `- value`, `- key: value`.
struct Entry {
    /// Lines that are indented further belong to its value.
    column: usize,
    value_at: usize,
    /// Without a key.
    is_item: bool,
}

impl Entry {
    fn find(line: &str) -> Option<Self> {
        let indent = |text: &str| text.len() - text.trim_start_matches(' ').len();
        let (mut column, mut at) = (indent(line), indent(line));
        let mut is_item = false;
        while let Some(rest) = line[at..].strip_prefix("- ") {
            (column, at, is_item) = (at, at + 2 + indent(rest), true);
        }
        match line[at..].split_once(':') {
            Some((key, rest)) if is_key(key) && (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) => {
                Some(Entry { column: at, value_at: at + key.len() + 1, is_item: false })
            }
            _ => is_item.then_some(Entry { column, value_at: at, is_item }),
        }
    }
}

/// How many of these lines belong to a value: those that are indented further, and empty ones between them.
fn following(lines: &[&str], column: usize) -> usize {
    let depth = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let value = lines.iter().take_while(|line| line.trim().is_empty() || depth(line) > column);
    let value: Vec<_> = value.collect();
    value.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1)
}

/// These lines, behind a key without a value in its line, are items, a mapping, or none of its.
fn begins_block(lines: &[&str], column: usize) -> bool {
    let first = lines[..following(lines, column)].iter().find(|line| !line.trim().is_empty()).map(|line| line.trim());
    let is_quoted_key = |text: &str| match text.chars().next() {
        Some(open @ ('"' | '\'')) => end_of(text, open).is_some_and(|end| text[end..].trim_start().starts_with(':')),
        _ => false,
    };
    first.is_none_or(|first| {
        first.starts_with(['#', '?']) || first == "-" || Entry::find(first).is_some() || is_quoted_key(first)
    })
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A value that is not YAML as it stands, and text in quotes.
fn needs_quotes(value: &str) -> bool {
    let first = value.lines().next().unwrap_or_default();
    match value.chars().next() {
        Some('|' | '>') => !is_block_header(first),
        // In quotes or brackets, and then more.
        Some(open @ ('"' | '\'' | '[' | '{')) => {
            end_of(value, open).is_some_and(|end| !matches!(value[end..].trim_start().chars().next(), None | Some('#')))
        }
        Some('@' | '`' | '%' | '*' | '&' | '!') => true,
        Some('-' | '?') if value[1..].starts_with([' ', '\n']) => true,
        _ => {
            let cut = value.lines().rev().skip(1).any(|line| line.contains(" #"));
            cut || value.ends_with(':') || [": ", ":\n", ":\r\n"].iter().any(|colon| value.contains(colon))
        }
    }
}

/// `|`, `>-`, `|2+`, a comment behind it.
fn is_block_header(line: &str) -> bool {
    let rest = line[1..].trim_start_matches(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit());
    rest.is_empty() || rest.starts_with([' ', '\t']) && matches!(rest.trim_start().chars().next(), None | Some('#'))
}

/// Where a value in quotes or brackets ends, behind what closes it.
fn end_of(value: &str, open: char) -> Option<usize> {
    let mut chars = value.char_indices().peekable();
    chars.next();
    let mut depth = 1;
    while let Some((at, c)) = chars.next() {
        match (open, c) {
            ('"', '\\') => drop(chars.next()),
            ('\'', '\'') if chars.peek().is_some_and(|(_, next)| *next == '\'') => drop(chars.next()),
            ('"' | '\'', _) if c == open => return Some(at + 1),
            ('[' | '{', '[' | '{') => depth += 1,
            ('[' | '{', ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn values(yaml: &str) -> Value {
        Value::Object(parse(yaml).unwrap().values)
    }
    fn refused(yaml: &str) -> (&'static str, usize) {
        let refusal = parse(yaml).unwrap_err();
        (refusal.code, refusal.line)
    }

    #[test]
    fn scalars_stay_text() {
        assert_eq!(
            values(
                "version: 1.10\ncountry: no\nmode: 0755\nnothing: ~\nempty:\nlist: [1, true]\nday: 2026-01-01\ntext: |\n  a\n  b\nfolded: >-\n  a\n  b\n"
            ),
            json!({"version": "1.10", "country": "no", "mode": "0755", "nothing": "~", "empty": "", "list": ["1", "true"], "day": "2026-01-01", "text": "a\nb\n", "folded": "a b"})
        );
        let fields = parse("a: b\nmetadata:\n  version: '1'\nc: d\n").unwrap();
        assert_eq!((fields.line("metadata"), fields.line("version"), fields.line("c")), (Some(2), None, Some(4)));
    }

    #[test]
    fn what_readers_take_differently_is_refused() {
        for (yaml, code, line) in [
            ("a: 1\na: 2\n", "duplicate_key", 2),
            ("m:\n  a: 1\n  a: 2\n", "duplicate_key", 3),
            ("a: &x 1\n", "yaml_alias", 1),
            ("a: 1\nb: !!str x\n", "yaml_tag", 2),
            ("a: 1\n--- \nb: 2\n", "yaml_documents", 2),
            ("? [a]\n: b\n", "yaml_key", 1),
            ("- a\n", "yaml_mapping", 1),
            ("just text\n", "yaml_mapping", 1),
            ("", "yaml_mapping", 1),
            ("# nothing\n", "yaml_mapping", 1),
            ("a:\n\t- b\n", "yaml_syntax", 2),
            ("description: Use when: asked\n", "yaml_syntax", 1),
        ] {
            assert_eq!(refused(yaml), (code, line), "{yaml:?}");
        }
        assert_eq!(refused(&format!("a: {}", "[".repeat(40))).0, "yaml_depth");
    }

    #[test]
    fn fences() {
        let parts = split("---\na: b --- c\n--- x\n---  \r\nbody\n---\n").unwrap();
        assert_eq!((parts.yaml, parts.body), ("a: b --- c\n--- x\n", "body\n---\n"));
        assert_eq!(split("---\r\na: b\r\n---\r\n").unwrap(), Parts { bom: false, yaml: "a: b\r\n", body: "" });
        assert_eq!(split("\u{feff}---\na: b\n---").unwrap(), Parts { bom: true, yaml: "a: b\n", body: "" });
        for start in ["", "a: b\n---\n", " ---\na: b\n---\n", "----\na: b\n---\n", "--- a\n---\n", "---"] {
            assert_eq!(split(start), Err(Missing::Start), "{start:?}");
        }
        assert_eq!(split("---\na: b\n ---\n"), Err(Missing::End));
        assert_eq!(split(&format!("---\na: {}\n---\n", "x".repeat(MAX_BYTES))), Err(Missing::TooLarge));
    }

    #[test]
    fn quoting_mends_what_was_meant_as_text() {
        let (fixed, lines) = quoted("name: x\ndescription: Use when: it's\n  asked for: this\nlicense: MIT\n").unwrap();
        assert_eq!(lines, [2]);
        assert_eq!(
            values(&fixed),
            json!({"name": "x", "description": "Use when: it's asked for: this", "license": "MIT"})
        );
        assert_eq!(values(&quoted("a: *bold* text\n").unwrap().0), json!({"a": "*bold* text"}));
        assert_eq!(quoted("a: b\nm:\n  c: d\nq: 'x: y'\nl: [a: b]\nt: |\n  a: b: c\nu: >-\n  x #y\n  z\n"), None);
        for (yaml, value) in [
            ("a: Reviews a plan\n  first. Scope: large ones.\n", "Reviews a plan first. Scope: large ones."),
            ("a: [action] - for example list\n", "[action] - for example list"),
            ("a: {x} and [y]\n", "{x} and [y]"),
            ("a: \"Quick\" checks: run them\n", "\"Quick\" checks: run them"),
            ("a: 'Quick' checks\n", "'Quick' checks"),
            ("a: For issue #1\n  and #2.\n", "For issue #1 and #2."),
            ("a: - one\n", "- one"),
            ("a: >50% faster\n", ">50% faster"),
            ("a: &x and *y\n", "&x and *y"),
        ] {
            assert_eq!(values(&quoted(yaml).unwrap().0), json!({"a": value}), "{yaml}");
        }
        assert_eq!(values(&quoted("m:\n  c: d: e\n  f: g\n").unwrap().0), json!({"m": {"c": "d: e", "f": "g"}}));
    }

    #[test]
    fn a_comment_behind_a_value_is_noticed() {
        let comments = |yaml: &str| parse(yaml).unwrap().comments;
        assert_eq!(comments("name: x\ndescription: Fixes #1 and ü #12 too.\n"), [2]);
        assert_eq!(comments("a: b # c\nm:\n  k: v #x\nl: [a, b]\n"), [1, 3]);
        assert_eq!(comments("# all of a line\na: 'b #c' # d\nt: |\n  x #y\nu: C# code#1\n"), [] as [usize; 0]);
        assert_eq!(comments("a: first\n  second #3\nb: x\n"), [2]);
    }

    /// A value may begin on the next line, have empty lines, and be an item of a list.
    #[test]
    fn quoting_reads_every_form_of_a_plain_value() {
        for (yaml, value) in [
            ("a:\n  Reviews a plan. Scope: all.\n  More text.\n", json!("Reviews a plan. Scope: all. More text.")),
            ("a:\n\n  \"Quick\" checks\n  and: more\nb: c\n", json!("\"Quick\" checks and: more")),
            ("a: Reviews a plan\n\n  and: more\n\nb: c\n", json!("Reviews a plan\nand: more")),
            ("a: Reviews: a plan\n\n\n  and more\n", json!("Reviews: a plan\n\nand more")),
            ("a:\n  - \"x\" y\n  - z\n", json!(["\"x\" y", "z"])),
            ("a:\n- 'x' y\n- [p] q\n- Use when: asked: now\n", json!(["'x' y", "[p] q", "Use when: asked: now"])),
            ("a:\n  - \"x\" y\n    and z\n\n    end\n", json!(["\"x\" y and z\nend"])),
            ("a:\n  - @x\n  - b: c: d\n    e: f\n", json!(["@x", {"b": "c: d", "e": "f"}])),
            ("a:\n  - - \"x\" y\n    - z\n", json!([["\"x\" y", "z"]])),
            ("a:\r\n  Reviews a plan. Scope: all.\r\n  More.\r\n", json!("Reviews a plan. Scope: all. More.")),
        ] {
            assert_eq!(parse(yaml).unwrap_err().code, "yaml_syntax", "{yaml}");
            let (fixed, _) = quoted(yaml).unwrap();
            assert_eq!(values(&fixed)["a"], value, "{yaml}");
        }
        // What is YAML stays as it is: blocks with empty lines, nested mappings, members of lists.
        for yaml in [
            "t: |\n  a: b: c\n\n  d: e: f\nu: >-\n  x #y\n\n  z: z: z\n",
            "m:\n  a: b\n\n  c: d\n",
            "m:\n  \"a b\": c\n  d: e\n",
            "m:\n\n  # a: comment: here\n  a: b\n",
            "m:\nn: x\n",
            "l:\n  - first name: x\n  - a: b\n    c: d\n  -\n    e: f\n",
            "l:\n  - \"x: y\"\n  - [a, b]\n  - |\n    p: q: r\n",
        ] {
            assert_eq!(quoted(yaml), None, "{yaml}");
            assert!(parse(yaml).is_ok(), "{yaml}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn nothing_panics(text in "[-a:\\[\\]{}&*!|>'\"%@`#?,~ \n\r\tä\u{feff}]{0,80}") {
            let _ = parse(&text);
            let _ = quoted(&text);
            let source = format!("---\n{text}\n---\nbody");
            if let Ok(parts) = split(&source) {
                prop_assert!(source.ends_with(parts.body));
            }
        }

        #[test]
        fn a_quoted_text_comes_back(text in "[ -~ä]{1,60}") {
            let yaml = format!("a: '{}'\n", text.replace('\'', "''"));
            prop_assert_eq!(values(&yaml), json!({"a": text}));
        }
    }
}
