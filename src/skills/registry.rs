//! Heads, versions and files are written here and nowhere else, with the rights of the tables' owner. Callers decide what
//! may be written, and by whom.

use const_format::concatcp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use skill_core::skills::Status;
use skill_core::skills::approval::rejected;
use skill_core::skills::dependencies as relations;
use skill_core::skills::metadata::SkillMetadata;
use skill_core::skills::names::{Reference, storable};
use skill_core::skills::version::{File, Identity};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Uuid, arg, sys};

use super::history::record_history;
use super::model::{self, HEAD_JSON, Head, State, Version};
use super::{approval, content, dependencies, index};
use crate::settings;
use crate::versioned::Change;

/// Largest body, in bytes.
const MAX_BODY: usize = 16 << 20;

/// Columns of `skill_heads` that a [`SkillMetadata`] fills.
const HEAD_COLUMNS: &str = "name, description, scope, required_env_vars, metadata, domain_tags, effects, manifest_id";

/// Their values, out of the jsonb `a.about`.
const HEAD_VALUES: &str = "a.about->>'name', coalesce(a.about->>'description', ''), a.about->>'scope', \
     ARRAY(SELECT jsonb_array_elements_text(a.about->'required_env_vars')), a.about->'metadata', \
     ARRAY(SELECT jsonb_array_elements_text(a.about->'domain_tags')), \
     CASE WHEN jsonb_typeof(a.about->'effects') = 'array' \
          THEN ARRAY(SELECT jsonb_array_elements_text(a.about->'effects')) END, a.about->>'manifest_id'";

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
    pub metadata: SkillMetadata,
    pub frontmatter: Option<Value>,
    pub manifest: Option<Value>,
    /// Its status; `None` is draft for a new version and no change for one that exists.
    pub status: Option<Status>,
    /// For the history: the status that the skill had, where the content changed together with it.
    pub previous_status: Option<Status>,
    pub placement: Placement,
}

/// What registering a version comes to.
struct Plan {
    head: Head,
    version: Version,
    is_new_skill: bool,
    is_new_version: bool,
    /// The version's status before and after.
    before: Option<Status>,
    wanted: Status,
    /// It becomes or stays the version that is served.
    served: bool,
}

impl Plan {
    /// The caller holds the lock of the namespace.
    fn new(new: &NewVersion, identity: &Identity) -> Result<Self, Fault> {
        let head = model::lock_row(Reference::Name(new.namespace, new.skill_name))?;
        let known = head
            .as_ref()
            .and_then(|head| model::find_version(head, Some(identity.version()), As::Owner, See::OwnWrites));
        if known.as_ref().is_some_and(|known| known.digest != identity.digest) {
            return Err(Fault::new(
                Code::SkillConflict,
                format!("another content of skill \"{}\" has the version {}", new.skill_name, identity.version()),
            )
            .detail("The first 12 digits of both digests are the same.")
            .hint("Change the text a little."));
        }
        let before = known.as_ref().map(|known| known.status);
        let wanted = new.status.or(before).unwrap_or(Status::Draft);
        let (is_new_skill, is_new_version) = (head.is_none(), known.is_none());
        let version = known.unwrap_or_else(|| Version {
            id: Uuid::from_bytes(sys::new_uuid_v7()),
            version: identity.version().to_owned(),
            digest: identity.digest.clone(),
            content_hash: identity.content_hash.clone(),
            semver: new.semver.clone(),
            status: wanted,
        });
        let head = head.unwrap_or_else(|| Head {
            id: Uuid::from_bytes(sys::new_uuid_v7()),
            namespace: new.namespace.to_owned(),
            skill_name: new.skill_name.to_owned(),
            status: wanted,
            current_version_id: version.id,
            current_version: version.version.clone(),
            pinned: false,
            deleted: false,
        });
        let is_current = head.current_version_id == version.id;
        if head.pinned && new.placement == Placement::Always && !is_current {
            return Err(Fault::new(
                Code::SkillConflict,
                format!("skill \"{}\" is pinned to version {}", head.skill_name, head.current_version),
            )
            .hint("SELECT skill_system.unpin_skill(...);"));
        }
        let may_serve = is_new_skill || approval::may_change(Some(head.status), Some(wanted));
        let served = is_new_skill
            || is_current
            || may_serve
                && (new.placement == Placement::Always
                    || !head.pinned && (wanted == Status::Approved || head.status != Status::Approved));
        Ok(Plan { head, version, is_new_skill, is_new_version, before, wanted, served })
    }

