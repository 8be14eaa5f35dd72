//! Search: several rankings by SQL, fused in `core`.

use std::collections::HashMap;

use pgrx::datum::IntoDatum;
use skill_core::Fault;
use skill_core::input::invalid;
use skill_core::policy::PolicyError;
use skill_core::skills::names::Reference;
use skill_core::skills::search::{self as logic, Ranking};

use super::documents;
use super::registry::{self, Head};
use crate::args::uuid_datum;
use crate::audit;
use crate::pg::call::{Answer, Call, text_array_datum, text_datum};
use crate::pg::error::check_for_interrupts;
use crate::pg::spi::{self, Access, Arg, arg};
use crate::pg::sys;
use crate::pg_function;
use crate::policy::policy;

/// Most skills in one ranking.
const MAX_RANKED: usize = 1000;
/// Least similarity that counts as the same word misspelt; what pg_trgm itself takes by default.
const SIMILAR: &str = "0.3";

/// Words that are too long, and queries of stop words only, would send a notice to whoever registers or searches.
fn quietly<T>(body: impl FnOnce() -> T) -> T {
    spi::with_settings(&[(c"client_min_messages", c"warning")], body)
}

/// Keeps the words of a skill as it is served. Only the beginning of the texts: a tsvector holds a megabyte at most, and
/// what a skill is about stands at its beginning.
pub fn index(head: &Head) {
    quietly(|| {
        spi::run(
            "INSERT INTO skill_system.skill_search (skill_id, document) \
             SELECT h.id, setweight(to_tsvector('pg_catalog.english', h.skill_name || ' ' || coalesce(h.name, '')), 'A') \
                 || setweight(to_tsvector('pg_catalog.english', left(array_to_string(h.domain_tags, ' '), 2000)), 'B') \
                 || setweight(to_tsvector('pg_catalog.english', left(h.description, 2000)), 'B') \
                 || setweight(to_tsvector('pg_catalog.english', left(v.body, 3000)), 'D') \
             FROM skill_system.skill_heads h JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 \
             ON CONFLICT (tenant_id, skill_id) DO UPDATE SET document = excluded.document",
            Access::WriteAsOwner,
            &[arg(head.id)],
            |_| (),
        );
    });
}

/// The skill is not found any more.
pub fn forget(head: &Head) {
    spi::run(
        "DELETE FROM skill_system.skill_search WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1",
        Access::WriteAsOwner,
        &[arg(head.id)],
        |_| (),
    );
}

pg_function!(pg_finfo_skill_set_skill_embedding, skill_set_skill_embedding, set_skill_embedding);
/// `set_skill_embedding(skill, embedding, version)`
fn set_skill_embedding(call: &Call) -> Answer {
    let embedding = call.get::<Vec<Option<f64>>>(1).map(logic::embedding).transpose()?;
    let head = registry::locked(Reference::parse(call.text(0))?)?;
    let version = registry::version(&head, Some(call.text(2).unwrap_or(&head.current_version)), Access::WriteAsOwner)?;
    let dimensions = embedding.as_ref().map(|embedding| embedding.len() as i32);
    let changed = match embedding {
        None => spi::run(
            "DELETE FROM skill_system.skill_embeddings WHERE tenant_id = skill_system.current_tenant() AND version_id = $1",
            Access::WriteAsOwner,
            &[arg(version.id)],
            |_| (),
        ),
        Some(embedding) => spi::run(
            "INSERT INTO skill_system.skill_embeddings AS e (version_id, dimensions, embedding) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant_id, version_id) DO UPDATE SET dimensions = excluded.dimensions, embedding = excluded.embedding \
             WHERE e.embedding <> excluded.embedding",
            Access::WriteAsOwner,
            &[arg(version.id), arg(dimensions), arg(embedding)],
            |_| (),
        ),
    };
    if changed > 0 {
        let data = serde_json::json!({
            "skill_id": head.id.to_string(), "namespace": head.namespace, "skill_name": head.skill_name, "version": version.version, "dimensions": dimensions,
        });
        audit::append("skill.embedded", data, Some(sys::role_name(sys::session_user())), Some("user"));
    }
    Ok((changed > 0).into())
}

/// What every ranking looks at: `$1` query, `$2` namespace, `$3` drafts too, `$4` tags.
const SEEN: &str = "h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL AND (h.enabled OR $3 AND h.status = 'draft') \
    AND ($2 IS NULL OR h.namespace = $2) AND ($4 = '{}' OR h.domain_tags && $4::varchar[])";

type Id = [u8; 16];

