//! Heads, versions, files and history: found, locked and written here and nowhere else.

use skill_pg::{Arg, Row, Uuid, arg, sys};
use skill_pg::spi::{self, As, See};
use crate::{compat};
use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::skills::Status;
use skill_core::skills::dependencies;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{Reference, storable};
use skill_core::skills::version::{File, Identity};
use skill_core::{Code, Fault};

use super::{approval, search, versions};
use crate::args::{jsonb, stored};
use crate::audit;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 16 << 20;

/// A skill.
pub struct Head {
    pub id: Uuid,
    pub namespace: String,
    pub skill_name: String,
    pub status: Status,
    pub current_version_id: Uuid,
    pub current_version: String,
    pub pinned: bool,
    pub deleted: bool,
}

/// A version of a skill, without its body.
pub struct Version {
    pub id: Uuid,
    pub version: String,
    pub digest: String,
    pub content_hash: String,
    pub semver: Option<String>,
    pub status: Status,
}

/// What every answer says.
pub struct State {
    pub skill_id: Uuid,
    pub namespace: String,
    pub skill_name: String,
    pub version: String,
    pub status: Status,
    pub current_version: String,
    pub version_id: Uuid,
    pub content_hash: String,
    pub semver: Option<String>,
    /// The version is new.
    pub created: bool,
}

/// What an answer says of a version.
pub fn state(head: &Head, version: &Version, created: bool) -> State {
    State::of(head, version, created)
}

impl State {
    fn of(head: &Head, version: &Version, created: bool) -> Self {
        State {
            skill_id: head.id,
            namespace: head.namespace.clone(),
            skill_name: head.skill_name.clone(),
            version: version.version.clone(),
            status: version.status,
            current_version: head.current_version.clone(),
            version_id: version.id,
            content_hash: version.content_hash.clone(),
            semver: version.semver.clone(),
            created,
        }
    }
}

/// Who changes something, and why.
#[derive(Clone)]
pub struct Change {
    pub by: String,
    pub reason: Option<String>,
    /// Key id and signature of an approval.
    pub approved_with: Option<String>,
    /// For the audit record: what was said of the skill.
    pub said: Option<Value>,
    /// Where it is about a channel.
    pub channel: Option<String>,
}

impl Change {
    /// By whoever logged in.
    pub fn by_caller() -> Self {
        Change {
            by: sys::role_name(sys::session_user()).to_owned(),
            reason: None,
            approved_with: None,
            said: None,
            channel: None,
        }
    }
}

/// Columns of `skill_heads` that an [`SkillMetadata`] fills.
macro_rules! described {
    () => {
        "name, description, scope, required_env_vars, metadata, domain_tags, effects, manifest_id"
    };
}

/// Their values, out of the jsonb `a.about`.
macro_rules! description {
    () => {
        "a.about->>'name', coalesce(a.about->>'description', ''), a.about->>'scope', \
         ARRAY(SELECT jsonb_array_elements_text(a.about->'required_env_vars')), a.about->'metadata', \
         ARRAY(SELECT jsonb_array_elements_text(a.about->'domain_tags')), \
         CASE WHEN jsonb_typeof(a.about->'effects') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(a.about->'effects')) END, a.about->>'manifest_id'"
    };
}

/// An [`SkillMetadata`] as JSON, out of a row of `skill_heads`.
macro_rules! said {
    () => {
        "jsonb_build_object('name', name, 'description', description, 'scope', scope, 'required_env_vars', required_env_vars, \
             'metadata', metadata, 'domain_tags', domain_tags, 'effects', effects, 'manifest_id', manifest_id)"
    };
}

/// The metadata of a skill as it is now.
pub fn metadata_of(head: &Head) -> SkillMetadata {
    const SQL: &str = concat!(
        "SELECT ",
        said!(),
        "::text FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    SkillMetadata::from_json(&stored(spi::one(SQL, As::Owner, See::OwnWrites, &[arg(head.id)])))
}

/// Which version is served after a new one came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The new one, whatever its status.
    Always,
    /// The new one if it is approved, or if no approved one is served. A pinned skill stays where it is.
    WhenServable,
}

