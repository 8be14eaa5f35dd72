//! SKILL.md: the rules of its front matter, and what the registry takes from it.

use serde_json::{Map, Value};

use super::ecosystem::conforming;
use super::findings::{Finding, Findings, Mode, Severity};
use super::frontmatter::{self, Fields, Missing, Parts, Refusal};
use super::manifest::{self, Manifest};
use super::slug::{MAX_COMPATIBILITY, fits};
pub use super::slug::{MAX_DESCRIPTION, MAX_NAME};
use super::values::{gather, outside_parentheses, words};
use crate::error::{Code, Fault, shorten};
use crate::input::sentence;
use crate::interrupt;
use crate::unicode::{SuspiciousChar, nfkc, suspicious_char, without_flags};

/// What the specification advises for a body.
const ADVISED_LINES: usize = 500;
const MAX_TAGS: usize = 100;

/// Fields of the specification.
const FIELDS: [&str; 6] = ["name", "description", "license", "compatibility", "metadata", "allowed-tools"];
/// Fields that known clients add.
const CLIENT_FIELDS: [&str; 12] = [
    "disable-model-invocation",
    "user-invocable",
    "argument-hint",
    "model",
    "context",
    "agent",
    "hooks",
    "version",
    "tags",
    "author",
    "required_env_vars",
    "domain_tags",
];

/// What the registry takes from a SKILL.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// `name`, NFKC.
    pub name: String,
    /// `description`.
    pub description: String,
    /// `metadata`.
    pub metadata: Map<String, Value>,
    /// The whole front matter, every scalar as text.
    pub frontmatter: Map<String, Value>,
    /// The manifest, if it has one that counts.
    pub manifest: Option<Manifest>,
    /// From the manifest, or else `metadata.version`.
    pub semver: Option<String>,
    /// Names of environment variables.
    pub required_env_vars: Vec<String>,
    pub tags: Vec<String>,
}

/// A SKILL.md as it was read.
#[derive(Debug)]
pub struct Document {
    /// Everything that was noticed, in the order of the file's parts.
    pub findings: Vec<Finding>,
    /// `None` where a finding is an error.
    pub skill: Option<Skill>,
}

impl Document {
    /// The skill, or the error that says why it is none.
    pub fn into_skill(self) -> Result<Skill, Fault> {
        let Some(skill) = self.skill else {
            let lines: Vec<String> = self
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .take(20)
                .map(format_finding)
                .collect();
            let first = self
                .findings
                .iter()
                .find(|finding| finding.severity == Severity::Error)
                .map_or("", |finding| finding.message.as_str());
            return Err(Fault::new(Code::InvalidParameterValue, format!("not a valid SKILL.md: {first}"))
                .detail(lines.join("\n"))
                .hint("SELECT * FROM skill_system.validate_skill(...) has all findings; mode => 'lenient' takes what clients still load."));
        };
        Ok(skill)
    }
}

fn format_finding(finding: &Finding) -> String {
    let line = finding.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let field = finding.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    sentence(&format!("{line}{field}{} ({})", finding.message, finding.code))
}

pub fn read(source: &str, mode: Mode) -> Document {
    read_named(source, mode, None)
}

/// As [`read`], with the name that clients take from the directory where the front matter has none.
pub fn read_named(source: &str, mode: Mode, directory: Option<&str>) -> Document {
    let mut findings = Findings::default();
    let skill = parse_inner(source, mode, directory, &mut findings);
    let skill = skill.filter(|_| !findings.any_error());
    Document { findings: findings.into_vec(), skill }
}

fn parse_inner(source: &str, mode: Mode, directory: Option<&str>, findings: &mut Findings) -> Option<Skill> {
    let parts = split(source, findings)?;
    check_encoding(source, parts.bom, mode, findings);
    let body_line = 1 + source[..source.len() - parts.body.len()].matches('\n').count();
    let fields = yaml(parts.yaml, mode, findings);
    check_front_matter_chars(parts.yaml, fields.as_ref(), mode, findings);
    let fields = fields?;
    report_comments(&fields, findings);
    let skill = skill_of(&fields, mode, directory, findings);
    check_body(parts.body, body_line, findings);
    let manifest = manifest::read(parts.body, body_line, mode, findings);
    let mut skill = skill?;
    add_manifest(&mut skill, manifest, findings);
    if !findings.any_error() {
        report_left_out(&skill, findings);
    }
    Some(skill)
}

