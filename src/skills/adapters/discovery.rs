//! Prompt block, Agent Skills discovery index and archive, and the index of AEGIS.

use const_format::concatcp;
use serde_json::json;
use skill_core::input::{invalid, required};
use skill_core::skills::ecosystem::{self as logic, MAIN, SkillsIndex};
use skill_core::skills::names;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

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

pg_function!(export_skill_archive);
fn export_skill_archive(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let (_, version) = head_and_version(skill, version)?;
    let body = content::body(&version, As::Caller, See::Statement)?;
    Ok(call.answer(content::archive(body, content::files(version.id, As::Caller, See::Statement))?))
}

pg_function!(skills_discovery_index);
fn skills_discovery_index(call: &Call) -> Answer {
    const SQL: &str = concatcp!(SELECT, ", v.content_hash, v.archive_digest", FROM, "ORDER BY h.skill_name");
    let (base_url, policy_name, namespace) = call.arguments();
    let base_url = required("base_url", base_url, 2000)?;
    let namespace = names::namespace(namespace)?;
    let mut filter = Filter::new(policy_name);
    if base_url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("base_url must be a URL or the beginning of a path")
            .hint("For example https://example.com/.well-known/agent-skills."));
    }
    let base_url = base_url.trim_end_matches('/');
    let mut skills = Vec::new();
    spi::stream(SQL, &[arg(namespace)], |row| {
        let (name, description): (String, String) = row.read();
        if !logic::fits(&name, &description) || !filter.allows(row)? {
            return Ok(());
        }
        let (kind, url, digest) = match row.get::<Option<&str>>(5) {
            None => ("skill-md", format!("{base_url}/{name}/{MAIN}"), row.get::<&str>(4)),
            Some(digest) => ("archive", format!("{base_url}/{name}.zip"), digest),
        };
        let digest = format!("sha256:{digest}");
        skills.push(json!({"name": name, "type": kind, "description": description, "url": url, "digest": digest}));
        Ok(())
    })?;
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
