//! Versions as a whole: which one is meant, what they require of each other, pins, channels, differences, changes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use pgrx::datum::IntoDatum;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use skill_core::error::shorten;
use skill_core::input::{invalid, optional};
use skill_core::skills::Status;
use skill_core::skills::changes::Token;
use skill_core::skills::dependencies::{self as logic, Key, Kind, Problem, Relation, Resolution, Source};
use skill_core::skills::diff;
use skill_core::skills::names::Reference;
use skill_core::skills::requirement::{Candidate, Range, Requirement, best, channel, listed, semantic};
use skill_core::{Code, Fault};

use super::registry::{self, Change, Head, Version};
use super::state;
use crate::args::{missing, uuid_datum};
use crate::pg::call::{Answer, Call, text_datum};
use crate::pg::error::{check_for_interrupts, send};
use crate::pg::spi::{self, Access, Row, arg};
use crate::pg::trigger::Trigger;
use crate::pg::{cache, guc};
use crate::pg_function;

/// Longest reason.
const MAX_REASON: usize = 2000;

fn read_candidate(row: &Row) -> Option<Candidate> {
    Some(Candidate {
        id: *row.get::<pgrx::Uuid>(1)?.as_bytes(),
        version: row.get(2)?,
        semver: row.text(3).and_then(semantic),
        revision: row.get(4)?,
        served: row.get(5)?,
    })
}

/// The approved versions of a skill.
fn approved(head: &Head, access: Access) -> Vec<Candidate> {
    let mut found = Vec::new();
    spi::run(
        "SELECT id, version, semver, revision, id = $2 FROM skill_system.skill_versions \
         WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND status = 'approved'",
        access,
        &[arg(head.id), arg(head.current_version_id)],
        |row| found.extend(read_candidate(row)),
    );
    found
}

fn no_version(message: String, there: &[Candidate]) -> Fault {
    let detail = match there {
        [] => "It has no approved version.".to_owned(),
        _ => format!("Approved: {}.", listed(there)),
    };
    Fault::new(Code::VersionNotFound, message)
        .detail(detail)
        .hint("SELECT * FROM skill_system.skill_version_list(...);")
}

/// The version that a requirement asks for; by its digits one of any status, otherwise an approved one.
fn asked_for(head: &Head, requirement: &Requirement, access: Access) -> Result<Version, Fault> {
    match requirement {
        Requirement::Served => registry::version(head, Some(&head.current_version), access),
        Requirement::Version(version) => registry::version(head, Some(version), access)
            .map_err(|fault| no_version(fault.message, &approved(head, access))),
        Requirement::Range(range) => {
            let there = approved(head, access);
            match best(&there, &[range]) {
                Some(found) => registry::version(head, Some(&found.version), access),
                None => Err(no_version(
                    format!("skill \"{}\" has no approved version in the range {}", head.skill_name, range.text()),
                    &there,
                )),
            }
        }
        Requirement::Channel(name) => {
            let (mut found, mut others) = (None, Vec::new());
            spi::run(
                "SELECT c.channel, v.version FROM skill_system.skill_channels c \
                 JOIN skill_system.skill_versions v ON v.tenant_id = c.tenant_id AND v.id = c.version_id \
                 WHERE c.tenant_id = skill_system.current_tenant() AND c.skill_id = $1 ORDER BY c.channel",
                access,
                &[arg(head.id)],
                |row| match row.text(1) {
                    Some(channel) if channel == name => found = row.get::<String>(2),
                    Some(channel) if others.len() < 10 => others.push(channel.to_owned()),
                    _ => {}
                },
            );
            match found {
                Some(version) => usable(head, registry::version(head, Some(&version), access)?),
                None => Err(Fault::new(
                    Code::VersionNotFound,
                    format!("skill \"{}\" has no channel \"{name}\"", head.skill_name),
                )
                .detail(if others.is_empty() {
                    "It has no channels.".to_owned()
                } else {
                    format!("It has {}.", others.join(", "))
                })
                .hint("SELECT * FROM skill_system.set_skill_channel(...);")),
            }
        }
    }
}

