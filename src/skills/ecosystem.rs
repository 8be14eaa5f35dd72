//! What other systems read: prompt block, discovery index, MCP results, the skills index of seed 0.
//!
//! Only enabled skills are in any of them, and with a policy only those that it allows altogether.

use skill_pg::{Answer, Call, Row, Uuid, arg, pg_function};
use skill_pg::spi::{self, As, See};
use skill_pg::error::{check_for_interrupts};
use crate::{compat};
use std::collections::HashMap;

use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::input::{invalid, required, sha256};
use skill_core::skills::bundle;
use skill_core::skills::ecosystem::{self as logic, MAIN, SkillsIndex};
use skill_core::skills::names;
use skill_core::skills::version::File;
use skill_core::{Code, Fault};

use super::documents::{self, decide};
use crate::args::{jsonb_datum, stored};

/// How long a client may keep an answer: changes are rare, but a skill that was switched off should be gone soon.
const TTL_MS: u32 = 60_000;
const MAX_PAGE: i32 = 500;

/// A policy's word for each set of effects, asked once.
struct Filter<'a> {
    policy_name: Option<&'a str>,
    known: HashMap<Option<Vec<String>>, bool>,
}

impl<'a> Filter<'a> {
    fn new(policy_name: Option<&'a str>) -> Self {
        Filter { policy_name, known: HashMap::new() }
    }

    /// Of a row of `listed`.
    fn lets(&mut self, row: &Row) -> bool {
        let Some(policy_name) = self.policy_name else {
            return true;
        };
        *self.known.entry(row.get(3)).or_insert_with_key(|effects| decide(policy_name, effects.as_deref()).0.allowed)
    }
}

/// The enabled skills of namespace $1: name, description, effects, and more columns.
fn listed(columns: &str, condition: &str) -> String {
    format!(
        "SELECT h.skill_name, h.description, h.effects {columns} \
         FROM skill_system.skill_heads h JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.namespace = $1 AND h.deleted_at IS NULL AND h.enabled {condition}"
    )
}

fn text(row: &Row, n: i32) -> String {
    row.get(n)
}

fn answer(call: &Call, value: Value) -> Answer {
    Ok(jsonb_datum(value).unwrap_or_else(|| call.null()))
}

pg_function!(available_skills_prompt);
/// `available_skills_prompt(namespace, policy_name)`
fn available_skills_prompt(call: &Call) -> Answer {
    let namespace = names::namespace(call.text(0))?;
    let mut filter = Filter::new(call.text(1));
    let mut skills = Vec::new();
    // What only a person may start is not offered to a model.
    let sql =
        listed("", "AND v.frontmatter->>'disable-model-invocation' IS DISTINCT FROM 'true' ORDER BY h.skill_name");
    spi::stream(&sql, &[arg(namespace)], |row| {
        if filter.lets(row) {
            let name = text(row, 1);
            let location = logic::uri(namespace, &name, MAIN);
            skills.push((name, text(row, 2), location));
        }
    });
    Ok(arg(&logic::prompt(skills.into_iter())).unwrap_or_else(|| call.null()))
}

/// The zip of a version, SKILL.md at its root.
fn archive(version: Uuid) -> Result<Vec<u8>, Fault> {
    let body = spi::one::<String>(documents::BODY, As::Caller, See::Statement, &[arg(version)]).unwrap_or_default();
    let mut files = vec![File { path: MAIN.into(), content: body.into_bytes() }];
    compat::run(
        "SELECT path, content FROM skill_system.skill_files WHERE tenant_id = skill_system.current_tenant() AND version_id = $1",
        As::Caller, See::Statement,
        &[arg(version)],
        |row| files.push(File { path: text(row, 1), content: row.bytes(2).unwrap_or_default().to_vec() }),
    );
    bundle::archive(&files)
}

pg_function!(export_skill_archive);
/// `export_skill_archive(skill, version)`
fn export_skill_archive(call: &Call) -> Answer {
    let (_, version) = documents::of(call)?;
    Ok(arg(&archive(version.id)?))
}

pg_function!(skills_discovery_index);
/// `skills_discovery_index(base_url, namespace, policy_name)`
fn skills_discovery_index(call: &Call) -> Answer {
    let base = required("base_url", call.text(0), 2000)?;
    if base.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid("base_url must be a URL or the beginning of a path")
            .hint("For example https://example.com/.well-known/agent-skills."));
    }
    let base = base.trim_end_matches('/');
    let namespace = names::namespace(call.text(1))?;
    let mut filter = Filter::new(call.text(2));
    let mut found = Vec::new();
    let files =
        "EXISTS (SELECT FROM skill_system.skill_files f WHERE f.tenant_id = v.tenant_id AND f.version_id = v.id)";
    let sql = listed(&format!(", v.content_hash, CASE WHEN {files} THEN v.id END"), "ORDER BY h.skill_name");
    spi::stream(&sql, &[arg(namespace)], |row| {
        let (name, description) = (text(row, 1), text(row, 2));
        if logic::fits(&name, &description) && filter.lets(row) {
            found.push((name, description, text(row, 4), row.get::<Option<Uuid>>(5)));
        }
    });
    let mut skills = Vec::new();
    for (name, description, content_hash, bundled) in found {
        check_for_interrupts();
        let (kind, url, digest) = match bundled {
            None => ("skill-md", format!("{base}/{name}/{MAIN}"), format!("sha256:{content_hash}")),
            Some(version) => ("archive", format!("{base}/{name}.zip"), sha256(&archive(version)?)),
        };
        skills.push(json!({"name": name, "type": kind, "description": description, "url": url, "digest": digest}));
    }
    answer(call, json!({"$schema": "https://schemas.agentskills.io/discovery/0.2.0/schema.json", "skills": skills}))
}

