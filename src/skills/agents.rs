//! Skills for agents: the catalogue, what is loaded into a conversation, and whether all that is named is there.

use skill_pg::{Answer, Call, Event, Row, RowSet, Trigger, Uuid, arg, pg_function, sys};
use skill_pg::spi::{self, As, See};
use skill_pg::error::{check_for_interrupts};
use crate::{settings, compat};
use std::collections::HashMap;

use serde_json::json;
use sha2::{Digest, Sha256};
use skill_core::error::shorten;
use skill_core::input::{canonical, invalid, optional, required, word};
use skill_core::jsonb::{self, Found};
use skill_core::policy::{MAX_EFFECTS, Policy};
use skill_core::skills::Status;
use skill_core::skills::agents::{self as logic, Agent, Finding, Known, MAX_ID, Skills, tokens};
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};

use super::documents::UNDECLARED;
use super::registry::{self, Change, Definition, Head, NewVersion, Placement, Tier};
use crate::args::{json as json_argument, missing, uuid_datum};
use crate::{audit, policy};

pg_function!(hash_artifact);
/// BEFORE INSERT OR UPDATE on `skill_artifacts`.
fn hash_artifact(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let content = trigger.new_bytes(c"content").unwrap_or_default();
    let hash = hex::encode(Sha256::digest(content));
    let given = trigger.new_value::<Option<String>>(c"content_hash");
    let update = trigger.event() == Event::Update;
    let old = if update { trigger.old::<Option<String>>(c"content_hash") } else { None };
    let mut columns = Vec::new();
    match given {
        Some(given) if given == hash => {}
        // An UPDATE that says nothing of the hash brings the old one.
        Some(given) if old.as_deref() != Some(given.as_str()) => {
            if !sys::has_rights_of(sys::owner()) {
                return Err(invalid(format!(
                    "content_hash of artifact \"{}\" is not that of its content",
                    trigger.new_value::<Option<String>>(c"id").unwrap_or_default()
                ))
                .detail(format!("SHA-256 of the content is {hash}, given was {}.", shorten(&given)))
                .hint("Leave content_hash out."));
            }
        }
        _ => columns.extend(arg(&hash).map(|hash| (c"content_hash", hash))),
    }
    let estimate = trigger.new_value::<Option<i32>>(c"token_estimate");
    let stale = update
        && trigger.old::<Option<i32>>(c"token_estimate") == estimate
        && trigger.changed_columns().iter().any(|column| column == "content");
    if estimate.is_none() || stale {
        columns.extend(tokens(arg(content.len())).map(|tokens| (c"token_estimate", tokens)));
    }
    Ok(trigger.proceed_with(&columns))
}