fn usable(head: &Head, version: Version) -> Result<Version, Fault> {
    if version.status == Status::Approved {
        return Ok(version);
    }
    Err(no_version(
        format!("version {} of skill \"{}\" is {}", version.version, head.skill_name, version.status.as_str()),
        &approved(head, Access::Read),
    ))
}

/// An approved version for somebody who decides which one is used.
fn choose(head: &Head, requirement: Option<&str>) -> Result<Version, Fault> {
    usable(head, asked_for(head, &Requirement::parse(requirement)?, Access::WriteAsOwner)?)
}

fn found(reference: Reference) -> Result<Head, Fault> {
    registry::find(reference).ok().filter(|head| !head.deleted).ok_or_else(|| reference.unknown())
}

fn switched_off(head: &Head) -> bool {
    let on = spi::one::<bool>(
        "SELECT enabled OR status <> 'approved' FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::Read,
        &[arg(head.id)],
    );
    on != Some(true)
}

pg_function!(pg_finfo_skill_resolve_skill, skill_resolve_skill, resolve_skill);
/// `resolve_skill(skill, requirement)`
fn resolve_skill(call: &Call) -> Answer {
    let requirement = Requirement::parse(call.text(1))?;
    let head = found(Reference::parse(call.text(0))?)?;
    if switched_off(&head) {
        return Err(Fault::new(Code::VersionNotFound, format!("skill \"{}\" is switched off", head.skill_name)));
    }
    let version = usable(&head, asked_for(&head, &requirement, Access::Read)?)?;
    Ok(call.row(&mut [
        uuid_datum(head.id),
        uuid_datum(version.id),
        text_datum(&version.version),
        version.semver.as_deref().and_then(text_datum),
        text_datum(version.status.as_str()),
        text_datum(&head.namespace),
        text_datum(&head.skill_name),
    ]))
}

/// Skills as the database has them, read with the caller's rights, each once.
#[derive(Default)]
struct Stored {
    ids: HashMap<Key, pgrx::Uuid>,
    candidates: HashMap<Key, Option<Vec<Candidate>>>,
    relations: HashMap<[u8; 16], Vec<Relation>>,
}

impl Source for Stored {
    fn candidates(&mut self, key: &Key) -> Option<Vec<Candidate>> {
        if let Some(known) = self.candidates.get(key) {
            return known.clone();
        }
        let (mut id, mut found) = (None, Vec::new());
        spi::run(
            "SELECT v.id, v.version, v.semver, v.revision, v.id = h.current_version_id, h.id FROM skill_system.skill_heads h \
             LEFT JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.skill_id = h.id AND v.status = 'approved' \
                 AND (h.enabled OR h.status <> 'approved') \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL",
            Access::Read,
            &[arg(key.0.as_str()), arg(key.1.as_str())],
            |row| {
                id = row.get(6);
                found.extend(read_candidate(row));
            },
        );
        let found = id.map(|id| {
            self.ids.insert(key.clone(), id);
            found
        });
        self.candidates.insert(key.clone(), found.clone());
        found
    }

    fn relations(&mut self, version: &[u8; 16]) -> Vec<Relation> {
        if let Some(known) = self.relations.get(version) {
            return known.clone();
        }
        let mut found = Vec::new();
        spi::run(
            "SELECT kind, namespace, skill_name, version_range FROM skill_system.skill_dependencies \
             WHERE tenant_id = skill_system.current_tenant() AND version_id = $1 ORDER BY kind, namespace, skill_name",
            Access::Read,
            &[arg(pgrx::Uuid::from_bytes(*version))],
            |row| {
                if let (Some(kind), Some(namespace), Some(skill_name)) =
                    (row.text(1).and_then(Kind::parse), row.get(2), row.get(3))
                {
                    // Only ranges that can be read were let in.
                    found.push(Relation {
                        kind,
                        namespace,
                        skill_name,
                        range: row.text(4).and_then(|range| Range::parse(range).ok()),
                    });
                }
            },
        );
        self.relations.insert(*version, found.clone());
        found
    }
}

