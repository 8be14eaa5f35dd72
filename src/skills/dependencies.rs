//! What versions require of each other.

use std::collections::{HashMap, HashSet};

use skill_core::input::invalid;
use skill_core::skills::dependencies::{self as logic, Key, Kind, Problem, Relation, Resolution, Source};
use skill_core::skills::requirement::{Candidate, Range, semantic};
use skill_core::{Code, Fault};
use skill_pg::error::{check_for_interrupts, warning_with};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function};

use super::model::{Head, Version};
use super::requirements::parse_skill_ref;
use crate::args::given;

/// The relations of a new version.
pub fn insert_relations(version: &Version, relations: &[Relation]) {
    for relation in relations {
        spi::execute(
            "INSERT INTO skill_system.skill_dependencies (version_id, kind, namespace, skill_name, version_range) \
             VALUES ($1, $2, $3, $4, $5)",
            As::Owner,
            See::OwnWrites,
            &[
                arg(version.id),
                arg(relation.kind.as_str()),
                arg(&relation.namespace),
                arg(&relation.skill_name),
                arg(relation.range.as_ref().map(Range::text)),
            ],
        );
    }
}

/// Skills as the database has them, read with the caller's rights, each once.
#[derive(Default)]
struct StoredSkills {
    ids: HashMap<Key, Uuid>,
    candidates: HashMap<Key, Option<Vec<Candidate>>>,
    relations: HashMap<[u8; 16], Vec<Relation>>,
}

skill_pg::columns! {
    /// A skill, with one of its approved versions unless it has none.
    struct CandidateRow {
        skill_id: Uuid = "h.id",
        version_id: Option<Uuid> = "v.id",
        version: Option<String> = "v.version",
        semver: Option<String> = "v.semver",
        revision: Option<i64> = "v.revision",
        served: Option<bool> = "v.id = h.current_version_id",
    }
}

impl CandidateRow {
    fn into_candidate(self) -> Option<Candidate> {
        Some(Candidate {
            id: *self.version_id?.as_bytes(),
            version: self.version?,
            semver: self.semver.as_deref().and_then(semantic),
            revision: self.revision?,
            served: self.served?,
        })
    }
}

impl Source for StoredSkills {
    fn candidates(&mut self, key: &Key) -> Option<Vec<Candidate>> {
        const SQL: &str = const_format::concatcp!(
            "SELECT ",
            CandidateRow::COLUMNS,
            " FROM skill_system.skill_heads h LEFT JOIN skill_system.skill_versions v \
                  ON v.tenant_id = h.tenant_id AND v.skill_id = h.id AND v.status = 'approved' \
                     AND (h.enabled OR h.status <> 'approved') \
              WHERE h.tenant_id = skill_system.current_tenant() AND h.namespace = $1 AND h.skill_name = $2 \
                  AND h.deleted_at IS NULL"
        );
        if let Some(known) = self.candidates.get(key) {
            return known.clone();
        }
        let rows = spi::collect::<CandidateRow>(SQL, As::Caller, See::Statement, &[arg(&key.0), arg(&key.1)]);
        let found = rows.first().map(|row| row.skill_id).map(|id| {
            self.ids.insert(key.clone(), id);
            rows.into_iter().filter_map(CandidateRow::into_candidate).collect::<Vec<_>>()
        });
        self.candidates.insert(key.clone(), found.clone());
        found
    }

    fn relations(&mut self, version: &[u8; 16]) -> Vec<Relation> {
        if let Some(known) = self.relations.get(version) {
            return known.clone();
        }
        let rows = spi::collect::<(String, String, String, Option<String>)>(
            "SELECT kind, namespace, skill_name, version_range FROM skill_system.skill_dependencies \
             WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY kind, namespace, skill_name",
            As::Caller,
            See::Statement,
            &[arg(*version)],
        );
        let found: Vec<Relation> = rows
            .into_iter()
            .filter_map(|(kind, namespace, skill_name, range)| {
                // Only ranges that can be read were let in.
                let range = range.and_then(|range| Range::parse(&range).ok());
                Some(Relation { kind: Kind::parse(&kind)?, namespace, skill_name, range })
            })
            .collect();
        self.relations.insert(*version, found.clone());
        found
    }
}

/// A skill and a version of it, as the beginning of a closure.
fn root(head: &Head, version: &Version) -> (Key, Candidate) {
    let candidate = Candidate {
        id: *version.id.as_bytes(),
        version: version.version.clone(),
        semver: version.semver.as_deref().and_then(semantic),
        revision: 0,
        served: head.current_version_id == version.id,
    };
    ((head.namespace.clone(), head.skill_name.clone()), candidate)
}