pg_function!(define_skill);
/// `define_skill(skill, tier1_manifest, tier2_definition, tier3_artifact_refs, domain_tags, context_mode, name, body, effects, reason)`
fn define_skill(call: &Call) -> Answer {
    let reference = Reference::parse(call.text(0))?;
    let tags = call.text_array(4).map(|tags| logic::check_tags(&tags)).transpose()?;
    let mode = call
        .text(5)
        .map(|mode| word("context_mode", Some(mode), &["reason_alongside", "compute_and_return"]))
        .transpose()?;
    let tier = |n: usize, what: &str| -> Result<Option<Tier>, Fault> {
        Ok(json_argument(call, n, what)?.zip(call.datum(n)).map(|(value, datum)| Tier { value, datum }))
    };
    let definition = Definition {
        tier1_manifest: tier(1, "tier1_manifest")?,
        tier2_definition: tier(2, "tier2_definition")?,
        tier3_artifact_refs: tier(3, "tier3_artifact_refs")?,
        context_mode: mode.map(str::to_owned),
        name: optional("name", call.text(6), 200)?.map(str::to_owned),
        domain_tags: tags,
    };
    let value = |tier: &Option<Tier>| tier.as_ref().map(|tier| tier.value.clone());
    let (tier1, tier2) = (value(&definition.tier1_manifest), value(&definition.tier2_definition));
    logic::check_tiers(tier1.as_ref(), tier2.as_ref(), value(&definition.tier3_artifact_refs).as_ref())?;
    let effects = call.text_array(8).map(|effects| logic::check_effects(&effects)).transpose()?;
    let change = Change { reason: call.text(9).map(str::to_owned), ..Change::by_caller() };
    let mut created = false;
    let head = match (registry::locked(reference), reference) {
        (Ok(head), _) => {
            check_same(&head, call.text(7), effects.as_deref())?;
            head
        }
        (Err(fault), Reference::Name(namespace, skill_name)) => {
            let tier2 = tier2.as_ref().filter(|tier2| !tier2.is_null()).map(canonical);
            let body = call.text(7).or(tier2.as_deref()).ok_or_else(|| {
                fault.hint("Give tier2_definition or a body to make it, or register it with register_skill().")
            })?;
            let description = tier1.as_ref().and_then(|tier1| tier1["description"].as_str()).unwrap_or_default();
            let about = SkillMetadata { description: description.to_owned(), effects, ..SkillMetadata::default() };
            let new = NewVersion {
                namespace,
                skill_name,
                body,
                files: &[],
                semver: None,
                about,
                frontmatter: None,
                manifest: None,
                status: Some(Status::Draft),
                previous_status: None,
                placement: Placement::WhenServable,
            };
            created = registry::register(&new, &change)?.created;
            registry::locked(reference)?
        }
        (Err(fault), Reference::Id(_)) => return Err(fault),
    };
    let version = registry::version(&head, Some(&head.current_version), As::Owner, See::OwnWrites)?;
    registry::define(&head, &version, &definition, &change);
    Ok(super::state(call, &registry::state(&head, &version, created)))
}

/// Body and effects belong to a version, so of a skill that is there they may be repeated and not changed.
fn check_same(head: &Head, body: Option<&str>, effects: Option<&[String]>) -> Result<(), Fault> {
    let newest = registry::version(head, None, As::Owner, See::OwnWrites)?;
    let other = |what: &str| {
        Fault::new(Code::SkillConflict, format!("skill \"{}\" is there, with another {what}", head.skill_name))
            .hint("register_skill() gives it a new version.")
    };
    if body.is_some_and(|body| hex::encode(Sha256::digest(body)) != newest.content_hash) {
        return Err(other("body"));
    }
    let declared = registry::about(&newest);
    if effects.is_some_and(|effects| json!(effects) != declared["effects"]) {
        return Err(other("list of effects"));
    }
    Ok(())
}

/// Agents with what their definition and their row in `agents` say; an agent is active when neither says otherwise.
macro_rules! agents {
    ($definition:literal, $row:literal) => {
        concat!(
            "SELECT coalesce(d.agent_key, a.id)::text, d.root_skill_key::text, d.persona_key::text, d.loaded_skills, nullif(a.config->'skills', 'null'), \
                 coalesce(d.is_active, true) AND coalesce(a.status = 'active', true) \
             FROM (SELECT * FROM skill_system.agent_definitions WHERE tenant_id = (SELECT skill_system.current_tenant()) ",
            $definition,
            ") d FULL JOIN (SELECT * FROM skill_system.agents WHERE tenant_id = (SELECT skill_system.current_tenant()) ",
            $row,
            ") a ON a.id::text = d.agent_key::text ORDER BY coalesce(d.agent_key, a.id)::text COLLATE \"C\""
        )
    };
}

fn read_agent(row: &Row) -> (Agent, bool) {
    let loaded = row.text_array(4).unwrap_or_default();
    let (config_skills, unreadable) = match row.bytes(5).map(jsonb::strings) {
        None => (Vec::new(), false),
        Some(Ok(skills)) => (skills.into_iter().map(str::to_owned).collect(), false),
        Some(Err((skills, _))) => (skills, true),
    };
    let agent = Agent {
        key: row.get(1),
        root_skill_key: row.get(2),
        persona_key: row.get(3),
        unreadable: unreadable || loaded.contains(&None),
        loaded_skills: loaded.into_iter().flatten().map(str::to_owned).collect(),
        config_skills,
    };
    (agent, row.get(6))
}