/// The relations of a new version.
pub fn insert_relations(version: &Version, relations: &[Relation]) {
    for relation in relations {
        spi::run(
            "INSERT INTO skill_system.skill_dependencies (version_id, kind, namespace, skill_name, version_range) VALUES ($1, $2, $3, $4, $5)",
            Access::WriteAsOwner,
            &[
                arg(version.id),
                arg(relation.kind.as_str()),
                arg(relation.namespace.as_str()),
                arg(relation.skill_name.as_str()),
                arg(relation.range.as_ref().map(Range::text)),
            ],
            |_| (),
        );
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

/// Says what an approved version lacks. Skills come in any order, so this forbids nothing.
pub fn warn_unmet(head: &Head, version: &Version) {
    let mut stored = Stored::default();
    if stored.relations(version.id.as_bytes()).is_empty() {
        return;
    }
    let problems = match logic::resolve(vec![root(head, version)], &mut stored) {
        Ok(Resolution { problems, .. }) => problems.iter().take(3).map(described).collect::<Vec<_>>(),
        Err(fault) => vec![fault.message],
    };
    if !problems.is_empty() {
        send(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "version {} of skill \"{}\" is approved, but what it requires is not met",
                version.version, head.skill_name
            ),
            Some(problems.join(" ")),
            Some("SELECT * FROM skill_system.check_dependencies(...);".into()),
            PgLogLevel::WARNING,
        );
    }
}

fn described(problem: &Problem) -> String {
    let range = problem.range.as_deref().map(|range| format!(" {range}")).unwrap_or_default();
    format!(
        "{}: {} -> {}{range}: {}",
        problem.problem,
        logic::shown(&problem.by),
        logic::shown(&problem.skill),
        problem.detail
    )
}

/// `skill` or `skill@requirement`.
fn asked(element: &str) -> Result<(Head, Version), Fault> {
    let split = element
        .rsplit_once('@')
        .and_then(|(skill, requirement)| Some((skill, Requirement::parse(Some(requirement)).ok()?)));
    let (skill, requirement) = split.unwrap_or((element, Requirement::Served));
    let head = found(Reference::parse(Some(skill))?)?;
    let version = asked_for(&head, &requirement, Access::Read)?;
    Ok((head, version))
}

fn closure(call: &Call, stored: &mut Stored) -> Result<Option<Resolution>, Fault> {
    let elements = call.text_array(0).ok_or_else(|| missing("skills"))?;
    let mut roots = Vec::new();
    for element in &elements {
        let (head, version) = asked(element.ok_or_else(|| missing("an element of skills"))?)?;
        let (key, candidate) = root(&head, &version);
        stored.ids.insert(key.clone(), head.id);
        roots.push((key, candidate));
    }
    if roots.is_empty() { Ok(None) } else { logic::resolve(roots, stored).map(Some) }
}

pg_function!(pg_finfo_skill_resolve_dependencies, skill_resolve_dependencies, resolve_dependencies);
/// `resolve_dependencies(VARIADIC skills)`
fn resolve_dependencies(call: &Call) -> Answer {
    let mut stored = Stored::default();
    let resolution = closure(call, &mut stored)?.ok_or_else(|| invalid("no skill is given"))?;
    if let Some(first) = resolution.problems.first() {
        let more = match resolution.problems.len() {
            1 => String::new(),
            n => format!(" And {} more.", n - 1),
        };
        return Err(Fault::new(Code::SkillConflict, "what the skills require cannot be met")
            .detail(format!("{}{more}", described(first)))
            .hint("SELECT * FROM skill_system.check_dependencies(...);"));
    }
    let mut rows = call.row_set();
    for chosen in &resolution.chosen {
        rows.push(&mut [
            chosen.depth.into_datum(),
            text_datum(&chosen.key.0),
            text_datum(&chosen.key.1),
            text_datum(&chosen.candidate.version),
            chosen.candidate.semver.as_ref().and_then(|semver| text_datum(&semver.to_string())),
            chosen.required_by.as_ref().and_then(|by| text_datum(&logic::shown(by))),
            stored.ids.get(&chosen.key).copied().and_then(uuid_datum),
            uuid_datum(pgrx::Uuid::from_bytes(chosen.candidate.id)),
        ]);
    }
    Ok(call.null())
}

pg_function!(pg_finfo_skill_check_dependencies, skill_check_dependencies, check_dependencies);
/// `check_dependencies(VARIADIC skills)`
fn check_dependencies(call: &Call) -> Answer {
    let mut problems = Vec::new();
    let mut stored = Stored::default();
    if let Some(resolution) = closure(call, &mut stored)? {
        problems = resolution.problems;
    } else {
        let mut all = Vec::new();
        spi::run(
            "SELECT h.namespace, h.skill_name, v.id, v.version, v.semver, v.revision, true FROM skill_system.skill_heads h \
             JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.enabled \
                 AND EXISTS (SELECT FROM skill_system.skill_dependencies d WHERE d.tenant_id = v.tenant_id AND d.version_id = v.id) \
             ORDER BY h.namespace, h.skill_name",
            Access::Read,
            &[],
            |row| {
                let candidate = Candidate {
                    id: row.get::<pgrx::Uuid>(3).map(|id| *id.as_bytes()).unwrap_or_default(),
                    version: row.get(4).unwrap_or_default(),
                    semver: row.text(5).and_then(semantic),
                    revision: row.get(6).unwrap_or_default(),
                    served: true,
                };
                all.push(((row.get(1).unwrap_or_default(), row.get(2).unwrap_or_default()), candidate));
            },
        );
        // Skills that share a requirement would say the same again.
        let mut seen = HashSet::new();
        for root in all {
            check_for_interrupts();
            let key = root.0.clone();
            let found = logic::resolve(vec![root], &mut stored).map_or_else(
                |fault| {
                    vec![Problem {
                        problem: "limit",
                        by: key.clone(),
                        skill: key,
                        range: None,
                        detail: format!("{}.", fault.message),
                    }]
                },
                |resolution| resolution.problems,
            );
            problems.extend(found.into_iter().filter(|problem| {
                seen.insert((problem.problem, problem.by.clone(), problem.skill.clone(), problem.range.clone()))
            }));
        }
    }
    let mut rows = call.row_set();
    for problem in &problems {
        rows.push(&mut [
            text_datum(problem.problem),
            text_datum(&logic::shown(&problem.by)),
            text_datum(&logic::shown(&problem.skill)),
            problem.range.as_deref().and_then(text_datum),
            text_datum(&problem.detail),
        ]);
    }
    Ok(call.null())
}

fn because(call: &Call, n: usize) -> Result<Change, Fault> {
    Ok(Change { reason: optional("reason", call.text(n), MAX_REASON)?.map(str::to_owned), ..Change::by_caller() })
}

pg_function!(pg_finfo_skill_pin_skill, skill_pin_skill, pin_skill);
/// `pin_skill(skill, version, reason)`
fn pin_skill(call: &Call) -> Answer {
    let change = because(call, 2)?;
    let mut head = registry::locked(Reference::parse(call.text(0))?)?;
    let version = choose(&head, call.text(1))?;
    Ok(state(call, &registry::pin(&mut head, &version, &change)))
}

pg_function!(pg_finfo_skill_unpin_skill, skill_unpin_skill, unpin_skill);
/// `unpin_skill(skill, reason)`
fn unpin_skill(call: &Call) -> Answer {
    let change = because(call, 1)?;
    let mut head = registry::locked(Reference::parse(call.text(0))?)?;
    let version = asked_for(&head, &Requirement::Served, Access::WriteAsOwner)?;
    Ok(state(call, &registry::unpin(&mut head, &version, &change)))
}

pg_function!(pg_finfo_skill_rollback_skill, skill_rollback_skill, rollback_skill);
/// `rollback_skill(skill, version, reason)`
fn rollback_skill(call: &Call) -> Answer {
    let change = because(call, 2)?;
    let mut head = registry::locked(Reference::parse(call.text(0))?)?;
    let version = match call.text(1) {
        Some(requirement) => choose(&head, Some(requirement))?,
        None => {
            let earlier = spi::one::<String>(
                "SELECT v.version FROM skill_system.skill_versions v JOIN skill_system.skill_versions c ON c.tenant_id = v.tenant_id AND c.id = $2 \
                 WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $1 AND v.status = 'approved' AND v.revision < c.revision \
                 ORDER BY v.revision DESC LIMIT 1",
                Access::WriteAsOwner,
                &[arg(head.id), arg(head.current_version_id)],
            );
            let nothing = || {
                no_version(
                    format!(
                        "skill \"{}\" has no approved version older than {}",
                        head.skill_name, head.current_version
                    ),
                    &approved(&head, Access::WriteAsOwner),
                )
            };
            registry::version(&head, Some(&earlier.ok_or_else(nothing)?), Access::WriteAsOwner)?
        }
    };
    Ok(state(call, &registry::serve(&mut head, &version, &change)))
}

pg_function!(pg_finfo_skill_set_skill_channel, skill_set_skill_channel, set_skill_channel);
/// `set_skill_channel(skill, channel, version, reason)`
fn set_skill_channel(call: &Call) -> Answer {
    let name = channel(call.text(1))?;
    let change = because(call, 3)?;
    let head = registry::locked(Reference::parse(call.text(0))?)?;
    let version = choose(&head, call.text(2))?;
    Ok(state(call, &registry::set_channel(&head, name, &version, &change)))
}

pg_function!(pg_finfo_skill_drop_skill_channel, skill_drop_skill_channel, drop_skill_channel);
/// `drop_skill_channel(skill, channel, reason)`
fn drop_skill_channel(call: &Call) -> Answer {
    let name = channel(call.text(1))?;
    let change = because(call, 2)?;
    let head = registry::locked(Reference::parse(call.text(0))?)?;
    Ok(registry::drop_channel(&head, name, &change).into())
}

pg_function!(pg_finfo_skill_skill_version_list, skill_skill_version_list, skill_version_list);
/// `skill_version_list(skill)`
fn skill_version_list(call: &Call) -> Answer {
    let head = registry::find(Reference::parse(call.text(0))?)?;
    let mut rows = call.row_set();
    spi::run(
        "SELECT v.version, v.semver, v.status, v.id = $2, ARRAY(SELECT c.channel FROM skill_system.skill_channels c \
             WHERE c.tenant_id = v.tenant_id AND c.skill_id = v.skill_id AND c.version_id = v.id ORDER BY c.channel)::text[], \
             v.body_size, v.created_at, v.created_by, v.id \
         FROM skill_system.skill_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $1 ORDER BY v.revision DESC",
        Access::Read,
        &[arg(head.id), arg(head.current_version_id)],
        |row| rows.push(&mut (1..=9).map(|n| row.datum(n)).collect::<Vec<_>>()),
    );
    Ok(call.null())
}

pg_function!(pg_finfo_skill_diff_skill_versions, skill_diff_skill_versions, diff_skill_versions);
/// `diff_skill_versions(skill, old_version, new_version)`
fn diff_skill_versions(call: &Call) -> Answer {
    let head = registry::find(Reference::parse(call.text(0))?)?;
    let a = asked_for(&head, &Requirement::parse(call.text(1))?, Access::Read)?;
    let b = match call.text(2) {
        None => registry::version(&head, None, Access::Read)?,
        requirement => asked_for(&head, &Requirement::parse(requirement)?, Access::Read)?,
    };
    let deadline = diff::deadline();
    let mut rows = call.row_set();
    let mut compare = |path: &str, a: Option<&[u8]>, b: Option<&[u8]>| {
        check_for_interrupts();
        if let Some(found) = diff::difference(path, a, b, deadline) {
            rows.push(&mut [
                text_datum(path),
                text_datum(found.change),
                found.added.and_then(IntoDatum::into_datum),
                found.removed.and_then(IntoDatum::into_datum),
                found.diff.as_deref().and_then(text_datum),
            ]);
        }
    };
    if a.content_hash != b.content_hash {
        let body = |version: &Version| {
            spi::one::<String>("SELECT body FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1", Access::Read, &[arg(version.id)])
                .unwrap_or_default()
        };
        compare("SKILL.md", Some(body(&a).as_bytes()), Some(body(&b).as_bytes()));
    }
    spi::stream(
        "WITH f AS (SELECT version_id, path, content, sha256 FROM skill_system.skill_files WHERE tenant_id = skill_system.current_tenant() AND version_id IN ($1, $2)) \
         SELECT coalesce(a.path, b.path), a.content, b.content \
         FROM (SELECT * FROM f WHERE version_id = $1) a FULL JOIN (SELECT * FROM f WHERE version_id = $2) b ON b.path = a.path \
         WHERE a.sha256 IS DISTINCT FROM b.sha256 ORDER BY 1",
        &[arg(a.id), arg(b.id)],
        |row| compare(row.text(1).unwrap_or_default(), row.bytes(2), row.bytes(3)),
    );
    Ok(call.null())
}

/// Revisions of one namespace or of all, as the calling query sees them.
fn revisions(namespace: Option<&str>) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    spi::run(
        "SELECT namespace, revision FROM skill_system.skill_namespaces \
         WHERE tenant_id = skill_system.current_tenant() AND ($1 IS NULL OR namespace = $1) AND revision > 0 ORDER BY namespace",
        Access::Read,
        &[arg(namespace)],
        |row| found.push((row.get(1).unwrap_or_default(), row.get(2).unwrap_or_default())),
    );
    found
}

