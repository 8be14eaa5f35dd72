//! Rules: publishing versions, and the copies that filings froze.

use pgrx::pg_sys;
use serde_json::{Value, json};
use skill_core::compliance::checklists::{EDITABLE, OPEN, REVIEWED, check_status as check_filing_status};
use skill_core::compliance::rules::{DECISIONS, RuleInput, check_status, difference};
use skill_core::input::{optional, required, sha256, word};
use skill_core::{Code, Fault};

use super::checklists;
use super::{RuleLock, lock_rules, record, record_all, text, unknown};
use crate::args::{json as json_argument, jsonb_datum, missing, stored, uuid, uuid_datum, who};
use crate::pg::call::{Answer, Call, text_array_datum};
use crate::pg::spi::{self, Access, Arg, arg, given};
use crate::pg::sys;
use crate::pg_function;

/// The version in force, or to come, that has no successor.
struct Current {
    id: pgrx::Uuid,
    version: i32,
    /// The new version may take effect on the given day.
    may_be_followed: bool,
    effective_date: String,
}

fn current(identifier: &str, effective_date: &Arg) -> Option<Current> {
    let mut found = None;
    spi::run(
        "SELECT id, version, effective_date <= $2, effective_date::text FROM skill_system.rule_versions \
         WHERE tenant_id = skill_system.current_tenant() AND rule_identifier = $1 AND status = 'active'",
        Access::WriteAsOwner,
        &[arg(identifier), effective_date.clone()],
        |row| {
            found = row.get(1).map(|id| Current {
                id,
                version: row.get(2).unwrap_or_default(),
                may_be_followed: row.get(3).unwrap_or_default(),
                effective_date: row.get(4).unwrap_or_default(),
            });
        },
    );
    found
}

/// An old snapshot would not show the copies that others have frozen meanwhile.
fn need_read_committed() -> Result<(), Fault> {
    if sys::read_committed() {
        return Ok(());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, "a rule cannot be put in force under REPEATABLE READ or SERIALIZABLE")
        .detail("Filings begun since the transaction's start would not become stale.")
        .hint("Use BEGIN ISOLATION LEVEL READ COMMITTED."))
}

/// Takes the version in force, if any, out of it on the day its successor begins.
fn supersede(identifier: &str, effective_date: &Arg) -> Result<Option<Current>, Fault> {
    let current = current(identifier, effective_date);
    if let Some(current) = &current {
        if !current.may_be_followed {
            return Err(Fault::new(
                Code::InvalidParameterValue,
                "effective_date lies before that of the version in force",
            )
            .detail(format!("Version {} of {identifier} is in force from {}.", current.version, current.effective_date))
            .hint("A later version cannot begin before an earlier one; it may begin on the same day."));
        }
        spi::run(
            "UPDATE skill_system.rule_versions SET status = 'superseded', superseded_date = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            Access::WriteAsOwner,
            &[arg(current.id), effective_date.clone()],
            |_| (),
        );
    }
    Ok(current)
}

/// Every open filing that froze another version of the rule becomes stale, also one
/// whose change to an earlier version was acknowledged. Returns how many copies.
fn make_stale(identifier: &str, version: i32, id: pgrx::Uuid, by: &str) -> i64 {
    let mut stale = Vec::new();
    spi::run(
        "UPDATE skill_system.filing_rule_snapshots s \
         SET is_current = false, superseded_by = $2, acknowledged = false, acknowledged_by = NULL, acknowledged_at = NULL, acknowledged_comment = NULL \
         FROM skill_system.rule_versions v, skill_system.filing_checklists c \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $1 AND v.id <> $2 \
             AND s.tenant_id = v.tenant_id AND s.rule_version_id = v.id AND s.replaced_by IS NULL \
             AND c.tenant_id = s.tenant_id AND c.id = s.checklist_id AND c.status NOT IN ('filed', 'exception') \
         RETURNING s.id, s.checklist_id, v.version",
        Access::WriteAsOwner,
        &[arg(identifier), arg(id)],
        |row| stale.push((row.get::<pgrx::Uuid>(1), row.get::<pgrx::Uuid>(2), row.get::<i32>(3))),
    );
    let name = |id: &Option<pgrx::Uuid>| id.map(|id| id.to_string());
    let changes = stale.iter().map(|(snapshot, checklist, from)| {
        json!({"checklist_id": name(checklist), "snapshot_id": name(snapshot), "rule_identifier": identifier, "from": from, "to": version})
    });
    record_all("filing.stale", changes, by);
    stale.len() as i64
}

