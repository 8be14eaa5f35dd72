//! Search: several rankings by SQL, fused in `core`.

use std::collections::HashMap;

use const_format::concatcp;
use skill_core::Fault;
use skill_core::input::invalid;
use skill_core::policy::PolicyError;
use skill_core::skills::names::Reference;
use skill_core::skills::search::{self as logic, Ranking};
use skill_pg::error::check_for_interrupts;
use skill_pg::function::Similarity;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Oid, Uuid, arg, pg_function};

use crate::policy::policy;
use crate::skills::effects::decide;
use crate::skills::history::append_audit;
use crate::skills::index::without_notices;
use crate::skills::model::{self, declared_effects};
use crate::skills::requirements::named_version;

/// Most skills in one ranking.
const MAX_RANKED: usize = 1000;
/// Least similarity that counts as the same word misspelt; what pg_trgm itself takes by default.
const MIN_SIMILARITY: f32 = 0.3;

pg_function!(set_skill_embedding);
fn set_skill_embedding(call: &Call) -> Answer {
    let (skill, embedding, version): (_, Option<Vec<Option<f64>>>, Option<&str>) = call.arguments();
    let reference = Reference::parse(skill)?;
    let embedding = embedding.map(logic::embedding).transpose()?;
    let head = model::lock(reference)?;
    let version = named_version(&head, Some(version.unwrap_or(&head.current_version)), As::Owner, See::OwnWrites)?;
    let dimensions = embedding.as_ref().map(|embedding| embedding.len() as i32);
    let changed = match embedding {
        None => spi::execute(
            "DELETE FROM skill_system.skill_embeddings \
             WHERE tenant_id = skill_system.current_tenant() AND version_id = $1",
            As::Owner,
            See::OwnWrites,
            &[arg(version.id)],
        ),
        Some(embedding) => spi::execute(
            "INSERT INTO skill_system.skill_embeddings AS e (version_id, dimensions, embedding) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant_id, version_id) DO UPDATE \
                 SET dimensions = excluded.dimensions, embedding = excluded.embedding \
                 WHERE e.embedding <> excluded.embedding",
            As::Owner,
            See::OwnWrites,
            &[arg(version.id), arg(dimensions), arg(embedding)],
        ),
    };
    if changed > 0 {
        let data = serde_json::json!({
            "skill_id": head.id.to_string(), "namespace": head.namespace, "skill_name": head.skill_name,
            "version": version.version, "dimensions": dimensions,
        });
        append_audit("skill.embedded", data)?;
    }
    Ok(call.answer(changed > 0))
}

/// What every ranking looks at: `$1` query, `$2` namespace, `$3` drafts too, `$4` tags.
const VISIBLE: &str = "h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL \
     AND (h.enabled OR $3 AND h.status = 'draft') AND ($2 IS NULL OR h.namespace = $2) \
     AND ($4 = '{}' OR h.domain_tags && $4::varchar[])";
const BEST_FIRST: &str = concatcp!(" ORDER BY fit DESC, h.skill_name, h.id LIMIT ", MAX_RANKED);

const BY_NAME: &str = concatcp!(
    "SELECT h.id, CASE WHEN lower(h.skill_name) = lower($1) THEN 2 ELSE 1 END::float8 AS fit \
     FROM skill_system.skill_heads h WHERE ",
    VISIBLE,
    " AND starts_with(lower(h.skill_name), lower($1))",
    BEST_FIRST
);
/// A query without signs also finds skills with some of the words, after those with all of them. The words are quoted as a
/// tsquery wants it, so that any text can be cast. Each skill with how well each word fits, and how many skills exist.
const BY_TEXT: &str = concatcp!(
    "WITH visible AS (SELECT h.tenant_id, h.id, h.skill_name FROM skill_system.skill_heads h WHERE ",
    VISIBLE,
    "), ",
    include_str!("by_text.sql")
);
const BY_TAGS: &str = concatcp!(
    "SELECT h.id, (SELECT count(DISTINCT t) FROM unnest(h.domain_tags) t WHERE t = ANY ($4))::float8 AS fit \
     FROM skill_system.skill_heads h WHERE ",
    VISIBLE,
    BEST_FIRST
);
const BY_EMBEDDING: &str = concatcp!(
    "SELECT h.id, e.embedding FROM skill_system.skill_heads h \
     JOIN skill_system.skill_embeddings e ON e.tenant_id = h.tenant_id AND e.version_id = h.current_version_id WHERE ",
    VISIBLE,
    " AND e.dimensions = $5"
);

/// What a query may misspell, of every skill that is looked at.
const BY_SPELLING: &str = concatcp!(
    "SELECT h.id, h.skill_name::text, (h.skill_name || ' ' || left(h.description, 200))::text \
     FROM skill_system.skill_heads h WHERE $1 <> '' AND ",
    VISIBLE
);

type Id = [u8; 16];

