//! What is withdrawn: filings, evidence, and versions of rules that are not in force yet.

use serde_json::{Map, json};
use skill_core::compliance::checklists::{self as logic, UNDECIDED};
use skill_core::compliance::rules::check_withdrawal;
use skill_core::input::{invalid, optional, required};
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Uuid, arg, pg_function, sys};

use super::filing::{change_status, lock_checklist};
use super::frozen_rules::compare_again;
use super::rules::{Proposal, lock_proposal, require_read_committed, state};
use super::{lock_rules, unknown};
use crate::args::{actor, given};
use crate::{audit, locks};

/// Authors may withdraw, reviewers with a reason, and nobody else.
fn check_right(is_author: bool, reason: Option<&str>, what: &str) -> Result<(), Fault> {
    if is_author {
        return Ok(());
    }
    if !locks::decides() {
        return Err(Fault::new(Code::InsufficientPrivilege, format!("permission denied to withdraw {what}"))
            .detail("Its author may, the role that created it with the same actor_id, until it is approved.")
            .hint("Members of skill_system_reviewer may, with a reason."));
    }
    required("reason", reason, 10_000).map(|_| ())
}

pg_function!(withdraw_checklist);
fn withdraw_checklist(call: &Call) -> Answer {
    let (id, reason, actor_id, expected_version) = call.arguments();
    let id = given(id, "checklist_id")?;
    let reason = optional("reason", reason, 10_000)?;
    let by = actor(actor_id)?;
    let mut checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, expected_version)?;
    logic::next("withdraw_checklist", &checklist.status, None)?;
    let (role, author): (String, Option<String>) = spi::one(
        "SELECT created_by_role, created_by::text FROM skill_system.filing_checklists \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id)],
    );
    let is_author = role == sys::role_name(sys::current_user())
        && author.is_none_or(|author| author == by)
        && UNDECIDED.contains(&checklist.status.as_str());
    check_right(is_author, reason, &format!("checklist {id}"))?;
    if let Some(metadata) = checklist.metadata.as_object_mut() {
        metadata.insert("withdrawal".into(), json!({"by": by, "at": checklist.now, "reason": reason}));
    }
    let (status, version) = change_status(&checklist, "withdraw_checklist", None, &by, json!({"reason": reason}))?;
    Ok(call.row(&[arg(id), arg(status), arg(version)]))
}

skill_pg::columns! {
    /// An artifact to be withdrawn.
    struct Evidence {
        checklist: Uuid = "checklist_id",
        item_index: i32 = "item_index",
        name: String = "name::text",
        is_withdrawn: bool = "withdrawn_at IS NOT NULL",
    }
}