/// Makes the next version of a rule, for `publish_rule` (active) and `propose_rule`.
fn add_version(call: &Call, status: &str) -> Answer {
    let day = call.datum(2).ok_or_else(|| missing("effective_date"))?;
    if [i32::MIN, i32::MAX].contains(&(day.value() as i32)) {
        return Err(Fault::new(Code::InvalidParameterValue, "effective_date must be a day, not infinity"));
    }
    let date = given(Some(day), pg_sys::DATEOID);
    let data = json_argument(call, 3, "rule_data")?;
    let input = RuleInput {
        rule_identifier: call.text(0),
        rule_domain: call.text(1),
        rule_data: data.as_ref(),
        source: call.text(4),
        rule_type: call.text(5),
        source_reference: call.text(6),
        change_summary: call.text(7),
        graph_node_id: call.text(8),
        detected_by: call.text(9),
    };
    let rule = input.check()?;
    let (identifier, content, detected_by) = (rule.rule_identifier, &rule.content, rule.detected_by);
    // What is compared and hashed later must be what was given.
    let exact = spi::one::<bool>(
        "SELECT $1::jsonb = $2",
        Access::Read,
        &[arg(content.as_str()), given(call.datum(3), pg_sys::JSONBOID)],
    );
    if exact != Some(true) {
        return Err(Fault::new(
            Code::InvalidParameterValue,
            "rule_data has a number with more digits than a double keeps",
        )
        .hint("Write it as text."));
    }
    let active = status == "active";
    if active {
        need_read_committed()?;
    }
    lock_rules(RuleLock::Exclusive);
    let previous = if active { supersede(identifier, &date)? } else { current(identifier, &date) };
    let by = detected_by.unwrap_or_else(|| sys::role_name(sys::session_user()));
    let (mut id, mut version) = (None::<pgrx::Uuid>, 0i32);
    spi::run(
        "INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, source, source_reference, \
             rule_data, graph_node_id, change_summary, detected_by, status, content_sha256, approved_by, approved_at) \
         SELECT $1, $2, $3, coalesce(max(v.version), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             CASE WHEN $11 = 'active' THEN $13 END, CASE WHEN $11 = 'active' THEN clock_timestamp() END \
         FROM skill_system.rule_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $3 \
         RETURNING id, version",
        Access::WriteAsOwner,
        &[
            arg(rule.rule_type),
            arg(rule.rule_domain),
            arg(identifier),
            date,
            arg(rule.source),
            arg(rule.source_reference),
            given(call.datum(3), pg_sys::JSONBOID),
            arg(rule.graph_node_id),
            arg(rule.change_summary),
            arg(detected_by),
            arg(status),
            arg(sha256(content.as_bytes()).as_str()),
            arg(by),
        ],
        |row| (id, version) = (row.get(1), row.get(2).unwrap_or_default()),
    );
    let id = id.ok_or_else(|| Fault::new(Code::Internal, "the version was not written"))?;
    let stale = if active { make_stale(identifier, version, id, by) } else { 0 };
    let event = if active { "rule.published" } else { "rule.proposed" };
    let superseded = previous.as_ref().filter(|_| active);
    let data = json!({
        "rule_identifier": identifier, "rule_version_id": id.to_string(), "version": version, "from": null, "to": status,
        "supersedes": superseded.map(|previous| previous.version), "content_sha256": sha256(content.as_bytes()), "stale_snapshots": stale,
    });
    record(event, data, by);
    Ok(state(call, id, identifier, version, status, superseded.map(|previous| previous.id), stale))
}