    /// What is approved, served or not, changes when a reviewer decides so, not because an agent registers it once more.
    fn only_repeats(&self, new: &NewVersion) -> bool {
        new.placement == Placement::WhenServable
            && new.status.is_none()
            && self.before == Some(Status::Approved)
            && !approval::may_approve()
    }

    /// An approval names a version, so what a version stands for changes by those who may approve only, and with
    /// signatures by a signature.
    fn check_metadata(&self, metadata: &Value, change: &Change) -> Result<(), Fault> {
        let name = || format!("the metadata of version {}", self.version.version);
        let same = || {
            model::has_metadata(&self.version, metadata) || self.is_current() && metadata_matches(&self.head, metadata)
        };
        if self.is_new_version {
            return Ok(());
        }
        if self.before != Some(self.wanted) && !approval::may_change(self.before, Some(self.wanted)) {
            return Err(approval::not_permitted(&format!("the status of version {}", self.version.version)));
        }
        if !approval::may_approve() && !settings::single_user_store() && !same() {
            return Err(Fault::new(Code::InsufficientPrivilege, format!("permission denied to change {}", name()))
                .detail("A reviewer approves a version, and its metadata with it.")
                .hint("Change the text too: that is a new version."));
        }
        let unsigned = settings::signed_approvals() && change.approved_with.is_none();
        if unsigned && self.served && self.wanted == Status::Approved && !same() {
            return Err(rejected(format!("{} needs the signature of an approver", name()))
                .detail("skill_system.signed_approvals is on.")
                .hint("Register it with another text, and sign skill_approval_text() of the new version."));
        }
        Ok(())
    }

    fn is_current(&self) -> bool {
        self.head.current_version_id == self.version.id
    }
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
    let relations = relations::read(new.namespace, new.manifest.as_ref())?;
    let identity = Identity::of(new.body, new.files);
    let metadata = new.metadata.to_json();
    model::lock_for_registration(new.namespace, new.skill_name)?;
    let plan = Plan::new(new, &identity)?;
    if plan.only_repeats(new) {
        return Ok(State::new(&plan.head, &plan.version, false));
    }
    plan.check_metadata(&metadata, change)?;
    let Plan { mut head, mut version, is_new_skill, is_new_version, before, wanted, served } = plan;
    if is_new_skill {
        insert_head(new, &head, &version, &metadata);
    }
    if is_new_version {
        insert_version(new, &head, &version, &metadata, change)?;
        dependencies::insert_relations(&version, &relations);
        record_history(&head, "registered", Some(&version), new.previous_status, Some(wanted), change)?;
    } else if before != Some(wanted) {
        version.status = wanted;
        write_status(&version);
        record_history(&head, "status", Some(&version), new.previous_status.or(before), Some(wanted), change)?;
    } else if served && head.current_version_id != version.id {
        record_history(&head, "current", Some(&version), new.previous_status, Some(wanted), change)?;
    } else if served && !metadata_matches(&head, &metadata) {
        record_history(&head, "changed", Some(&version), before, Some(wanted), change)?;
    } else {
        return Ok(State::new(&head, &version, false));
    }
    if is_new_skill {
        index::update(&head);
    } else if served {
        make_current(&mut head, &version, &metadata);
    }
    if version.status == Status::Approved && before != Some(Status::Approved) {
        dependencies::warn_unmet(&head, &version);
    }
    Ok(State::new(&head, &version, is_new_version))
}

/// A new skill, with its first version served.
fn insert_head(new: &NewVersion, head: &Head, version: &Version, metadata: &Value) {
    const SQL: &str = concatcp!(
        "INSERT INTO skill_system.skill_heads (id, namespace, skill_name, status, enabled, current_version_id, \
             current_version, semver, body_size, body_etag, ",
        HEAD_COLUMNS,
        ") SELECT $1, $2, $3, $4, $4 = 'approved', $5, $6, $7, $8, $9, ",
        HEAD_VALUES,
        " FROM (SELECT $10 AS about) a"
    );
    spi::execute(
        SQL,
        As::Owner,
        See::OwnWrites,
        &[
            arg(head.id),
            arg(new.namespace),
            arg(new.skill_name),
            arg(version.status.as_str()),
            arg(version.id),
            arg(&version.version),
            arg(version.semver.as_deref()),
            arg(new.body.len() as i32),
            arg(&version.content_hash),
            arg(metadata),
        ],
    );
}