/// An active agent by its key.
fn find_agent(key: &str) -> Result<Agent, Fault> {
    let mut found = None;
    compat::run(agents!("AND agent_key = $1", "AND id = $1"), As::Caller, See::Statement, &[arg(key)], |row| {
        found = Some(read_agent(row))
    });
    match found {
        Some((agent, true)) => Ok(agent),
        Some((_, false)) => Err(Fault::new(Code::NotInPrerequisiteState, format!("agent \"{}\" is not active", shorten(key)))
            .hint("SELECT agent_key, is_active FROM skill_system.agent_definitions; SELECT id, status FROM skill_system.agents;")),
        None => Err(Fault::new(Code::UndefinedObject, format!("agent \"{}\" does not exist", shorten(key)))
            .hint("SELECT agent_key FROM skill_system.agent_definitions; SELECT id FROM skill_system.agents;")),
    }
}

/// What to call a skill whose id, namespace and name are in these columns.
fn address(row: &Row, [id, namespace, name]: [i32; 3]) -> String {
    let id = row.get::<Option<Uuid>>(id).map(|id| uuid::Uuid::from_bytes(*id.as_bytes())).unwrap_or_default();
    logic::address(row.text(namespace).unwrap_or_default(), row.text(name).unwrap_or_default(), &id)
}

/// A row of the catalogue's statement. The columns of `entry!`: id, namespace, name, shown name, description, tier 1, tags, effects,
/// version, context mode.
struct Entry<'a> {
    row: &'a Row,
    namespace: &'a str,
    skill_name: &'a str,
}

macro_rules! entry {
    () => {
        "SELECT h.id, h.namespace, h.skill_name, h.name::text, h.description, h.tier1_manifest, h.domain_tags::text[], h.effects, \
             h.current_version, h.context_mode::text \
         FROM skill_system.skill_heads h "
    };
}

impl<'a> Entry<'a> {
    fn of(row: &'a Row) -> Self {
        Entry { row, namespace: row.text(2).unwrap_or_default(), skill_name: row.text(3).unwrap_or_default() }
    }

    /// This policy allows all of its effects.
    fn allowed_by(&self, policy: &Policy) -> bool {
        let Some(effects) = self.row.text_array(8) else {
            return false;
        };
        effects.len() <= MAX_EFFECTS && !effects.contains(&None) && policy.allows(effects.into_iter().flatten())
    }

