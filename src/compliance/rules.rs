//! Rules: proposing, reviewing and publishing versions.

use const_format::concatcp;
use serde_json::{Value, json};
use skill_core::compliance::rules::{DECISIONS, RuleInput, check_status, difference};
use skill_core::error::shorten;
use skill_core::input::{optional, parse_choice, sha256};
use skill_core::limits::check_day;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{And, Answer, Arg, Call, Date, Event, Jsonb, Returned, Timing, Trigger, Uuid, arg, pg_function, sys};

use super::frozen_rules::make_stale;
use super::terms::check_term;
use super::{lock_rules, unknown};
use crate::args::{actor, given, json as json_argument};
use crate::{audit, locks, settings};

skill_pg::columns! {
    /// The version without a successor; in force, or going to be.
    struct Current {
        id: Uuid = "id",
        version: i32 = "version",
        /// The new version may take effect on the given day.
        may_be_followed: bool = "effective_date <= $2",
        effective_date: String = "effective_date::text",
    }
}

fn current(identifier: &str, effective_date: Date) -> Option<Current> {
    const SQL: &str = concatcp!(
        "SELECT ",
        Current::COLUMNS,
        " FROM skill_system.rule_versions \
          WHERE tenant_id = skill_system.current_tenant() AND rule_identifier = $1 AND status = 'active'"
    );
    spi::first(SQL, As::Owner, See::OwnWrites, &[arg(identifier), arg(effective_date)])
}

/// An old snapshot would not show the copies that other transactions have frozen meanwhile.
pub(super) fn require_read_committed() -> Result<(), Fault> {
    if sys::read_committed() {
        return Ok(());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, "cannot publish a rule under REPEATABLE READ or SERIALIZABLE")
        .detail("Filings begun since the transaction's start would not become stale.")
        .hint("Use BEGIN ISOLATION LEVEL READ COMMITTED."))
}

/// Keeps others from adding or changing versions of one rule. What proposes none in force needs no other lock, so nobody who
/// publishes another rule waits for it.
fn lock_versions(identifier: &str) -> Result<(), Fault> {
    let what = format!("the rule \"{}\"", shorten(identifier));
    locks::acquire(c"rule_versions", &[&settings::tenant()?, identifier], Mode::Exclusive, &what).map(|_| ())
}

/// Ends the version in force, if any, on the day its successor begins.
fn supersede(identifier: &str, effective_date: Date) -> Result<Option<Current>, Fault> {
    let current = current(identifier, effective_date);
    if let Some(current) = &current {
        if !current.may_be_followed {
            return Err(Fault::new(
                Code::InvalidParameterValue,
                "effective_date must not be before that of the version in force",
            )
            .detail(format!("Version {} of {identifier} is in force from {}.", current.version, current.effective_date))
            .hint("A later version cannot begin before an earlier one; it may begin on the same day."));
        }
        spi::execute(
            "UPDATE skill_system.rule_versions SET status = 'superseded', superseded_date = $2 \
                WHERE tenant_id = skill_system.current_tenant() AND id = $1",
            As::Owner,
            See::OwnWrites,
            &[arg(current.id), arg(effective_date)],
        );
    }
    Ok(current)
}

skill_pg::arguments! {
    /// What `publish_rule` and `propose_rule` have in common.
    struct RuleArguments<'c> {
        rule_identifier: Option<&'c str>,
        rule_domain: Option<&'c str>,
        effective_date: Option<Date>,
        rule_data: Option<Jsonb<'c>>,
        source: Option<&'c str>,
        rule_type: Option<&'c str>,
        source_reference: Option<&'c str>,
        change_summary: Option<&'c str>,
        graph_node_id: Option<&'c str>,
        actor_id: Option<&'c str>,
    }
}