fn evidence(id: Uuid) -> Result<Evidence, Fault> {
    const SQL: &str = const_format::concatcp!(
        "SELECT ",
        Evidence::COLUMNS,
        " FROM skill_system.checklist_artifacts WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    spi::first(SQL, As::Owner, See::OwnWrites, &[arg(id)]).ok_or_else(|| unknown("artifact", id))
}

pg_function!(withdraw_artifact);
fn withdraw_artifact(call: &Call) -> Answer {
    let (id, reason, replacement, actor_id): (_, _, Option<Uuid>, _) = call.arguments();
    let id = given(id, "artifact_id")?;
    let reason = required("reason", reason, 10_000)?;
    let by = actor(actor_id)?;
    let checklist = lock_checklist(evidence(id)?.checklist)?;
    logic::check_status(&checklist.status, &UNDECIDED)?;
    let artifact = evidence(id)?;
    if artifact.is_withdrawn {
        return Err(Fault::new(Code::NotInPrerequisiteState, format!("artifact {id} is withdrawn already")));
    }
    if let Some(replacement_id) = replacement {
        let other = evidence(replacement_id)?;
        let is_same_item = (other.checklist, other.item_index) == (artifact.checklist, artifact.item_index);
        if !is_same_item || other.is_withdrawn || replacement_id == id {
            return Err(invalid(format!("artifact {replacement_id} cannot replace artifact {id}"))
                .detail("It must be another artifact of the same item, which is not withdrawn.")
                .hint("Add it first, with add_artifact()."));
        }
    }
    spi::execute(
        "UPDATE skill_system.checklist_artifacts \
         SET withdrawn_at = clock_timestamp(), withdrawn_by = $2, withdrawal_reason = $3, superseded_by = $4 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(by.as_str()), arg(reason), arg(replacement)],
    );
    // As when evidence is added: a reviewer names what was read by the version.
    let version: i32 = spi::one(
        "UPDATE skill_system.filing_checklists SET version = version + 1 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 RETURNING version",
        As::Owner,
        See::OwnWrites,
        &[arg(checklist.id)],
    );
    let data = json!({
        "checklist_id": checklist.id.to_string(), "artifact_id": id.to_string(), "item_index": artifact.item_index,
        "name": artifact.name, "reason": reason, "superseded_by": replacement.map(|id| id.to_string()),
    });
    audit::append_by("filing.artifact_withdrawn", [data], &by)?;
    Ok(call.row(&[arg(checklist.id), arg(checklist.status.as_str()), arg(version)]))
}

pg_function!(withdraw_rule);
fn withdraw_rule(call: &Call) -> Answer {
    let (id, reason, actor_id): (_, _, Option<&str>) = call.arguments();
    let id = given(id, "rule_version_id")?;
    let reason = optional("reason", reason, 10_000)?;
    let by = actor(actor_id)?;
    let mut proposal = lock_proposal(id)?;
    if proposal.status == "active" {
        require_read_committed()?;
        lock_rules(Mode::Exclusive)?;
        // Another session may have published the next version before.
        proposal = lock_proposal(id)?;
    }
    check_withdrawal(&proposal.identifier, proposal.version, &proposal.status, proposal.is_future)?;
    let is_author = proposal.status != "active"
        && proposal.role == sys::role_name(sys::current_user())
        && proposal.detected_by.as_deref() == actor_id;
    check_right(is_author, reason, &format!("version {} of {}", proposal.version, proposal.identifier))?;
    spi::execute(
        "UPDATE skill_system.rule_versions \
         SET status = 'withdrawn', withdrawn_by = $2, withdrawn_at = clock_timestamp(), withdrawal_reason = $3 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(by.as_str()), arg(reason)],
    );
    let (again, stale) = if proposal.status == "active" { restore_previous(&proposal, &by)? } else { (None, 0) };
    let mut data = Map::new();
    data.extend([
        ("rule_identifier".to_owned(), json!(proposal.identifier)),
        ("rule_version_id".to_owned(), json!(id.to_string())),
        ("version".to_owned(), json!(proposal.version)),
        ("from".to_owned(), json!(proposal.status)),
        ("to".to_owned(), json!("withdrawn")),
        ("reason".to_owned(), json!(reason)),
        ("in_force_again".to_owned(), json!(again)),
        ("stale_snapshots".to_owned(), json!(stale)),
    ]);
    audit::append_by("rule.withdrawn", [data.into()], &by)?;
    Ok(state(call, id, &proposal.identifier, proposal.version, "withdrawn", None, stale))
}

/// The version that the withdrawn one would have superseded has no successor again. Returns its number and how many
/// copies are stale.
fn restore_previous(withdrawn: &Proposal, by: &str) -> Result<(Option<i32>, i64), Fault> {
    let previous = spi::first::<(Uuid, i32)>(
        "UPDATE skill_system.rule_versions SET status = 'active', superseded_date = NULL \
         WHERE tenant_id = skill_system.current_tenant() AND id = (SELECT id FROM skill_system.rule_versions \
             WHERE tenant_id = skill_system.current_tenant() AND rule_identifier = $1 AND status = 'superseded' \
                 AND superseded_date = $2 ORDER BY version DESC LIMIT 1) RETURNING id, version",
        As::Owner,
        See::OwnWrites,
        &[arg(&withdrawn.identifier), arg(withdrawn.date)],
    );
    match previous {
        Some((id, version)) => Ok((Some(version), compare_again(&withdrawn.identifier, version, id, by)?)),
        None => Ok((None, 0)),
    }
}