pg_function!(pg_finfo_skill_skills_token, skill_skills_token, skills_token);
/// `skills_token(namespace)`
fn skills_token(call: &Call) -> Answer {
    let mut token = Token::default();
    for (namespace, revision) in revisions(call.text(0)) {
        token.read(&namespace, revision);
    }
    token.bounded()?;
    Ok(text_datum(&token.to_string()).unwrap_or_else(|| call.null()))
}

pg_function!(pg_finfo_skill_skill_changes, skill_skill_changes, skill_changes);
/// `skill_changes(since_token, namespace, max_rows)`
///
/// A revision is given out under the lock of its namespace, which is held to the end of the transaction: whoever sees
/// revision n sees all before it, so a token never passes over what is not committed yet.
fn skill_changes(call: &Call) -> Answer {
    let mut token = Token::parse(call.text(0))?;
    let mut left = match call.get::<i32>(2) {
        Some(given) if (1..=10_000).contains(&given) => i64::from(given),
        _ => return Err(invalid("max_rows must be between 1 and 10000")),
    };
    let now = revisions(call.text(1));
    let is: HashMap<&str, i64> = now.iter().map(|(namespace, revision)| (namespace.as_str(), *revision)).collect();
    if let Some(namespace) = token.namespaces().find(|namespace| {
        call.text(1).is_none_or(|asked| asked == *namespace)
            && token.revision(namespace) > is.get(namespace).copied().unwrap_or(0)
    }) {
        return Err(invalid(format!("the token is ahead of this database in the namespace \"{}\"", shorten(namespace)))
            .detail(format!("It says {}, the last change here is {}.", token.revision(namespace), is.get(namespace).copied().unwrap_or(0)))
            .hint("A standby may be behind: ask again later. A database that was restored has another history: begin with NULL."));
    }
    let mut rows = call.row_set();
    for (namespace, revision) in &now {
        if left == 0 || token.revision(namespace) >= *revision {
            continue;
        }
        let since = token.revision(namespace);
        let mut bounded = Ok(());
        left -= spi::run(
            "SELECT namespace, revision, action, skill_id, skill_name, version_id, version, previous_status, status, channel, changed_at, changed_by, reason \
             FROM skill_system.skill_history WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND revision > $2 ORDER BY revision LIMIT $3",
            Access::Read,
            &[arg(namespace.as_str()), arg(since), arg(left)],
            |row| {
                token.read(namespace, row.get(2).unwrap_or(since));
                bounded = token.bounded();
                let mut columns: Vec<_> = (1..=13).map(|n| row.datum(n)).collect();
                columns.push(text_datum(&token.to_string()));
                rows.push(&mut columns);
            },
        ) as i64;
        bounded?;
    }
    Ok(call.null())
}