/// A version to register.
pub struct NewVersion<'a> {
    pub namespace: &'a str,
    pub skill_name: &'a str,
    pub body: &'a str,
    pub files: &'a [File],
    pub semver: Option<String>,
    pub about: SkillMetadata,
    pub frontmatter: Option<Value>,
    pub manifest: Option<Value>,
    /// Its status; `None` is draft for a new version and no change for one that is there.
    pub status: Option<Status>,
    /// For the history: the status that the skill had, where the content changed together with it.
    pub previous_status: Option<Status>,
    pub placement: Placement,
}

/// A statement that finds heads.
macro_rules! find_head {
    ($condition:literal) => {
        concat!(
            "SELECT h.id, h.namespace, h.skill_name, h.status, h.current_version_id, h.current_version, h.pinned, h.deleted_at IS NOT NULL \
             FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND ", $condition
        )
    };
}

/// A statement that finds a version of the skill $1.
macro_rules! find_version {
    ($condition:literal) => {
        concat!(
            "SELECT v.id, v.version, v.digest, v.content_hash, v.semver, v.status \
             FROM skill_system.skill_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.skill_id = $1 ", $condition
        )
    };
}

fn status(row: &Row, n: i32) -> Status {
    row.text(n).and_then(Status::parse).unwrap_or(Status::Disabled)
}

fn read_head(row: &Row) -> Option<Head> {
    Some(Head {
        id: row.get(1)?,
        namespace: row.get(2)?,
        skill_name: row.get(3)?,
        status: status(row, 4),
        current_version_id: row.get(5)?,
        current_version: row.get(6)?,
        pinned: row.get(7)?,
        deleted: row.get(8)?,
    })
}

fn read_version(row: &Row) -> Option<Version> {
    Some(Version {
        id: row.get(1)?,
        version: row.get(2)?,
        digest: row.get(3)?,
        content_hash: row.get(4)?,
        semver: row.get(5),
        status: status(row, 6),
    })
}

fn look_up(reference: Reference, access: Access, lock: bool) -> Option<Head> {
    let mut found = None;
    let (sql, args): (&str, Vec<Arg>) = match &reference {
        // By its UUID also one that was deleted.
        Reference::Id(id) => (
            if lock { find_head!("h.id = $1 FOR UPDATE") } else { find_head!("h.id = $1") },
            vec![arg(Uuid::from_bytes(*id.as_bytes()))],
        ),
        Reference::Name(namespace, name) => (
            if lock {
                find_head!("h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL FOR UPDATE")
            } else {
                find_head!("h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL")
            },
            vec![arg(*namespace), arg(*name)],
        ),
    };
    compat::run(sql, access, &args, |row| found = read_head(row));
    found
}

/// Finds a skill, with the caller's rights.
pub fn find(reference: Reference) -> Result<Head, Fault> {
    look_up(reference, As::Caller, See::Statement, false).ok_or_else(|| reference.unknown())
}

/// Finds a skill as it is now, for who holds the lock of its namespace.
pub fn find_now(reference: Reference) -> Option<Head> {
    look_up(reference, As::Owner, See::OwnWrites, false)
}

/// Finds and locks a skill that is not deleted, and its namespace before it.
pub fn locked(reference: Reference) -> Result<Head, Fault> {
    let seen = look_up(reference, As::Owner, See::OwnWrites, false)
        .filter(|head| !head.deleted)
        .ok_or_else(|| reference.unknown())?;
    lock_namespace(&seen.namespace);
    // By the name again: the skill may have been deleted and made anew meanwhile.
    look_up(reference, As::Owner, See::OwnWrites, true).filter(|head| !head.deleted).ok_or_else(|| reference.unknown())
}

/// Whoever changes a skill holds this lock to the end of the transaction, so revisions count in the order of commits.
pub fn lock_namespace(namespace: &str) {
    const LOCK: &str = "SELECT revision FROM skill_system.skill_namespaces WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 FOR NO KEY UPDATE";
    if compat::run(LOCK, As::Owner, See::OwnWrites, &[arg(namespace)], |_| ()) == 0 {
        compat::run(
            "INSERT INTO skill_system.skill_namespaces (namespace) VALUES ($1) ON CONFLICT DO NOTHING",
            As::Owner, See::OwnWrites,
            &[arg(namespace)],
            |_| (),
        );
        compat::run(LOCK, As::Owner, See::OwnWrites, &[arg(namespace)], |_| ());
    }
}

