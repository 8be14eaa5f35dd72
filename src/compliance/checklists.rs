//! Checklists: from the template to the filing.

use serde_json::{Value, json};
use skill_core::compliance::artifacts::ArtifactInput;
use skill_core::compliance::checklists::{self as logic, ITEM_STATUSES, ItemChange, TRANSITIONS};
use skill_core::input::{invalid, optional, parse_choice, required};
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, NonNull, Returned, Timing, Trigger, Uuid, arg, pg_function, sys};

use super::filing::{change_status, lock_checklist};
use super::frozen_rules::{check_not_stale, freeze_rules};
use super::{lock_rules, time_arg, unknown};
use crate::args::{actor, json as json_argument, missing, uuid};
use crate::audit;

fn state(call: &Call, id: Uuid, (status, version): (&str, i32)) -> Returned {
    call.row(&[arg(id), arg(status), arg(version)])
}

pg_function!(create_template);
/// `create_template(compliance_domain, items, min_required_items, rule_domains)`
fn create_template(call: &Call) -> Answer {
    let domain = required("compliance_domain", call.text(0), 50)?;
    call.jsonb(1).ok_or_else(|| missing("items"))?;
    let domains: Option<Vec<Option<&str>>> = call.text_array(3);
    for domain in domains.iter().flatten() {
        required("an element of rule_domains", *domain, 50)?;
    }
    // One at a time, so that versions have no gaps.
    lock_rules(Mode::Exclusive)?;
    let created = spi::first::<(Uuid, i32)>(
        "INSERT INTO skill_system.checklist_templates (compliance_domain, version, items, min_required_items, rule_domains) \
         SELECT $1, coalesce(max(t.version), 0) + 1, $2, $3, $4 FROM skill_system.checklist_templates t \
         WHERE t.tenant_id = skill_system.current_tenant() AND t.compliance_domain = $1 RETURNING id, version",
        As::Caller,
        See::OwnWrites,
        &[arg(domain), call.arg(1), call.arg(2), call.arg(3)],
    );
    let (id, version) = created.ok_or_else(|| Fault::new(Code::Internal, "the template was not written"))?;
    Ok(call.row(&[arg(id), arg(version)]))
}

pg_function!(guard_template);
/// Trigger: a template in use cannot change; otherwise it must be valid.
fn guard_template(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update, Event::Delete])])?;
    if trigger.event() != Event::Insert {
        let (id, tenant): (Uuid, &str) = (trigger.old(c"id"), trigger.old(c"tenant_id"));
        let used = spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM skill_system.filing_checklists WHERE tenant_id = $1 AND template_id = $2)",
            As::Owner,
            See::Latest,
            &[arg(tenant), arg(id)],
        );
        if used == Some(true) {
            let (domain, version): (&str, i32) = (trigger.old(c"compliance_domain"), trigger.old(c"version"));
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("cannot change version {version} of the template of {domain}, which is in use"),
            )
            .hint("Create the next version with create_template()."));
        }
    }
    if trigger.event() != Event::Delete {
        let column = |name, what| crate::args::read_json(trigger.new_arg(name), what).map(Option::unwrap_or_default);
        logic::check_template(&column(c"items", "items")?, &column(c"min_required_items", "min_required_items")?)?;
    }
    Ok(trigger.proceed())
}

pg_function!(guard_checklist);
/// Trigger: refuses invalid changes of a filing, whatever the role.
fn guard_checklist(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update])])?;
    let from: &str = trigger.old(c"status");
    let to = trigger.new_value::<Option<&str>>(c"status").unwrap_or_default();
    let changed = trigger.changed_columns();
    if changed.is_empty() {
        return Ok(trigger.proceed());
    }
    logic::check_row_change(from, to, &changed)?;
    Ok(trigger.proceed())
}

