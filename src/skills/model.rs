//! What a skill and its versions are, how they are found, and how they are locked. Nothing here writes but the lock.

use const_format::concatcp;
use serde_json::Value;
use skill_core::error::shorten;
use skill_core::skills::Status;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Call, FromRow, Returned, Row, Timestamptz, Uuid, arg};

use crate::locks;
use crate::versioned::Namespaces;

/// A skill: the row of `skill_heads`.
#[derive(Clone)]
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

impl Head {
    const COLUMNS: &str = "h.id, h.namespace, h.skill_name, h.status, h.current_version_id, h.current_version, h.pinned, \
                           h.deleted_at IS NOT NULL";
}

impl FromRow<'_> for Head {
    fn from_row(row: &Row<'_>) -> Self {
        let (id, namespace, skill_name, status, current_version_id, current_version, pinned, deleted) = row.read();
        let status = known_status(status);
        Head { id, namespace, skill_name, status, current_version_id, current_version, pinned, deleted }
    }
}

/// A version of a skill, without its body.
#[derive(Clone)]
pub struct Version {
    pub id: Uuid,
    pub version: String,
    pub digest: String,
    pub content_hash: String,
    pub semver: Option<String>,
    pub status: Status,
}

impl Version {
    const COLUMNS: &str = "v.id, v.version, v.digest, v.content_hash, v.semver, v.status";
}

impl FromRow<'_> for Version {
    fn from_row(row: &Row<'_>) -> Self {
        let (id, version, digest, content_hash, semver, status) = row.read();
        Version { id, version, digest, content_hash, semver, status: known_status(status) }
    }
}

/// A status that this library does not know is not served.
fn known_status(status: &str) -> Status {
    Status::parse(status).unwrap_or(Status::Disabled)
}

/// The answer of functions that change a skill: the composite type `skill_state`.
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

