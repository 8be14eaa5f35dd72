//! Copies of rules that filings froze: how they are created, become stale, and are acknowledged or refreshed.

use const_format::concatcp;
use serde_json::json;
use skill_core::compliance::checklists::{EDITABLE, OPEN, REVIEWED, check_status};
use skill_core::compliance::rules::difference;
use skill_core::input::required;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Uuid, arg, pg_function, sys};

use super::filing::{Checklist, change_status, lock_checklist};
use super::{lock_rules, unknown};
use crate::args::{actor, given};
use crate::audit;

/// Freezes for a filing the rules that apply today, by the day of UTC, and are not frozen yet; the caller holds the lock.
pub fn freeze_rules(checklist: Uuid, new: bool, domains: Option<Vec<String>>, field: Option<&str>) -> i32 {
    let frozen = spi::execute(
        include_str!("freeze_rules.sql"),
        As::Owner,
        See::OwnWrites,
        &[arg(checklist), arg(domains), arg(field), arg(new)],
    );
    frozen as i32
}

pg_function!(snapshot_rules);
fn snapshot_rules(call: &Call) -> Answer {
    let id = given(call.arguments(), "checklist_id")?;
    lock_rules(Mode::Shared)?;
    let checklist = lock_checklist(id)?;
    check_status(&checklist.status, &EDITABLE)?;
    let frozen = freeze_rules(id, false, checklist.rule_domains, checklist.entity_field.as_deref());
    if frozen > 0 {
        let by = sys::role_name(sys::session_user());
        let data = json!({"checklist_id": id.to_string(), "rules": frozen});
        audit::append_by("filing.rules_frozen", [data], &by)?;
    }
    Ok(call.answer(frozen))
}

skill_pg::columns! {
    /// A frozen copy to be acknowledged or refreshed.
    struct Frozen {
        checklist: Uuid = "s.checklist_id",
        identifier: String = "v.rule_identifier::text",
        version: i32 = "v.version",
        newest: Option<Uuid> = "s.superseded_by",
        newest_version: Option<i32> = "n.version",
        acknowledged_by: Option<String> = "CASE WHEN s.acknowledged THEN s.acknowledged_by::text END",
        replaced: bool = "s.replaced_by IS NOT NULL",
    }
}

/// A stale copy with the newest version of its rule, and its filing.
struct Stale {
    frozen: Frozen,
    newest: Uuid,
    newest_version: i32,
    checklist: Checklist,
}

/// Locks a frozen copy, which must be stale, and its filing.
fn lock_stale(id: Uuid) -> Result<Stale, Fault> {
    lock_rules(Mode::Shared)?;
    let checklist_id = spi::first::<Uuid>(
        "SELECT checklist_id FROM skill_system.filing_rule_snapshots \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id)],
    );
    let checklist = lock_checklist(checklist_id.ok_or_else(|| unknown("snapshot", id))?)?;
    check_status(&checklist.status, &OPEN)?;
    const SQL: &str = concatcp!(
        "SELECT ",
        Frozen::COLUMNS,
        " FROM skill_system.filing_rule_snapshots s \
          JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
          LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
          WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1 FOR NO KEY UPDATE OF s"
    );
    let found = spi::first::<Frozen>(SQL, As::Owner, See::OwnWrites, &[arg(id)]);
    let frozen = found.ok_or_else(|| unknown("snapshot", id))?;
    let newest = frozen.newest.zip(frozen.newest_version).filter(|_| !frozen.replaced);
    let Some((newest, newest_version)) = newest else {
        let why =
            if frozen.replaced { "it has been replaced by a newer copy" } else { "the frozen version is the newest" };
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("the frozen {} version {} is not stale", frozen.identifier, frozen.version),
        )
        .detail(format!("Nothing needs to be settled: {why}."))
        .hint("SELECT * FROM skill_system.stale_filings();"));
    };
    Ok(Stale { frozen, newest, newest_version, checklist })
}

pg_function!(acknowledge_stale);
fn acknowledge_stale(call: &Call) -> Answer {
    let (id, actor_id, reason, seen): (_, _, _, Option<i32>) = call.arguments();
    let id = given(id, "snapshot_id")?;
    let by = required("actor_id", actor_id, 255)?;
    let comment = required("reason", reason, 10_000)?;
    let Stale { frozen, newest_version: newest, .. } = lock_stale(id)?;
    if let Some(seen) = seen.filter(|seen| *seen != newest) {
        return Err(Fault::new(
            Code::SerializationFailure,
            format!("{} has changed since: version {newest} is the newest, not {seen}", frozen.identifier),
        )
        .hint("Look at snapshot_diff() again, then acknowledge that version."));
    }
    if let Some(other) = frozen.acknowledged_by {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("the change of {} to version {newest} is already acknowledged", frozen.identifier),
        )
        .detail(format!("By {other}.")));
    }
    spi::execute(
        "UPDATE skill_system.filing_rule_snapshots SET acknowledged = true, acknowledged_by = $2, \
             acknowledged_at = clock_timestamp(), acknowledged_comment = $3 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(by), arg(comment)],
    );
    let data = json!({
        "checklist_id": frozen.checklist.to_string(), "snapshot_id": id.to_string(), "rule_identifier": frozen.identifier,
        "frozen_version": frozen.version, "acknowledged_version": newest, "from": "stale", "to": "acknowledged", "comment": comment,
    });
    audit::append_by("filing.stale_acknowledged", [data], by)?;
    Ok(call.null())
}