/// Names the listings that cannot express the skill, and leave it out.
fn report_left_out(skill: &Skill, findings: &mut Findings) {
    let frontmatter = Value::Object(skill.frontmatter.clone());
    let Err(why) = conforming(frontmatter, &skill.name, &skill.description) else { return };
    let (code, listings) = match fits(&skill.name, &skill.description) {
        true => ("mcp_list", "mcp_skills_list() leaves"),
        false => ("discovery_index", "skills_discovery_index() and mcp_skills_list() leave"),
    };
    findings.add(Severity::Note, code, None, None, format!("{listings} it out: {why}"));
}

fn split<'a>(source: &'a str, findings: &mut Findings) -> Option<Parts<'a>> {
    let missing = match frontmatter::split(source) {
        Ok(parts) => return Some(parts),
        Err(missing) => missing,
    };
    let (code, message) = match missing {
        Missing::Start => ("front_matter_missing", "the first line must be ---".to_owned()),
        Missing::End => ("front_matter_unclosed", "no second line --- ends the front matter".to_owned()),
        Missing::TooLarge => {
            ("front_matter_large", format!("the front matter has more than {} bytes", frontmatter::MAX_BYTES))
        }
    };
    findings.add(Severity::Error, code, None, Some(1), message);
    None
}

fn check_encoding(source: &str, bom: bool, mode: Mode, findings: &mut Findings) {
    if bom {
        findings.add(
            mode.soft(),
            "byte_order_mark",
            None,
            Some(1),
            "the file begins with a byte order mark, so its first line is not ---",
        );
    }
    if source.contains("\r\n") {
        let mixed =
            interrupt::each(source.split_inclusive('\n')).any(|line| line.ends_with('\n') && !line.ends_with("\r\n"));
        let message =
            if mixed { "lines end with CR LF and with LF" } else { "lines end with CR LF; the bytes are kept" };
        findings.add(if mixed { Severity::Warning } else { Severity::Note }, "line_ends", None, None, message);
    }
}

/// The approver reads the file, and the model what stands before the comment.
fn report_comments(fields: &Fields, findings: &mut Findings) {
    for line in &fields.comments {
        let field = fields.lines.iter().rev().find(|(_, start)| start <= line).map(|(key, _)| key.as_str());
        findings.add(
            Severity::Warning,
            "yaml_comment",
            field,
            Some(line + 1),
            "a blank and # begin a comment, which ends the value; put the value in quotes if it is not one",
        );
    }
}

fn check_front_matter_chars(yaml: &str, fields: Option<&Fields>, mode: Mode, findings: &mut Findings) {
    let severity = |kind| if kind == SuspiciousChar::Control { Severity::Error } else { mode.soft() };
    let mut seen = Vec::new();
    if let Some(fields) = fields {
        // An escape in quotes writes what the text itself does not show.
        for (key, value) in interrupt::each(&fields.values) {
            let mut all = key.clone();
            gather(value, &mut all);
            let line = fields.line(key).map_or(1, |line| line + 1);
            seen.extend(report_suspicious_chars(&all, line, Some(key), findings, severity));
        }
    }
    // What is in a value was named with its field.
    let mut elsewhere = Findings::default();
    report_suspicious_chars(yaml, 2, None, &mut elsewhere, severity);
    elsewhere.retain(|finding| !seen.iter().any(|kind: &SuspiciousChar| kind.code() == finding.code));
    findings.append(elsewhere);
}

fn check_body(body: &str, first: usize, findings: &mut Findings) {
    report_suspicious_chars(body, first, None, findings, |_| Severity::Warning);
    let lines = interrupt::each(body.lines()).count();
    if body.trim().is_empty() {
        findings.add(Severity::Warning, "body_empty", None, None, "the body is empty");
    } else if lines > ADVISED_LINES {
        findings.add(
            Severity::Note,
            "body_long",
            None,
            None,
            format!("the body has {lines} lines; up to {ADVISED_LINES} are advised, the rest belongs in references"),
        );
    }
}