    /// Adds it to the answer, unless it would cost more than `budget`. Returns what it costs.
    fn push(&self, rows: &mut RowSet, budget: i64) -> Option<i64> {
        let row = self.row;
        let [name, description, triggers] =
            row.bytes(6).map_or([None; 3], |tier1| jsonb::find(tier1, ["name", "description", "triggers"]));
        let text = |found: Option<Found<'a>>| match found {
            Some(Found::Text(text)) => Some(text),
            _ => None,
        };
        let name = text(name).or_else(|| row.text(4)).unwrap_or(self.skill_name);
        let description = text(description).or_else(|| row.text(5)).unwrap_or_default();
        let triggers: Vec<String> = match triggers {
            Some(Found::Container(array)) => {
                jsonb::strings(array).unwrap_or_default().into_iter().map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let address = address(row, [1, 2, 3]);
        let tags = row.text_array(7).unwrap_or_default();
        let bytes = name.len()
            + description.len()
            + address.len()
            + triggers.iter().map(String::len).sum::<usize>()
            + tags.into_iter().flatten().map(str::len).sum::<usize>();
        let estimate = tokens(bytes);
        if i64::from(estimate) > budget {
            return None;
        }
        rows.push(&[
            row.arg(1),
            arg(name),
            arg(description),
            arg(&triggers),
            row.arg(7),
            arg(estimate),
            arg(&address),
            row.arg(9),
            row.arg(10),
        ]);
        Some(estimate.into())
    }
}

pg_function!(skill_catalog);
/// `skill_catalog(agent, max_tokens, policy_name, namespace)`
fn skill_catalog(call: &Call) -> Answer {
    let agent = call.text(0).map(find_agent).transpose()?;
    let budget = match call.get::<Option<i32>>(1) {
        Some(given) if given < 0 => return Err(invalid("max_tokens must not be negative")),
        given => given.map_or(i64::MAX, i64::from),
    };
    let policy = call.text(2).map(policy::deciding).transpose()?;
    let policy = policy.as_ref().and_then(|compiled| compiled.as_ref().as_ref().ok());
    let mut rows = call.row_set();
    let mut fill = |entries: &mut dyn Iterator<Item = Entry>| {
        let mut left = budget;
        for (i, entry) in entries.filter(|entry| policy.is_none_or(|policy| entry.allowed_by(policy))).enumerate() {
            if i % 1000 == 999 {
                check_for_interrupts();
            }
            match entry.push(&mut rows, left) {
                Some(cost) => left -= cost,
                None => break,
            }
        }
    };
    match agent.filter(Agent::is_restricted) {
        None => spi::with_rows(
            concat!(
                entry!(),
                "WHERE h.tenant_id = (SELECT skill_system.current_tenant()) AND h.enabled AND h.deleted_at IS NULL AND ($1 IS NULL OR h.namespace = $1)"
            ),
            As::Caller, See::Statement,
            &[arg(call.text(3))],
            |found| {
                // Put in order here, which takes a fraction of the time that it takes there.
                let mut entries: Vec<Entry> = found.iter().map(Entry::of).collect();
                entries.sort_unstable_by(|a, b| (a.namespace, a.skill_name).cmp(&(b.namespace, b.skill_name)));
                fill(&mut entries.into_iter());
            },
        ),
        Some(agent) => {
            let (namespaces, names): (Vec<&str>, Vec<&str>) = agent.skills().into_iter().unzip();
            spi::with_rows(
                concat!(
                    entry!(),
                    "JOIN unnest($2, $3) WITH ORDINALITY AS w(namespace, skill_name, place) ON h.namespace = w.namespace AND h.skill_name = w.skill_name \
                     WHERE h.tenant_id = (SELECT skill_system.current_tenant()) AND h.enabled AND h.deleted_at IS NULL AND ($1 IS NULL OR h.namespace = $1) \
                     ORDER BY w.place"
                ),
                As::Caller, See::Statement,
                &[arg(call.text(3)), arg(namespaces), arg(names)],
                |found| fill(&mut found.iter().map(Entry::of)),
            );
        }
    }
    Ok(call.null())
}

/// A skill may be loaded now, and by this policy.
fn check_loadable(
    name: &str,
    enabled: bool,
    status: &str,
    policy_name: Option<&str>,
    effects: Option<&[String]>,
) -> Result<(), Fault> {
    if !enabled {
        let why = if status == "approved" { "switched off" } else { status };
        return Err(Fault::new(Code::NotInPrerequisiteState, format!("skill \"{name}\" is not enabled"))
            .detail(format!("It is {why}."))
            .hint("SELECT * FROM skill_system.set_skill_status(..., 'approved');"));
    }
    match (policy_name, effects) {
        (None, _) => Ok(()),
        (Some(policy_name), Some(effects)) => policy::require(policy_name, effects),
        (Some(_), None) => {
            Err(Fault::new(Code::InsufficientPrivilege, format!("no policy allows skill \"{name}\": {UNDECLARED}"))
                .hint("A manifest in its body says which it has."))
        }
    }
}

/// The effects in column `n`, if any are declared. One that is NULL is none, and no policy allows it.
fn effects(row: &Row, n: i32) -> Option<Vec<String>> {
    Some(row.text_array(n)?.into_iter().map(|effect| effect.unwrap_or_default().to_owned()).collect())
}

/// Something to put into a conversation.
struct Injection<'a> {
    tier: i16,
    skill_id: Option<Uuid>,
    artifact_id: Option<&'a str>,
    version: &'a str,
    content_hash: &'a str,
    tokens: i32,
}

/// The conversation that argument 1 names.
fn conversation(call: &Call) -> Result<Option<&str>, Fault> {
    optional("conversation_id", call.text(1), MAX_ID)
}