pg_function!(refresh_snapshot);
fn refresh_snapshot(call: &Call) -> Answer {
    let (id, actor_id) = call.arguments();
    let id = given(id, "snapshot_id")?;
    let by = actor(actor_id)?;
    let Stale { frozen, newest, newest_version, checklist } = lock_stale(id)?;
    let fresh: Uuid = spi::one(
        "INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256) \
         SELECT $2, v.id, v.rule_data, v.content_sha256 FROM skill_system.rule_versions v \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.id = $1 RETURNING id",
        As::Owner,
        See::OwnWrites,
        &[arg(newest), arg(frozen.checklist)],
    );
    spi::execute(
        "UPDATE skill_system.filing_rule_snapshots SET replaced_by = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(fresh)],
    );
    let data = json!({
        "checklist_id": frozen.checklist.to_string(), "snapshot_id": id.to_string(), "replaced_by": fresh.to_string(),
        "rule_identifier": frozen.identifier, "from": frozen.version, "to": newest_version,
    });
    audit::append_by("filing.rule_refreshed", [data], &by)?;
    if REVIEWED.contains(&checklist.status.as_str()) {
        change_status(&checklist, "refresh_snapshot", None, &by, json!({}))?;
    }
    Ok(call.answer(fresh))
}

pg_function!(snapshot_diff);
fn snapshot_diff(call: &Call) -> Answer {
    let id = given(call.arguments(), "snapshot_id")?;
    let mut found = None;
    spi::each(
        "SELECT v.rule_identifier::text, v.version, coalesce(n.version, v.version), s.is_current, s.acknowledged, \
             s.rule_data_at_snapshot::text, coalesce(n.rule_data, v.rule_data)::text \
         FROM skill_system.filing_rule_snapshots s \
         JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1",
        As::Caller,
        See::Statement,
        &[arg(id)],
        |row| {
            let (identifier, frozen, newest, is_current, acknowledged, before, after): (Arg, Arg, Arg, Arg, Arg, _, _) =
                row.read();
            let (patch, lines) = difference(&before, &after);
            found = Some(call.row(&[identifier, frozen, newest, is_current, acknowledged, arg(patch), arg(lines)]));
            Ok(())
        },
    )?;
    found.ok_or_else(|| unknown("snapshot", id))
}

/// Refuses to file while a frozen rule has a change that is not acknowledged.
pub fn check_not_stale(checklist: Uuid) -> Result<(), Fault> {
    let mut changes = Vec::new();
    // `Latest` also shows rules published since the snapshot of an older transaction.
    spi::each(
        "SELECT v.rule_identifier::text, v.version, n.version, s.rule_data_at_snapshot::text, n.rule_data::text \
         FROM skill_system.filing_rule_snapshots s \
         JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 AND NOT s.is_current \
             AND NOT s.acknowledged AND s.replaced_by IS NULL \
         ORDER BY v.rule_identifier LIMIT 20",
        As::Owner,
        See::Latest,
        &[arg(checklist)],
        |row| {
            let (identifier, from, to, before, after): (&str, i32, i32, _, _) = row.read();
            let (_, lines) = difference(&before, &after);
            let how = match lines.len() {
                0 => "the same parameters".into(),
                count => lines[..count.min(10)].join(", "),
            };
            changes.push(format!("{identifier} version {from} is superseded by {to}: {how}"));
            Ok(())
        },
    )?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, format!("{} rule(s) changed since this filing began", changes.len()))
        .detail(format!("{}.", changes.join("; ")))
        .hint("Look at stale_filings() and snapshot_diff(); then acknowledge_stale() or refresh_snapshot()."))
}

/// After a version was withdrawn: copies of open filings are compared with the one in force again. Returns how many are stale.
pub fn compare_again(identifier: &str, version: i32, id: Uuid, by: &str) -> Result<i64, Fault> {
    spi::execute(
        "UPDATE skill_system.filing_rule_snapshots s SET is_current = true, superseded_by = NULL, acknowledged = false, \
             acknowledged_by = NULL, acknowledged_at = NULL, acknowledged_comment = NULL \
         FROM skill_system.filing_checklists c \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.rule_version_id = $1 AND s.replaced_by IS NULL AND NOT s.is_current \
             AND c.tenant_id = s.tenant_id AND c.id = s.checklist_id AND c.status NOT IN ('filed', 'exception', 'withdrawn')",
        As::Owner,
        See::OwnWrites,
        &[arg(id)],
    );
    make_stale(identifier, version, id, by)
}

/// Marks the copies of open filings that froze another version of the rule as stale, also those whose change to an
/// earlier version was acknowledged. Returns how many.
pub fn make_stale(identifier: &str, version: i32, id: Uuid, by: &str) -> Result<i64, Fault> {
    let stale = spi::collect::<(Uuid, Uuid, i32)>(
        "UPDATE skill_system.filing_rule_snapshots s \
         SET is_current = false, superseded_by = $2, acknowledged = false, acknowledged_by = NULL, acknowledged_at = NULL, \
             acknowledged_comment = NULL \
         FROM skill_system.rule_versions v, skill_system.filing_checklists c \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $1 AND v.id <> $2 \
             AND s.tenant_id = v.tenant_id AND s.rule_version_id = v.id AND s.replaced_by IS NULL \
             AND c.tenant_id = s.tenant_id AND c.id = s.checklist_id AND c.status NOT IN ('filed', 'exception', 'withdrawn') \
         RETURNING s.id, s.checklist_id, v.version",
        As::Owner,
        See::OwnWrites,
        &[arg(identifier), arg(id)],
    );
    let changes = stale.iter().map(|(snapshot, checklist, from)| {
        json!({
            "checklist_id": checklist.to_string(), "snapshot_id": snapshot.to_string(), "rule_identifier": identifier,
            "from": from, "to": version,
        })
    });
    audit::append_by("filing.stale", changes, by)?;
    Ok(stale.len() as i64)
}