/// A version by its 12 digits, or the newest.
pub fn version(head: &Head, version: Option<&str>, access: Access) -> Result<Version, Fault> {
    let mut found = None;
    let (sql, args): (&str, Vec<Arg>) = match version {
        Some(version) => (find_version!("AND v.version = $2"), vec![arg(head.id), arg(version)]),
        None => (find_version!("ORDER BY v.revision DESC LIMIT 1"), vec![arg(head.id)]),
    };
    compat::run(sql, access, &args, |row| found = read_version(row));
    found.ok_or_else(|| {
        Fault::new(
            Code::VersionNotFound,
            format!("skill \"{}\" has no version \"{}\"", head.skill_name, shorten(version.unwrap_or_default())),
        )
        .hint("SELECT version, semver, status FROM skill_system.skill_versions; a version is 12 hexadecimal digits.")
    })
}

/// One row of history and one audit record.
pub fn note(
    head: &Head,
    action: &str,
    version: Option<&Version>,
    previous: Option<Status>,
    status: Option<Status>,
    change: &Change,
) {
    let revision = spi::one::<i64>(
        "WITH n AS (UPDATE skill_system.skill_namespaces SET revision = revision + 1 \
                    WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 RETURNING revision) \
         INSERT INTO skill_system.skill_history (namespace, revision, skill_id, skill_name, action, version_id, version, previous_status, status, \
             changed_by, reason, approved_with, channel) \
         SELECT $1, n.revision, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM n RETURNING revision",
        As::Owner, See::OwnWrites,
        &[
            arg(head.namespace.as_str()),
            arg(head.id),
            arg(head.skill_name.as_str()),
            arg(action),
            arg(version.map(|version| version.id)),
            arg(version.map(|version| version.version.as_str())),
            arg(previous.map(Status::as_str)),
            arg(status.map(Status::as_str)),
            arg(change.by.as_str()),
            arg(change.reason.as_deref()),
            arg(change.approved_with.as_deref()),
            arg(change.channel.as_deref()),
        ],
    );
    let mut data = json!({
        "skill_id": head.id.to_string(), "namespace": head.namespace, "skill_name": head.skill_name, "revision": revision,
        "version": version.map(|version| &version.version), "digest": version.map(|version| &version.digest),
        "from": previous.map(Status::as_str), "to": status.map(Status::as_str), "reason": change.reason, "approved_with": change.approved_with,
    });
    if let Some(said) = &change.said {
        data["said"] = said.clone();
    }
    if let Some(channel) = &change.channel {
        data["channel"] = channel.as_str().into();
    }
    let actor = Some(change.by.as_str()).filter(|by| by.chars().count() <= skill_core::audit::MAX_ACTOR_ID);
    audit::append(&format!("skill.{action}"), data, actor, Some("user"));
}

/// Makes a version the one that is served, as it is described in `about`.
pub fn place(head: &mut Head, version: &Version, about: &Value) {
    compat::run(
        concat!(
            "UPDATE skill_system.skill_heads h SET current_version_id = $2, current_version = v.version, semver = v.semver, body_size = v.body_size, \
             body_etag = v.content_hash, status = v.status, enabled = v.status = 'approved' AND (h.enabled OR h.status <> 'approved'), \
             updated_at = clock_timestamp(), (",
            described!(),
            ") = ROW (",
            description!(),
            ") \
             FROM skill_system.skill_versions v, \
                 (SELECT $3 || coalesce(o.defined, '{}') AS about FROM skill_system.skill_heads o WHERE o.tenant_id = skill_system.current_tenant() AND o.id = $1) a \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND v.tenant_id = h.tenant_id AND v.id = $2"
        ),
        As::Owner, See::OwnWrites,
        &[arg(head.id), arg(version.id), jsonb(about.clone())],
        |_| (),
    );
    head.current_version_id = version.id;
    head.current_version.clone_from(&version.version);
    head.status = version.status;
    search::index(head);
}