pg_function!(create_checklist);
/// `create_checklist(entity_id, entity_type, compliance_domain, entity_name, deadline, entity_field, entity_district, metadata, actor_id)`
fn create_checklist(call: &Call) -> Answer {
    let entity_id = required("entity_id", call.text(0), 255)?;
    let entity_type = required("entity_type", call.text(1), 50)?;
    let domain = required("compliance_domain", call.text(2), 50)?;
    let entity_name = optional("entity_name", call.text(3), 500)?;
    let deadline = time_arg(call, 4, "deadline")?;
    let now = sys::clock_timestamp();
    if deadline.is_some_and(|deadline| deadline < now) {
        return Err(Fault::new(Code::InvalidParameterValue, "deadline must be in the future")
            .hint("For an overdue filing, give the newly agreed date."));
    }
    let entity_field = optional("entity_field", call.text(5), 255)?;
    let district = optional("entity_district", call.text(6), 10)?;
    let metadata = json_argument(call, 7, "metadata")?.unwrap_or_else(|| json!({}));
    if !metadata.is_object() {
        return Err(Fault::new(Code::InvalidParameterValue, "metadata must be a JSON object"));
    }
    let by = actor(call, 8, "actor_id")?;
    lock_rules(Mode::Shared)?;
    // The lock keeps the template from changing before this filing uses it.
    let template = spi::first::<(Uuid, i32, Value, Option<NonNull<String>>)>(
        "SELECT id, version, items::text, rule_domains FROM skill_system.checklist_templates \
         WHERE tenant_id = skill_system.current_tenant() AND compliance_domain = $1 ORDER BY version DESC LIMIT 1 FOR SHARE",
        As::Owner,
        See::OwnWrites,
        &[arg(domain)],
    );
    let Some((template_id, template_version, items, rule_domains)) = template else {
        return Err(Fault::new(
            Code::UndefinedObject,
            format!("compliance domain \"{}\" has no template", skill_core::error::shorten(domain)),
        )
        .hint("An administrator creates it with create_template()."));
    };
    let id = spi::one::<Uuid>(
        "INSERT INTO skill_system.filing_checklists (entity_id, entity_type, entity_name, compliance_domain, template_id, deadline, items, metadata, \
             created_by, entity_field, entity_district) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
        As::Owner,
        See::OwnWrites,
        &[
            arg(entity_id),
            arg(entity_type),
            arg(entity_name),
            arg(domain),
            arg(template_id),
            arg(deadline),
            arg(logic::instantiate(&items)),
            arg(metadata),
            arg(by.as_str()),
            arg(entity_field),
            arg(district),
        ],
    );
    let id = id.ok_or_else(|| Fault::new(Code::Internal, "the checklist was not written"))?;
    let frozen = freeze_rules(id, true, rule_domains.map(|list| list.0), entity_field);
    let data = json!({
        "checklist_id": id.to_string(), "entity_id": entity_id, "compliance_domain": domain, "template_version": template_version,
        "from": null, "to": "draft", "rules_frozen": frozen,
    });
    audit::append_by("filing.created", [data], &by)?;
    Ok(state(call, id, ("draft", 1)))
}

pg_function!(update_checklist_item);
/// `update_checklist_item(checklist_id, item_index, status, expected_version, note, data, actor_id)`
fn update_checklist_item(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let index: i32 = call.get::<Option<_>>(1).ok_or_else(|| missing("item_index"))?;
    let status = parse_choice("status", call.text(2), &ITEM_STATUSES)?;
    let note = optional("note", call.text(4), 10_000)?;
    let data = json_argument(call, 5, "data")?;
    let by = actor(call, 6, "actor_id")?;
    let mut checklist = lock_checklist(id)?;
    // The version first: a call meant for another state of the checklist should fail as a conflict.
    logic::check_version(checklist.version, call.get(3))?;
    logic::next("update_checklist_item", &checklist.status, None)?;
    let now = checklist.now.clone();
    let change = ItemChange { status, note, data: data.as_ref(), by: &by, at: &now };
    let (label, was) = logic::change_item(&mut checklist.items, index, &change)?;
    let more = json!({"item_index": index, "label": label, "item_from": was, "item_to": status});
    let after = change_status(&checklist, "update_checklist_item", None, &by, more)?;
    Ok(state(call, id, after))
}

pg_function!(missing_items);
/// `missing_items(checklist_id)`
fn missing_items(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let found = spi::first::<(Value, Option<Value>)>(
        "SELECT c.items::text, t.min_required_items::text FROM skill_system.filing_checklists c \
         LEFT JOIN skill_system.checklist_templates t ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1",
        As::Caller,
        See::Statement,
        &[arg(id)],
    );
    let (items, required_items) = found.ok_or_else(|| unknown("checklist", id))?;
    let found = logic::missing(&items, &required_items.unwrap_or_default());
    let mut rows = call.row_set();
    for item in found {
        rows.push(&[arg(item.index), arg(&item.label), arg(&item.status)]);
    }
    Ok(rows.finish())
}

pg_function!(submit_checklist);
/// `submit_checklist(checklist_id, actor_id, expected_version)`
fn submit_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let by = actor(call, 1, "actor_id")?;
    let checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, call.get(2))?;
    logic::next("submit_checklist", &checklist.status, None)?;
    logic::check_complete(&checklist.items, &checklist.required_items)?;
    let after = change_status(&checklist, "submit_checklist", None, &by, json!({}))?;
    Ok(state(call, id, after))
}