/// Enters it into the ledger. False when it is there already, and not by force. Of two sessions one waits here for the
/// other's end.
fn enter(conversation: &str, injection: &Injection, force: bool) -> bool {
    const ENTRY: &str = "INSERT INTO skill_system.skill_injections AS i (conversation_id, tier, skill_id, artifact_id, version, content_hash, tokens, injected_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT ON CONSTRAINT skill_injections_once DO NOTHING";
    const FORCED: &str = "INSERT INTO skill_system.skill_injections AS i (conversation_id, tier, skill_id, artifact_id, version, content_hash, tokens, injected_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT ON CONSTRAINT skill_injections_once \
         DO UPDATE SET times = i.times + 1, last_injected_at = clock_timestamp()";
    let args = [
        arg(conversation),
        arg(injection.tier),
        arg(injection.skill_id),
        arg(injection.artifact_id),
        arg(injection.version),
        arg(injection.content_hash),
        arg(injection.tokens),
        arg(sys::role_name(sys::session_user())),
    ];
    compat::run(if force { FORCED } else { ENTRY }, As::Owner, See::OwnWrites, &args, |_| ()) == 1
}

/// What a skill says.
struct Loaded {
    id: Uuid,
    address: String,
    name: String,
    version: String,
    context_mode: String,
    enabled: bool,
    status: String,
    effects: Option<Vec<String>>,
    /// Binary jsonb, so that numbers stay as they are: definition, personas, code blocks, artifacts.
    json: [Option<Vec<u8>>; 4],
    body: Option<String>,
    content_hash: String,
    bytes: i64,
}

const LOAD: &str = "SELECT h.id, h.namespace, h.skill_name, coalesce(h.tier1_manifest->>'name', h.name::text, h.skill_name), h.current_version, \
         h.context_mode::text, h.enabled, h.status, h.effects, h.tier2_definition, p.list, b.list, r.list, t.body, \
         encode(sha256(convert_to(concat_ws(E'\\n', h.current_version, h.context_mode, p.list, b.list, r.list, coalesce(h.tier2_definition::text, t.body)), 'UTF8')), 'hex'), \
         octet_length(coalesce(h.tier2_definition::text, t.body, ''))::bigint + octet_length(p.list::text) + octet_length(b.list::text) + octet_length(r.list::text) \
     FROM skill_system.skill_heads h, \
     LATERAL (SELECT CASE WHEN h.tier2_definition IS NULL THEN (SELECT v.body FROM skill_system.skill_versions v \
                  WHERE v.tenant_id = h.tenant_id AND v.id = h.current_version_id) END) AS t(body), \
     LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('persona_key', p.persona_key, 'display_name', p.display_name, 'prompt_text', p.prompt_text, \
                  'prompt_template_ref', p.prompt_template_ref, 'is_default', p.is_default) ORDER BY p.sort_order, p.persona_key), '[]') \
              FROM skill_system.skill_personas p WHERE p.tenant_id = h.tenant_id AND p.skill_id = h.id) AS p(list), \
     LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('block_key', b.block_key, 'description', b.description, 'language', b.language, 'code', b.code, \
                  'parameters', b.parameters) ORDER BY b.sort_order, b.block_key), '[]') \
              FROM skill_system.skill_code_blocks b WHERE b.tenant_id = h.tenant_id AND b.skill_id = h.id AND b.llm_visible) AS b(list), \
     LATERAL (SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'name', a.name, 'token_estimate', a.token_estimate) ORDER BY w.place, a.id), '[]') \
              FROM (SELECT o.id, 0::bigint AS place FROM skill_system.skill_artifacts o \
                    WHERE h.tier3_artifact_refs IS NULL AND o.tenant_id = h.tenant_id AND o.skill_id = h.id \
                    UNION ALL \
                    SELECT coalesce(e.value->>'id', e.value->>'artifact_id', e.value #>> '{}'), e.place \
                    FROM jsonb_array_elements(h.tier3_artifact_refs) WITH ORDINALITY AS e(value, place)) w \
              JOIN skill_system.skill_artifacts a ON a.tenant_id = h.tenant_id AND a.id = w.id) AS r(list) \
     WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND h.deleted_at IS NULL";

