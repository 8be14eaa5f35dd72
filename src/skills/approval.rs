//! Who approves: a reviewer's word, or an approver's signature where `skill_system.signed_approvals` asks for one.

use skill_pg::{Answer, Call, arg, pg_function, sys};
use skill_pg::spi::{self, As, See};
use crate::{settings, compat};
use serde_json::json;
use skill_core::input::required;
use skill_core::skills::Status;
use skill_core::skills::approval::{self as logic, PREFIX, rejected};
use skill_core::skills::names::Reference;
use skill_core::{Code, Fault};

use super::registry::{self, Head, Version};
use crate::args::missing;
use crate::audit;

/// The key of this tenant's approvers that signed `message`, as its key id.
pub fn signer(message: &[u8], signature: &[u8; 64]) -> Option<String> {
    let mut found = None;
    compat::run(
        "SELECT key_id, public_key FROM skill_system.skill_approvers \
         WHERE tenant_id = skill_system.current_tenant() AND revoked_at IS NULL ORDER BY added_at, key_id",
        As::Owner, See::OwnWrites,
        &[],
        |row| {
            if found.is_none() && row.bytes(2).is_some_and(|key| logic::verifies(key, message, signature)) {
                found = row.get::<Option<String>>(1);
            }
        },
    );
    found
}

/// The caller may approve: a member of skill_system_reviewer or skill_system_admin, or a superuser.
pub fn may_approve() -> bool {
    sys::has_rights_of_named(c"skill_system_reviewer") || sys::has_rights_of_named(c"skill_system_admin")
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
            .hint("v1: and the 64 bytes of an Ed25519 signature in base64url, without padding.")
    })?;
    let text = logic::text(&settings::tenant(), &head.namespace, &head.skill_name, &version.digest);
    match signer(text.as_bytes(), &bytes) {
        Some(key_id) => Ok(Some(format!("{key_id} {signature}"))),
        None => Err(rejected(format!("no registered approver signed version {} of skill \"{}\"", version.version, head.skill_name))
            .hint("The signature must be over skill_approval_text(), byte for byte, by a key of skill_approvers that is not revoked.")),
    }
}

pg_function!(skill_approval_text);
/// `skill_approval_text(skill, version)`
fn skill_approval_text(call: &Call) -> Answer {
    let head = registry::find(Reference::parse(call.text(0))?)?;
    let version = registry::version(&head, call.text(1), As::Caller, See::Statement)?;
    Ok(arg(&logic::text(&settings::tenant(), &head.namespace, &head.skill_name, &version.digest))
        .unwrap_or_else(|| call.null()))
}

pg_function!(add_skill_approver);
/// `add_skill_approver(public_key, approver)`
fn add_skill_approver(call: &Call) -> Answer {
    let key = logic::public_key(call.text(0).ok_or_else(|| missing("public_key"))?)?;
    let approver = required("approver", call.text(1), 200)?;
    let key_id = logic::key_id(&key);
    let by = sys::role_name(sys::session_user());
    let added = compat::run(
        "INSERT INTO skill_system.skill_approvers (key_id, public_key, approver, added_by) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        As::Owner, See::OwnWrites,
        &[arg(key_id.as_str()), arg(&key), arg(approver), arg(by)],
        |_| (),
    );
    if added == 0 {
        return Err(Fault::new(Code::UniqueViolation, format!("key {key_id} is there already"))
            .detail("A key that was revoked stays so.")
            .hint("SELECT * FROM skill_system.skill_approvers;"));
    }
    audit::append("skill.approver_added", json!({"key_id": key_id, "approver": approver}), Some(by), Some("user"));
    Ok(arg(&key_id).unwrap_or_else(|| call.null()))
}

pg_function!(revoke_skill_approver);
/// `revoke_skill_approver(key_id)`
fn revoke_skill_approver(call: &Call) -> Answer {
    let key_id = call.text(0).ok_or_else(|| missing("key_id"))?;
    let mut before = None;
    compat::run(
        "SELECT revoked_at IS NOT NULL FROM skill_system.skill_approvers \
         WHERE tenant_id = skill_system.current_tenant() AND key_id = $1 FOR UPDATE",
        As::Owner, See::OwnWrites,
        &[arg(key_id)],
        |row| before = row.get::<Option<bool>>(1),
    );
    match before {
        None => Err(Fault::new(
            Code::UndefinedObject,
            format!("there is no approver's key \"{}\"", skill_core::error::shorten(key_id)),
        )
        .hint("SELECT * FROM skill_system.skill_approvers;")),
        Some(true) => Ok(false.into()),
        Some(false) => {
            compat::run(
                "UPDATE skill_system.skill_approvers SET revoked_at = clock_timestamp() WHERE tenant_id = skill_system.current_tenant() AND key_id = $1",
                As::Owner, See::OwnWrites,
                &[arg(key_id)],
                |_| (),
            );
            audit::append(
                "skill.approver_revoked",
                json!({"key_id": key_id}),
                Some(sys::role_name(sys::session_user())),
                Some("user"),
            );
            Ok(true.into())
        }
    }
}