pg_function!(review_checklist);
/// `review_checklist(checklist_id, decision, actor_id, reason, expected_version)`
fn review_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let decision = parse_choice("decision", call.text(1), &logic::DECISIONS)?;
    let by = actor(call, 2, "actor_id")?;
    let comment = optional("reason", call.text(3), 10_000)?;
    let expected: Option<i32> = call.get(4);
    if decision == "approved" && expected.is_none() {
        return Err(invalid("expected_version must be given to approve a checklist")
            .detail("The newest version may be another one than the one that was read.")
            .hint("SELECT id, status, version FROM skill_system.filing_checklists;"));
    }
    let mut checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, expected)?;
    logic::next("review_checklist", &checklist.status, Some(decision))?;
    logic::add_review(&mut checklist.metadata, decision, &by, comment, &checklist.now);
    let after = change_status(&checklist, "review_checklist", Some(decision), &by, json!({"comment": comment}))?;
    Ok(state(call, id, after))
}

pg_function!(file_checklist);
/// `file_checklist(checklist_id, actor_id, reference)`
fn file_checklist(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let by = actor(call, 1, "actor_id")?;
    let reference = optional("reference", call.text(2), 500)?;
    lock_rules(Mode::Shared)?;
    let mut checklist = lock_checklist(id)?;
    logic::next("file_checklist", &checklist.status, None)?;
    check_not_stale(id)?;
    if let Some(metadata) = checklist.metadata.as_object_mut() {
        metadata.insert("filed".into(), json!({"by": by, "at": checklist.now, "reference": reference}));
    }
    let after = change_status(&checklist, "file_checklist", None, &by, json!({"reference": reference}))?;
    Ok(state(call, id, after))
}

pg_function!(mark_exception);
/// `mark_exception(checklist_id, reason, actor_id, expected_version)`
fn mark_exception(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let reason = required("reason", call.text(1), 10_000)?;
    let by = actor(call, 2, "actor_id")?;
    let mut checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, call.get(3))?;
    logic::next("mark_exception", &checklist.status, None)?;
    if let Some(metadata) = checklist.metadata.as_object_mut() {
        metadata.insert("exception".into(), json!({"by": by, "at": checklist.now, "reason": reason}));
    }
    let after = change_status(&checklist, "mark_exception", None, &by, json!({"reason": reason}))?;
    Ok(state(call, id, after))
}

pg_function!(checklist_transitions);
fn checklist_transitions(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for t in TRANSITIONS {
        rows.push(&[arg(t.action), arg(t.from), arg(t.to), arg(t.condition)]);
    }
    Ok(rows.finish())
}

pg_function!(add_artifact);
/// `add_artifact(checklist_id, item_index, artifact_type, name, content, content_type, file_path, content_sha256, size_bytes, actor_type, metadata, expires_at)`
fn add_artifact(call: &Call) -> Answer {
    let id = uuid(call, 0, "checklist_id")?;
    let index: i32 = call.get::<Option<_>>(1).ok_or_else(|| missing("item_index"))?;
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
    let expires_at = time_arg(call, 11, "expires_at")?;
    let valid = input.check()?;
    let checklist = lock_checklist(id)?;
    // What was approved is what the reviewer saw.
    logic::check_status(&checklist.status, &logic::UNDECIDED)?;
    logic::check_item_index(&checklist.items, index)?;
    let artifact = spi::one::<Uuid>(
        "INSERT INTO skill_system.checklist_artifacts (checklist_id, item_index, artifact_type, name, content_type, content, file_path, metadata, \
             generated_by, content_sha256, size_bytes, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id",
        As::Owner,
        See::OwnWrites,
        &[
            arg(id),
            arg(index),
            arg(valid.artifact_type),
            arg(valid.name),
            arg(valid.content_type),
            call.arg(4),
            arg(valid.file_path),
            arg(metadata),
            arg(valid.generated_by),
            arg(valid.content_sha256.as_str()),
            arg(valid.size_bytes),
            arg(expires_at),
        ],
    );
    let artifact = artifact.ok_or_else(|| Fault::new(Code::Internal, "the artifact was not written"))?;
    // A reviewer approves the evidence too, and names what was read by the version.
    spi::execute(
        "UPDATE skill_system.filing_checklists SET version = version + 1 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(id)],
    );
    let data = json!({
        "checklist_id": id.to_string(), "artifact_id": artifact.to_string(), "item_index": index, "name": valid.name, "content_sha256": valid.content_sha256,
        "size_bytes": valid.size_bytes, "generated_by": valid.generated_by,
    });
    audit::append_by("filing.artifact_added", [data], &sys::role_name(sys::session_user()))?;
    Ok(call.row(&[arg(artifact), arg(&valid.content_sha256), arg(valid.size_bytes)]))
}
