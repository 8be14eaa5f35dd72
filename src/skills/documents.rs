//! SKILL.md in and out: registering, checking, exporting, and the policy's word on what a skill declares.

use skill_pg::{Answer, Call, arg, pg_function, pg_sys};
use skill_pg::spi::{self, As, See};
use crate::{compat};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use skill_core::input::invalid;
use skill_core::policy::Decision;
use skill_core::error::shorten;
use skill_core::skills::Status;
use skill_core::skills::document;
use skill_core::skills::files::{self as limits, Files};
use skill_core::skills::findings::Mode;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{self, Reference};
use skill_core::skills::version::File;
use skill_core::{Code, Fault};

use super::registry::{self, Change, Head, NewVersion, Placement, Version};
use crate::args::missing;
use crate::policy::{self, Compiled};

/// A source within the bounds of a skill.
fn source(text: Option<&str>) -> Result<&str, Fault> {
    let source = text.ok_or_else(|| missing("source"))?;
    if source.len() > limits::MAX_BYTES {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("the source has {} bytes, more than {}", source.len(), limits::MAX_BYTES),
        ));
    }
    Ok(source)
}

pg_function!(register_skill);
/// `register_skill(source, namespace, files, mode)`
fn register_skill(call: &Call) -> Answer {
    let source = source(call.text(0))?;
    let namespace = names::namespace(call.text(1))?;
    let mode = Mode::from_argument(call.text(3))?;
    let skill = document::read(source, mode).into_skill()?;
    let files = files(call.datum(2), source.len())?;
    let (effects, manifest_id) = match &skill.manifest {
        Some(manifest) => (Some(manifest.effects.clone()), Some(manifest.id.clone())),
        None => (None, None),
    };
    let mut required_env_vars = skill.required_env_vars;
    for file in files.iter().filter(|file| file.path == "agents/openai.yaml") {
        let asked = std::str::from_utf8(&file.content).map(document::env_vars_of_agent_file).unwrap_or_default();
        required_env_vars
            .extend(asked.into_iter().filter(|name| !required_env_vars.contains(name)).collect::<Vec<_>>());
    }
    let new = NewVersion {
        namespace,
        skill_name: &skill.name,
        body: source,
        files: &files,
        semver: skill.semver,
        about: SkillMetadata {
            description: skill.description,
            required_env_vars,
            metadata: Value::Object(skill.metadata),
            domain_tags: skill.tags,
            effects,
            manifest_id,
            ..SkillMetadata::default()
        },
        frontmatter: Some(Value::Object(skill.frontmatter)),
        manifest: skill.manifest.map(|manifest| manifest.value),
        status: None,
        previous_status: None,
        placement: Placement::WhenServable,
    };
    Ok(super::state(call, &registry::register(&new, &Change::by_caller())?))
}

/// The argument `files`: an object of paths, each with a text or with `{"base64": ...}`.
fn files(argument: Option<pg_sys::Datum>, body: usize) -> Result<Vec<File>, Fault> {
    let Some(argument) = argument else {
        return Ok(Vec::new());
    };
    let shape = spi::one::<bool>(
        "SELECT jsonb_typeof($1) = 'object' AND (SELECT count(*) FROM jsonb_object_keys(CASE jsonb_typeof($1) WHEN 'object' THEN $1 ELSE '{}' END)) <= $2",
        As::Caller, See::Statement,
        &[given(Some(argument), pg_sys::JSONBOID), arg(limits::MAX_FILES as i64)],
    );
    if shape != Some(true) {
        return Err(invalid(format!("files must be an object of at most {} paths", limits::MAX_FILES - 1))
            .hint("{\"references/terms.md\": \"text\", \"assets/logo.png\": {\"base64\": \"...\"}}"));
    }
    let mut files = Files::new(body);
    let mut fault = None;
    compat::run(
        "SELECT key, jsonb_typeof(value), value #>> '{}', \
             CASE WHEN jsonb_typeof(value) = 'object' AND (SELECT count(*) FROM jsonb_object_keys(value)) = 1 AND jsonb_typeof(value->'base64') = 'string' \
                  THEN value->>'base64' END \
         FROM jsonb_each(CASE jsonb_typeof($1) WHEN 'object' THEN $1 END)",
        As::Caller, See::Statement,
        &[given(Some(argument), pg_sys::JSONBOID)],
        |row| {
            if fault.is_some() {
                return;
            }
            error::check_for_interrupts();
            let path = row.text(1).unwrap_or_default();
            let content = match (row.text(2), row.text(4)) {
                (Some("string"), _) => Some(row.text(3).unwrap_or_default().as_bytes().to_vec()),
                // encode() breaks its lines.
                (_, Some(base64)) => STANDARD.decode(base64.split_ascii_whitespace().collect::<String>()).ok(),
                _ => None,
            };
            let added = content
                .ok_or_else(|| {
                    invalid(format!("the file \"{}\" must be a text or {{\"base64\": text}}", shorten(path)))
                })
                .and_then(|content| files.add(path, content));
            fault = added.err();
        },
    );
    fault.map_or_else(|| Ok(files.into_list()), Err)
}