/// Adds the manifest and the version, which is the manifest's or else that of the metadata.
fn add_manifest(skill: &mut Skill, manifest: Option<Manifest>, findings: &mut Findings) {
    if let Some(manifest) = &manifest {
        skill.semver.clone_from(&manifest.semver);
        if manifest.id != skill.name {
            findings.add(
                Severity::Note,
                "manifest_id_differs",
                Some("manifest.id"),
                None,
                format!("the manifest's id is \"{}\"; runs and indexes know the skill by it", shorten(&manifest.id)),
            );
        }
    }
    skill.manifest = manifest;
    // The place in metadata is the specification's, the other is what clients write.
    let places = [("metadata.version", skill.metadata.get("version")), ("version", skill.frontmatter.get("version"))];
    let declared = places.into_iter().find_map(|(field, value)| Some((field, value?.as_str()?.trim().to_owned())));
    let (field, declared) = declared.map_or(("version", None), |(field, declared)| (field, Some(declared)));
    match (declared, &skill.semver) {
        (Some(declared), Some(version)) if declared != *version => {
            findings.add(
                Severity::Warning,
                "version_differs",
                Some(field),
                None,
                format!("it says {}, the manifest says {version}, which counts", shorten(&declared)),
            );
        }
        (Some(declared), None) if semver::Version::parse(&declared).is_ok() => skill.semver = Some(declared),
        (Some(declared), None) => {
            findings.add(
                Severity::Note,
                "version_no_semver",
                Some(field),
                None,
                format!("\"{}\" is not a semantic version like 1.0.0, so ranges cannot find it", shorten(&declared)),
            );
        }
        _ => {}
    }
}

fn yaml(yaml: &str, mode: Mode, findings: &mut Findings) -> Option<Fields> {
    // The first line of the file is the fence.
    let mut refused = |refusal: Refusal, advice: &str| {
        findings.add(
            Severity::Error,
            refusal.code,
            None,
            Some(refusal.line + 1),
            format!("{}{advice}", refusal.message),
        );
        None
    };
    let refusal = match frontmatter::parse(yaml) {
        Ok(fields) => return Some(fields),
        Err(refusal) => refusal,
    };
    let Some((fixed, lines)) = frontmatter::quoted(yaml).filter(|_| refusal.code == "yaml_syntax") else {
        return refused(refusal, "");
    };
    match frontmatter::parse(&fixed) {
        Ok(mut fields) if mode == Mode::Lenient => {
            for line in &lines {
                findings.add(
                    Severity::Warning,
                    "yaml_quoted",
                    None,
                    Some(line + 1),
                    "the value was read as if it were in quotes",
                );
            }
            for (key, line) in interrupt::each(&mut fields.lines) {
                if let Some(i) = yaml
                    .lines()
                    .position(|text| text.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(':')))
                {
                    *line = i + 1;
                }
            }
            Some(fields)
        }
        Ok(_) => refused(refusal, "; put the value in quotes"),
        Err(_) => refused(refusal, ""),
    }
}

/// Finds what is not seen, once for each kind, and names these kinds.
fn report_suspicious_chars(
    text: &str,
    first: usize,
    field: Option<&str>,
    findings: &mut Findings,
    severity: impl Fn(SuspiciousChar) -> Severity,
) -> Vec<SuspiciousChar> {
    // Most texts have none, and most that are not ASCII neither.
    if text.bytes().all(|b| (b' '..0x7f).contains(&b) || b == b'\n' || b == b'\t') {
        return Vec::new();
    }
    let text = &*without_flags(text);
    let mut seen: [Option<(usize, char, usize)>; 3] = [None; 3];
    let (mut line, mut before) = (first, '\n');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        interrupt::check();
        let joins = matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}');
        let found = match c {
            '\r' if chars.peek() == Some(&'\n') => None,
            // Between characters they are ordinary writing; in rows or alone they hide something.
            _ if joins
                && (before == c
                    || before.is_whitespace()
                    || ('\u{fe00}'..='\u{fe0f}').contains(&before) && c >= '\u{fe00}') =>
            {
                Some(SuspiciousChar::Invisible)
            }
            _ => suspicious_char(c),
        };
        if let Some(kind) = found {
            seen[kind as usize].get_or_insert((line, c, 0)).2 += 1;
        }
        if c == '\n' {
            line += 1;
        }
        before = c;
    }
    let mut kinds = Vec::new();
    for (kind, seen) in [SuspiciousChar::Control, SuspiciousChar::Bidi, SuspiciousChar::Invisible].into_iter().zip(seen)
    {
        if let Some((line, c, count)) = seen {
            kinds.push(kind);
            let more = if count > 1 { format!(", and {} more like it", count - 1) } else { String::new() };
            findings.add(
                severity(kind),
                kind.code(),
                field,
                Some(line),
                format!("U+{:04X}, {}{more}", c as u32, kind.words()),
            );
        }
    }
    kinds
}