/// What a version says about the skill.
pub fn about(version: &Version) -> Value {
    stored(spi::one(
        "SELECT about::text FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(version.id)],
    ))
}

/// Registers a version. The same content again is the same version.
pub fn register(new: &NewVersion, change: &Change) -> Result<State, Fault> {
    storable(new.skill_name)?;
    if new.body.len() > MAX_BODY {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("the body has {} bytes, more than {MAX_BODY}", new.body.len()),
        ));
    }
    let relations = dependencies::read(new.namespace, new.manifest.as_ref())?;
    let identity = Identity::of(new.body, new.files);
    let about = new.about.to_json();
    lock_namespace(new.namespace);
    let head = look_up(Reference::Name(new.namespace, new.skill_name), As::Owner, See::OwnWrites, true);
    let there = match &head {
        Some(head) => version(head, Some(identity.version()), As::Owner, See::OwnWrites).ok(),
        None => None,
    };
    if there.as_ref().is_some_and(|there| there.digest != identity.digest) {
        return Err(Fault::new(
            Code::SkillConflict,
            format!("another content of skill \"{}\" has the version {}", new.skill_name, identity.version()),
        )
        .detail("The first 12 digits of both digests are the same.")
        .hint("Change the text a little."));
    }
    let created = there.is_none();
    let before = there.as_ref().map(|there| there.status);
    let wanted = new.status.or(before).unwrap_or(Status::Draft);
    let mut found = there.unwrap_or_else(|| Version {
        id: Uuid::from_bytes(sys::new_uuid_v7()),
        version: identity.version().to_owned(),
        digest: identity.digest.clone(),
        content_hash: identity.content_hash.clone(),
        semver: new.semver.clone(),
        status: wanted,
    });
    let is_new_skill = head.is_none();
    let mut head = head.unwrap_or_else(|| Head {
        id: Uuid::from_bytes(sys::new_uuid_v7()),
        namespace: new.namespace.to_owned(),
        skill_name: new.skill_name.to_owned(),
        status: wanted,
        current_version_id: found.id,
        current_version: found.version.clone(),
        pinned: false,
        deleted: false,
    });
    if head.pinned && new.placement == Placement::Always && head.current_version_id != found.id {
        return Err(Fault::new(
            Code::SkillConflict,
            format!("skill \"{}\" is pinned to version {}", head.skill_name, head.current_version),
        )
        .hint("SELECT skill_system.unpin_skill(...);"));
    }
    // What is approved, served or not, changes when a reviewer says so, not because an agent registers it once more.
    let repeated = new.placement == Placement::WhenServable && new.status.is_none() && before == Some(Status::Approved);
    if repeated && !approval::may_approve() {
        return Ok(State::of(&head, &found, false));
    }
    let served = new.placement == Placement::Always
        || is_new_skill
        || head.current_version_id == found.id
        || !head.pinned && (wanted == Status::Approved || head.status != Status::Approved);
    if is_new_skill {
        insert_head(new, &head, &found, &about);
    }
    if created {
        insert_version(new, &head, &found, &about, change);
        versions::insert_relations(&found, &relations);
        note(&head, "registered", Some(&found), new.previous_status, Some(wanted), change);
    } else if before != Some(wanted) {
        found.status = wanted;
        write_status(&found);
        note(&head, "status", Some(&found), new.previous_status.or(before), Some(wanted), change);
    } else if served && head.current_version_id != found.id {
        note(&head, "current", Some(&found), new.previous_status, Some(wanted), change);
    } else if served && !says(&head, &about) {
        note(&head, "changed", Some(&found), before, Some(wanted), change);
    } else {
        // Nothing new was said.
        return Ok(State::of(&head, &found, false));
    }
    if is_new_skill {
        search::index(&head);
    } else if served {
        place(&mut head, &found, &about);
    }
    if found.status == Status::Approved && before != Some(Status::Approved) {
        versions::warn_unmet(&head, &found);
    }
    Ok(State::of(&head, &found, created))
}