/// Warns of what an approved version lacks. Skills come in any order, so this forbids nothing.
pub fn warn_unmet(head: &Head, version: &Version) {
    let mut stored = StoredSkills::default();
    if stored.relations(version.id.as_bytes()).is_empty() {
        return;
    }
    let problems = match logic::resolve(vec![root(head, version)], &mut stored) {
        Ok(Resolution { problems, .. }) => problems.iter().take(3).map(describe).collect::<Vec<_>>(),
        Err(fault) => vec![fault.message],
    };
    if !problems.is_empty() {
        warning_with(
            format!(
                "version {} of skill \"{}\" is approved, but its requirements are not met",
                version.version, head.skill_name
            ),
            problems.join(" "),
            "SELECT * FROM skill_system.check_dependencies(...);",
        );
    }
}

fn describe(problem: &Problem) -> String {
    let range = problem.range.as_deref().map(|range| format!(" {range}")).unwrap_or_default();
    format!(
        "{}: {} -> {}{range}: {}",
        problem.problem,
        logic::format_key(&problem.by),
        logic::format_key(&problem.skill),
        problem.detail
    )
}

/// The closure of the given skills; `None` when none is given.
fn closure(skills: Option<Vec<Option<&str>>>, stored: &mut StoredSkills) -> Result<Option<Resolution>, Fault> {
    let mut roots = Vec::new();
    for skill in given(skills, "skills")? {
        let (head, version) = parse_skill_ref(given(skill, "an element of skills")?)?;
        let (key, candidate) = root(&head, &version);
        stored.ids.insert(key.clone(), head.id);
        roots.push((key, candidate));
    }
    if roots.is_empty() { Ok(None) } else { logic::resolve(roots, stored).map(Some) }
}

pg_function!(resolve_dependencies);
fn resolve_dependencies(call: &Call) -> Answer {
    let skills = call.arguments();
    let mut stored = StoredSkills::default();
    let resolution = closure(skills, &mut stored)?.ok_or_else(|| invalid("no skill is given"))?;
    if let Some(first) = resolution.problems.first() {
        let more = match resolution.problems.len() {
            1 => String::new(),
            n => format!(" And {} more.", n - 1),
        };
        return Err(Fault::new(Code::SkillConflict, "the requirements of the skills cannot be met")
            .detail(format!("{}{more}", describe(first)))
            .hint("SELECT * FROM skill_system.check_dependencies(...);"));
    }
    let mut rows = call.row_set();
    for chosen in &resolution.chosen {
        rows.push(&[
            arg(chosen.depth),
            arg(&chosen.key.0),
            arg(&chosen.key.1),
            arg(&chosen.candidate.version),
            arg(chosen.candidate.semver.as_ref().map(ToString::to_string)),
            arg(chosen.required_by.as_ref().map(logic::format_key)),
            arg(stored.ids.get(&chosen.key).copied()),
            arg(chosen.candidate.id),
        ]);
    }
    Ok(rows.finish())
}

/// Problems of every enabled skill that requires something.
fn check_all(stored: &mut StoredSkills) -> Vec<Problem> {
    let enabled = spi::collect::<(String, String, Uuid, String, Option<String>, i64)>(
        "SELECT h.namespace, h.skill_name, v.id, v.version, v.semver, v.revision FROM skill_system.skill_heads h \
         JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.enabled \
             AND EXISTS (SELECT FROM skill_system.skill_dependencies d \
                         WHERE d.tenant_id = v.tenant_id AND d.version_id = v.id) \
         ORDER BY h.namespace, h.skill_name",
        As::Caller,
        See::Statement,
        &[],
    );
    let mut problems = Vec::new();
    // Skills that share a requirement would report the same again.
    let mut seen = HashSet::new();
    for (namespace, skill_name, id, version, semver, revision) in enabled {
        check_for_interrupts();
        let semver = semver.as_deref().and_then(semantic);
        let candidate = Candidate { id: *id.as_bytes(), version, semver, revision, served: true };
        let key = (namespace, skill_name);
        let found = match logic::resolve(vec![(key.clone(), candidate)], stored) {
            Ok(resolution) => resolution.problems,
            Err(fault) => {
                let detail = format!("{}.", fault.message);
                vec![Problem { problem: "limit", by: key.clone(), skill: key, range: None, detail }]
            }
        };
        problems.extend(found.into_iter().filter(|problem| {
            seen.insert((problem.problem, problem.by.clone(), problem.skill.clone(), problem.range.clone()))
        }));
    }
    problems
}

pg_function!(check_dependencies);
fn check_dependencies(call: &Call) -> Answer {
    let skills = call.arguments();
    let mut stored = StoredSkills::default();
    let problems = match closure(skills, &mut stored)? {
        Some(resolution) => resolution.problems,
        None => check_all(&mut stored),
    };
    let mut rows = call.row_set();
    for problem in &problems {
        rows.push(&[
            arg(problem.problem),
            arg(logic::format_key(&problem.by)),
            arg(logic::format_key(&problem.skill)),
            arg(problem.range.as_deref()),
            arg(&problem.detail),
        ]);
    }
    Ok(rows.finish())
}