pg_function!(validate_skill);
/// `validate_skill(source, mode)`
fn validate_skill(call: &Call) -> Answer {
    let findings = document::read(source(call.text(0))?, Mode::from_argument(call.text(1))?).findings;
    let mut rows = call.row_set();
    for finding in findings {
        rows.push(&[
            arg(finding.severity.as_str()),
            arg(finding.code),
            finding.field.as_deref().and_then(text_datum),
            finding.line.and_then(|line| (arg(line as i32))),
            arg(&finding.message),
        ]);
    }
    Ok(call.null())
}

/// A skill and one of its versions: the given one, or the one that is served.
pub fn of(call: &Call) -> Result<(Head, Version), Fault> {
    let head = registry::find(Reference::parse(call.text(0))?)?;
    let served = head.current_version.clone();
    let version = registry::version(&head, Some(call.text(1).unwrap_or(&served)), As::Caller, See::Statement)?;
    Ok((head, version))
}

/// The body of a version.
pub const BODY: &str =
    "SELECT body FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1";

pg_function!(export_skill);
/// `export_skill(skill, version)`
fn export_skill(call: &Call) -> Answer {
    let (_, version) = of(call)?;
    let body = spi::one::<String>(BODY, As::Caller, See::Statement, &[arg(version.id)]);
    Ok(body.as_deref().and_then(text_datum).unwrap_or_else(|| call.null()))
}

pg_function!(export_skill_files);
/// `export_skill_files(skill, version)`
fn export_skill_files(call: &Call) -> Answer {
    let (_, version) = of(call)?;
    let mut rows = call.row_set();
    let body = spi::one::<String>(BODY, As::Caller, See::Statement, &[arg(version.id)]).unwrap_or_default();
    rows.push(&[
        arg("SKILL.md"),
        Some(arg(body.as_bytes())),
        (arg(body.len() as i32)),
        arg(&version.content_hash),
    ]);
    spi::stream(
        "SELECT path, content, size, sha256 FROM skill_system.skill_files WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY path",
        &[arg(version.id)],
        |row| rows.push(&[row.arg(1), row.arg(2), row.arg(3), row.arg(4)]),
    );
    Ok(call.null())
}

/// Why no policy allows a skill that declares nothing.
pub const UNDECLARED: &str = "the skill declares nothing, so its effects are not known";

/// The policy's word on a skill's declared effects.
///
/// A skill that declares nothing is denied: what is not known is not nothing. One that has no effects says so in its
/// manifest with `[]`.
pub fn decide(policy_name: &str, effects: Option<&[String]>) -> (Decision, Option<Compiled>) {
    let compiled = policy::policy(policy_name);
    let decision = match &*compiled {
        Err(error) => Decision::refused(effects.unwrap_or_default().to_vec(), error.to_string()),
        Ok(policy) => match effects {
            None => Decision::refused(Vec::new(), UNDECLARED),
            Some(effects) => policy.check(effects.iter().map(String::as_str)),
        },
    };
    (decision, Some(compiled))
}

pg_function!(check_skill);
/// `check_skill(policy_name, skill, operation)`: like `check_policy` it answers and does not raise.
fn check_skill(call: &Call) -> Answer {
    let mut known = None;
    let answer = check(call.text(0), call.text(1), call.text(2), &mut known);
    let (decision, compiled) =
        answer.unwrap_or_else(|fault| (Decision::refused(known.unwrap_or_default(), fault.message), None));
    Ok(policy::decision_row(call, &decision, compiled.as_ref()))
}

fn check(
    policy_name: Option<&str>,
    skill: Option<&str>,
    operation: Option<&str>,
    known: &mut Option<Vec<String>>,
) -> Result<(Decision, Option<Compiled>), Fault> {
    let head = registry::find(Reference::parse(skill)?)?;
    let (mut effects, mut enabled, mut there) = (None, false, false);
    compat::run(
        "SELECT h.effects, h.enabled, v.manifest->'operations'->$2 IS NOT NULL FROM skill_system.skill_heads h \
         JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1",
        As::Caller, See::Statement,
        &[arg(head.id), arg(operation)],
        |row| {
            effects = row.get::<Option<Vec<String>>>(1);
            enabled = row.get::<Option<_>>(2).unwrap_or(false);
            there = row.get::<Option<_>>(3).unwrap_or(false);
        },
    );
    known.clone_from(&effects);
    let refuse = |message: String| Err(invalid(message));
    if head.deleted {
        return refuse(format!("skill \"{}\" was deleted", head.skill_name));
    }
    if head.status != Status::Approved || !enabled {
        let why = if head.status == Status::Approved { "switched off" } else { head.status.as_str() };
        return refuse(format!("version {} of skill \"{}\" is {why}", head.current_version, head.skill_name));
    }
    if let Some(operation) = operation.filter(|_| !there) {
        return refuse(format!(
            "the manifest of skill \"{}\" has no operation \"{}\"",
            head.skill_name,
            shorten(operation)
        ));
    }
    match policy_name {
        None => refuse("the policy name is NULL".into()),
        Some(name) => Ok(decide(name, effects.as_deref())),
    }
}