/// A new skill, with its first version served.
fn insert_head(new: &NewVersion, head: &Head, version: &Version, about: &Value) {
    compat::run(
        concat!(
            "INSERT INTO skill_system.skill_heads (id, namespace, skill_name, status, enabled, current_version_id, current_version, semver, body_size, body_etag, ",
            described!(),
            ") SELECT $1, $2, $3, $4, $4 = 'approved', $5, $6, $7, $8, $9, ",
            description!(),
            " FROM (SELECT $10 AS about) a"
        ),
        As::Owner, See::OwnWrites,
        &[
            arg(head.id),
            arg(new.namespace),
            arg(new.skill_name),
            arg(version.status.as_str()),
            arg(version.id),
            arg(version.version.as_str()),
            arg(version.semver.as_deref()),
            arg(new.body.len() as i32),
            arg(version.content_hash.as_str()),
            jsonb(about.clone()),
        ],
        |_| (),
    );
}

fn insert_version(new: &NewVersion, head: &Head, version: &Version, about: &Value, change: &Change) {
    compat::run(
        "INSERT INTO skill_system.skill_versions (id, skill_id, revision, version, digest, content_hash, semver, status, body, body_size, about, \
             frontmatter, manifest, created_by) \
         SELECT $1, $2, n.revision + 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM skill_system.skill_namespaces n \
         WHERE n.tenant_id = skill_system.current_tenant() AND n.namespace = $14",
        As::Owner, See::OwnWrites,
        &[
            arg(version.id),
            arg(head.id),
            arg(version.version.as_str()),
            arg(version.digest.as_str()),
            arg(version.content_hash.as_str()),
            arg(version.semver.as_deref()),
            arg(version.status.as_str()),
            arg(new.body),
            arg(new.body.len() as i32),
            jsonb(about.clone()),
            arg(new.frontmatter.clone().map(pgrx::JsonB)),
            arg(new.manifest.clone().map(pgrx::JsonB)),
            arg(change.by.as_str()),
            arg(head.namespace.as_str()),
        ],
        |_| (),
    );
    for file in new.files {
        compat::run(
            "INSERT INTO skill_system.skill_files (version_id, path, content, size, sha256) VALUES ($1, $2, $3, $4, $5)",
            As::Owner, See::OwnWrites,
            &[
                arg(version.id),
                arg(file.path.as_str()),
                bytea(&file.content),
                arg(file.content.len() as i32),
                arg(file.sha256()),
            ],
            |_| (),
        );
    }
}

fn write_status(version: &Version) {
    compat::run(
        "UPDATE skill_system.skill_versions SET status = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(version.id), arg(version.status.as_str())],
        |_| (),
    );
}