/// Runs a statement whose rows are a skill and how well it fits, the best first.
fn ranking<'a>(name: &'a str, sql: &str, args: &[Arg]) -> Ranking<'a, Id> {
    let mut groups: Vec<Vec<Id>> = Vec::new();
    let mut last = None;
    spi::run_once(sql, Access::Read, args, |row| {
        let (Some(id), fit) = (row.get::<pgrx::Uuid>(1), row.get::<f64>(2)) else {
            return;
        };
        match groups.last_mut() {
            Some(group) if fit == last => group.push(*id.as_bytes()),
            _ => groups.push(vec![*id.as_bytes()]),
        }
        last = fit;
    });
    Ranking { name, groups }
}

/// The skills that are nearest to an embedding, by the exact cosine.
fn nearest(wanted: &[f32], args: &[Arg]) -> Result<Ranking<'static, Id>, Fault> {
    let mut found: Vec<(f64, Id)> = Vec::new();
    let mut args = args.to_vec();
    args.push(arg(wanted.len() as i32));
    let mut compared = false;
    spi::stream(
        &format!(
            "SELECT h.id, e.embedding FROM skill_system.skill_heads h \
             JOIN skill_system.skill_embeddings e ON e.tenant_id = h.tenant_id AND e.version_id = h.current_version_id \
             WHERE {SEEN} AND e.dimensions = $5"
        ),
        &args,
        |row| {
            if let (Some(id), Some(embedding)) = (row.get::<pgrx::Uuid>(1), row.get::<Vec<f32>>(2)) {
                compared = true;
                found.push((logic::cosine(wanted, &embedding), *id.as_bytes()));
            }
        },
    );
    if !compared {
        let mut there = Vec::new();
        spi::run(
            "SELECT DISTINCT dimensions FROM skill_system.skill_embeddings WHERE tenant_id = skill_system.current_tenant() ORDER BY 1 LIMIT 10",
            Access::Read,
            &[],
            |row| there.extend(row.get::<i32>(1)),
        );
        if !there.is_empty() && !there.contains(&(wanted.len() as i32)) {
            let there: Vec<String> = there.iter().map(ToString::to_string).collect();
            return Err(invalid(format!("no skill has an embedding of {} dimensions", wanted.len()))
                .detail(format!("There are some of {}.", there.join(", "))));
        }
    }
    found.retain(|(cosine, _)| *cosine > 0.0);
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    found.truncate(MAX_RANKED);
    Ok(Ranking { name: "embedding", groups: found.into_iter().map(|(_, id)| vec![id]).collect() })
}

/// The schema of pg_trgm, where this user may call its functions. It is looked up each time: the extension may come and
/// go, and be moved.
fn trigrams() -> Option<String> {
    spi::one(
        "SELECT quote_ident(n.nspname) FROM pg_extension e \
         JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' \
         JOIN pg_proc p ON p.oid = d.objid AND p.proname = 'word_similarity' AND p.proargtypes = '25 25'::oidvector \
         JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE e.extname = 'pg_trgm' AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')",
        Access::Read,
        &[],
    )
}

fn rankings(
    query: Option<&str>,
    tagged: bool,
    args: &[Arg],
    embedding: Option<&[f32]>,
) -> Result<Vec<Ranking<'static, Id>>, Fault> {
    let mut all = Vec::new();
    if query.is_some() {
        all.push(ranking(
            "name",
            &format!(
                "SELECT h.id, CASE WHEN lower(h.skill_name) = lower($1) THEN 2 ELSE 1 END::float8 AS fit FROM skill_system.skill_heads h \
                 WHERE {SEEN} AND starts_with(lower(h.skill_name), lower($1)) ORDER BY fit DESC, h.skill_name, h.id LIMIT {MAX_RANKED}"
            ),
            args,
        ));
        // A query without signs also finds skills with some of the words, after those with all of them. The words are quoted
        // as a tsquery wants it, so that any text can be cast.
        all.push(ranking(
            "text",
            &format!(
                "WITH q AS (SELECT websearch_to_tsquery('pg_catalog.english', $1) AS strict, CASE WHEN $1 ~ '\"|(^|\\s)-' THEN ''::tsquery \
                     ELSE coalesce((SELECT string_agg('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery \
                         FROM unnest(to_tsvector('pg_catalog.english', $1))), ''::tsquery) END AS loose) \
                 SELECT h.id, (CASE WHEN s.document @@ q.strict THEN 1000 ELSE 0 END + ts_rank(s.document, q.strict || q.loose, 1))::float8 AS fit \
                 FROM q, skill_system.skill_search s JOIN skill_system.skill_heads h ON h.tenant_id = s.tenant_id AND h.id = s.skill_id \
                 WHERE {SEEN} AND s.document @@ (q.strict || q.loose) ORDER BY fit DESC, h.skill_name, h.id LIMIT {MAX_RANKED}"
            ),
            args,
        ));
    }
    if tagged {
        // The words of a query find tags by their text already.
        all.push(ranking(
            "tags",
            &format!(
                "SELECT h.id, (SELECT count(DISTINCT t) FROM unnest(h.domain_tags) t WHERE t = ANY ($4))::float8 AS fit \
                 FROM skill_system.skill_heads h WHERE {SEEN} ORDER BY fit DESC, h.skill_name, h.id LIMIT {MAX_RANKED}"
            ),
            args,
        ));
    }
    if let Some(schema) = query.and_then(|_| trigrams()) {
        all.push(ranking(
            "spelling",
            &format!(
                "SELECT id, fit FROM (SELECT h.id, h.skill_name, greatest({schema}.similarity($1::text, h.skill_name::text), \
                     {schema}.word_similarity($1::text, (h.skill_name || ' ' || left(h.description, 200))::text))::float8 AS fit \
                     FROM skill_system.skill_heads h WHERE {SEEN} OFFSET 0) f \
                 WHERE fit >= {SIMILAR} ORDER BY fit DESC, skill_name, id LIMIT {MAX_RANKED}"
            ),
            args,
        ));
    }
    if let Some(embedding) = embedding {
        all.push(nearest(embedding, args)?);
    }
    Ok(all)
}