fn skill_of(fields: &Fields, mode: Mode, directory: Option<&str>, findings: &mut Findings) -> Option<Skill> {
    check_unknown_fields(fields, mode, findings);
    let name = name(fields, mode, directory, findings);
    let description = text(fields, "description", findings);
    check_description_length(fields, mode, findings);
    check_optional_texts(fields, mode, findings);
    let metadata = metadata(fields, mode, findings);
    // The place in metadata is the specification's; the others are what clients write.
    let listed = |places: [Option<&Value>; 3], with_blanks| {
        places.into_iter().map(|value| words(value, with_blanks)).find(|list| !list.is_empty()).unwrap_or_default()
    };
    let mut tags = listed([metadata.get("tags"), fields.values.get("tags"), fields.values.get("domain_tags")], true);
    let mut required_env_vars = listed(
        [metadata.get("required_env_vars"), metadata.get("required-env-vars"), fields.values.get("required_env_vars")],
        false,
    );
    tags.retain(|tag| tag.chars().count() <= 100);
    tags.truncate(MAX_TAGS);
    env_names(&mut required_env_vars, "required_env_vars", findings);
    Some(Skill {
        name: name?,
        description: description?,
        metadata,
        frontmatter: fields.values.clone(),
        manifest: None,
        semver: None,
        required_env_vars,
        tags,
    })
}

/// The line of a field in the file, whose first line is the fence.
fn line_of(fields: &Fields, key: &str) -> Option<usize> {
    fields.line(key).map(|line| line + 1)
}

fn check_unknown_fields(fields: &Fields, mode: Mode, findings: &mut Findings) {
    for (key, _) in interrupt::each(&fields.values) {
        if !FIELDS.contains(&key.as_str()) {
            let known = CLIENT_FIELDS.contains(&key.as_str());
            let severity = if known && mode == Mode::Lenient { Severity::Note } else { mode.soft() };
            findings.add(
                severity,
                "unknown_field",
                Some(key),
                line_of(fields, key),
                format!("the specification has no field \"{}\"; it is kept", shorten(key)),
            );
        }
    }
}

fn check_description_length(fields: &Fields, mode: Mode, findings: &mut Findings) {
    let Some(Value::String(written)) = fields.values.get("description") else {
        return;
    };
    let length = written.chars().count();
    if length > MAX_DESCRIPTION {
        findings.add(
            mode.soft(),
            "description_long",
            Some("description"),
            line_of(fields, "description"),
            format!("it has {length} characters, more than {MAX_DESCRIPTION}"),
        );
    }
}

fn check_optional_texts(fields: &Fields, mode: Mode, findings: &mut Findings) {
    for key in ["license", "compatibility", "allowed-tools"] {
        let line = line_of(fields, key);
        let value = match fields.values.get(key) {
            None => continue,
            Some(Value::String(value)) => value,
            Some(_) => {
                findings.add(mode.soft(), "field_type", Some(key), line, "it must be text");
                continue;
            }
        };
        let length = if value.trim().is_empty() { 0 } else { value.chars().count() };
        if key == "compatibility" && !(1..=MAX_COMPATIBILITY).contains(&length) {
            findings.add(
                mode.soft(),
                "compatibility_length",
                Some(key),
                line,
                format!("it has {length} characters; 1 to {MAX_COMPATIBILITY} are allowed"),
            );
        }
        if key == "allowed-tools" && outside_parentheses(value, ',') {
            findings.add(
                Severity::Warning,
                "allowed_tools_commas",
                Some(key),
                line,
                "tools are separated by blanks, not by commas",
            );
        }
    }
}

fn metadata(fields: &Fields, mode: Mode, findings: &mut Findings) -> Map<String, Value> {
    let line = line_of(fields, "metadata");
    match fields.values.get("metadata") {
        None => Map::new(),
        // A key without a value is an empty mapping.
        Some(Value::String(value)) if value.is_empty() => Map::new(),
        Some(Value::Object(metadata)) => {
            for (key, _) in metadata.iter().filter(|(_, value)| !value.is_string()) {
                findings.add(
                    mode.soft(),
                    "metadata_value",
                    Some(&format!("metadata.{}", shorten(key))),
                    line,
                    "a value of metadata must be text",
                );
            }
            metadata.clone()
        }
        Some(_) => {
            findings.add(mode.soft(), "field_type", Some("metadata"), line, "it must be a mapping of names to texts");
            Map::new()
        }
    }
}