/// Columns of an entry of MCP: front matter, SHA-256 and size of the body, and the same of the files.
const ENTRY: &str = ", v.frontmatter::text, v.content_hash, v.body_size, \
    (SELECT jsonb_agg(jsonb_build_array(f.path, f.sha256, f.size) ORDER BY f.path)::text FROM skill_system.skill_files f \
     WHERE f.tenant_id = v.tenant_id AND f.version_id = v.id)";

/// An entry from a row with these columns, or `None` where its front matter cannot be said to a client.
fn entry(namespace: &str, row: &Row) -> Option<Value> {
    let name = text(row, 1);
    let frontmatter = logic::conforming(stored(row.get(4)), &name, &text(row, 2))?;
    let resource = |path: &str, sha256: &str, size: i64| json!({"uri": logic::uri(namespace, &name, path), "digest": format!("sha256:{sha256}"), "size": size});
    let mut resources = vec![resource(MAIN, &text(row, 5), row.get::<Option<i32>>(6).unwrap_or_default().into())];
    for file in stored(row.get(7)).as_array().into_iter().flatten() {
        resources.push(resource(
            file[0].as_str().unwrap_or_default(),
            file[1].as_str().unwrap_or_default(),
            file[2].as_i64().unwrap_or_default(),
        ));
    }
    Some(json!({"uri": logic::uri(namespace, &name, MAIN), "frontmatter": frontmatter, "resources": resources}))
}

fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = TTL_MS.into();
    // It depends on who asks: tenant, namespace and policy.
    result["cacheScope"] = "private".into();
    result
}

pg_function!(mcp_skills_list);
/// `mcp_skills_list(cursor, page_size, namespace, policy_name)`
fn mcp_skills_list(call: &Call) -> Answer {
    let mut after = call.text(0).map(logic::from_cursor).transpose()?.unwrap_or_default();
    let size = call.get::<Option<i32>>(1).filter(|size| (1..=MAX_PAGE).contains(size));
    let size = size.ok_or_else(|| invalid(format!("page_size must be 1 to {MAX_PAGE}")))? as usize;
    let namespace = names::namespace(call.text(2))?;
    let mut filter = Filter::new(call.text(3));
    let sql = listed(ENTRY, "AND h.skill_name > $2 ORDER BY h.skill_name LIMIT $3");
    let mut page: Vec<(String, Value)> = Vec::new();
    loop {
        let mut read = 0;
        let begin = std::mem::take(&mut after);
        compat::run_once(&sql, As::Caller, See::Statement, &[arg(namespace), arg(begin.as_str()), arg(size as i64 + 1)], |row| {
            read += 1;
            after = text(row, 1);
            if filter.lets(row) {
                page.extend(entry(namespace, row).map(|entry| (after.clone(), entry)));
            }
        });
        if read <= size || page.len() > size {
            break;
        }
        check_for_interrupts();
    }
    // One more than asked was looked for: there is a next page only if something is on it.
    let more = page.len() > size;
    page.truncate(size);
    let mut result = json!({});
    if let Some((last, _)) = page.last().filter(|_| more) {
        result["nextCursor"] = logic::cursor(last).into();
    }
    result["skills"] = page.into_iter().map(|(_, entry)| entry).collect();
    answer(call, cacheable(result))
}

pg_function!(mcp_skills_get);
/// `mcp_skills_get(uri, policy_name)`
fn mcp_skills_get(call: &Call) -> Answer {
    let uri = required("uri", call.text(0), 2000)?;
    let mut filter = Filter::new(call.text(1));
    let mut found = None;
    if let Some((namespace, name)) = logic::from_uri(uri) {
        compat::run_once(
            &listed(ENTRY, "AND h.skill_name = $2"),
            As::Caller, See::Statement,
            &[arg(namespace.as_str()), arg(name.as_str())],
            |row| {
                found = entry(&namespace, row).filter(|_| filter.lets(row));
            },
        );
    }
    match found {
        Some(entry) => answer(call, cacheable(json!({"skill": entry}))),
        // The same for what is hidden as for what is not there.
        None => Err(Fault::new(Code::SkillNotFound, format!("no skill is served at \"{}\"", shorten(uri)))
            .hint("SELECT skill_system.mcp_skills_list() has the URIs; a server answers -32602 (invalid params).")),
    }
}

pg_function!(skills_index);
/// `skills_index(namespace, policy_name)`
fn skills_index(call: &Call) -> Answer {
    let namespace = names::namespace(call.text(0))?;
    let mut filter = Filter::new(call.text(1));
    let mut index = SkillsIndex::default();
    spi::stream(
        &listed(", v.manifest::text, v.body", "AND v.manifest IS NOT NULL ORDER BY h.skill_name"),
        &[arg(namespace)],
        |row| {
            if filter.lets(row) {
                index.add(&text(row, 1), &stored(row.get(4)), row.text(5).unwrap_or_default());
            }
        },
    );
    let now = spi::one::<String>(
        "SELECT to_char(statement_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        As::Caller, See::Statement,
        &[],
    );
    answer(call, index.finish(&now.unwrap_or_default()))
}
