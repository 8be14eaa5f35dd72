//! Checklists: from the template to the filing.

use pgrx::pg_sys;
use pgrx::prelude::*;
use serde_json::{Value, json};
use skill_core::compliance::artifacts::ArtifactInput;
use skill_core::compliance::checklists::{self as logic, ITEM_STATUSES, ItemChange, TRANSITIONS};
use skill_core::input::{optional, required, word};
use skill_core::{Code, Fault};

use super::{RuleLock, lock_rules, record, rules, text, unknown};
use crate::args::{json as json_argument, jsonb, missing, stored, uuid, uuid_datum, who};
use crate::pg::call::{Answer, Call};
use crate::pg::spi::{self, Access, arg, given};
use crate::pg::sys;
use crate::pg::trigger::{Event, Trigger};
use crate::pg_function;

/// A checklist whose row is locked until the transaction ends.
pub struct Checklist {
    id: pgrx::Uuid,
    pub status: String,
    version: i32,
    items: Value,
    metadata: Value,
    required_items: Value,
    /// Now, RFC 3339.
    now: String,
    pub rule_domains: Option<Vec<String>>,
    pub entity_field: Option<String>,
    entity: Value,
}

/// Locks a checklist of the session's tenant.
pub fn locked(id: pgrx::Uuid) -> Result<Checklist, Fault> {
    let mut found = None;
    spi::run(
        "SELECT c.status::text, c.version, c.items::text, c.metadata::text, t.min_required_items::text, \
             to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), t.rule_domains, c.entity_field::text, \
             jsonb_build_object('entity_id', c.entity_id, 'compliance_domain', c.compliance_domain)::text \
         FROM skill_system.filing_checklists c LEFT JOIN skill_system.checklist_templates t ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1 FOR NO KEY UPDATE OF c",
        Access::WriteAsOwner,
        &[arg(id)],
        |row| {
            found = Some(Checklist {
                id,
                status: row.get(1).unwrap_or_default(),
                version: row.get(2).unwrap_or_default(),
                items: stored(row.get(3)),
                metadata: stored(row.get(4)),
                required_items: stored(row.get(5)),
                now: row.get(6).unwrap_or_default(),
                rule_domains: row.get(7),
                entity_field: row.get(8),
                entity: stored(row.get(9)),
            });
        },
    );
    found.ok_or_else(|| unknown("checklist", id))
}

/// Leads a checklist to the next status, with its items and metadata as they are in
/// `checklist`, and records that. `more` is added to the record.
pub fn set_status(
    checklist: &Checklist,
    action: &str,
    decision: Option<&str>,
    by: &str,
    more: Value,
) -> Result<(&'static str, i32), Fault> {
    let status = logic::next(action, &checklist.status, decision)?;
    spi::run(
        "UPDATE skill_system.filing_checklists SET status = $2, items = $3, metadata = $4, version = version + 1, updated_at = clock_timestamp() \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::WriteAsOwner,
        &[arg(checklist.id), arg(status), jsonb(checklist.items.clone()), jsonb(checklist.metadata.clone())],
        |_| (),
    );
    let version = checklist.version + 1;
    let mut data = json!({"checklist_id": checklist.id.to_string(), "action": action, "from": checklist.status, "to": status, "version": version});
    if let Some(data) = data.as_object_mut() {
        for part in [&checklist.entity, &more] {
            data.extend(part.as_object().cloned().unwrap_or_default());
        }
    }
    record(logic::event_type(action), data, by);
    Ok((status, version))
}

fn state(call: &Call, id: pgrx::Uuid, (status, version): (&str, i32)) -> pg_sys::Datum {
    call.row(&mut [uuid_datum(id), text(status), Some(pg_sys::Datum::from(version))])
}

pg_function!(pg_finfo_skill_create_template, skill_create_template, create_template);
/// `create_template(compliance_domain, items, min_required_items, rule_domains)`
fn create_template(call: &Call) -> Answer {
    let domain = required("compliance_domain", call.text(0), 50)?;
    call.datum(1).ok_or_else(|| missing("items"))?;
    let domains: Option<Vec<Option<&str>>> = call.text_array(3);
    for domain in domains.iter().flatten() {
        required("an element of rule_domains", *domain, 50)?;
    }
    // One at a time, so that versions have no gaps.
    lock_rules(RuleLock::Exclusive);
    let mut made = [None, None];
    spi::run(
        "INSERT INTO skill_system.checklist_templates (compliance_domain, version, items, min_required_items, rule_domains) \
         SELECT $1, coalesce(max(t.version), 0) + 1, $2, $3, $4 FROM skill_system.checklist_templates t \
         WHERE t.tenant_id = skill_system.current_tenant() AND t.compliance_domain = $1 RETURNING id, version",
        Access::Write,
        &[
            arg(domain),
            given(call.datum(1), pg_sys::JSONBOID),
            given(call.datum(2), pg_sys::JSONBOID),
            given(call.datum(3), pg_sys::TEXTARRAYOID),
        ],
        |row| made = [row.get::<pgrx::Uuid>(1).and_then(uuid_datum), row.datum(2)],
    );
    Ok(call.row(&mut made))
}