fn state(
    call: &Call,
    id: pgrx::Uuid,
    identifier: &str,
    version: i32,
    status: &str,
    supersedes: Option<pgrx::Uuid>,
    stale: i64,
) -> pg_sys::Datum {
    call.row(&mut [
        uuid_datum(id),
        text(identifier),
        Some(pg_sys::Datum::from(version)),
        text(status),
        supersedes.and_then(uuid_datum),
        Some(pg_sys::Datum::from(stale)),
    ])
}

pg_function!(pg_finfo_skill_publish_rule, skill_publish_rule, publish_rule);
/// `publish_rule(rule_identifier, rule_domain, effective_date, rule_data, source, rule_type, source_reference, change_summary, graph_node_id, detected_by)`
fn publish_rule(call: &Call) -> Answer {
    add_version(call, "active")
}

pg_function!(pg_finfo_skill_propose_rule, skill_propose_rule, propose_rule);
/// As `publish_rule`, and `draft`.
fn propose_rule(call: &Call) -> Answer {
    let draft: bool = call.get(10).ok_or_else(|| missing("draft"))?;
    add_version(call, if draft { "draft" } else { "pending_review" })
}

/// A version that somebody is to decide on.
struct Proposal {
    identifier: String,
    version: i32,
    status: String,
    date: Arg,
}

fn proposal(id: pgrx::Uuid) -> Result<Proposal, Fault> {
    let mut found = None;
    spi::run(
        "SELECT rule_identifier::text, version, status::text, effective_date FROM skill_system.rule_versions \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE",
        Access::WriteAsOwner,
        &[arg(id)],
        |row| {
            found = Some(Proposal {
                identifier: row.get(1).unwrap_or_default(),
                version: row.get(2).unwrap_or_default(),
                status: row.get(3).unwrap_or_default(),
                date: given(row.datum(4), pg_sys::DATEOID),
            });
        },
    );
    found.ok_or_else(|| unknown("rule version", id))
}

fn need_status(proposal: &Proposal, needed: &str, action: &str) -> Result<(), Fault> {
    check_status(&proposal.identifier, proposal.version, &proposal.status, needed, action)
}

fn set_status(id: pgrx::Uuid, status: &str, approved_by: Option<&str>) {
    spi::run(
        "UPDATE skill_system.rule_versions SET status = $2, approved_by = $3, approved_at = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::WriteAsOwner,
        &[arg(id), arg(status), arg(approved_by)],
        |_| (),
    );
}

pg_function!(pg_finfo_skill_submit_rule, skill_submit_rule, submit_rule);
/// `submit_rule(rule_version_id, actor_id)`
fn submit_rule(call: &Call) -> Answer {
    let id = uuid(call, 0, "rule_version_id")?;
    let by = who(call, 1, "actor_id")?;
    lock_rules(RuleLock::Exclusive);
    let proposal = proposal(id)?;
    need_status(&proposal, "draft", "submitted")?;
    set_status(id, "pending_review", None);
    let data = json!({"rule_identifier": proposal.identifier, "rule_version_id": id.to_string(), "version": proposal.version, "from": "draft", "to": "pending_review"});
    record("rule.submitted", data, &by);
    Ok(state(call, id, &proposal.identifier, proposal.version, "pending_review", None, 0))
}

