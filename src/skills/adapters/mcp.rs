//! Results for servers of the Model Context Protocol: a page of skills, and one skill.

use const_format::concatcp;
use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::input::{invalid, required};
use skill_core::skills::ecosystem::{self as logic, MAIN};
use skill_core::skills::names;
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Json, Row, arg, pg_function};

use super::served::{FROM, Filter, SELECT};

/// How long a client may keep an answer: changes are rare, but a skill that was switched off should be gone soon.
const TTL_MS: u32 = 60_000;
const MAX_PAGE_SIZE: i32 = 500;

/// Front matter, SHA-256 and size of the body, and the same of the files.
const ENTRY: &str = concatcp!(
    SELECT,
    ", v.frontmatter::text, v.content_hash, v.body_size, \
     (SELECT coalesce(jsonb_agg(jsonb_build_array(f.path, f.sha256, f.size) ORDER BY f.path), '[]')::text \
      FROM skill_system.skill_files f WHERE f.tenant_id = v.tenant_id AND f.version_id = v.id)",
    FROM
);

/// An entry from a row of [`ENTRY`], or `None` where its front matter is not one that clients accept.
fn entry(namespace: &str, row: &Row) -> Option<Value> {
    let (name, description, _, frontmatter, digest, size, Json(files)): (&str, &str, Arg, Option<Value>, &str, i32, _) =
        row.read();
    let files: Vec<(String, String, i64)> = files;
    let frontmatter = logic::conforming(frontmatter?, name, description).ok()?;
    let resource = |path: &str, sha256: &str, size: i64| {
        let uri = logic::uri(namespace, name, path);
        json!({"uri": uri, "digest": format!("sha256:{sha256}"), "size": size})
    };
    let mut resources = vec![resource(MAIN, digest, size.into())];
    resources.extend(files.iter().map(|(path, sha256, size)| resource(path, sha256, *size)));
    Some(json!({"uri": logic::uri(namespace, name, MAIN), "frontmatter": frontmatter, "resources": resources}))
}

fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = TTL_MS.into();
    // It depends on the caller: tenant, namespace and policy.
    result["cacheScope"] = "private".into();
    result
}

pg_function!(mcp_skills_list);
fn mcp_skills_list(call: &Call) -> Answer {
    const SQL: &str = concatcp!(ENTRY, "AND h.skill_name > $2 ORDER BY h.skill_name LIMIT $3");
    let (cursor, max_rows, namespace, policy_name): (Option<&str>, Option<i32>, _, _) = call.arguments();
    // Without a cursor from the beginning.
    let mut after = cursor.map(logic::from_cursor).transpose()?.unwrap_or_default();
    let size = max_rows.filter(|size| (1..=MAX_PAGE_SIZE).contains(size));
    let size = size.ok_or_else(|| invalid(format!("max_rows must be 1 to {MAX_PAGE_SIZE}")))? as usize;
    let namespace = names::namespace(namespace)?;
    let mut filter = Filter::new(policy_name);
    let mut page: Vec<(String, Value)> = Vec::new();
    loop {
        let begin = std::mem::take(&mut after);
        let args = [arg(namespace), arg(&begin), arg(size as i64 + 1)];
        let read = spi::each(Once(SQL), As::Caller, See::Statement, &args, |row| {
            after = row.get(1);
            if filter.allows(row)? {
                page.extend(entry(namespace, row).map(|entry| (after.clone(), entry)));
            }
            Ok(())
        })?;
        if read <= size as u64 || page.len() > size {
            break;
        }
        check_for_interrupts();
    }
    // One more than was asked for was looked up: the next page exists only if something is on it.
    let more = page.len() > size;
    page.truncate(size);
    let mut result = json!({});
    if let Some((last, _)) = page.last().filter(|_| more) {
        result["nextCursor"] = logic::cursor(last).into();
    }
    result["skills"] = page.into_iter().map(|(_, entry)| entry).collect();
    Ok(call.answer(cacheable(result)))
}

pg_function!(mcp_skills_get);
fn mcp_skills_get(call: &Call) -> Answer {
    const SQL: &str = concatcp!(ENTRY, "AND h.skill_name = $2");
    let (uri, policy_name) = call.arguments();
    let uri = required("uri", uri, 2000)?;
    let mut filter = Filter::new(policy_name);
    let mut found = None;
    if let Some((namespace, name)) = logic::from_uri(uri) {
        spi::each(Once(SQL), As::Caller, See::Statement, &[arg(&namespace), arg(&name)], |row| {
            if filter.allows(row)? {
                found = entry(&namespace, row);
            }
            Ok(())
        })?;
    }
    match found {
        Some(entry) => Ok(call.answer(cacheable(json!({"skill": entry})))),
        // The same for what is hidden as for what does not exist.
        None => Err(Fault::new(Code::SkillNotFound, format!("no skill is served at \"{}\"", shorten(uri)))
            .hint("SELECT skill_system.mcp_skills_list() has the URIs; a server answers -32602 (invalid params).")),
    }
}