/// The head says this already.
fn says(head: &Head, about: &Value) -> bool {
    const SQL: &str = concat!(
        "SELECT ",
        said!(),
        " = $2 || coalesce(defined, '{}') FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    let same = spi::one::<bool>(SQL, As::Owner, See::OwnWrites, &[arg(head.id), jsonb(about.clone())]);
    same == Some(true)
}

/// One tier, as it can be looked into and as it came: numbers are kept to the last digit.
pub struct Tier {
    pub value: Value,
    pub datum: pgrx::pg_sys::Datum,
}

/// What `define_skill()` says of a skill. `None` leaves a thing as it is, JSON null takes a tier away.
#[derive(Default)]
pub struct Definition {
    pub tier1_manifest: Option<Tier>,
    pub tier2_definition: Option<Tier>,
    pub tier3_artifact_refs: Option<Tier>,
    pub context_mode: Option<String>,
    /// These two outrank what versions say.
    pub name: Option<String>,
    pub domain_tags: Option<Vec<String>>,
}

/// Says something of a skill that its versions do not say. False when that was known.
pub fn define(head: &Head, version: &Version, definition: &Definition, change: &Change) -> bool {
    let mut defined = serde_json::Map::new();
    if let Some(name) = &definition.name {
        defined.insert("name".into(), json!(name));
    }
    if let Some(tags) = &definition.domain_tags {
        defined.insert("domain_tags".into(), json!(tags));
    }
    let tier = |tier: &Option<Tier>| given(tier.as_ref().map(|tier| tier.datum), pgrx::pg_sys::JSONBOID);
    let changed = compat::run(
        "UPDATE skill_system.skill_heads h SET tier1_manifest = n.tier1, tier2_definition = n.tier2, tier3_artifact_refs = n.tier3, context_mode = n.mode, \
             defined = n.defined, name = n.name, domain_tags = n.tags, updated_at = clock_timestamp() \
         FROM (SELECT CASE WHEN $2 IS NULL THEN o.tier1_manifest ELSE nullif($2, 'null') END AS tier1, \
                      CASE WHEN $3 IS NULL THEN o.tier2_definition ELSE nullif($3, 'null') END AS tier2, \
                      CASE WHEN $4 IS NULL THEN o.tier3_artifact_refs ELSE nullif($4, 'null') END AS tier3, \
                      coalesce($5, o.context_mode::text) AS mode, nullif(coalesce(o.defined, '{}') || $6, '{}') AS defined, \
                      CASE WHEN $6 ? 'name' THEN $6->>'name' ELSE o.name::text END AS name, \
                      CASE WHEN $6 ? 'domain_tags' THEN ARRAY(SELECT jsonb_array_elements_text($6->'domain_tags')) ELSE o.domain_tags::text[] END AS tags \
               FROM skill_system.skill_heads o WHERE o.tenant_id = skill_system.current_tenant() AND o.id = $1) n \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 \
             AND (h.tier1_manifest, h.tier2_definition, h.tier3_artifact_refs, h.context_mode::text, h.defined) \
                 IS DISTINCT FROM (n.tier1, n.tier2, n.tier3, n.mode, n.defined)",
        As::Owner, See::OwnWrites,
        &[
            arg(head.id),
            tier(&definition.tier1_manifest),
            tier(&definition.tier2_definition),
            tier(&definition.tier3_artifact_refs),
            arg(definition.context_mode.as_deref()),
            jsonb(Value::Object(defined.clone())),
        ],
        |_| (),
    );
    if changed == 0 {
        return false;
    }
    search::index(head);
    let tiers = [
        ("tier1_manifest", &definition.tier1_manifest),
        ("tier2_definition", &definition.tier2_definition),
        ("tier3_artifact_refs", &definition.tier3_artifact_refs),
    ];
    let mut said = defined;
    said.extend(
        tiers.into_iter().filter_map(|(name, value)| value.as_ref().map(|tier| (name.to_owned(), tier.value.clone()))),
    );
    said.extend(definition.context_mode.iter().map(|mode| ("context_mode".to_owned(), json!(mode))));
    let change = Change { said: Some(Value::Object(said)), ..change.clone() };
    note(head, "changed", Some(version), Some(head.status), Some(head.status), &change);
    true
}

/// Gives a version another status. An approved one becomes the one that is served, unless the skill is pinned to another.
pub fn set_status(head: &mut Head, version: &Version, status: Status, change: &Change) -> State {
    let before = version.status;
    let version = Version {
        id: version.id,
        version: version.version.clone(),
        digest: version.digest.clone(),
        content_hash: version.content_hash.clone(),
        semver: version.semver.clone(),
        status,
    };
    let current = head.current_version_id == version.id;
    let becomes_current = !current && status == Status::Approved && !head.pinned;
    if before != status {
        write_status(&version);
        note(head, "status", Some(&version), Some(before), Some(status), change);
    } else if becomes_current {
        note(head, "current", Some(&version), Some(before), Some(status), change);
    }
    if becomes_current {
        let about = about(&version);
        place(head, &version, &about);
    } else if current && before != status {
        head.status = status;
        compat::run(
            "UPDATE skill_system.skill_heads SET status = $2, enabled = $2 = 'approved' AND (enabled OR status <> 'approved'), updated_at = clock_timestamp() \
             WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            As::Owner, See::OwnWrites,
            &[arg(head.id), arg(status.as_str())],
            |_| (),
        );
    }
    if status == Status::Approved && before != status {
        versions::warn_unmet(head, &version);
    }
    State::of(head, &version, false)
}

/// Switches an approved skill on or off.
pub fn switch(head: &Head, on: bool, change: &Change) {
    let changed = compat::run(
        "UPDATE skill_system.skill_heads SET enabled = $2, updated_at = clock_timestamp() \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 AND status = 'approved' AND enabled <> $2",
        As::Owner, See::OwnWrites,
        &[arg(head.id), arg(on)],
        |_| (),
    );
    if changed > 0 {
        let said = if on { "switched on" } else { "switched off" };
        let reason = change.reason.as_ref().map_or_else(|| said.to_owned(), |reason| format!("{said}: {reason}"));
        note(
            head,
            "changed",
            None,
            Some(head.status),
            Some(head.status),
            &Change { reason: Some(reason), ..change.clone() },
        );
    }
}

/// Serves another approved version.
pub fn serve(head: &mut Head, version: &Version, change: &Change) -> State {
    if head.current_version_id != version.id {
        note(head, "current", Some(version), Some(head.status), Some(version.status), change);
        let about = about(version);
        place(head, version, &about);
    }
    State::of(head, version, false)
}

/// Serves an approved version, or whatever is served now, until it is unpinned.
pub fn pin(head: &mut Head, version: &Version, change: &Change) -> State {
    if head.pinned && head.current_version_id == version.id {
        return State::of(head, version, false);
    }
    note(head, "pinned", Some(version), Some(head.status), Some(version.status), change);
    if head.current_version_id != version.id {
        let about = about(version);
        place(head, version, &about);
    }
    write_pinned(head, true);
    State::of(head, version, false)
}

/// Lets other versions be served again.
pub fn unpin(head: &mut Head, version: &Version, change: &Change) -> State {
    if head.pinned {
        note(head, "unpinned", Some(version), Some(head.status), Some(head.status), change);
        write_pinned(head, false);
    }
    State::of(head, version, false)
}

fn write_pinned(head: &mut Head, pinned: bool) {
    compat::run(
        "UPDATE skill_system.skill_heads SET pinned = $2, updated_at = clock_timestamp() WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(head.id), arg(pinned)],
        |_| (),
    );
    head.pinned = pinned;
}

/// Puts a version into a channel.
pub fn set_channel(head: &Head, channel: &str, version: &Version, change: &Change) -> State {
    let changed = compat::run(
        "INSERT INTO skill_system.skill_channels AS c (skill_id, channel, version_id, changed_by) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, skill_id, channel) DO UPDATE SET version_id = excluded.version_id, changed_at = clock_timestamp(), changed_by = excluded.changed_by \
         WHERE c.version_id <> excluded.version_id",
        As::Owner, See::OwnWrites,
        &[arg(head.id), arg(channel), arg(version.id), arg(change.by.as_str())],
        |_| (),
    );
    if changed > 0 {
        note(
            head,
            "channel",
            Some(version),
            None,
            Some(version.status),
            &Change { channel: Some(channel.to_owned()), ..change.clone() },
        );
    }
    State::of(head, version, false)
}

/// Takes a channel away; false when there was none.
pub fn drop_channel(head: &Head, channel: &str, change: &Change) -> bool {
    let dropped = compat::run(
        "DELETE FROM skill_system.skill_channels WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND channel = $2",
        As::Owner, See::OwnWrites,
        &[arg(head.id), arg(channel)],
        |_| (),
    );
    if dropped > 0 {
        note(head, "channel", None, None, None, &Change { channel: Some(channel.to_owned()), ..change.clone() });
    }
    dropped > 0
}

/// Takes a skill out of use; its rows stay.
pub fn delete(head: &mut Head, change: &Change) {
    compat::run(
        "UPDATE skill_system.skill_heads SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), enabled = false \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(head.id)],
        |_| (),
    );
    head.deleted = true;
    search::forget(head);
    note(head, "deleted", None, Some(head.status), None, change);
}

/// Removes a skill with its versions and files. The history and the audit trail stay.
pub fn purge(head: &mut Head, change: &Change) {
    compat::run(
        "DELETE FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(head.id)],
        |_| (),
    );
    head.deleted = true;
    note(head, "deleted", None, Some(head.status), None, change);
}