pg_function!(pg_finfo_skill_review_rule, skill_review_rule, review_rule);
/// `review_rule(rule_version_id, decision, actor_id, reason)`
fn review_rule(call: &Call) -> Answer {
    let id = uuid(call, 0, "rule_version_id")?;
    let decision = word("decision", call.text(1), &DECISIONS)?;
    let by = who(call, 2, "actor_id")?;
    let comment = optional("reason", call.text(3), 10_000)?;
    if decision == "approved" {
        need_read_committed()?;
    }
    lock_rules(RuleLock::Exclusive);
    let proposal = proposal(id)?;
    need_status(&proposal, "pending_review", decision)?;
    let (identifier, version) = (proposal.identifier.as_str(), proposal.version);
    let (status, previous, stale) = if decision == "approved" {
        if let Some(newer) = current(identifier, &proposal.date).filter(|current| current.version > version) {
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("version {version} of {identifier} is overtaken by version {}", newer.version),
            )
            .hint("Propose the change again, on top of the version in force."));
        }
        let previous = supersede(identifier, &proposal.date)?;
        set_status(id, "active", Some(&by));
        ("active", previous, make_stale(identifier, version, id, &by))
    } else {
        set_status(id, "draft", None);
        ("draft", None, 0)
    };
    let data = json!({
        "rule_identifier": identifier, "rule_version_id": id.to_string(), "version": version, "from": "pending_review", "to": status,
        "comment": comment, "supersedes": previous.as_ref().map(|previous| previous.version), "stale_snapshots": stale,
    });
    record(if decision == "approved" { "rule.published" } else { "rule.rejected" }, data, &by);
    Ok(state(call, id, identifier, version, status, previous.map(|previous| previous.id), stale))
}

fn rule_data(id: pgrx::Uuid) -> Result<Value, Fault> {
    let text = spi::one::<String>(
        "SELECT rule_data::text FROM skill_system.rule_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::Read,
        &[arg(id)],
    );
    text.map(|text| stored(Some(text))).ok_or_else(|| unknown("rule version", id))
}

pg_function!(pg_finfo_skill_diff_rules, skill_diff_rules, diff_rules);
/// `diff_rules(old_version_id, new_version_id)`
fn diff_rules(call: &Call) -> Answer {
    let old = rule_data(uuid(call, 0, "old_version_id")?)?;
    let new = rule_data(uuid(call, 1, "new_version_id")?)?;
    let (patch, lines) = difference(&old, &new);
    Ok(call.row(&mut [jsonb_datum(patch), text_array_datum(&lines)]))
}

/// Freezes for a filing what applies today and is not frozen yet, which is everything
/// for a new one; the caller holds the lock.
pub fn freeze(checklist: pgrx::Uuid, new: bool, domains: Option<Vec<String>>, field: Option<&str>) -> i32 {
    let frozen = spi::run(
        "INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256, is_current, superseded_by) \
         SELECT $1, v.id, v.rule_data, v.content_sha256, n.id IS NULL, n.id FROM skill_system.rule_versions v \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = v.tenant_id AND n.rule_identifier = v.rule_identifier AND n.status = 'active' AND n.id <> v.id \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.status IN ('active', 'superseded') \
             AND v.effective_date <= CURRENT_DATE AND (v.superseded_date IS NULL OR v.superseded_date > CURRENT_DATE) \
             AND ($2 IS NULL OR v.rule_domain = ANY ($2)) AND (v.rule_type <> 'field_specific' OR v.rule_data->>'field' = $3) \
             AND ($4 OR v.rule_identifier <> ALL (ARRAY(SELECT o.rule_identifier FROM (SELECT s.rule_version_id FROM skill_system.filing_rule_snapshots s \
                 WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 OFFSET 0) f \
                 JOIN skill_system.rule_versions o ON o.tenant_id = skill_system.current_tenant() AND o.id = f.rule_version_id)))",
        Access::WriteAsOwner,
        &[arg(checklist), arg(domains), arg(field), arg(new)],
        |_| (),
    );
    frozen as i32
}

pg_function!(pg_finfo_skill_snapshot_rules, skill_snapshot_rules, snapshot_rules);
/// `snapshot_rules(checklist_id)`
fn snapshot_rules(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    lock_rules(RuleLock::Shared);
    let checklist = checklists::locked(id)?;
    check_filing_status(&checklist.status, &EDITABLE)?;
    let frozen = freeze(id, false, checklist.rule_domains, checklist.entity_field.as_deref());
    if frozen > 0 {
        let by = sys::role_name(sys::session_user());
        record("filing.rules_frozen", json!({"checklist_id": id.to_string(), "rules": frozen}), by);
    }
    Ok(pg_sys::Datum::from(frozen))
}

