//! Who approves: a reviewer, or an approver's signature where `skill_system.signed_approvals` is on.

use const_format::concatcp;
use serde_json::json;
use skill_core::error::shorten;
use skill_core::input::{invalid, required};
use skill_core::skills::Status;
use skill_core::skills::approval::{self as logic, Approval, PREFIX, rejected};
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Timing, Trigger, Uuid, arg, pg_function, sys};

use super::history::append_audit;
use super::model::{self, HEAD_JSON, Head, Version};
use super::requirements::named_version;
use crate::args::given;
use crate::{audit, locks, settings};

/// The key of this tenant's approvers that signed `message`, as its key id.
pub fn signer(message: &[u8], signature: &[u8; 64]) -> Option<String> {
    let keys = spi::collect::<(String, Vec<u8>)>(
        "SELECT key_id, public_key FROM skill_system.skill_approvers \
         WHERE tenant_id = skill_system.current_tenant() AND revoked_at IS NULL ORDER BY added_at, key_id",
        As::Owner,
        See::OwnWrites,
        &[],
    );
    keys.into_iter().find(|(_, key)| logic::verifies(key, message, signature)).map(|(key_id, _)| key_id)
}

/// This tenant has an approver whose key is not revoked.
pub fn has_approver() -> bool {
    spi::one(
        "SELECT EXISTS (SELECT FROM skill_system.skill_approvers \
                        WHERE tenant_id = skill_system.current_tenant() AND revoked_at IS NULL)",
        As::Owner,
        See::OwnWrites,
        &[],
    )
}

/// The caller may approve: a member of skill_system_reviewer or skill_system_admin, or a superuser.
pub fn may_approve() -> bool {
    locks::decides()
}

/// The caller may change a status, of a skill or of a version: drafts are everybody's, what was decided is not.
pub fn may_change(before: Option<Status>, after: Option<Status>) -> bool {
    let approves = after == Some(Status::Approved);
    !(approves || before.is_some_and(Status::is_decided)) || may_approve() || settings::single_user_store() && !approves
}

/// The fault of a caller for whom [`may_change`] is false.
pub fn not_permitted(what: &str) -> Fault {
    Fault::new(Code::InsufficientPrivilege, format!("permission denied to change {what}"))
        .detail("Only members of skill_system_reviewer or skill_system_admin change what was approved or disabled.")
        .hint("Register a new version; it waits as a draft until a reviewer approves it.")
}

/// What is newest when the approval comes need not be what the reviewer has read.
pub fn version_missing() -> Fault {
    invalid("version must be given to approve a skill")
        .detail("The newest version may be another one than the one that was read.")
        .hint("SELECT version, status, created_at, created_by FROM skill_system.skill_version_list(skill);")
}

pg_function!(guard_decision);
/// BEFORE each change of a row of `skill_heads` and `skill_versions`: the one place that no entrance bypasses.
fn guard_decision(call: &Call) -> Answer {
    let events = [Event::Insert, Event::Update, Event::Delete];
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &events)])?;
    let (event, read) = (trigger.event(), |word: &str| Status::parse(word).unwrap_or(Status::Disabled));
    let before = (event != Event::Insert).then(|| read(trigger.old::<&str>(c"status")));
    let after = (event != Event::Delete).then(|| read(trigger.new_value::<&str>(c"status")));
    // A restore is the owner's.
    if may_change(before, after) || sys::caller() == sys::owner() {
        return Ok(trigger.proceed());
    }
    Err(not_permitted(&format!("a decision in {}", trigger.relation_name())))
}

/// What somebody signs to approve a version now.
fn approval_text(head: &Head, version: &Version, rights: As, see: See) -> Result<String, Fault> {
    const SQL: &str = concatcp!(
        "SELECT v.review_id, encode(sha256(convert_to(jsonb_build_object('about', \
             CASE WHEN v.id = h.current_version_id THEN ",
        HEAD_JSON,
        " ELSE v.about || coalesce(h.defined, '{}') END, 'tier1_manifest', h.tier1_manifest, 'tier2_definition', \
             h.tier2_definition, 'tier3_artifact_refs', h.tier3_artifact_refs, 'context_mode', h.context_mode)::text, 'UTF8')), 'hex') \
         FROM skill_system.skill_heads h \
         JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.skill_id = h.id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 AND v.id = $2"
    );
    let found = spi::first::<(Uuid, String)>(SQL, rights, see, &[arg(head.id), arg(version.id)]);
    let (review_id, metadata_digest) = found.ok_or_else(|| model::no_version(head, &version.version))?;
    Ok(Approval {
        log_id: &Uuid::from_bytes(audit::existing_log_id()?).to_string(),
        tenant: &settings::tenant()?,
        namespace: &head.namespace,
        skill_name: &head.skill_name,
        digest: &version.digest,
        metadata_digest: &metadata_digest,
        review_id: &review_id.to_string(),
    }
    .text())
}