/// Runs a statement whose rows are a skill and how well it fits, the best first. Planned for its arguments each time.
fn ranking<'a>(name: &'a str, sql: &str, args: &[Arg]) -> Ranking<'a, Id> {
    let mut groups: Vec<Vec<Id>> = Vec::new();
    let mut last = None;
    for (id, fit) in spi::collect::<(Uuid, f64)>(Once(sql), As::Caller, See::Statement, args) {
        match groups.last_mut() {
            Some(group) if last == Some(fit) => group.push(*id.as_bytes()),
            _ => groups.push(vec![*id.as_bytes()]),
        }
        last = Some(fit);
    }
    Ranking { name, groups }
}

/// The skills that have the words of the query: rare words count for more, and those with all of them come first.
fn by_text(args: &[Arg]) -> Ranking<'static, Id> {
    const ALL_WORDS: f64 = 1000.0;
    let found = spi::collect::<(Uuid, bool, Vec<f32>, i64)>(Once(BY_TEXT), As::Caller, See::Statement, args);
    let total = found.first().map_or(0, |(.., total)| *total);
    let ranks: Vec<&[f32]> = found.iter().map(|(_, _, ranks, _)| ranks.as_slice()).collect();
    let fits = logic::by_rarity(&ranks, total as usize);
    let mut fits: Vec<(f64, Id)> = (found.iter().zip(fits))
        .map(|((id, has_all, ..), fit)| (fit + if *has_all { ALL_WORDS } else { 0.0 }, *id.as_bytes()))
        .collect();
    fits.sort_by(|a, b| b.0.total_cmp(&a.0));
    fits.truncate(MAX_RANKED);
    let groups = fits.chunk_by(|a, b| a.0 == b.0).map(|group| group.iter().map(|(_, id)| *id).collect());
    Ranking { name: "text", groups: groups.collect() }
}

/// The skills that are nearest to an embedding, by the exact cosine.
fn nearest(wanted: &[f32], args: &[Arg]) -> Result<Ranking<'static, Id>, Fault> {
    let mut found: Vec<(f64, Id)> = Vec::new();
    let mut args = args.to_vec();
    args.push(arg(wanted.len() as i32));
    let mut compared = false;
    spi::stream(BY_EMBEDDING, &args, |row| {
        let (id, embedding): (Uuid, Vec<f32>) = row.read();
        compared = true;
        found.push((logic::cosine(wanted, &embedding), *id.as_bytes()));
        Ok(())
    })?;
    if !compared {
        check_dimensions(wanted.len() as i32)?;
    }
    found.retain(|(cosine, _)| *cosine > 0.0);
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    found.truncate(MAX_RANKED);
    Ok(Ranking { name: "embedding", groups: found.into_iter().map(|(_, id)| vec![id]).collect() })
}

/// Where embeddings exist, some must have as many dimensions.
fn check_dimensions(wanted: i32) -> Result<(), Fault> {
    let found = spi::collect::<i32>(
        "SELECT DISTINCT dimensions FROM skill_system.skill_embeddings \
         WHERE tenant_id = skill_system.current_tenant() ORDER BY 1 LIMIT 10",
        As::Caller,
        See::Statement,
        &[],
    );
    if found.is_empty() || found.contains(&wanted) {
        return Ok(());
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(invalid(format!("no skill has an embedding of {wanted} dimensions"))
        .detail(format!("Embeddings here have {}.", found.join(", "))))
}

/// Functions of pg_trgm.
struct Trigrams {
    similarity: Similarity,
    word_similarity: Similarity,
}

impl Trigrams {
    /// Its own C functions, where this user may call them. They are looked up each time: the extension may come and go. Its
    /// owner need not be a superuser, and may add functions of any name to it, move it and drop it: nothing is called by name.
    fn find() -> Option<Self> {
        let functions = spi::collect::<(String, Oid)>(
            "SELECT p.prosrc, p.oid FROM pg_extension e \
             JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid \
                 AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' \
             JOIN pg_proc p ON p.oid = d.objid AND p.prosrc IN ('similarity', 'word_similarity') \
             WHERE e.extname = 'pg_trgm' AND has_schema_privilege(p.pronamespace, 'USAGE') \
                 AND has_function_privilege(p.oid, 'EXECUTE')",
            As::Caller,
            See::Statement,
            &[],
        );
        let find = |symbol: &str| {
            let named = functions.iter().filter(|(found, _)| found == symbol);
            named.into_iter().find_map(|(_, oid)| Similarity::find(*oid, "$libdir/pg_trgm", symbol))
        };
        Some(Trigrams { similarity: find("similarity")?, word_similarity: find("word_similarity")? })
    }

    /// The skills whose name or description has the query misspelt.
    fn ranking(mut self, query: &str, args: &[Arg]) -> Result<Ranking<'static, Id>, Fault> {
        let mut found: Vec<(f32, String, Id)> = Vec::new();
        let wanted = logic::Trigrams::new(query);
        spi::stream(BY_SPELLING, args, |row| {
            let (id, name, text): (Uuid, &str, &str) = row.read();
            // Most have next to nothing in common with it.
            if wanted.most_similar(text) < MIN_SIMILARITY {
                return Ok(());
            }
            let fit = self.similarity.of(query, name).max(self.word_similarity.of(query, text));
            if fit >= MIN_SIMILARITY {
                found.push((fit, name.to_owned(), *id.as_bytes()));
            }
            Ok(())
        })?;
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (&a.1, a.2).cmp(&(&b.1, b.2))));
        found.truncate(MAX_RANKED);
        let groups = found.chunk_by(|a, b| a.0 == b.0).map(|group| group.iter().map(|(.., id)| *id).collect());
        Ok(Ranking { name: "spelling", groups: groups.collect() })
    }
}