/// Keeps what is a name of an environment variable.
fn env_names(list: &mut Vec<String>, field: &str, findings: &mut Findings) {
    list.retain(|name| {
        let good = is_env_name(name);
        if !good {
            findings.add(
                Severity::Warning,
                "env_var_name",
                Some(field),
                None,
                format!("\"{}\" is not a valid name of an environment variable", shorten(name)),
            );
        }
        good
    });
    list.truncate(MAX_TAGS);
}

/// Upper case, as skills-runtime-sdk 0.1.12 requires it.
pub fn is_env_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_uppercase() || b == b'_';
    name.len() <= 200 && name.bytes().next().is_some_and(word) && name.bytes().all(|b| word(b) || b.is_ascii_digit())
}

/// The environment variables that a bundle's `agents/openai.yaml` asks for.
pub fn env_vars_of_agent_file(yaml: &str) -> Vec<String> {
    let Ok(fields) = frontmatter::parse(yaml) else {
        return Vec::new();
    };
    let tools = fields.values.get("dependencies").and_then(|all| all.get("tools")).and_then(Value::as_array);
    let names = tools.into_iter().flatten().filter(|tool| tool.get("type").and_then(Value::as_str) == Some("env_var"));
    let names = names.filter_map(|tool| tool.get("value").and_then(Value::as_str)).filter(|name| is_env_name(name));
    names.take(MAX_TAGS).map(str::to_owned).collect()
}

fn text(fields: &Fields, key: &str, findings: &mut Findings) -> Option<String> {
    let line = fields.line(key).map(|line| line + 1);
    match fields.values.get(key) {
        Some(Value::String(value)) if !value.trim().is_empty() => Some(value.trim().to_owned()),
        Some(Value::String(_)) => {
            findings.add(Severity::Error, "field_empty", Some(key), line, format!("{key} is empty"));
            None
        }
        Some(_) => {
            findings.add(Severity::Error, "field_type", Some(key), line, format!("{key} must be text"));
            None
        }
        None => {
            findings.add(Severity::Error, "field_missing", Some(key), None, format!("{key} is missing"));
            None
        }
    }
}

fn name(fields: &Fields, mode: Mode, directory: Option<&str>, findings: &mut Findings) -> Option<String> {
    let written = match directory {
        Some(directory) if !fields.values.contains_key("name") && !directory.trim().is_empty() => {
            let message = format!("name is missing; the given one is taken, \"{}\"", shorten(directory));
            findings.add(mode.soft(), "field_missing", Some("name"), None, message);
            directory.to_owned()
        }
        _ => text(fields, "name", findings)?,
    };
    if let Some(directory) = directory.filter(|directory| *directory != written) {
        let message = format!("it is \"{}\", and \"{}\" was given", shorten(&written), shorten(directory));
        findings.add(Severity::Error, "name_differs", Some("name"), line_of(fields, "name"), message);
    }
    let line = fields.line("name").map(|line| line + 1);
    let name = nfkc(&written);
    let mut say = |severity, code, message: String| findings.add(severity, code, Some("name"), line, message);
    if name != written {
        say(Severity::Warning, "name_normalised", format!("it becomes \"{}\" (NFKC)", shorten(&name)));
    }
    let length = name.chars().count();
    if length > MAX_NAME {
        // What the registry cannot hold is an error in every mode.
        let severity = if length > super::names::MAX_NAME { Severity::Error } else { mode.soft() };
        say(severity, "name_long", format!("it has {length} characters, more than {MAX_NAME}"));
    }
    if name.to_lowercase() != name {
        say(mode.soft(), "name_upper_case", "it must be in lower case".into());
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        say(mode.soft(), "name_hyphens", "a hyphen must stand between letters or digits, and alone".into());
    }
    if name == "." || name == ".." || name.chars().any(|c| matches!(c, '/' | '\\') || suspicious_char(c).is_some()) {
        // Clients make a directory of it.
        say(Severity::Error, "name_unsafe", "it would lead out of its directory, or is not what is seen".into());
    } else if let Some(c) = name.chars().find(|c| !c.is_alphanumeric() && *c != '-') {
        say(
            mode.soft(),
            "name_character",
            format!("it has the character {c:?}; letters, digits and hyphens are allowed"),
        );
    } else if !name.is_ascii() {
        say(Severity::Warning, "name_not_ascii", "letters beyond a-z may look like others".into());
    }
    Some(name)
}