impl State {
    pub fn new(head: &Head, version: &Version, created: bool) -> Self {
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

    pub fn answer(&self, call: &Call) -> Returned {
        call.row(&[
            arg(self.skill_id),
            arg(&self.namespace),
            arg(&self.skill_name),
            arg(&self.version),
            arg(self.status.as_str()),
            arg(&self.current_version),
            arg(self.version_id),
            arg(&self.content_hash),
            arg(self.semver.as_deref()),
            arg(self.created),
        ])
    }
}

skill_pg::columns! {
    /// A row of `skill_history`.
    pub struct HistoryRow {
        pub namespace: String = "namespace",
        pub revision: i64 = "revision",
        pub action: String = "action",
        pub skill_id: Uuid = "skill_id",
        pub skill_name: String = "skill_name",
        pub version_id: Option<Uuid> = "version_id",
        pub version: Option<String> = "version",
        pub previous_status: Option<String> = "previous_status",
        pub status: Option<String> = "status",
        pub channel: Option<String> = "channel",
        pub changed_at: Timestamptz = "changed_at",
        pub changed_by: String = "changed_by",
        pub reason: Option<String> = "reason",
    }
}

/// The namespaces that hold skills, or did, and the history of the skills.
pub const NAMESPACES: Namespaces = Namespaces {
    table: c"skill_namespaces",
    exists: "SELECT EXISTS (SELECT FROM skill_system.skill_namespaces \
                            WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND dropped_at IS NULL)",
    lock: "SELECT revision FROM skill_system.skill_namespaces \
           WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND dropped_at IS NULL FOR NO KEY UPDATE",
    insert: "INSERT INTO skill_system.skill_namespaces (namespace) \
             SELECT $1 WHERE $2 > (SELECT count(*) FROM skill_system.skill_namespaces n \
                                   WHERE n.tenant_id = skill_system.current_tenant() AND n.dropped_at IS NULL) \
             ON CONFLICT (tenant_id, namespace) DO UPDATE SET dropped_at = NULL",
    revisions: "SELECT namespace, revision FROM skill_system.skill_namespaces \
                WHERE tenant_id = skill_system.current_tenant() AND ($1 IS NULL OR namespace = $1) AND revision > 0 \
                ORDER BY namespace",
    history: concatcp!(
        "SELECT ",
        HistoryRow::COLUMNS,
        " FROM skill_system.skill_history \
          WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND revision > $2 ORDER BY revision LIMIT $3"
    ),
};

/// Signatures of SkillStore's bodies approve in this namespace.
pub fn accepts_store_signatures(namespace: &str) -> bool {
    let accepts = spi::first::<bool>(
        "SELECT accepts_store_signatures FROM skill_system.skill_namespaces \
         WHERE tenant_id = skill_system.current_tenant() AND namespace = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(namespace)],
    );
    // One that does not exist yet accepts none.
    accepts.unwrap_or(false)
}

const FIND: &str = concatcp!(
    "SELECT ",
    Head::COLUMNS,
    " FROM skill_system.skill_heads h WHERE h.tenant_id = skill_system.current_tenant() AND "
);
const BY_ID: &str = concatcp!(FIND, "h.id = $1");
const BY_NAME: &str = concatcp!(FIND, "h.namespace = $1 AND h.skill_name = $2 AND h.deleted_at IS NULL");
const LOCK_BY_ID: &str = concatcp!(BY_ID, " FOR UPDATE");
const LOCK_BY_NAME: &str = concatcp!(BY_NAME, " FOR UPDATE");

/// Finds a skill with the caller's rights; by its UUID also one that was deleted.
pub fn find(reference: Reference) -> Result<Head, Fault> {
    let found = match &reference {
        Reference::Id(id) => spi::first(BY_ID, As::Caller, See::Statement, &[arg(*id.as_bytes())]),
        Reference::Name(namespace, name) => {
            spi::first(BY_NAME, As::Caller, See::Statement, &[arg(*namespace), arg(*name)])
        }
    };
    found.ok_or_else(|| reference.unknown())
}

/// As [`find`], without deleted skills.
pub fn find_existing(reference: Reference) -> Result<Head, Fault> {
    find(reference).ok().filter(|head| !head.deleted).ok_or_else(|| reference.unknown())
}

/// Finds a skill as it is now, for callers that hold the lock of its namespace.
pub fn find_now(reference: Reference) -> Option<Head> {
    match &reference {
        Reference::Id(id) => spi::first(BY_ID, As::Owner, See::OwnWrites, &[arg(*id.as_bytes())]),
        Reference::Name(namespace, name) => {
            spi::first(BY_NAME, As::Owner, See::OwnWrites, &[arg(*namespace), arg(*name)])
        }
    }
}

/// As [`find_now`], and locks the skill.
pub fn lock_row(reference: Reference) -> Result<Option<Head>, Fault> {
    let Some(seen) = find_now(reference) else { return Ok(None) };
    let what = format!("the skill \"{}\"", shorten(&seen.skill_name));
    locks::acquire(c"skill_heads", &[&seen.id.to_string()], Mode::Exclusive, &what)?;
    Ok(match &reference {
        Reference::Id(id) => spi::first(LOCK_BY_ID, As::Owner, See::OwnWrites, &[arg(*id.as_bytes())]),
        Reference::Name(namespace, name) => {
            spi::first(LOCK_BY_NAME, As::Owner, See::OwnWrites, &[arg(*namespace), arg(*name)])
        }
    })
}

/// Locks a namespace for a change. An agent's open transaction holds up other registrations there, and nobody who approves.
pub fn lock_namespace(namespace: &str) -> Result<(), Fault> {
    if locks::decides() { NAMESPACES.lock(namespace) } else { NAMESPACES.lock_registrations(namespace) }
}

/// As [`lock_namespace`], to register a skill. A new one waits for agents who register in the namespace: theirs may have the
/// same name, or be the first of the namespace as well.
pub fn lock_for_registration(namespace: &str, skill_name: &str) -> Result<(), Fault> {
    if locks::decides() && find_now(Reference::Name(namespace, skill_name)).is_none() {
        NAMESPACES.lock_registrations(namespace)?;
    }
    lock_namespace(namespace)
}

/// Finds and locks a skill that is not deleted, and its namespace before it.
pub fn lock(reference: Reference) -> Result<Head, Fault> {
    let seen = find_now(reference).filter(|head| !head.deleted).ok_or_else(|| reference.unknown())?;
    lock_namespace(&seen.namespace)?;
    // By the name again: the skill may have been deleted and registered from scratch meanwhile.
    lock_row(reference)?.filter(|head| !head.deleted).ok_or_else(|| reference.unknown())
}

/// The tenant is not compared by index: in a table without statistics all versions of a tenant seem to be as few as those of a
/// skill, whose id no other tenant has.
const VERSIONS: &str = concatcp!(
    "SELECT ",
    Version::COLUMNS,
    " FROM skill_system.skill_versions v WHERE v.tenant_id || '' = skill_system.current_tenant() AND v.skill_id = $1 "
);
const VERSION: &str = concatcp!(VERSIONS, "AND v.version = $2");
const NEWEST: &str = concatcp!(VERSIONS, "ORDER BY v.revision DESC LIMIT 1");

/// A version by its 12 digits, or the newest; `None` when it does not exist.
pub fn find_version(head: &Head, version: Option<&str>, rights: As, see: See) -> Option<Version> {
    match version {
        Some(version) => spi::first(VERSION, rights, see, &[arg(head.id), arg(version)]),
        None => spi::first(NEWEST, rights, see, &[arg(head.id)]),
    }
}

/// The version with this semantic version; of several the newest that is approved, because any agent can register another.
pub fn version_by_semver(head: &Head, semver: &str, rights: As, see: See) -> Option<Version> {
    const BY_SEMVER: &str =
        concatcp!(VERSIONS, "AND v.semver = $2 ORDER BY v.status = 'approved' DESC, v.revision DESC LIMIT 1");
    spi::first(BY_SEMVER, rights, see, &[arg(head.id), arg(semver)])
}

/// A version by its 12 digits, or the newest.
pub fn version(head: &Head, version: Option<&str>, rights: As, see: See) -> Result<Version, Fault> {
    find_version(head, version, rights, see).ok_or_else(|| match version {
        Some(version) => no_version(head, version),
        None => Fault::new(Code::VersionNotFound, format!("skill \"{}\" has no versions", head.skill_name)),
    })
}

/// The skill has no such version.
pub fn no_version(head: &Head, version: &str) -> Fault {
    Fault::new(Code::VersionNotFound, format!("skill \"{}\" has no version \"{}\"", head.skill_name, shorten(version)))
        .hint("SELECT version, semver, status FROM skill_system.skill_versions;")
}

/// The version that is served, for callers that hold the lock.
pub fn current_version(head: &Head) -> Result<Version, Fault> {
    version(head, Some(&head.current_version), As::Owner, See::OwnWrites)
}

/// A [`SkillMetadata`] as JSON, out of a row of `skill_heads`.
pub const HEAD_JSON: &str = "jsonb_build_object('name', name, 'description', description, 'scope', scope, \
     'required_env_vars', required_env_vars, 'metadata', metadata, 'domain_tags', domain_tags, 'effects', effects, \
     'manifest_id', manifest_id)";

/// The metadata of a skill as it is now.
pub fn head_metadata(head: &Head) -> SkillMetadata {
    const SQL: &str = concatcp!(
        "SELECT ",
        HEAD_JSON,
        "::text FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    SkillMetadata::from_json(&spi::one::<Value>(SQL, As::Owner, See::OwnWrites, &[arg(head.id)]))
}

/// The metadata of a version is this.
pub fn has_metadata(version: &Version, metadata: &Value) -> bool {
    spi::one(
        "SELECT about = $2 FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(version.id), arg(metadata)],
    )
}

/// The metadata of a version, as JSON.
pub fn version_metadata(version: &Version) -> Value {
    spi::one(
        "SELECT about::text FROM skill_system.skill_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(version.id)],
    )
}

/// The `effects` column. An effect that is NULL becomes one that no policy allows.
pub fn declared_effects(column: Option<Vec<Option<String>>>) -> Option<Vec<String>> {
    column.map(|effects| effects.into_iter().map(Option::unwrap_or_default).collect())
}