/// Adds the next version of a rule, for `publish_rule` (active) and `propose_rule`.
fn add_version(call: &Call, arguments: RuleArguments, status: &str) -> Answer {
    let date = given(arguments.effective_date, "effective_date")?;
    check_day("effective_date", date.unix_days())?;
    let data = json_argument(arguments.rule_data, "rule_data")?;
    let input = RuleInput {
        rule_identifier: arguments.rule_identifier,
        rule_domain: arguments.rule_domain,
        rule_data: data.as_ref(),
        source: arguments.source,
        rule_type: arguments.rule_type,
        source_reference: arguments.source_reference,
        change_summary: arguments.change_summary,
        graph_node_id: arguments.graph_node_id,
        detected_by: arguments.actor_id,
    };
    let rule = input.check()?;
    check_term("rule_type", "rule_type", rule.rule_type)?;
    check_term("rule_source", "source", rule.source)?;
    let (identifier, content, detected_by) = (rule.rule_identifier, &rule.content, rule.detected_by);
    // What is compared and hashed later must equal the argument.
    let both = [arg(content.as_str()), arg(arguments.rule_data)];
    if !spi::one::<bool>("SELECT $1::jsonb = $2", As::Caller, See::Statement, &both) {
        return Err(Fault::new(
            Code::InvalidParameterValue,
            "rule_data contains a number with more digits than a double can hold",
        )
        .hint("Write the number as a string."));
    }
    let active = status == "active";
    if active {
        require_read_committed()?;
    }
    lock_versions(identifier)?;
    if active {
        lock_rules(Mode::Exclusive)?;
    }
    let previous = if active { supersede(identifier, date)? } else { current(identifier, date) };
    let by = detected_by.map_or_else(|| sys::role_name(sys::session_user()), str::to_owned);
    let by = by.as_str();
    let written = spi::first::<(Uuid, i32)>(
        "INSERT INTO skill_system.rule_versions (rule_type, rule_domain, rule_identifier, version, effective_date, source, \
             source_reference, rule_data, graph_node_id, change_summary, detected_by, status, content_sha256, approved_by, approved_at, \
             created_by_role) \
         SELECT $1, $2, $3, coalesce(max(v.version), 0) + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
             CASE WHEN $11 = 'active' THEN $13 END, CASE WHEN $11 = 'active' THEN clock_timestamp() END, $14 \
         FROM skill_system.rule_versions v WHERE v.tenant_id = skill_system.current_tenant() AND v.rule_identifier = $3 \
         RETURNING id, version",
        As::Owner,
        See::OwnWrites,
        &[
            arg(rule.rule_type),
            arg(rule.rule_domain),
            arg(identifier),
            arg(date),
            arg(rule.source),
            arg(rule.source_reference),
            arg(arguments.rule_data),
            arg(rule.graph_node_id),
            arg(rule.change_summary),
            arg(detected_by),
            arg(status),
            arg(sha256(content.as_bytes()).as_str()),
            arg(by),
            arg(sys::role_name(sys::current_user())),
        ],
    );
    let (id, version) = written.ok_or_else(|| Fault::new(Code::Internal, "the version was not written"))?;
    let stale = if active { make_stale(identifier, version, id, by)? } else { 0 };
    let event = if active { "rule.published" } else { "rule.proposed" };
    let superseded = previous.as_ref().filter(|_| active);
    let data = json!({
        "rule_identifier": identifier, "rule_version_id": id.to_string(), "version": version, "from": null, "to": status,
        "supersedes": superseded.map(|previous| previous.version), "content_sha256": sha256(content.as_bytes()), "stale_snapshots": stale,
    });
    audit::append_by(event, [data], by)?;
    Ok(state(call, id, identifier, version, status, superseded.map(|previous| previous.id), stale))
}

pub(super) fn state(
    call: &Call,
    id: Uuid,
    identifier: &str,
    version: i32,
    status: &str,
    supersedes: Option<Uuid>,
    stale: i64,
) -> Returned {
    call.row(&[arg(id), arg(identifier), arg(version), arg(status), arg(supersedes), arg(stale)])
}

pg_function!(publish_rule);
fn publish_rule(call: &Call) -> Answer {
    add_version(call, call.arguments(), "active")
}

pg_function!(propose_rule);
/// As `publish_rule`, with `draft` added.
fn propose_rule(call: &Call) -> Answer {
    let And(arguments, draft) = call.arguments();
    add_version(call, arguments, if given(draft, "draft")? { "draft" } else { "pending_review" })
}

skill_pg::columns! {
    /// A version that waits for a decision.
    pub(super) struct Proposal {
        pub identifier: String = "rule_identifier::text",
        pub version: i32 = "version",
        pub status: String = "status::text",
        pub date: Date = "effective_date",
        pub detected_by: Option<String> = "detected_by::text",
        pub role: String = "created_by_role",
        /// It is not in force before tomorrow, by the day of UTC.
        pub is_future: bool = "effective_date > (clock_timestamp() AT TIME ZONE 'UTC')::date",
    }
}

pub(super) fn lock_proposal(id: Uuid) -> Result<Proposal, Fault> {
    const IDENTIFIER: &str = "SELECT rule_identifier::text FROM skill_system.rule_versions \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1";
    let identifier = spi::first::<String>(IDENTIFIER, As::Owner, See::OwnWrites, &[arg(id)]);
    lock_versions(&identifier.ok_or_else(|| unknown("rule version", id))?)?;
    const SQL: &str = concatcp!(
        "SELECT ",
        Proposal::COLUMNS,
        " FROM skill_system.rule_versions \
          WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE"
    );
    spi::first(SQL, As::Owner, See::OwnWrites, &[arg(id)]).ok_or_else(|| unknown("rule version", id))
}