fn read_loaded(row: &Row) -> Option<Loaded> {
    let id = row.get::<Option<Uuid>>(1)?;
    let json = |n: i32| row.bytes(n).map(<[u8]>::to_vec);
    Some(Loaded {
        id,
        address: address(row, [1, 2, 3]),
        name: row.get(4)?,
        version: row.get(5)?,
        context_mode: row.get(6)?,
        enabled: row.get(7)?,
        status: row.get(8)?,
        effects: effects(row, 9),
        json: [json(10), json(11), json(12), json(13)],
        body: row.get(14),
        content_hash: row.get(15)?,
        bytes: row.get(16)?,
    })
}

pg_function!(load_skill);
/// `load_skill(skill, conversation_id, policy_name, force)`
fn load_skill(call: &Call) -> Answer {
    let reference = Reference::parse(call.text(0))?;
    let conversation = conversation(call)?;
    let head = registry::find(reference)?;
    let mut found = None;
    compat::run(LOAD, As::Caller, See::Statement, &[arg(head.id)], |row| found = read_loaded(row));
    let skill = found.ok_or_else(|| reference.unknown())?;
    check_loadable(&skill.address, skill.enabled, &skill.status, call.text(2), skill.effects.as_deref())?;
    let tokens = tokens(usize::try_from(skill.bytes).unwrap_or(usize::MAX));
    let injection = Injection {
        tier: 2,
        skill_id: Some(skill.id),
        artifact_id: None,
        version: &skill.version,
        content_hash: &skill.content_hash,
        tokens,
    };
    let already =
        conversation.is_some_and(|conversation| !enter(conversation, &injection, call.get::<Option<_>>(3).unwrap_or(false)));
    let json = |n: usize| skill.json[n].as_deref().filter(|_| !already).map(call::jsonb_datum).transpose();
    Ok(call.row(&[
        uuid_datum(skill.id),
        arg(&skill.address),
        arg(&skill.name),
        arg(&skill.version),
        arg(&skill.context_mode),
        arg(already),
        json(0)?,
        skill.body.as_deref().filter(|_| !already).and_then(text_datum),
        json(1)?,
        json(2)?,
        json(3)?,
        arg(tokens),
        arg(&skill.content_hash),
    ]))
}

/// A row of `skill_artifacts`, with its skill.
struct Artifact {
    id: String,
    skill_id: Option<Uuid>,
    name: String,
    content: String,
    content_hash: String,
    tokens: i32,
    /// Address, enabled, status and effects of its skill, if it has one.
    skill: Option<(String, bool, String, Option<Vec<String>>)>,
}

fn read_artifact(row: &Row) -> Option<Artifact> {
    let content: String = row.get(4)?;
    let skill_id = row.get::<Option<Uuid>>(2);
    let skill = skill_id.map(|_| {
        (address(row, [2, 7, 8]), row.get(9), row.get(10), effects(row, 11))
    });
    Some(Artifact {
        id: row.get(1)?,
        skill_id,
        name: row.get(3)?,
        content_hash: row.get(5)?,
        tokens: row.get::<Option<_>>(6).unwrap_or_else(|| tokens(content.len())),
        content,
        skill,
    })
}