fn insert_version(
    new: &NewVersion,
    head: &Head,
    version: &Version,
    metadata: &Value,
    change: &Change,
) -> Result<(), Fault> {
    let archive = match new.files {
        [] => None,
        files => Some(content::archive(new.body.to_owned(), files.to_vec())?),
    };
    spi::execute(
        "INSERT INTO skill_system.skill_versions (id, skill_id, revision, version, digest, content_hash, semver, status, \
             body, body_size, about, frontmatter, manifest, created_by, archive_digest) \
         SELECT $1, $2, greatest(n.revision, (SELECT max(o.revision) FROM skill_system.skill_versions o \
             WHERE o.tenant_id = n.tenant_id AND o.skill_id = $2)) + 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $15 \
         FROM skill_system.skill_namespaces n WHERE n.tenant_id = skill_system.current_tenant() AND n.namespace = $14",
        As::Owner,
        See::OwnWrites,
        &[
            arg(version.id),
            arg(head.id),
            arg(&version.version),
            arg(&version.digest),
            arg(&version.content_hash),
            arg(version.semver.as_deref()),
            arg(version.status.as_str()),
            arg(new.body),
            arg(new.body.len() as i32),
            arg(metadata),
            arg(new.frontmatter.as_ref()),
            arg(new.manifest.as_ref()),
            arg(&change.changed_by),
            arg(&head.namespace),
            arg(archive.map(|archive| hex::encode(Sha256::digest(archive)))),
        ],
    );
    for file in new.files {
        spi::execute(
            "INSERT INTO skill_system.skill_files (version_id, path, content, size, sha256) VALUES ($1, $2, $3, $4, $5)",
            As::Owner,
            See::OwnWrites,
            &[arg(version.id), arg(&file.path), arg(&file.content), arg(file.content.len() as i32), arg(file.sha256())],
        );
    }
    Ok(())
}

fn write_status(version: &Version) {
    spi::execute(
        "UPDATE skill_system.skill_versions \
         SET status = $2, review_id = CASE $2 WHEN 'approved' THEN review_id ELSE skill_system.uuid_v7() END \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(version.id), arg(version.status.as_str())],
    );
}

/// The head has this metadata already.
fn metadata_matches(head: &Head, metadata: &Value) -> bool {
    const SQL: &str = concatcp!(
        "SELECT ",
        HEAD_JSON,
        " = $2 || coalesce(defined, '{}') FROM skill_system.skill_heads \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    spi::one(SQL, As::Owner, See::OwnWrites, &[arg(head.id), arg(metadata)])
}

/// Makes a version the one that is served, with this metadata.
fn make_current(head: &mut Head, version: &Version, metadata: &Value) {
    const SQL: &str = concatcp!(
        "UPDATE skill_system.skill_heads h SET current_version_id = $2, current_version = v.version, semver = v.semver, \
             body_size = v.body_size, body_etag = v.content_hash, status = v.status, \
             enabled = v.status = 'approved' AND (h.enabled OR h.status <> 'approved'), updated_at = clock_timestamp(), (",
        HEAD_COLUMNS,
        ") = ROW (",
        HEAD_VALUES,
        ") FROM skill_system.skill_versions v, \
             (SELECT $3 || coalesce(o.defined, '{}') AS about FROM skill_system.skill_heads o \
              WHERE o.tenant_id = skill_system.current_tenant() AND o.id = $1) a \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND v.tenant_id = h.tenant_id AND v.id = $2"
    );
    spi::execute(SQL, As::Owner, See::OwnWrites, &[arg(head.id), arg(version.id), arg(metadata)]);
    head.current_version_id = version.id;
    head.current_version.clone_from(&version.version);
    head.status = version.status;
    index::update(head);
}

/// Gives a version another status. An approved one becomes the one that is served, unless the skill is pinned to another.
pub fn set_status(head: &mut Head, version: &Version, status: Status, change: &Change) -> Result<State, Fault> {
    let before = version.status;
    let version = Version { status, ..version.clone() };
    let current = head.current_version_id == version.id;
    let becomes_current = !current && status == Status::Approved && !head.pinned;
    if before != status {
        write_status(&version);
        record_history(head, "status", Some(&version), Some(before), Some(status), change)?;
    } else if becomes_current {
        record_history(head, "current", Some(&version), Some(before), Some(status), change)?;
    }
    if becomes_current {
        make_current(head, &version, &model::version_metadata(&version));
    } else if current && before != status {
        head.status = status;
        spi::execute(
            "UPDATE skill_system.skill_heads SET status = $2, updated_at = clock_timestamp(), \
                 enabled = $2 = 'approved' AND (enabled OR status <> 'approved') \
             WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            As::Owner,
            See::OwnWrites,
            &[arg(head.id), arg(status.as_str())],
        );
    }
    if status == Status::Approved && before != status {
        dependencies::warn_unmet(head, &version);
    }
    Ok(State::new(head, &version, false))
}

/// Switches an approved skill on or off.
pub fn set_enabled(head: &Head, enabled: bool, change: &Change) -> Result<(), Fault> {
    let changed = spi::execute(
        "UPDATE skill_system.skill_heads SET enabled = $2, updated_at = clock_timestamp() \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 AND status = 'approved' AND enabled <> $2",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id), arg(enabled)],
    );
    if changed > 0 {
        let what = if enabled { "switched on" } else { "switched off" };
        let reason = change.reason.as_ref().map_or_else(|| what.to_owned(), |reason| format!("{what}: {reason}"));
        let change = Change { reason: Some(reason), ..change.clone() };
        record_history(head, "changed", None, Some(head.status), Some(head.status), &change)?;
    }
    Ok(())
}