fn require_status(proposal: &Proposal, needed: &str, action: &str) -> Result<(), Fault> {
    check_status(&proposal.identifier, proposal.version, &proposal.status, needed, action)
}

fn set_status(id: Uuid, status: &str, approved_by: Option<&str>) {
    spi::execute(
        "UPDATE skill_system.rule_versions SET status = $2, approved_by = $3, \
             approved_at = CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(status), arg(approved_by)],
    );
}

fn reject(id: Uuid, by: &str, reason: Option<&str>) {
    spi::execute(
        "UPDATE skill_system.rule_versions SET status = 'draft', approved_by = NULL, approved_at = NULL, rejected_by = $2, \
             rejected_at = clock_timestamp(), rejection_reason = $3 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id), arg(by), arg(reason)],
    );
}

pg_function!(submit_rule);
fn submit_rule(call: &Call) -> Answer {
    let (id, actor_id) = call.arguments();
    let id = given(id, "rule_version_id")?;
    let by = actor(actor_id)?;
    let proposal = lock_proposal(id)?;
    require_status(&proposal, "draft", "submitted")?;
    set_status(id, "pending_review", None);
    let data = json!({
        "rule_identifier": proposal.identifier, "rule_version_id": id.to_string(), "version": proposal.version,
        "from": "draft", "to": "pending_review",
    });
    audit::append_by("rule.submitted", [data], &by)?;
    Ok(state(call, id, &proposal.identifier, proposal.version, "pending_review", None, 0))
}

pg_function!(review_rule);
fn review_rule(call: &Call) -> Answer {
    let (id, decision, actor_id, reason) = call.arguments();
    let id = given(id, "rule_version_id")?;
    let decision = parse_choice("decision", decision, &DECISIONS)?;
    let by = actor(actor_id)?;
    let comment = optional("reason", reason, 10_000)?;
    if decision == "approved" {
        require_read_committed()?;
    }
    let proposal = lock_proposal(id)?;
    if decision == "approved" {
        lock_rules(Mode::Exclusive)?;
    }
    require_status(&proposal, "pending_review", decision)?;
    let (identifier, version) = (proposal.identifier.as_str(), proposal.version);
    let (status, previous, stale) = if decision == "approved" {
        if let Some(newer) = current(identifier, proposal.date).filter(|current| current.version > version) {
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("version {version} of {identifier} is superseded by version {}", newer.version),
            )
            .hint("Propose the change again, on top of the version in force."));
        }
        let previous = supersede(identifier, proposal.date)?;
        set_status(id, "active", Some(&by));
        ("active", previous, make_stale(identifier, version, id, &by)?)
    } else {
        reject(id, &by, comment);
        ("draft", None, 0)
    };
    let data = json!({
        "rule_identifier": identifier, "rule_version_id": id.to_string(), "version": version, "from": "pending_review", "to": status,
        "comment": comment, "supersedes": previous.as_ref().map(|previous| previous.version), "stale_snapshots": stale,
    });
    let event = if decision == "approved" { "rule.published" } else { "rule.rejected" };
    audit::append_by(event, [data], &by)?;
    Ok(state(call, id, identifier, version, status, previous.map(|previous| previous.id), stale))
}

pg_function!(set_rule_key);
/// BEFORE INSERT: the number of the version's rule.
fn set_rule_key(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert])])?;
    let rule: [Arg; 2] = [trigger.new_value(c"tenant_id"), trigger.new_value(c"rule_identifier")];
    const FIND: &str =
        "SELECT rule_key FROM skill_system.rule_identifiers WHERE tenant_id = $1 AND rule_identifier = $2";
    const ADD: &str =
        "INSERT INTO skill_system.rule_identifiers (tenant_id, rule_identifier) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let find = || spi::first::<i64>(FIND, As::Owner, See::OwnWrites, &rule);
    let key = find().or_else(|| {
        // Waits for another session that adds the same rule.
        spi::execute(ADD, As::Owner, See::OwnWrites, &rule);
        find()
    });
    let key = key.ok_or_else(|| Fault::new(Code::Internal, "the rule has no number"))?;
    Ok(trigger.proceed_with(&[(c"rule_key", arg(key))]))
}

fn rule_data(id: Uuid) -> Result<Value, Fault> {
    let data = spi::first::<Value>(
        "SELECT rule_data::text FROM skill_system.rule_versions WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller,
        See::Statement,
        &[arg(id)],
    );
    data.ok_or_else(|| unknown("rule version", id))
}

pg_function!(diff_rules);
fn diff_rules(call: &Call) -> Answer {
    let (old, new) = call.arguments();
    let old = rule_data(given(old, "old_version_id")?)?;
    let new = rule_data(given(new, "new_version_id")?)?;
    let (patch, lines) = difference(&old, &new);
    Ok(call.row(&[arg(patch), arg(lines)]))
}
