//! Prompt block, Agent Skills discovery index and archive, and the index of AEGIS.

use std::cell::RefCell;
use std::collections::HashMap;

use const_format::concatcp;
use serde_json::json;
use skill_core::Code;
use skill_core::Fault;
use skill_core::input::{invalid, required, sha256};
use skill_core::skills::bundle;
use skill_core::skills::ecosystem::{self as logic, MAIN, SkillsIndex};
use skill_core::skills::names;
use skill_core::skills::version::File;
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function};

use super::served::{FROM, Filter, SELECT};
use crate::skills::content;
use crate::skills::requirements::head_and_version;

pg_function!(available_skills_prompt);
fn available_skills_prompt(call: &Call) -> Answer {
    // What only a person may start is not offered to a model.
    const SQL: &str = concatcp!(
        SELECT,
        FROM,
        "AND v.frontmatter->>'disable-model-invocation' IS DISTINCT FROM 'true' ORDER BY h.skill_name"
    );
    let (namespace, policy_name) = call.arguments();
    let namespace = names::namespace(namespace)?;
    let mut filter = Filter::new(policy_name);
    let mut skills = Vec::new();
    spi::stream(SQL, &[arg(namespace)], |row| {
        if filter.allows(row)? {
            let (name, description): (String, _) = row.read();
            let location = logic::uri(namespace, &name, MAIN);
            skills.push((name, description, location));
        }
        Ok(())
    })?;
    Ok(call.answer(logic::prompt(skills.into_iter())))
}

/// The zip of a version, SKILL.md at its root.
fn archive(version_id: Uuid) -> Result<Vec<u8>, Fault> {
    let body = content::find_body(version_id, As::Caller, See::Statement)
        .ok_or_else(|| Fault::new(Code::VersionNotFound, format!("version {version_id} does not exist")))?;
    let mut files = vec![File { path: MAIN.into(), content: body.into_bytes() }];
    files.extend(content::files(version_id, As::Caller, See::Statement));
    bundle::archive(&files)
}

thread_local! {
    /// Digests of archives, by version, which never changes.
    static DIGESTS: RefCell<HashMap<Uuid, String>> = RefCell::default();
}

/// Most digests that a session keeps.
const MAX_DIGESTS: usize = 10_000;

fn archive_digest(version_id: Uuid) -> Result<String, Fault> {
    if let Some(digest) = DIGESTS.with_borrow(|digests| digests.get(&version_id).cloned()) {
        return Ok(digest);
    }
    let digest = sha256(&archive(version_id)?);
    DIGESTS.with_borrow_mut(|digests| {
        if digests.len() >= MAX_DIGESTS {
            digests.clear();
        }
        digests.insert(version_id, digest.clone());
    });
    Ok(digest)
}

pg_function!(export_skill_archive);
fn export_skill_archive(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let (_, version) = head_and_version(skill, version)?;
    Ok(call.answer(archive(version.id)?))
}

pg_function!(skills_discovery_index);
fn skills_discovery_index(call: &Call) -> Answer {
    const SQL: &str = concatcp!(
        SELECT,
        ", v.content_hash, CASE WHEN EXISTS (SELECT FROM skill_system.skill_files f \
             WHERE f.tenant_id = v.tenant_id AND f.version_id = v.id) THEN v.id END",
        FROM,
        "ORDER BY h.skill_name"
    );
    let (base_url, policy_name, namespace) = call.arguments();
    let base_url = required("base_url", base_url, 2000)?;
    let namespace = names::namespace(namespace)?;
    let mut filter = Filter::new(policy_name);
    if base_url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("base_url must be a URL or the beginning of a path")
            .hint("For example https://example.com/.well-known/agent-skills."));
    }
    let base_url = base_url.trim_end_matches('/');
    let mut found = Vec::new();
    spi::stream(SQL, &[arg(namespace)], |row| {
        let (name, description): (String, String) = row.read();
        if logic::fits(&name, &description) && filter.allows(row)? {
            found.push((name, description, row.get::<String>(4), row.get::<Option<Uuid>>(5)));
        }
        Ok(())
    })?;
    let mut skills = Vec::new();
    for (name, description, content_hash, bundled) in found {
        check_for_interrupts();
        let (kind, url, digest) = match bundled {
            None => ("skill-md", format!("{base_url}/{name}/{MAIN}"), format!("sha256:{content_hash}")),
            Some(version_id) => ("archive", format!("{base_url}/{name}.zip"), archive_digest(version_id)?),
        };
        skills.push(json!({"name": name, "type": kind, "description": description, "url": url, "digest": digest}));
    }
    Ok(call.answer(json!({
        "$schema": "https://schemas.agentskills.io/discovery/0.2.0/schema.json", "skills": skills,
    })))
}

pg_function!(skills_index);
fn skills_index(call: &Call) -> Answer {
    const SQL: &str =
        concatcp!(SELECT, ", v.manifest::text, v.body", FROM, "AND v.manifest IS NOT NULL ORDER BY h.skill_name");
    let (namespace, policy_name) = call.arguments();
    let namespace = names::namespace(namespace)?;
    let mut filter = Filter::new(policy_name);
    let mut index = SkillsIndex::default();
    spi::stream(SQL, &[arg(namespace)], |row| {
        if filter.allows(row)? {
            index.add(row.get(1), &row.get(4), row.get(5));
        }
        Ok(())
    })?;
    let now: String = spi::one(
        "SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        As::Caller,
        See::Statement,
        &[],
    );
    Ok(call.answer(index.finish(&now)))
}