pg_function!(pg_finfo_skill_guard_template, skill_guard_template, guard_template);
/// BEFORE INSERT, UPDATE or DELETE on `checklist_templates`.
fn guard_template(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    if trigger.event() != Event::Insert {
        let id: Option<pgrx::Uuid> = trigger.old(c"id");
        let tenant: Option<String> = trigger.old(c"tenant_id");
        let used = spi::as_owner(|| {
            spi::one::<bool>(
                "SELECT EXISTS (SELECT FROM skill_system.filing_checklists WHERE tenant_id = $1 AND template_id = $2)",
                Access::ReadLatest,
                &[arg(tenant), arg(id)],
            )
        });
        if used == Some(true) {
            let domain: String = trigger.old(c"compliance_domain").unwrap_or_default();
            let version: i32 = trigger.old(c"version").unwrap_or_default();
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("version {version} of the template of {domain} is in use, so it stays as it is"),
            )
            .hint("create_template() makes the next version."));
        }
    }
    if trigger.event() != Event::Delete {
        let column = |name, what| crate::args::read_json(trigger.new_datum(name), what).map(Option::unwrap_or_default);
        logic::check_template(&column(c"items", "items")?, &column(c"min_required_items", "min_required_items")?)?;
    }
    Ok(trigger.proceed())
}

pg_function!(pg_finfo_skill_guard_checklist, skill_guard_checklist, guard_checklist);
/// BEFORE UPDATE on `filing_checklists`: whoever writes, only legal changes pass.
fn guard_checklist(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let status = |row: Option<String>| row.unwrap_or_default();
    let (from, to) = (status(trigger.old(c"status")), status(trigger.new_value(c"status")));
    let changed = trigger.changed_columns();
    if changed.is_empty() {
        return Ok(trigger.proceed());
    }
    logic::check_row_change(&from, &to, &changed)?;
    Ok(trigger.proceed())
}

pg_function!(pg_finfo_skill_create_checklist, skill_create_checklist, create_checklist);
/// `create_checklist(entity_id, entity_type, compliance_domain, entity_name, deadline, entity_field, entity_district, metadata, created_by)`
fn create_checklist(call: &Call) -> Answer {
    let entity_id = required("entity_id", call.text(0), 255)?;
    let entity_type = required("entity_type", call.text(1), 50)?;
    let domain = required("compliance_domain", call.text(2), 50)?;
    let entity_name = optional("entity_name", call.text(3), 500)?;
    let deadline = call.datum(4);
    let past =
        |datum: pg_sys::Datum| (datum.value() as i64) < sys::clock_timestamp() || datum.value() as i64 == i64::MAX;
    if deadline.is_some_and(past) {
        return Err(Fault::new(Code::InvalidParameterValue, "deadline must lie in the future")
            .hint("For what is already late, give the new date that was agreed."));
    }
    let entity_field = optional("entity_field", call.text(5), 255)?;
    let district = optional("entity_district", call.text(6), 10)?;
    let metadata = json_argument(call, 7, "metadata")?.unwrap_or_else(|| json!({}));
    if !metadata.is_object() {
        return Err(Fault::new(Code::InvalidParameterValue, "metadata must be a JSON object"));
    }
    let by = who(call, 8, "actor_id")?;
    lock_rules(RuleLock::Shared);
    let mut template = None;
    // The lock lets nobody change the template before this filing uses it.
    spi::run(
        "SELECT id, version, items::text, rule_domains FROM skill_system.checklist_templates \
         WHERE tenant_id = skill_system.current_tenant() AND compliance_domain = $1 ORDER BY version DESC LIMIT 1 FOR SHARE",
        Access::WriteAsOwner,
        &[arg(domain)],
        |row| {
            template =
                Some((row.get::<pgrx::Uuid>(1), row.get::<i32>(2), stored(row.get(3)), row.get::<Vec<String>>(4)))
        },
    );
    let Some((template_id, template_version, items, rule_domains)) = template else {
        return Err(Fault::new(
            Code::UndefinedObject,
            format!("compliance domain \"{}\" has no template", skill_core::error::shorten(domain)),
        )
        .hint("An administrator makes it with create_template()."));
    };
    let id = spi::one::<pgrx::Uuid>(
        "INSERT INTO skill_system.filing_checklists (entity_id, entity_type, entity_name, compliance_domain, template_id, deadline, items, metadata, \
             created_by, entity_field, entity_district) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
        Access::WriteAsOwner,
        &[
            arg(entity_id),
            arg(entity_type),
            arg(entity_name),
            arg(domain),
            arg(template_id),
            given(deadline, pg_sys::TIMESTAMPTZOID),
            jsonb(logic::instantiate(&items)),
            jsonb(metadata),
            arg(by.as_str()),
            arg(entity_field),
            arg(district),
        ],
    );
    let id = id.ok_or_else(|| Fault::new(Code::Internal, "the checklist was not written"))?;
    let frozen = rules::freeze(id, true, rule_domains, entity_field);
    let data = json!({
        "checklist_id": id.to_string(), "entity_id": entity_id, "compliance_domain": domain, "template_version": template_version,
        "from": null, "to": "draft", "rules_frozen": frozen,
    });
    record("filing.created", data, &by);
    Ok(state(call, id, ("draft", 1)))
}