pg_function!(load_artifact);
/// `load_artifact(artifact, conversation_id, policy_name, force)`
fn load_artifact(call: &Call) -> Answer {
    let id = call.text(0).ok_or_else(|| missing("artifact"))?;
    let conversation = conversation(call)?;
    let mut found = None;
    compat::run(
        "SELECT a.id::text, a.skill_id, a.name::text, a.content, a.content_hash::text, a.token_estimate, h.namespace, h.skill_name, h.enabled, h.status, h.effects \
         FROM skill_system.skill_artifacts a LEFT JOIN skill_system.skill_heads h ON h.tenant_id = a.tenant_id AND h.id = a.skill_id \
         WHERE a.tenant_id = skill_system.current_tenant() AND a.id = $1",
        As::Caller, See::Statement,
        &[arg(id)],
        |row| found = read_artifact(row),
    );
    let artifact = found.ok_or_else(|| {
        Fault::new(Code::UndefinedObject, format!("artifact \"{}\" does not exist", shorten(id)))
            .hint("SELECT id, name FROM skill_system.skill_artifacts;")
    })?;
    match &artifact.skill {
        Some((address, enabled, status, effects)) => {
            check_loadable(address, *enabled, status, call.text(2), effects.as_deref())?
        }
        None => check_loadable("", true, "", call.text(2), Some(&[]))?,
    }
    if hex::encode(Sha256::digest(&artifact.content)) != artifact.content_hash {
        return Err(Fault::new(
            Code::DataCorrupted,
            format!("the content of artifact \"{}\" does not have its hash", artifact.id),
        )
        .hint("SELECT * FROM skill_system.check_integrity(); write the content again if it is right."));
    }
    let injection = Injection {
        tier: 3,
        skill_id: artifact.skill_id,
        artifact_id: Some(&artifact.id),
        version: &artifact.content_hash[..12],
        content_hash: &artifact.content_hash,
        tokens: artifact.tokens,
    };
    let already =
        conversation.is_some_and(|conversation| !enter(conversation, &injection, call.get::<Option<_>>(3).unwrap_or(false)));
    Ok(call.row(&[
        arg(&artifact.id),
        artifact.skill_id.and_then(uuid_datum),
        arg(&artifact.name),
        arg(already),
        Some(artifact.content.as_str()).filter(|_| !already).and_then(text_datum),
        arg(&artifact.content_hash),
        arg(artifact.tokens),
    ]))
}

pg_function!(reset_injections);
/// `reset_injections(conversation_id)`
fn reset_injections(call: &Call) -> Answer {
    let conversation = required("conversation_id", call.text(0), MAX_ID)?;
    let forgotten = compat::run(
        "DELETE FROM skill_system.skill_injections WHERE tenant_id = skill_system.current_tenant() AND conversation_id = $1",
        As::Owner, See::OwnWrites,
        &[arg(conversation)],
        |_| (),
    );
    if forgotten > 0 {
        let data = json!({"conversation_id": conversation, "injections": forgotten});
        audit::append("skill.injections_reset", data, Some(sys::role_name(sys::session_user())), Some("user"));
    }
    Ok((forgotten as i64).into())
}

/// Everything of this tenant that is named and not there.
fn unresolved() -> Vec<Finding> {
    let mut all = Vec::new();
    compat::run(agents!("", ""), As::Caller, See::Statement, &[], |row| {
        let (agent, active) = read_agent(row);
        if active {
            all.push(agent);
        }
    });
    let skills = named_skills(&all);
    let mut found: Vec<Finding> = all.iter().flat_map(|agent| logic::check_agent(agent, &skills)).collect();
    unknown_artifacts(&mut found);
    found
}

/// What is unresolved, and the artifacts whose text does not have its hash.
fn findings() -> Vec<Finding> {
    let mut found = unresolved();
    compat::run(
        "SELECT id::text, content_hash::text FROM skill_system.skill_artifacts \
         WHERE tenant_id = skill_system.current_tenant() AND content_hash <> encode(sha256(convert_to(content, 'UTF8')), 'hex') ORDER BY id",
        As::Caller, See::Statement,
        &[],
        |row| {
            let id = row.get::<Option<String>>(1).unwrap_or_default();
            found.push(Finding {
                code: "content_mismatch",
                message: format!("the content of artifact \"{id}\" does not have its hash"),
                subject: id,
                reference: row.get(2),
                hint: "Compare with its audit records, then write the content again.",
            });
        },
    );
    found
}