/// A frozen copy that the caller is about to settle.
struct Frozen {
    checklist: pgrx::Uuid,
    identifier: String,
    version: i32,
    newest: Option<(pgrx::Uuid, i32)>,
    acknowledged_by: Option<String>,
    replaced: bool,
}

/// Locks a frozen copy, which must be stale, and the filing it belongs to.
fn locked_stale(id: pgrx::Uuid) -> Result<(Frozen, checklists::Checklist), Fault> {
    lock_rules(RuleLock::Shared);
    let checklist_id = spi::one::<pgrx::Uuid>(
        "SELECT checklist_id FROM skill_system.filing_rule_snapshots WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::WriteAsOwner,
        &[arg(id)],
    );
    let checklist_id = checklist_id.ok_or_else(|| unknown("snapshot", id))?;
    let checklist = checklists::locked(checklist_id)?;
    check_filing_status(&checklist.status, &OPEN)?;
    let mut found = None;
    spi::run(
        "SELECT v.rule_identifier::text, v.version, s.superseded_by, n.version, CASE WHEN s.acknowledged THEN s.acknowledged_by::text END, s.replaced_by IS NOT NULL \
         FROM skill_system.filing_rule_snapshots s JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1 FOR NO KEY UPDATE OF s",
        Access::WriteAsOwner,
        &[arg(id)],
        |row| {
            found = Some(Frozen {
                checklist: checklist_id,
                identifier: row.get(1).unwrap_or_default(),
                version: row.get(2).unwrap_or_default(),
                newest: row.get::<pgrx::Uuid>(3).zip(row.get::<i32>(4)),
                acknowledged_by: row.get(5),
                replaced: row.get(6).unwrap_or_default(),
            });
        },
    );
    let frozen = found.ok_or_else(|| unknown("snapshot", id))?;
    if frozen.newest.is_none() || frozen.replaced {
        let why =
            if frozen.replaced { "it has been replaced by a newer copy" } else { "the frozen version is the newest" };
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("the frozen {} version {} is not stale", frozen.identifier, frozen.version),
        )
        .detail(format!("Nothing is to be settled: {why}."))
        .hint("SELECT * FROM skill_system.stale_filings();"));
    }
    Ok((frozen, checklist))
}

pg_function!(pg_finfo_skill_acknowledge_stale, skill_acknowledge_stale, acknowledge_stale);
/// `acknowledge_stale(snapshot_id, actor_id, reason, expected_version)`
fn acknowledge_stale(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let by = required("actor_id", call.text(1), 255)?;
    let comment = required("reason", call.text(2), 10_000)?;
    let seen: Option<i32> = call.get(3);
    let (frozen, _) = locked_stale(id)?;
    let newest = frozen.newest.map(|(_, version)| version).unwrap_or_default();
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
            format!("the change of {} to version {newest} is acknowledged already", frozen.identifier),
        )
        .detail(format!("By {other}.")));
    }
    spi::run(
        "UPDATE skill_system.filing_rule_snapshots SET acknowledged = true, acknowledged_by = $2, acknowledged_at = clock_timestamp(), acknowledged_comment = $3 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::WriteAsOwner,
        &[arg(id), arg(by), arg(comment)],
        |_| (),
    );
    let data = json!({
        "checklist_id": frozen.checklist.to_string(), "snapshot_id": id.to_string(), "rule_identifier": frozen.identifier,
        "frozen_version": frozen.version, "acknowledged_version": newest, "from": "stale", "to": "acknowledged", "comment": comment,
    });
    record("filing.stale_acknowledged", data, by);
    Ok(call.null())
}