pg_function!(pg_finfo_skill_update_checklist_item, skill_update_checklist_item, update_checklist_item);
/// `update_checklist_item(checklist_id, item_index, status, expected_version, note, data, updated_by)`
fn update_checklist_item(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let index: i32 = call.get(1).ok_or_else(|| missing("item_index"))?;
    let status = word("status", call.text(2), &ITEM_STATUSES)?;
    let note = optional("note", call.text(4), 10_000)?;
    let data = json_argument(call, 5, "data")?;
    let by = who(call, 6, "actor_id")?;
    let mut checklist = locked(id)?;
    // The order of the checks: what was meant for another state of the checklist says nothing about this one.
    logic::check_version(checklist.version, call.get(3))?;
    logic::next("update_checklist_item", &checklist.status, None)?;
    let now = checklist.now.clone();
    let change = ItemChange { status, note, data: data.as_ref(), by: &by, at: &now };
    let (label, was) = logic::change_item(&mut checklist.items, index, &change)?;
    let more = json!({"item_index": index, "label": label, "item_from": was, "item_to": status});
    let now = set_status(&checklist, "update_checklist_item", None, &by, more)?;
    Ok(state(call, id, now))
}

pg_function!(pg_finfo_skill_missing_items, skill_missing_items, missing_items);
/// `missing_items(checklist_id)`
fn missing_items(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let mut found = None;
    spi::run(
        "SELECT c.items::text, t.min_required_items::text FROM skill_system.filing_checklists c \
         LEFT JOIN skill_system.checklist_templates t ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1",
        Access::Read,
        &[arg(id)],
        |row| found = Some(logic::missing(&stored(row.get(1)), &stored(row.get(2)))),
    );
    let found = found.ok_or_else(|| unknown("checklist", id))?;
    let mut rows = call.row_set();
    for item in found {
        rows.push(&mut [Some(pg_sys::Datum::from(item.index)), text(&item.label), text(&item.status)]);
    }
    Ok(call.null())
}

pg_function!(pg_finfo_skill_submit_checklist, skill_submit_checklist, submit_checklist);
/// `submit_checklist(checklist_id, actor_id, expected_version)`
fn submit_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let by = who(call, 1, "actor_id")?;
    let checklist = locked(id)?;
    logic::check_version(checklist.version, call.get(2))?;
    logic::next("submit_checklist", &checklist.status, None)?;
    logic::check_complete(&checklist.items, &checklist.required_items)?;
    let now = set_status(&checklist, "submit_checklist", None, &by, json!({}))?;
    Ok(state(call, id, now))
}

pg_function!(pg_finfo_skill_review_checklist, skill_review_checklist, review_checklist);
/// `review_checklist(checklist_id, decision, actor_id, reason, expected_version)`
fn review_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let decision = word("decision", call.text(1), &logic::DECISIONS)?;
    let by = who(call, 2, "actor_id")?;
    let comment = optional("reason", call.text(3), 10_000)?;
    let mut checklist = locked(id)?;
    logic::check_version(checklist.version, call.get(4))?;
    logic::next("review_checklist", &checklist.status, Some(decision))?;
    logic::add_review(&mut checklist.metadata, decision, &by, comment, &checklist.now);
    let now = set_status(&checklist, "review_checklist", Some(decision), &by, json!({"comment": comment}))?;
    Ok(state(call, id, now))
}