fn rankings(
    query: Option<&str>,
    tagged: bool,
    args: &[Arg],
    embedding: Option<&[f32]>,
) -> Result<Vec<Ranking<'static, Id>>, Fault> {
    let mut all = Vec::new();
    if query.is_some() {
        all.push(ranking("name", BY_NAME, args));
        all.push(by_text(args));
    }
    if tagged {
        // The words of a query find tags by their text already.
        all.push(ranking("tags", BY_TAGS, args));
    }
    if let Some(query) = query
        && let Some(trigrams) = Trigrams::find()
    {
        all.push(trigrams.ranking(query, args)?);
    }
    if let Some(embedding) = embedding {
        all.push(nearest(embedding, args)?);
    }
    Ok(all)
}

skill_pg::columns! {
    /// What the answer tells of a skill.
    struct Detail {
        id: Uuid = "id",
        namespace: String = "namespace",
        skill_name: String = "skill_name",
        description: String = "description",
        version: String = "current_version",
        semver: Option<String> = "semver",
        status: String = "status",
        domain_tags: Vec<String> = "domain_tags::text[]",
        effects: Option<Vec<Option<String>>> = "effects",
    }
}

fn details(ids: Vec<Uuid>) -> HashMap<Id, Detail> {
    const SQL: &str = concatcp!(
        "SELECT ",
        Detail::COLUMNS,
        " FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = ANY ($1)"
    );
    let found = spi::collect::<Detail>(SQL, As::Caller, See::Statement, &[arg(ids)]);
    found.into_iter().map(|detail| (*detail.id.as_bytes(), detail)).collect()
}

skill_pg::arguments! {
    struct SearchSkills<'c> {
        query: Option<&'c str>,
        policy_name: Option<&'c str>,
        namespace: Option<&'c str>,
        tags: Option<Vec<Option<&'c str>>>,
        max_rows: Option<i32>,
        embedding: Option<Vec<Option<f64>>>,
        include_drafts: Option<bool>,
    }
}

pg_function!(search_skills);
fn search_skills(call: &Call) -> Answer {
    let SearchSkills { query, policy_name, namespace, tags, max_rows, embedding, include_drafts } = call.arguments();
    let query = logic::query(query)?;
    let tags = logic::tags(tags)?;
    let max_rows = logic::max_rows(max_rows)?;
    let embedding = embedding.map(logic::embedding).transpose()?;
    let include_drafts = include_drafts == Some(true);
    let tagged = !tags.is_empty();
    if query.is_none() && !tagged && embedding.is_none() {
        return Err(invalid("nothing to search for").hint("Give words, tags or an embedding."));
    }
    if let Some(name) = policy_name
        && let Err(error @ PolicyError::Unknown { .. }) = &*policy(name)?
    {
        return Err(error.clone().into());
    }
    let args = [arg(query), arg(namespace), arg(include_drafts), arg(tags)];
    let rankings = without_notices(|| rankings(query, tagged, &args, embedding.as_deref()))?;
    let fused = logic::fuse(&rankings);
    // Decided once for each list of effects.
    let mut decided: HashMap<Option<Vec<Option<String>>>, bool> = HashMap::new();
    let mut is_shown = |effects: &Option<Vec<Option<String>>>| {
        let Some(policy_name) = policy_name else { return Ok(true) };
        if let Some(known) = decided.get(effects) {
            return Ok(*known);
        }
        let allowed = decide(policy_name, declared_effects(effects.clone()).as_deref())?.0.allowed;
        decided.insert(effects.clone(), allowed);
        Ok::<_, Fault>(allowed)
    };
    let mut rows = call.row_set();
    let mut rank = 0;
    // In parts, because a policy may hide any number of those at the top.
    for part in fused.chunks(200) {
        check_for_interrupts();
        let details = details(part.iter().map(|found| Uuid::from_bytes(found.item)).collect());
        for found in part {
            let Some(detail) = details.get(&found.item) else { continue };
            if !is_shown(&detail.effects)? {
                continue;
            }
            rank += 1;
            rows.push(&[
                arg(rank),
                arg(&detail.namespace),
                arg(&detail.skill_name),
                arg(&detail.description),
                arg(found.score),
                arg(found.by.clone()),
                arg(&detail.version),
                arg(detail.semver.as_deref()),
                arg(&detail.status),
                arg(detail.domain_tags.as_slice()),
                arg(found.item),
            ]);
            if rank as usize == max_rows {
                return Ok(rows.finish());
            }
        }
    }
    Ok(rows.finish())
}