/// What the answer says of a skill.
struct Detail {
    namespace: String,
    skill_name: String,
    description: String,
    version: String,
    semver: Option<String>,
    status: String,
    domain_tags: Vec<String>,
    /// Its effects, if it declares any.
    effects: Option<Vec<String>>,
}

fn details(ids: Vec<pgrx::Uuid>) -> HashMap<Id, Detail> {
    let mut found = HashMap::new();
    spi::run(
        "SELECT id, namespace, skill_name, description, current_version, semver, status, domain_tags::text[], effects \
         FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = ANY ($1)",
        Access::Read,
        &[arg(ids)],
        |row| {
            let text = |n| row.get::<String>(n).unwrap_or_default();
            let list = |n| row.get::<Vec<String>>(n).unwrap_or_default();
            if let Some(id) = row.get::<pgrx::Uuid>(1) {
                let effects = row.get::<Vec<String>>(9);
                let detail = Detail {
                    namespace: text(2),
                    skill_name: text(3),
                    description: text(4),
                    version: text(5),
                    semver: row.get(6),
                    status: text(7),
                    domain_tags: list(8),
                    effects,
                };
                found.insert(*id.as_bytes(), detail);
            }
        },
    );
    found
}

pg_function!(pg_finfo_skill_search_skills, skill_search_skills, search_skills);
/// `search_skills(query, namespace, tags, policy_name, max_rows, embedding, include_drafts)`
fn search_skills(call: &Call) -> Answer {
    let query = logic::query(call.text(0))?;
    let tags = logic::tags(call.text_array(2))?;
    let tagged = !tags.is_empty();
    let max_rows = logic::max_rows(call.get(4))?;
    let embedding = call.get::<Vec<Option<f64>>>(5).map(logic::embedding).transpose()?;
    if query.is_none() && !tagged && embedding.is_none() {
        return Err(invalid("there is nothing to search for").hint("Give words, tags or an embedding."));
    }
    if let Some(name) = call.text(3)
        && let Err(error @ PolicyError::Unknown { .. }) = &*policy(name)
    {
        return Err(error.clone().into());
    }
    let args = [arg(query), arg(call.text(1)), arg(call.get::<bool>(6).unwrap_or(false)), arg(tags)];
    let rankings = quietly(|| rankings(query, tagged, &args, embedding.as_deref()))?;
    let fused = logic::fuse(&rankings);
    // Decided once for each list of effects.
    let mut decided: HashMap<Option<Vec<String>>, bool> = HashMap::new();
    let mut shows = |effects: &Option<Vec<String>>| match call.text(3) {
        None => true,
        Some(policy) => {
            *decided.entry(effects.clone()).or_insert_with(|| documents::decide(policy, effects.as_deref()).0.allowed)
        }
    };
    let mut rows = call.row_set();
    let mut rank = 0;
    // In parts, because a policy may hide any number of those at the top.
    for part in fused.chunks(200) {
        check_for_interrupts();
        let details = details(part.iter().map(|found| pgrx::Uuid::from_bytes(found.item)).collect());
        for found in part {
            let Some(detail) = details.get(&found.item).filter(|detail| shows(&detail.effects)) else {
                continue;
            };
            rank += 1;
            let by: Vec<String> = found.by.iter().map(|name| (*name).to_owned()).collect();
            rows.push(&mut [
                rank.into_datum(),
                text_datum(&detail.namespace),
                text_datum(&detail.skill_name),
                text_datum(&detail.description),
                found.score.into_datum(),
                text_array_datum(&by),
                text_datum(&detail.version),
                detail.semver.as_deref().and_then(text_datum),
                text_datum(&detail.status),
                text_array_datum(&detail.domain_tags),
                uuid_datum(pgrx::Uuid::from_bytes(found.item)),
            ]);
            if rank as usize == max_rows {
                return Ok(call.null());
            }
        }
    }
    Ok(call.null())
}