pg_function!(pg_finfo_skill_refresh_snapshot, skill_refresh_snapshot, refresh_snapshot);
/// `refresh_snapshot(snapshot_id, actor_id)`
fn refresh_snapshot(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let by = who(call, 1, "actor_id")?;
    let (frozen, checklist) = locked_stale(id)?;
    let (rule, newest) = frozen.newest.ok_or_else(|| unknown("snapshot", id))?;
    let fresh = spi::one::<pgrx::Uuid>(
        "INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256) \
         SELECT $2, v.id, v.rule_data, v.content_sha256 FROM skill_system.rule_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.id = $1 RETURNING id",
        Access::WriteAsOwner,
        &[arg(rule), arg(frozen.checklist)],
    );
    let fresh = fresh.ok_or_else(|| unknown("rule version", rule))?;
    spi::run(
        "UPDATE skill_system.filing_rule_snapshots SET replaced_by = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::WriteAsOwner,
        &[arg(id), arg(fresh)],
        |_| (),
    );
    let data = json!({
        "checklist_id": frozen.checklist.to_string(), "snapshot_id": id.to_string(), "replaced_by": fresh.to_string(),
        "rule_identifier": frozen.identifier, "from": frozen.version, "to": newest,
    });
    record("filing.rule_refreshed", data, &by);
    if REVIEWED.contains(&checklist.status.as_str()) {
        checklists::set_status(&checklist, "refresh_snapshot", None, &by, json!({}))?;
    }
    Ok(uuid_datum(fresh).unwrap_or_else(|| call.null()))
}

pg_function!(pg_finfo_skill_snapshot_diff, skill_snapshot_diff, snapshot_diff);
/// `snapshot_diff(snapshot_id)`
fn snapshot_diff(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let mut found = None;
    spi::run(
        "SELECT v.rule_identifier::text, v.version, coalesce(n.version, v.version), s.is_current, s.acknowledged, s.rule_data_at_snapshot::text, coalesce(n.rule_data, v.rule_data)::text \
         FROM skill_system.filing_rule_snapshots s JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1",
        Access::Read,
        &[arg(id)],
        |row| {
            let (patch, lines) = difference(&stored(row.get(6)), &stored(row.get(7)));
            let identifier = row.get::<String>(1).unwrap_or_default();
            found = Some((identifier, [2, 3, 4, 5].map(|n| row.datum(n)), patch, lines));
        },
    );
    let (identifier, [frozen, newest, is_current, acknowledged], patch, lines) =
        found.ok_or_else(|| unknown("snapshot", id))?;
    Ok(call.row(&mut [
        text(&identifier),
        frozen,
        newest,
        is_current,
        acknowledged,
        jsonb_datum(patch),
        text_array_datum(&lines),
    ]))
}

/// Refuses to file while a frozen rule has changed and nobody has said that this is known.
pub fn check_not_stale(checklist: pgrx::Uuid) -> Result<(), Fault> {
    let mut changes = Vec::new();
    // Also what was published since the snapshot of an older transaction was taken.
    spi::as_owner(|| {
        spi::run(
            "SELECT v.rule_identifier::text, v.version, n.version, s.rule_data_at_snapshot::text, n.rule_data::text FROM skill_system.filing_rule_snapshots s \
             JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
             JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
             WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 AND NOT s.is_current AND NOT s.acknowledged AND s.replaced_by IS NULL \
             ORDER BY v.rule_identifier LIMIT 20",
            Access::ReadLatest,
            &[arg(checklist)],
            |row| {
                let (_, lines) = difference(&stored(row.get(4)), &stored(row.get(5)));
                let how = if lines.is_empty() {
                    "the same parameters".into()
                } else {
                    lines[..lines.len().min(10)].join(", ")
                };
                let version = |n| row.get::<i32>(n).unwrap_or_default();
                changes.push(format!(
                    "{} version {} is superseded by {}: {how}",
                    row.get::<String>(1).unwrap_or_default(),
                    version(2),
                    version(3)
                ));
            },
        );
    });
    if changes.is_empty() {
        return Ok(());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, format!("{} rule(s) changed since this filing began", changes.len()))
        .detail(format!("{}.", changes.join("; ")))
        .hint("Look at stale_filings() and snapshot_diff(); then acknowledge_stale() or refresh_snapshot()."))
}