/// What `log_run()` links to: skill and version.
#[derive(Clone)]
pub struct Ran {
    skill: pgrx::Uuid,
    pub version_id: pgrx::Uuid,
    pub version: String,
}

thread_local! {
    /// By tenant and by what the caller said; `None` is no skill. Emptied when the cache is told of a change.
    static RAN: RefCell<HashMap<(String, String), Option<Ran>>> = RefCell::new(HashMap::new());
}

/// Most names a session remembers.
const MAX_REMEMBERED: usize = 1000;

/// The version of a registered skill that a run used: the one that is served, or the one that its payload claims.
pub fn ran(skill: &str, claimed: Option<&str>) -> Option<Ran> {
    let served = remembered(skill)?;
    match claimed {
        Some(claimed) if claimed != served.version => {
            let id = spi::as_owner(|| {
                spi::one::<pgrx::Uuid>(
                    "SELECT id FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND version = $2",
                    Access::ReadLatest,
                    &[arg(served.skill), arg(claimed)],
                )
            })?;
            Some(Ran { version_id: id, version: claimed.to_owned(), ..served })
        }
        _ => Some(served),
    }
}

fn remembered(skill: &str) -> Option<Ran> {
    let key = (guc::tenant(), skill.to_owned());
    if !cache::skills_valid() {
        RAN.with_borrow_mut(HashMap::clear);
    } else if let Some(found) = RAN.with_borrow(|all| all.get(&key).cloned()) {
        return found;
    }
    cache::watch_skills();
    let found = look_up(skill);
    RAN.with_borrow_mut(|all| {
        if all.len() >= MAX_REMEMBERED {
            all.clear();
        }
        all.insert(key, found.clone());
    });
    found
}