/// Serves another approved version.
pub fn promote(head: &mut Head, version: &Version, change: &Change) -> Result<State, Fault> {
    if head.current_version_id != version.id {
        record_history(head, "current", Some(version), Some(head.status), Some(version.status), change)?;
        make_current(head, version, &model::version_metadata(version));
    }
    Ok(State::new(head, version, false))
}

/// Serves an approved version, or the one that is served now, until it is unpinned.
pub fn pin(head: &mut Head, version: &Version, change: &Change) -> Result<State, Fault> {
    let is_current = head.current_version_id == version.id;
    if !head.pinned || !is_current {
        record_history(head, "pinned", Some(version), Some(head.status), Some(version.status), change)?;
        if !is_current {
            make_current(head, version, &model::version_metadata(version));
        }
        write_pinned(head, true);
    }
    Ok(State::new(head, version, false))
}

/// Lets other versions be served again.
pub fn unpin(head: &mut Head, version: &Version, change: &Change) -> Result<State, Fault> {
    if head.pinned {
        record_history(head, "unpinned", Some(version), Some(head.status), Some(head.status), change)?;
        write_pinned(head, false);
    }
    Ok(State::new(head, version, false))
}

fn write_pinned(head: &mut Head, pinned: bool) {
    spi::execute(
        "UPDATE skill_system.skill_heads SET pinned = $2, updated_at = clock_timestamp() \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id), arg(pinned)],
    );
    head.pinned = pinned;
}

/// Puts a version into a channel.
pub fn set_channel(head: &Head, channel: &str, version: &Version, change: &Change) -> Result<State, Fault> {
    let changed = spi::execute(
        "INSERT INTO skill_system.skill_channels AS c (skill_id, channel, version_id, changed_by) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (tenant_id, skill_id, channel) DO UPDATE \
             SET version_id = excluded.version_id, changed_at = clock_timestamp(), changed_by = excluded.changed_by \
             WHERE c.version_id <> excluded.version_id",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id), arg(channel), arg(version.id), arg(&change.changed_by)],
    );
    if changed > 0 {
        let change = Change { channel: Some(channel.to_owned()), ..change.clone() };
        record_history(head, "channel", Some(version), None, Some(version.status), &change)?;
    }
    Ok(State::new(head, version, false))
}

/// Removes a channel; false when it does not exist.
pub fn drop_channel(head: &Head, channel: &str, change: &Change) -> Result<bool, Fault> {
    let dropped = spi::execute(
        "DELETE FROM skill_system.skill_channels \
         WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1 AND channel = $2",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id), arg(channel)],
    );
    if dropped > 0 {
        let change = Change { channel: Some(channel.to_owned()), ..change.clone() };
        record_history(head, "channel", None, None, None, &change)?;
    }
    Ok(dropped > 0)
}

/// Takes a skill out of use; its rows stay.
pub fn delete(head: &mut Head, change: &Change) -> Result<(), Fault> {
    spi::execute(
        "UPDATE skill_system.skill_heads \
         SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), enabled = false \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id)],
    );
    head.deleted = true;
    index::remove(head);
    record_history(head, "deleted", None, Some(head.status), None, change)
}

/// Removes a skill with its versions and files. The history and the audit trail stay.
pub fn purge(head: &mut Head, change: &Change) -> Result<(), Fault> {
    spi::execute(
        "DELETE FROM skill_system.skill_heads WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id)],
    );
    head.deleted = true;
    record_history(head, "deleted", None, Some(head.status), None, change)
}