/// The skills that agents name, as far as they are there.
fn named_skills(all: &[Agent]) -> Skills {
    let named: Vec<(&str, &str)> = all.iter().flat_map(Agent::skills).collect();
    let (namespaces, names): (Vec<&str>, Vec<&str>) = named.into_iter().unzip();
    let mut skills = HashMap::new();
    compat::run(
        "SELECT d.namespace, d.skill_key, d.status::text, ARRAY(SELECT p.persona_key::text FROM skill_system.skill_personas p \
             WHERE p.tenant_id = d.tenant_id AND p.skill_id = d.id) \
         FROM skill_system.skill_definitions d JOIN (SELECT DISTINCT n, k FROM unnest($1, $2) AS u(n, k)) w ON d.namespace = w.n AND d.skill_key = w.k \
         WHERE d.tenant_id = skill_system.current_tenant()",
        As::Caller, See::Statement,
        &[arg(namespaces), arg(names)],
        |row| {
            let key = (row.get(1), row.get(2));
            let personas = row.text_array(4).unwrap_or_default().into_iter().flatten().map(str::to_owned).collect();
            skills.insert(key, Known { status: row.get(3), personas });
        },
    );
    skills
}

/// Artifacts that skills refer to and nobody has.
fn unknown_artifacts(found: &mut Vec<Finding>) {
    compat::run(
        "SELECT h.id, h.namespace, h.skill_name, e.id \
         FROM skill_system.skill_heads h, \
         LATERAL (SELECT coalesce(r.value->>'id', r.value->>'artifact_id', r.value #>> '{}'), r.place \
                  FROM jsonb_array_elements(h.tier3_artifact_refs) WITH ORDINALITY AS r(value, place)) AS e(id, place) \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.deleted_at IS NULL AND h.tier3_artifact_refs IS NOT NULL \
             AND NOT EXISTS (SELECT FROM skill_system.skill_artifacts a WHERE a.tenant_id = h.tenant_id AND a.id = e.id) \
         ORDER BY h.namespace, h.skill_name, e.place",
        As::Caller, See::Statement,
        &[],
        |row| {
            let address = address(row, [1, 2, 3]);
            let reference = row.get::<Option<String>>(4).unwrap_or_default();
            found.push(Finding {
                code: "unknown_artifact",
                message: format!(
                    "skill \"{address}\" refers to artifact \"{}\", which does not exist",
                    shorten(&reference)
                ),
                subject: address,
                reference,
                hint: "Add it to skill_artifacts, or correct tier3_artifact_refs with define_skill().",
            });
        },
    );
}

fn severity() -> &'static str {
    if settings::integrity_fail_loud() { "error" } else { "warning" }
}

pg_function!(check_integrity);
/// `check_integrity()`
fn check_integrity(call: &Call) -> Answer {
    let found = findings();
    let mut rows = call.row_set();
    for finding in found {
        rows.push(&[
            arg(severity()),
            arg(finding.code),
            arg(&finding.subject),
            arg(&finding.reference),
            arg(&finding.message),
            arg(finding.hint),
        ]);
    }
    Ok(call.null())
}

pg_function!(assert_integrity);
/// `assert_integrity()`
fn assert_integrity(call: &Call) -> Answer {
    let _ = call;
    let found = findings();
    let Some(summary) = summary(&found) else {
        return Ok(0_i32.into());
    };
    let fault = Fault::new(
        Code::AssertFailure,
        format!("{} of the things that agents and skills name are not there", found.len()),
    )
    .detail(summary)
    .hint("SELECT * FROM skill_system.check_integrity();");
    if settings::integrity_fail_loud() {
        return Err(fault);
    }
    error::report(fault, pgrx::PgLogLevel::WARNING);
    Ok((found.len() as i32).into())
}

/// The first findings in words; `None` when there are none.
fn summary(found: &[Finding]) -> Option<String> {
    let first: Vec<&str> = found.iter().take(5).map(|finding| finding.message.as_str()).collect();
    let more = if found.len() > 5 { format!("; and {} more", found.len() - 5) } else { String::new() };
    (!first.is_empty()).then(|| format!("{}{more}.", first.join("; ")))
}

/// For `health()`, which reads no texts: what is named and not there, and whether that is an error.
pub fn health() -> (&'static str, String) {
    match summary(&unresolved()) {
        None => ("ok", "all that agents and skills name is there".into()),
        Some(summary) => (severity(), summary),
    }
}