/// By name, or else by the id of a manifest, unless several skills have that: no link is better than a wrong one.
fn look_up(skill: &str) -> Option<Ran> {
    let (id, namespace, name) = match Reference::parse(Some(skill)).ok()? {
        Reference::Id(id) => (Some(pgrx::Uuid::from_bytes(*id.as_bytes())), None, None),
        Reference::Name(namespace, name) => (None, Some(namespace), Some(name)),
    };
    let mut found = Vec::new();
    spi::as_owner(|| {
        spi::run(
            "SELECT h.id, h.current_version_id, h.current_version, h.manifest_id IS NOT DISTINCT FROM $4 AND NOT (h.namespace = $2 AND h.skill_name = $3) AS by_manifest \
             FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL \
                 AND (h.id = $1 OR h.namespace = $2 AND h.skill_name = $3 OR h.manifest_id = $4) ORDER BY by_manifest LIMIT 2",
            Access::ReadLatest,
            &[arg(id), arg(namespace), arg(name), arg(skill)],
            |row| {
                if let (Some(skill), Some(version_id), Some(version)) = (row.get(1), row.get(2), row.get(3)) {
                    found.push((Ran { skill, version_id, version }, row.get::<bool>(4) == Some(true)));
                }
            },
        );
    });
    match found.as_slice() {
        [(_, true), _] => None,
        [(ran, _), ..] => Some(ran.clone()),
        [] => None,
    }
}

pg_function!(pg_finfo_skill_skills_changed, skill_skills_changed, skills_changed);
/// AFTER each statement that changes `skill_heads`.
fn skills_changed(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    cache::skills_changed();
    Ok(trigger.done())
}