pg_function!(pg_finfo_skill_file_checklist, skill_file_checklist, file_checklist);
/// `file_checklist(checklist_id, actor_id, reference)`
fn file_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let by = who(call, 1, "actor_id")?;
    let reference = optional("reference", call.text(2), 500)?;
    lock_rules(RuleLock::Shared);
    let mut checklist = locked(id)?;
    logic::next("file_checklist", &checklist.status, None)?;
    rules::check_not_stale(id)?;
    if let Some(metadata) = checklist.metadata.as_object_mut() {
        metadata.insert("filed".into(), json!({"by": by, "at": checklist.now, "reference": reference}));
    }
    let now = set_status(&checklist, "file_checklist", None, &by, json!({"reference": reference}))?;
    Ok(state(call, id, now))
}

pg_function!(pg_finfo_skill_mark_exception, skill_mark_exception, mark_exception);
/// `mark_exception(checklist_id, reason, actor_id, expected_version)`
fn mark_exception(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let reason = required("reason", call.text(1), 10_000)?;
    let by = who(call, 2, "actor_id")?;
    let mut checklist = locked(id)?;
    logic::check_version(checklist.version, call.get(3))?;
    logic::next("mark_exception", &checklist.status, None)?;
    if let Some(metadata) = checklist.metadata.as_object_mut() {
        metadata.insert("exception".into(), json!({"by": by, "at": checklist.now, "reason": reason}));
    }
    let now = set_status(&checklist, "mark_exception", None, &by, json!({"reason": reason}))?;
    Ok(state(call, id, now))
}

#[pg_extern(sql = false, immutable, parallel_safe)]
fn checklist_transitions() -> TableIterator<
    'static,
    (
        name!(action, &'static str),
        name!(from_status, &'static str),
        name!(to_status, &'static str),
        name!(condition, &'static str),
    ),
> {
    TableIterator::new(TRANSITIONS.iter().map(|t| (t.action, t.from, t.to, t.condition)))
}

pg_function!(pg_finfo_skill_add_artifact, skill_add_artifact, add_artifact);
/// `add_artifact(checklist_id, item_index, artifact_type, name, content, content_type, file_path, content_sha256, size_bytes, generated_by, metadata, expires_at)`
fn add_artifact(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let index: i32 = call.get(1).ok_or_else(|| missing("item_index"))?;
    let input = ArtifactInput {
        artifact_type: call.text(2),
        name: call.text(3),
        content: call.text(4),
        content_type: call.text(5),
        file_path: call.text(6),
        content_sha256: call.text(7),
        size_bytes: call.get(8),
        generated_by: call.text(9),
    };
    let metadata = json_argument(call, 10, "metadata")?.unwrap_or_else(|| json!({}));
    let valid = input.check()?;
    let checklist = locked(id)?;
    logic::check_status(&checklist.status, &logic::OPEN)?;
    logic::check_item_index(&checklist.items, index)?;
    let artifact = spi::one::<pgrx::Uuid>(
        "INSERT INTO skill_system.checklist_artifacts (checklist_id, item_index, artifact_type, name, content_type, content, file_path, metadata, \
             generated_by, content_sha256, size_bytes, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id",
        Access::WriteAsOwner,
        &[
            arg(id),
            arg(index),
            arg(valid.artifact_type),
            arg(valid.name),
            arg(valid.content_type),
            given(call.datum(4), pg_sys::TEXTOID),
            arg(valid.file_path),
            jsonb(metadata),
            arg(valid.generated_by),
            arg(valid.content_sha256.as_str()),
            arg(valid.size_bytes),
            given(call.datum(11), pg_sys::TIMESTAMPTZOID),
        ],
    );
    let artifact = artifact.ok_or_else(|| Fault::new(Code::Internal, "the artifact was not written"))?;
    let data = json!({
        "checklist_id": id.to_string(), "artifact_id": artifact.to_string(), "item_index": index, "name": valid.name, "content_sha256": valid.content_sha256,
        "size_bytes": valid.size_bytes, "generated_by": valid.generated_by,
    });
    record("filing.artifact_added", data, sys::role_name(sys::session_user()));
    Ok(call.row(&mut [uuid_datum(artifact), text(&valid.content_sha256), Some(pg_sys::Datum::from(valid.size_bytes))]))
}
