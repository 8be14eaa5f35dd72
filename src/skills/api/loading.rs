//! Loading skills and artifacts into a conversation, each once.

use serde_json::json;
use sha2::{Digest, Sha256};
use skill_core::error::shorten;
use skill_core::input::{invalid, optional, required};
use skill_core::skills::agents::{MAX_ID, address, tokens};
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Event, FromRow, Jsonb, Row, Timing, Trigger, Uuid, arg, pg_function, sys};

use crate::args::given;
use crate::locks;
use crate::skills::effects;
use crate::skills::history::append_audit;
use crate::skills::model::{self, declared_effects};

pg_function!(hash_artifact);
/// BEFORE INSERT OR UPDATE on `skill_artifacts`: keeps hash and token estimate with the content.
fn hash_artifact(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update])])?;
    let content: &str = trigger.new_value(c"content");
    let hash = hex::encode(Sha256::digest(content));
    let given = trigger.new_value::<Option<&str>>(c"content_hash");
    let is_update = trigger.event() == Event::Update;
    let old = if is_update { trigger.old::<Option<&str>>(c"content_hash") } else { None };
    let mut columns = Vec::new();
    match given {
        Some(given) if given == hash => {}
        // An UPDATE that leaves the hash out brings the old one.
        Some(given) if old != Some(given) => {
            if !sys::has_rights_of(sys::owner()) {
                let id: &str = trigger.new_value(c"id");
                return Err(invalid(format!("content_hash of artifact \"{id}\" is not that of its content"))
                    .detail(format!("SHA-256 of the content is {hash}, given was {}.", shorten(given)))
                    .hint("Leave content_hash out."));
            }
        }
        _ => columns.push((c"content_hash", arg(&hash))),
    }
    let estimate = trigger.new_value::<Option<i32>>(c"token_estimate");
    let is_stale = is_update
        && trigger.old::<Option<i32>>(c"token_estimate") == estimate
        && trigger.changed_columns().iter().any(|column| column == "content");
    if estimate.is_none() || is_stale {
        columns.push((c"token_estimate", arg(tokens(content.len()))));
    }
    Ok(if columns.is_empty() { trigger.proceed() } else { trigger.proceed_with(&columns) })
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
            .hint("SELECT * FROM skill_system.set_skill_status(..., 'approved', version);"));
    }
    policy_name.map_or(Ok(()), |policy_name| effects::enforce(policy_name, name, effects))
}

/// What is loaded into a conversation.
struct Injection<'a> {
    tier: i16,
    skill_id: Option<Uuid>,
    artifact_id: Option<&'a str>,
    version: &'a str,
    content_hash: &'a str,
    tokens: i32,
}

/// Records that it is loaded. False when it was before, and `force` is off. Of two sessions one waits here for the other's
/// end, as long as for other locks.
fn record_injection(conversation_id: &str, injection: &Injection, force: bool) -> Result<bool, Fault> {
    const INSERT: &str = "INSERT INTO skill_system.skill_injections AS i \
             (conversation_id, tier, skill_id, artifact_id, version, content_hash, tokens, injected_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT ON CONSTRAINT skill_injections_once DO ";
    const ONCE: &str = const_format::concatcp!(INSERT, "NOTHING");
    const FORCED: &str =
        const_format::concatcp!(INSERT, "UPDATE SET times = i.times + 1, last_injected_at = clock_timestamp()");
    let args = [
        arg(conversation_id),
        arg(injection.tier),
        arg(injection.skill_id),
        arg(injection.artifact_id),
        arg(injection.version),
        arg(injection.content_hash),
        arg(injection.tokens),
        arg(sys::role_name(sys::session_user())),
    ];
    let sql = if force { FORCED } else { ONCE };
    let what = format!("the conversation \"{}\"", shorten(conversation_id));
    locks::within_limit(&what, || spi::execute(sql, As::Owner, See::OwnWrites, &args) == 1)
}

skill_pg::arguments! {
    /// Arguments of the functions that load an object.
    struct Load<'c> {
        object: Option<&'c str>,
        policy_name: Option<&'c str>,
        conversation_id: Option<&'c str>,
        force: Option<bool>,
    }
}

/// How an object is loaded.
struct Options<'c> {
    conversation_id: Option<&'c str>,
    policy_name: Option<&'c str>,
    force: bool,
}

impl<'c> Options<'c> {
    fn check(given: &Load<'c>) -> Result<Self, Fault> {
        Ok(Options {
            conversation_id: optional("conversation_id", given.conversation_id, MAX_ID)?,
            policy_name: given.policy_name,
            force: given.force == Some(true),
        })
    }

    /// Records that it is loaded; true when the conversation has it already.
    fn is_loaded_already(&self, injection: &Injection) -> Result<bool, Fault> {
        let Some(conversation) = self.conversation_id else { return Ok(false) };
        record_injection(conversation, injection, self.force).map(|is_new| !is_new)
    }
}

/// What to call a skill with this id, namespace and name.
pub fn skill_address(id: Uuid, namespace: &str, skill_name: &str) -> String {
    address(namespace, skill_name, &uuid::Uuid::from_bytes(*id.as_bytes()))
}

/// A skill as it is loaded.
struct LoadedSkill {
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

impl FromRow<'_> for LoadedSkill {
    fn from_row(row: &Row<'_>) -> Self {
        let (
            id,
            namespace,
            skill_name,
            name,
            version,
            context_mode,
            enabled,
            status,
            effects,
            a,
            b,
            c,
            d,
            body,
            hash,
            bytes,
        ) = row.read();
        let json = |value: Option<Jsonb>| value.map(|Jsonb(root)| root.to_vec());
        LoadedSkill {
            id,
            address: skill_address(id, namespace, skill_name),
            name,
            version,
            context_mode,
            enabled,
            status,
            effects: declared_effects(effects),
            json: [a, b, c, d].map(json),
            body,
            content_hash: hash,
            bytes,
        }
    }
}

