//! Rules: publishing versions, and the copies that filings froze.

use skill_pg::{Answer, Call, Date, Returned, Uuid, arg, pg_function, sys};
use skill_pg::spi::{self, As, See};
use crate::{compat};
use serde_json::{Value, json};
use skill_core::compliance::checklists::{EDITABLE, OPEN, REVIEWED, check_status as check_filing_status};
use skill_core::compliance::rules::{DECISIONS, RuleInput, check_status, difference};
use skill_core::input::{optional, required, sha256, word};
use skill_core::{Code, Fault};

use super::checklists;
use super::{RuleLock, lock_rules, record, record_all, unknown};
use crate::args::{actor, json as json_argument, missing, stored, uuid};

/// The version in force, or to come, that has no successor.
struct Current {
    id: Uuid,
    version: i32,
    /// The new version may take effect on the given day.
    may_be_followed: bool,
    effective_date: String,
}

fn current(identifier: &str, effective_date: Date) -> Option<Current> {
    let mut found = None;
    compat::run(
        "SELECT id, version, effective_date <= $2, effective_date::text FROM skill_system.rule_versions \
         WHERE tenant_id = skill_system.current_tenant() AND rule_identifier = $1 AND status = 'active'",
        As::Owner, See::OwnWrites,
        &[arg(identifier), arg(effective_date)],
        |row| {
            found = row.get::<Option<_>>(1).map(|id| Current {
                id,
                version: row.get(2),
                may_be_followed: row.get(3),
                effective_date: row.get(4),
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
fn supersede(identifier: &str, effective_date: Date) -> Result<Option<Current>, Fault> {
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
        compat::run(
            "UPDATE skill_system.rule_versions SET status = 'superseded', superseded_date = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            As::Owner, See::OwnWrites,
            &[arg(current.id), arg(effective_date)],
            |_| (),
        );
    }
    Ok(current)
}

/// Every open filing that froze another version of the rule becomes stale, also one
/// whose change to an earlier version was acknowledged. Returns how many copies.
fn make_stale(identifier: &str, version: i32, id: Uuid, by: &str) -> i64 {
    let mut stale = Vec::new();
    compat::run(
        "UPDATE skill_system.filing_rule_snapshots s \
         SET is_current = false, superseded_by = $2, acknowledged = false, acknowledged_by = NULL, acknowledged_at = NULL, acknowledged_comment = NULL \
         FROM skill_system.rule_versions v, skill_system.filing_checklists c \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $1 AND v.id <> $2 \
             AND s.tenant_id = v.tenant_id AND s.rule_version_id = v.id AND s.replaced_by IS NULL \
             AND c.tenant_id = s.tenant_id AND c.id = s.checklist_id AND c.status NOT IN ('filed', 'exception') \
         RETURNING s.id, s.checklist_id, v.version",
        As::Owner, See::OwnWrites,
        &[arg(identifier), arg(id)],
        |row| stale.push((row.get::<Option<Uuid>>(1), row.get::<Option<Uuid>>(2), row.get::<Option<i32>>(3))),
    );
    let name = |id: &Option<Uuid>| id.map(|id| id.to_string());
    let changes = stale.iter().map(|(snapshot, checklist, from)| {
        json!({"checklist_id": name(checklist), "snapshot_id": name(snapshot), "rule_identifier": identifier, "from": from, "to": version})
    });
    record_all("filing.stale", changes, by);
    stale.len() as i64
}

/// Makes the next version of a rule, for `publish_rule` (active) and `propose_rule`.
fn add_version(call: &Call, status: &str) -> Answer {
    let date: Date = call.get::<Option<_>>(2).ok_or_else(|| missing("effective_date"))?;
    if !date.is_finite() {
        return Err(Fault::new(Code::InvalidParameterValue, "effective_date must be a day, not infinity"));
    }
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
        As::Caller, See::Statement,
        &[arg(content.as_str()), call.arg(3)],
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
    let previous = if active { supersede(identifier, date)? } else { current(identifier, date) };
    let by = detected_by.map_or_else(|| sys::role_name(sys::session_user()), str::to_owned);
    let by = by.as_str();
    let (mut id, mut version) = (None::<Uuid>, 0i32);
    compat::run(
        "INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, source, source_reference, \
             rule_data, graph_node_id, change_summary, detected_by, status, content_sha256, approved_by, approved_at) \
         SELECT $1, $2, $3, coalesce(max(v.version), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             CASE WHEN $11 = 'active' THEN $13 END, CASE WHEN $11 = 'active' THEN clock_timestamp() END \
         FROM skill_system.rule_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $3 \
         RETURNING id, version",
        As::Owner, See::OwnWrites,
        &[
            arg(rule.rule_type),
            arg(rule.rule_domain),
            arg(identifier),
            arg(date),
            arg(rule.source),
            arg(rule.source_reference),
            call.arg(3),
            arg(rule.graph_node_id),
            arg(rule.change_summary),
            arg(detected_by),
            arg(status),
            arg(sha256(content.as_bytes()).as_str()),
            arg(by),
        ],
        |row| (id, version) = (row.get(1), row.get(2)),
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
    id: Uuid,
    identifier: &str,
    version: i32,
    status: &str,
    supersedes: Option<Uuid>,
    stale: i64,
) -> Returned {
    call.row(&[
        arg(id),
        arg(identifier),
        arg(version),
        arg(status),
        arg(supersedes),
        arg(stale),
    ])
}

pg_function!(publish_rule);
/// `publish_rule(rule_identifier, rule_domain, effective_date, rule_data, source, rule_type, source_reference, change_summary, graph_node_id, detected_by)`
fn publish_rule(call: &Call) -> Answer {
    add_version(call, "active")
}

pg_function!(propose_rule);
/// As `publish_rule`, and `draft`.
fn propose_rule(call: &Call) -> Answer {
    let draft: bool = call.get::<Option<_>>(10).ok_or_else(|| missing("draft"))?;
    add_version(call, if draft { "draft" } else { "pending_review" })
}

/// A version that somebody is to decide on.
struct Proposal {
    identifier: String,
    version: i32,
    status: String,
    date: Date,
}

fn proposal(id: Uuid) -> Result<Proposal, Fault> {
    let mut found = None;
    compat::run(
        "SELECT rule_identifier::text, version, status::text, effective_date FROM skill_system.rule_versions \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE",
        As::Owner, See::OwnWrites,
        &[arg(id)],
        |row| {
            found = Some(Proposal {
                identifier: row.get(1),
                version: row.get(2),
                status: row.get(3),
                date: row.get(4),
            });
        },
    );
    found.ok_or_else(|| unknown("rule version", id))
}

fn need_status(proposal: &Proposal, needed: &str, action: &str) -> Result<(), Fault> {
    check_status(&proposal.identifier, proposal.version, &proposal.status, needed, action)
}

fn set_status(id: Uuid, status: &str, approved_by: Option<&str>) {
    compat::run(
        "UPDATE skill_system.rule_versions SET status = $2, approved_by = $3, approved_at = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(id), arg(status), arg(approved_by)],
        |_| (),
    );
}

pg_function!(submit_rule);
/// `submit_rule(rule_version_id, submitted_by)`
fn submit_rule(call: &Call) -> Answer {
    let id = uuid(call, 0, "rule_version_id")?;
    let by = actor(call, 1, "submitted_by")?;
    lock_rules(RuleLock::Exclusive);
    let proposal = proposal(id)?;
    need_status(&proposal, "draft", "submitted")?;
    set_status(id, "pending_review", None);
    let data = json!({"rule_identifier": proposal.identifier, "rule_version_id": id.to_string(), "version": proposal.version, "from": "draft", "to": "pending_review"});
    record("rule.submitted", data, &by);
    Ok(state(call, id, &proposal.identifier, proposal.version, "pending_review", None, 0))
}

pg_function!(review_rule);
/// `review_rule(rule_version_id, decision, reviewer, comment)`
fn review_rule(call: &Call) -> Answer {
    let id = uuid(call, 0, "rule_version_id")?;
    let decision = word("decision", call.text(1), &DECISIONS)?;
    let by = actor(call, 2, "reviewer")?;
    let comment = optional("comment", call.text(3), 10_000)?;
    if decision == "approved" {
        need_read_committed()?;
    }
    lock_rules(RuleLock::Exclusive);
    let proposal = proposal(id)?;
    need_status(&proposal, "pending_review", decision)?;
    let (identifier, version) = (proposal.identifier.as_str(), proposal.version);
    let (status, previous, stale) = if decision == "approved" {
        if let Some(newer) = current(identifier, proposal.date).filter(|current| current.version > version) {
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("version {version} of {identifier} is overtaken by version {}", newer.version),
            )
            .hint("Propose the change again, on top of the version in force."));
        }
        let previous = supersede(identifier, proposal.date)?;
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

fn rule_data(id: Uuid) -> Result<Value, Fault> {
    let text = spi::one::<String>(
        "SELECT rule_data::text FROM skill_system.rule_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller, See::Statement,
        &[arg(id)],
    );
    text.map(|text| stored(Some(text))).ok_or_else(|| unknown("rule version", id))
}

pg_function!(diff_rules);
/// `diff_rules(a, b)`
fn diff_rules(call: &Call) -> Answer {
    let (a, b) = (rule_data(uuid(call, 0, "a")?)?, rule_data(uuid(call, 1, "b")?)?);
    let (patch, lines) = difference(&a, &b);
    Ok(call.row(&[arg(patch), arg(lines)]))
}

/// Freezes for a filing what applies today and is not frozen yet, which is everything
/// for a new one; the caller holds the lock.
pub fn freeze(checklist: Uuid, new: bool, domains: Option<Vec<String>>, field: Option<&str>) -> i32 {
    let frozen = compat::run(
        "INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256, is_current, superseded_by) \
         SELECT $1, v.id, v.rule_data, v.content_sha256, n.id IS NULL, n.id FROM skill_system.rule_versions v \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = v.tenant_id AND n.rule_identifier = v.rule_identifier AND n.status = 'active' AND n.id <> v.id \
         WHERE v.tenant_id = skill_system.current_tenant() AND v.status IN ('active', 'superseded') \
             AND v.effective_date <= CURRENT_DATE AND (v.superseded_date IS NULL OR v.superseded_date > CURRENT_DATE) \
             AND ($2 IS NULL OR v.rule_domain = ANY ($2)) AND (v.rule_type <> 'field_specific' OR v.rule_data->>'field' = $3) \
             AND ($4 OR v.rule_identifier <> ALL (ARRAY(SELECT o.rule_identifier FROM (SELECT s.rule_version_id FROM skill_system.filing_rule_snapshots s \
                 WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 OFFSET 0) f \
                 JOIN skill_system.rule_versions o ON o.tenant_id = skill_system.current_tenant() AND o.id = f.rule_version_id)))",
        As::Owner, See::OwnWrites,
        &[arg(checklist), arg(domains), arg(field), arg(new)],
        |_| (),
    );
    frozen as i32
}

pg_function!(snapshot_rules);
/// `snapshot_rules(checklist_id)`
fn snapshot_rules(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    lock_rules(RuleLock::Shared);
    let checklist = checklists::locked(id)?;
    check_filing_status(&checklist.status, &EDITABLE)?;
    let frozen = freeze(id, false, checklist.rule_domains, checklist.entity_field.as_deref());
    if frozen > 0 {
        let by = sys::role_name(sys::session_user());
        record("filing.rules_frozen", json!({"checklist_id": id.to_string(), "rules": frozen}), &by);
    }
    Ok(call.answer(frozen))
}

/// A frozen copy that the caller is about to settle.
struct Frozen {
    checklist: Uuid,
    identifier: String,
    version: i32,
    newest: Option<(Uuid, i32)>,
    acknowledged_by: Option<String>,
    replaced: bool,
}

/// Locks a frozen copy, which must be stale, and the filing it belongs to.
fn locked_stale(id: Uuid) -> Result<(Frozen, checklists::Checklist), Fault> {
    lock_rules(RuleLock::Shared);
    let checklist_id = spi::one::<Uuid>(
        "SELECT checklist_id FROM skill_system.filing_rule_snapshots WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
        &[arg(id)],
    );
    let checklist_id = checklist_id.ok_or_else(|| unknown("snapshot", id))?;
    let checklist = checklists::locked(checklist_id)?;
    check_filing_status(&checklist.status, &OPEN)?;
    let mut found = None;
    compat::run(
        "SELECT v.rule_identifier::text, v.version, s.superseded_by, n.version, CASE WHEN s.acknowledged THEN s.acknowledged_by::text END, s.replaced_by IS NOT NULL \
         FROM skill_system.filing_rule_snapshots s JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1 FOR NO KEY UPDATE OF s",
        As::Owner, See::OwnWrites,
        &[arg(id)],
        |row| {
            found = Some(Frozen {
                checklist: checklist_id,
                identifier: row.get(1),
                version: row.get(2),
                newest: row.get::<Option<Uuid>>(3).zip(row.get::<Option<i32>>(4)),
                acknowledged_by: row.get(5),
                replaced: row.get(6),
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

pg_function!(acknowledge_stale);
/// `acknowledge_stale(snapshot_id, acknowledged_by, comment, seen_version)`
fn acknowledge_stale(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let by = required("acknowledged_by", call.text(1), 255)?;
    let comment = required("comment", call.text(2), 10_000)?;
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
    compat::run(
        "UPDATE skill_system.filing_rule_snapshots SET acknowledged = true, acknowledged_by = $2, acknowledged_at = clock_timestamp(), acknowledged_comment = $3 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
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

pg_function!(refresh_snapshot);
/// `refresh_snapshot(snapshot_id, refreshed_by)`
fn refresh_snapshot(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let by = actor(call, 1, "refreshed_by")?;
    let (frozen, checklist) = locked_stale(id)?;
    let (rule, newest) = frozen.newest.ok_or_else(|| unknown("snapshot", id))?;
    let fresh = spi::one::<Uuid>(
        "INSERT INTO skill_system.filing_rule_snapshots (checklist_id, rule_version_id, rule_data_at_snapshot, content_sha256) \
         SELECT $2, v.id, v.rule_data, v.content_sha256 FROM skill_system.rule_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.id = $1 RETURNING id",
        As::Owner, See::OwnWrites,
        &[arg(rule), arg(frozen.checklist)],
    );
    let fresh = fresh.ok_or_else(|| unknown("rule version", rule))?;
    compat::run(
        "UPDATE skill_system.filing_rule_snapshots SET replaced_by = $2 WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner, See::OwnWrites,
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
    Ok(call.answer(fresh))
}

pg_function!(snapshot_diff);
/// `snapshot_diff(snapshot_id)`
fn snapshot_diff(call: &Call) -> Answer {
    let id = uuid(call, 0, "snapshot_id")?;
    let mut found = None;
    compat::run(
        "SELECT v.rule_identifier::text, v.version, coalesce(n.version, v.version), s.is_current, s.acknowledged, s.rule_data_at_snapshot::text, coalesce(n.rule_data, v.rule_data)::text \
         FROM skill_system.filing_rule_snapshots s JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
         LEFT JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.id = $1",
        As::Caller, See::Statement,
        &[arg(id)],
        |row| {
            let (patch, lines) = difference(&stored(row.get(6)), &stored(row.get(7)));
            found = Some(call.row(&[
                row.arg(1),
                row.arg(2),
                row.arg(3),
                row.arg(4),
                row.arg(5),
                arg(patch),
                arg(lines),
            ]));
        },
    );
    found.ok_or_else(|| unknown("snapshot", id))
}

/// Refuses to file while a frozen rule has changed and nobody has said that this is known.
pub fn check_not_stale(checklist: Uuid) -> Result<(), Fault> {
    let mut changes = Vec::new();
    // Also what was published since the snapshot of an older transaction was taken.
    spi::as_owner(|| {
        compat::run(
            "SELECT v.rule_identifier::text, v.version, n.version, s.rule_data_at_snapshot::text, n.rule_data::text FROM skill_system.filing_rule_snapshots s \
             JOIN skill_system.rule_versions v ON v.tenant_id = s.tenant_id AND v.id = s.rule_version_id \
             JOIN skill_system.rule_versions n ON n.tenant_id = s.tenant_id AND n.id = s.superseded_by \
             WHERE s.tenant_id = skill_system.current_tenant() AND s.checklist_id = $1 AND NOT s.is_current AND NOT s.acknowledged AND s.replaced_by IS NULL \
             ORDER BY v.rule_identifier LIMIT 20",
            As::Caller, See::Latest,
            &[arg(checklist)],
            |row| {
                let (_, lines) = difference(&stored(row.get(4)), &stored(row.get(5)));
                let how = if lines.is_empty() {
                    "the same parameters".into()
                } else {
                    lines[..lines.len().min(10)].join(", ")
                };
                let version = |n| row.get::<Option<i32>>(n).unwrap_or_default();
                changes.push(format!(
                    "{} version {} is superseded by {}: {how}",
                    row.get::<Option<String>>(1).unwrap_or_default(),
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