/// Checks the signature that comes with a change of status. Returns what the history keeps of it.
pub fn check(head: &Head, version: &Version, status: Status, signature: Option<&str>) -> Result<Option<String>, Fault> {
    if status != Status::Approved {
        return Ok(None);
    }
    let Some(signature) = signature else {
        if !settings::signed_approvals() || version.status == Status::Approved {
            return Ok(None);
        }
        return Err(rejected(format!("skill \"{}\" needs the signature of an approver", head.skill_name))
            .detail("skill_system.signed_approvals is on.")
            .hint("Sign skill_approval_text() with the key of a registered approver; skill_approvers lists them."));
    };
    let bytes = signature.strip_prefix(PREFIX).and_then(logic::signature);
    let bytes = bytes.ok_or_else(|| {
        rejected("the signature cannot be read")
            .hint("A signature is v1: and the 64 bytes of an Ed25519 signature in base64url, without padding.")
    })?;
    let text = approval_text(head, version, As::Owner, See::OwnWrites)?;
    let key_id = signer(text.as_bytes(), &bytes).ok_or_else(|| {
        let version = &version.version;
        rejected(format!("no registered approver signed version {version} of skill \"{}\"", head.skill_name)).hint(
            "The signature must be over skill_approval_text() as it is now, byte for byte, by a key of skill_approvers that is not \
             revoked. A version that was disabled, or whose metadata changed, needs a new one.",
        )
    })?;
    Ok(Some(format!("{key_id} {signature}")))
}

pg_function!(skill_approval_text);
fn skill_approval_text(call: &Call) -> Answer {
    let (skill, version) = call.arguments();
    let head = model::find(Reference::parse(skill)?)?;
    let version = named_version(&head, version, As::Caller, See::Statement)?;
    Ok(call.answer(approval_text(&head, &version, As::Caller, See::Statement)?))
}

pg_function!(add_skill_approver);
fn add_skill_approver(call: &Call) -> Answer {
    let (public_key, approver) = call.arguments();
    let key = logic::public_key(given(public_key, "public_key")?)?;
    let approver = required("approver", approver, 200)?;
    let key_id = logic::key_id(&key);
    let added = spi::execute(
        "INSERT INTO skill_system.skill_approvers (key_id, public_key, approver, added_by) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
        As::Owner,
        See::OwnWrites,
        &[arg(&key_id), arg(&key), arg(approver), arg(sys::role_name(sys::session_user()))],
    );
    if added == 0 {
        return Err(Fault::new(Code::UniqueViolation, format!("key {key_id} already exists"))
            .detail("A key that was revoked stays so.")
            .hint("SELECT * FROM skill_system.skill_approvers;"));
    }
    append_audit("skill.approver_added", json!({"key_id": key_id, "approver": approver}))?;
    Ok(call.answer(key_id))
}

pg_function!(revoke_skill_approver);
fn revoke_skill_approver(call: &Call) -> Answer {
    let key_id = given(call.arguments(), "key_id")?;
    let what = format!("approver's key \"{}\"", shorten(key_id));
    locks::acquire(c"skill_approvers", &[&settings::tenant()?, key_id], Mode::Exclusive, &what)?;
    let revoked = spi::first::<bool>(
        "SELECT revoked_at IS NOT NULL FROM skill_system.skill_approvers \
         WHERE tenant_id = skill_system.current_tenant() AND key_id = $1 FOR UPDATE",
        As::Owner,
        See::OwnWrites,
        &[arg(key_id)],
    );
    let revoked = revoked.ok_or_else(|| {
        Fault::new(Code::UndefinedObject, format!("approver's key \"{}\" does not exist", shorten(key_id)))
            .hint("SELECT * FROM skill_system.skill_approvers;")
    })?;
    if !revoked {
        spi::execute(
            "UPDATE skill_system.skill_approvers SET revoked_at = clock_timestamp() \
             WHERE tenant_id = skill_system.current_tenant() AND key_id = $1",
            As::Owner,
            See::OwnWrites,
            &[arg(key_id)],
        );
        append_audit("skill.approver_revoked", json!({"key_id": key_id}))?;
    }
    Ok(call.answer(!revoked))
}