pg_function!(load_skill);
fn load_skill(call: &Call) -> Answer {
    let load: Load = call.arguments();
    let reference = Reference::parse(load.object)?;
    let options = Options::check(&load)?;
    let head = model::find(reference)?;
    let skill: LoadedSkill = spi::first(include_str!("load_skill.sql"), As::Caller, See::Statement, &[arg(head.id)])
        .ok_or_else(|| reference.unknown())?;
    check_loadable(&skill.address, skill.enabled, &skill.status, options.policy_name, skill.effects.as_deref())?;
    let tokens = tokens(usize::try_from(skill.bytes).unwrap_or(usize::MAX));
    let already = options.is_loaded_already(&Injection {
        tier: 2,
        skill_id: Some(skill.id),
        artifact_id: None,
        version: &skill.version,
        content_hash: &skill.content_hash,
        tokens,
    })?;
    let json = |n: usize| match skill.json[n].as_deref().filter(|_| !already) {
        Some(bytes) => Arg::jsonb(bytes),
        None => Ok(arg(None::<Jsonb>)),
    };
    Ok(call.row(&[
        arg(skill.id),
        arg(&skill.address),
        arg(&skill.name),
        arg(&skill.version),
        arg(&skill.context_mode),
        arg(already),
        json(0)?,
        arg(skill.body.as_deref().filter(|_| !already)),
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
    name: String,
    content: String,
    content_hash: String,
    tokens: i32,
    skill: Option<ArtifactSkill>,
}

struct ArtifactSkill {
    id: Uuid,
    address: String,
    enabled: bool,
    status: String,
    effects: Option<Vec<String>>,
}

impl Artifact {
    const COLUMNS: &str = "a.id::text, a.name::text, a.content, a.content_hash::text, a.token_estimate, a.skill_id, \
                           h.namespace, h.skill_name, h.enabled, h.status, h.effects";
}

impl FromRow<'_> for Artifact {
    fn from_row(row: &Row<'_>) -> Self {
        let (id, name, content, content_hash, estimate, skill_id): (_, _, String, _, Option<i32>, Option<Uuid>) =
            row.read();
        Artifact {
            id,
            name,
            content_hash,
            tokens: estimate.unwrap_or_else(|| tokens(content.len())),
            skill: skill_id.map(|id| ArtifactSkill {
                id,
                // Of its skill, which exists.
                address: skill_address(id, row.get(7), row.get(8)),
                enabled: row.get(9),
                status: row.get(10),
                effects: declared_effects(row.get(11)),
            }),
            content,
        }
    }
}

fn find_artifact(id: &str) -> Result<Artifact, Fault> {
    const SQL: &str = const_format::concatcp!(
        "SELECT ",
        Artifact::COLUMNS,
        " FROM skill_system.skill_artifacts a \
         LEFT JOIN skill_system.skill_heads h ON h.tenant_id = a.tenant_id AND h.id = a.skill_id \
         WHERE a.tenant_id = skill_system.current_tenant() AND a.id = $1"
    );
    spi::first(SQL, As::Caller, See::Statement, &[arg(id)]).ok_or_else(|| {
        Fault::new(Code::UndefinedObject, format!("artifact \"{}\" does not exist", shorten(id)))
            .hint("SELECT id, name FROM skill_system.skill_artifacts;")
    })
}

pg_function!(load_artifact);
fn load_artifact(call: &Call) -> Answer {
    let load: Load = call.arguments();
    let id = given(load.object, "artifact")?;
    let options = Options::check(&load)?;
    let artifact = find_artifact(id)?;
    match &artifact.skill {
        Some(skill) => {
            let effects = skill.effects.as_deref();
            check_loadable(&skill.address, skill.enabled, &skill.status, options.policy_name, effects)?;
        }
        None => check_loadable("", true, "", options.policy_name, Some(&[]))?,
    }
    if hex::encode(Sha256::digest(&artifact.content)) != artifact.content_hash {
        return Err(Fault::new(
            Code::DataCorrupted,
            format!("the content of artifact \"{}\" does not have its hash", artifact.id),
        )
        .hint("SELECT * FROM skill_system.check_integrity(); write the content again if it is right."));
    }
    let skill_id = artifact.skill.as_ref().map(|skill| skill.id);
    let already = options.is_loaded_already(&Injection {
        tier: 3,
        skill_id,
        artifact_id: Some(&artifact.id),
        version: &artifact.content_hash[..12],
        content_hash: &artifact.content_hash,
        tokens: artifact.tokens,
    })?;
    Ok(call.row(&[
        arg(&artifact.id),
        arg(skill_id),
        arg(&artifact.name),
        arg(already),
        arg(Some(artifact.content.as_str()).filter(|_| !already)),
        arg(&artifact.content_hash),
        arg(artifact.tokens),
    ]))
}

pg_function!(reset_injections);
fn reset_injections(call: &Call) -> Answer {
    let conversation_id = required("conversation_id", call.arguments(), MAX_ID)?;
    let what = format!("the conversation \"{}\"", shorten(conversation_id));
    let removed = locks::within_limit(&what, || {
        spi::execute(
            "DELETE FROM skill_system.skill_injections \
             WHERE tenant_id = skill_system.current_tenant() AND conversation_id = $1",
            As::Owner,
            See::OwnWrites,
            &[arg(conversation_id)],
        )
    })?;
    if removed > 0 {
        let data = json!({"conversation_id": conversation_id, "injections": removed});
        append_audit("skill.injections_reset", data)?;
    }
    Ok(call.answer(removed as i64))
}
