//! SKILL.md in and out: registering, checking, exporting.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_core::skills::document;
use skill_core::skills::files::{self as limits, Files};
use skill_core::skills::findings::Mode;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names;
use skill_core::skills::version::File;
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Jsonb, arg, pg_function};

use crate::args::given;
use crate::skills::content;
use crate::skills::registry::{self, NewVersion, Placement};
use crate::skills::requirements::head_and_version;
use crate::versioned::Change;

/// A source within the bounds of a skill.
fn source(text: Option<&str>) -> Result<&str, Fault> {
    let source = given(text, "source")?;
    if source.len() > limits::MAX_BYTES {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("the source has {} bytes, more than {}", source.len(), limits::MAX_BYTES),
        ));
    }
    Ok(source)
}

pg_function!(register_skill);
fn register_skill(call: &Call) -> Answer {
    let (text, namespace, files, mode, name) = call.arguments();
    let source = source(text)?;
    let namespace = names::namespace(namespace)?;
    let mode = Mode::from_argument(mode)?;
    let skill = document::read_named(source, mode, name).into_skill()?;
    let files = read_files(files, source.len())?;
    let (effects, manifest_id) = match &skill.manifest {
        Some(manifest) => (Some(manifest.effects.clone()), Some(manifest.id.clone())),
        None => (None, None),
    };
    let new = NewVersion {
        namespace,
        skill_name: &skill.name,
        body: source,
        files: &files,
        semver: skill.semver,
        metadata: SkillMetadata {
            description: skill.description,
            required_env_vars: with_agent_file(skill.required_env_vars, &files),
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
    Ok(registry::register(&new, &Change::by_caller())?.answer(call))
}

/// Adds the environment variables that an agent file requires.
fn with_agent_file(mut required_env_vars: Vec<String>, files: &[File]) -> Vec<String> {
    for file in files.iter().filter(|file| file.path == "agents/openai.yaml") {
        let required = std::str::from_utf8(&file.content).map(document::env_vars_of_agent_file).unwrap_or_default();
        for name in required {
            if !required_env_vars.contains(&name) {
                required_env_vars.push(name);
            }
        }
    }
    required_env_vars
}

/// The argument `files`: an object of paths, each with a text or with `{"base64": ...}`.
fn read_files(argument: Option<Jsonb>, body_size: usize) -> Result<Vec<File>, Fault> {
    let Some(argument) = argument else { return Ok(Vec::new()) };
    let fits = spi::one::<bool>(
        "SELECT jsonb_typeof($1) = 'object' AND $2 >= \
             (SELECT count(*) FROM jsonb_object_keys(CASE jsonb_typeof($1) WHEN 'object' THEN $1 ELSE '{}' END))",
        As::Caller,
        See::Statement,
        &[arg(argument), arg(limits::MAX_FILES as i64)],
    );
    if !fits {
        return Err(invalid(format!("files must be an object of at most {} paths", limits::MAX_FILES - 1))
            .hint("{\"references/terms.md\": \"text\", \"assets/logo.png\": {\"base64\": \"...\"}}"));
    }
    let mut files = Files::new(body_size);
    spi::each(
        "SELECT key, jsonb_typeof(value), value #>> '{}', \
             CASE WHEN jsonb_typeof(value) = 'object' AND (SELECT count(*) FROM jsonb_object_keys(value)) = 1 \
                       AND jsonb_typeof(value->'base64') = 'string' THEN value->>'base64' END \
         FROM jsonb_each(CASE jsonb_typeof($1) WHEN 'object' THEN $1 END)",
        As::Caller,
        See::Statement,
        &[arg(argument)],
        |row| {
            check_for_interrupts();
            let (path, kind, text, base64): (&str, &str, Option<&str>, Option<&str>) = row.read();
            let content = match (kind, base64) {
                ("string", _) => text.map(|text| text.as_bytes().to_vec()),
                // encode() breaks its lines.
                (_, Some(base64)) => STANDARD.decode(base64.split_ascii_whitespace().collect::<String>()).ok(),
                _ => None,
            };
            let content = content.ok_or_else(|| {
                invalid(format!("the file \"{}\" must be a text or {{\"base64\": text}}", shorten(path)))
            })?;
            files.add(path, content)
        },
    )?;
    Ok(files.into_list())
}

pg_function!(validate_skill);
fn validate_skill(call: &Call) -> Answer {
    let (text, mode, name) = call.arguments();
    let source = source(text)?;
    let mode = Mode::from_argument(mode)?;
    let mut rows = call.row_set();
    for finding in document::read_named(source, mode, name).findings {
        rows.push(&[
            arg(finding.severity.as_str()),
            arg(finding.code),
            arg(finding.field.as_deref()),
            arg(finding.line.map(|line| line as i32)),
            arg(&finding.message),
        ]);
    }
    Ok(rows.finish())
}

pg_function!(export_skill);
fn export_skill(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let (_, version) = head_and_version(skill, version)?;
    Ok(call.answer(content::find_body(version.id, As::Caller, See::Statement)))
}

pg_function!(export_skill_files);
fn export_skill_files(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let (_, version) = head_and_version(skill, version)?;
    let body = content::body(&version, As::Caller, See::Statement)?;
    let mut rows = call.row_set();
    rows.push(&[arg("SKILL.md"), arg(body.as_bytes()), arg(body.len() as i32), arg(&version.content_hash)]);
    spi::stream(
        "SELECT path, content, size, sha256 FROM skill_system.skill_files \
         WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY path",
        &[arg(version.id)],
        |row| {
            rows.push(&row.args(4));
            Ok(())
        },
    )?;
    Ok(rows.finish())
}
