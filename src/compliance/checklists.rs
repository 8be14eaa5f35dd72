//! Checklists: from the template to the filing.

use const_format::concatcp;
use serde_json::{Value, json};
use skill_core::compliance::artifacts::ArtifactInput;
use skill_core::compliance::checklists::{self as logic, ITEM_STATUSES, ItemChange, TRANSITIONS};
use skill_core::error::shorten;
use skill_core::input::{canonical, invalid, optional, parse_choice, request_digest, required};
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Jsonb, Returned, Timestamptz, Timing, Trigger, Uuid, arg, pg_function, sys};

use super::entities::check_entity_type;
use super::filing::{change_status, lock_checklist};
use super::frozen_rules::{check_not_stale, freeze_rules};
use super::terms::check_term;
use super::{bounded_time, lock_rules, unknown};
use crate::args::{actor, given, json as json_argument, missing};
use crate::{audit, locks};

fn state(call: &Call, id: Uuid, (status, version): (&str, i32)) -> Returned {
    call.row(&[arg(id), arg(status), arg(version)])
}

skill_pg::arguments! {
    struct CreateTemplate<'c> {
        compliance_domain: Option<&'c str>,
        items: Option<Jsonb<'c>>,
        min_required_items: Option<Jsonb<'c>>,
        rule_domains: Option<Vec<Option<&'c str>>>,
    }
}

pg_function!(create_template);
fn create_template(call: &Call) -> Answer {
    let CreateTemplate { compliance_domain, items, min_required_items, rule_domains } = call.arguments();
    let domain = required("compliance_domain", compliance_domain, 50)?;
    let items = given(items, "items")?;
    for domain in rule_domains.iter().flatten() {
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
        &[arg(domain), arg(items), arg(min_required_items), arg(rule_domains)],
    );
    let (id, version) = created.ok_or_else(|| Fault::new(Code::Internal, "the template was not written"))?;
    Ok(call.row(&[arg(id), arg(version)]))
}

pg_function!(retire_template);
fn retire_template(call: &Call) -> Answer {
    let (domain, reason) = call.arguments();
    let domain = required("compliance_domain", domain, 50)?;
    let reason = optional("reason", reason, 10_000)?;
    // Filings that are being begun first see their template.
    lock_rules(Mode::Exclusive)?;
    let template = lock_template(domain)?;
    spi::execute(
        "UPDATE skill_system.checklist_templates SET retired_at = clock_timestamp(), retirement_reason = $2 \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller,
        See::OwnWrites,
        &[arg(template.id), arg(reason)],
    );
    Ok(call.row(&[arg(template.id), arg(template.version)]))
}

pg_function!(guard_template);
/// Trigger: a template in use cannot change, but be retired; otherwise it must be valid.
fn guard_template(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update, Event::Delete])])?;
    const RETIREMENT: [&str; 3] = ["retired_at", "retirement_reason", "updated_at"];
    let is_retirement = trigger.event() == Event::Update
        && trigger.changed_columns().iter().all(|column| RETIREMENT.contains(&column.as_str()));
    if trigger.event() != Event::Insert && !is_retirement {
        let (id, tenant): (Uuid, &str) = (trigger.old(c"id"), trigger.old(c"tenant_id"));
        lock_content(id, Mode::Exclusive)?;
        let is_used: bool = spi::one(
            "SELECT EXISTS (SELECT FROM skill_system.filing_checklists WHERE tenant_id = $1 AND template_id = $2)",
            As::Owner,
            See::Latest,
            &[arg(tenant), arg(id)],
        );
        if is_used {
            let (domain, version): (&str, i32) = (trigger.old(c"compliance_domain"), trigger.old(c"version"));
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("cannot change version {version} of the template of {domain}, which is in use"),
            )
            .hint("Create the next version with create_template()."));
        }
    }
    if trigger.event() != Event::Delete {
        let column = |name, what| json_argument(trigger.new_value(name), what);
        let items = column(c"items", "items")?.ok_or_else(|| missing("items"))?;
        // NULL: none.
        let required_items = column(c"min_required_items", "min_required_items")?.unwrap_or_else(|| json!([]));
        logic::check_template(&items, &required_items)?;
        let domains: Option<Vec<Option<&str>>> = trigger.new_value(c"rule_domains");
        if domains.is_some_and(|domains| domains.contains(&None)) {
            return Err(missing("an element of rule_domains"));
        }
    }
    Ok(trigger.proceed())
}

pg_function!(guard_checklist);
/// Trigger: refuses invalid changes of a filing, whatever the role.
fn guard_checklist(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update])])?;
    let from: &str = trigger.old(c"status");
    let to: &str = trigger.new_value(c"status");
    let changed = trigger.changed_columns();
    if changed.is_empty() {
        return Ok(trigger.proceed());
    }
    logic::check_row_change(from, to, &changed)?;
    Ok(trigger.proceed())
}

skill_pg::arguments! {
    struct CreateChecklist<'c> {
        entity_id: Option<&'c str>,
        entity_type: Option<&'c str>,
        compliance_domain: Option<&'c str>,
        entity_name: Option<&'c str>,
        deadline: Option<Timestamptz>,
        entity_field: Option<&'c str>,
        entity_district: Option<&'c str>,
        metadata: Option<Jsonb<'c>>,
        actor_id: Option<&'c str>,
        idempotency_key: Option<&'c str>,
    }
}

/// The same, checked.
struct NewFiling<'c> {
    entity_id: &'c str,
    entity_type: &'c str,
    domain: &'c str,
    entity_name: Option<&'c str>,
    deadline: Option<Timestamptz>,
    entity_field: Option<&'c str>,
    district: Option<&'c str>,
    metadata: Value,
    by: String,
    /// The role that calls.
    role: String,
    key: Option<&'c str>,
}

impl<'c> NewFiling<'c> {
    fn check(given: CreateChecklist<'c>) -> Result<Self, Fault> {
        let metadata = json_argument(given.metadata, "metadata")?.unwrap_or_else(|| json!({}));
        if !metadata.is_object() {
            return Err(invalid("metadata must be a JSON object"));
        }
        Ok(NewFiling {
            entity_id: required("entity_id", given.entity_id, 255)?,
            entity_type: required("entity_type", given.entity_type, 50)?,
            domain: required("compliance_domain", given.compliance_domain, 50)?,
            entity_name: optional("entity_name", given.entity_name, 500)?,
            deadline: bounded_time(given.deadline, "deadline")?,
            entity_field: optional("entity_field", given.entity_field, 255)?,
            district: optional("entity_district", given.entity_district, 10)?,
            metadata,
            by: actor(given.actor_id)?,
            role: sys::role_name(sys::current_user()),
            key: optional("idempotency_key", given.idempotency_key, 200)?,
        })
    }

    /// What a repeated call has in common with the first one.
    fn digest(&self) -> [u8; 32] {
        let deadline = self.deadline.map(|deadline| deadline.0.to_be_bytes());
        let content = [
            Some(self.entity_id.as_bytes()),
            Some(self.entity_type.as_bytes()),
            Some(self.domain.as_bytes()),
            self.entity_name.map(str::as_bytes),
            deadline.as_ref().map(<[u8; 8]>::as_slice),
            self.entity_field.map(str::as_bytes),
            self.district.map(str::as_bytes),
            Some(&*canonical(&self.metadata).into_bytes()),
        ];
        request_digest("create_checklist", &content)
    }

    /// The checklist of an earlier call with the same key.
    fn repeated(&self) -> Result<Option<(Uuid, String, i32)>, Fault> {
        let Some(key) = self.key else { return Ok(None) };
        let found = spi::first::<(Uuid, String, i32, bool)>(
            "SELECT id, status::text, version, coalesce(request_digest = $4, false) FROM skill_system.filing_checklists \
             WHERE tenant_id = skill_system.current_tenant() AND idempotency_key = $1 AND created_by_role = $2 AND created_by = $3",
            As::Owner,
            See::Latest,
            &[arg(key), arg(&self.role), arg(&self.by), arg(&self.digest())],
        );
        match found {
            Some((id, status, version, true)) => Ok(Some((id, status, version))),
            Some((id, ..)) => {
                Err(invalid(format!("idempotency_key \"{}\" was used for another checklist", shorten(key)))
                    .detail(format!("Checklist {id} was created by a call with other arguments."))
                    .hint("Repeat a call with the same arguments, and use a new key for each new call."))
            }
            None => Ok(None),
        }
    }

    /// Writes the checklist; `None` when another call with the same key was faster.
    fn insert(&self, template_id: Uuid, items: &Value) -> Option<Uuid> {
        let digest = self.key.map(|_| self.digest());
        spi::first::<Uuid>(
            include_str!("insert_checklist.sql"),
            As::Owner,
            See::OwnWrites,
            &[
                arg(self.entity_id),
                arg(self.entity_type),
                arg(self.entity_name),
                arg(self.domain),
                arg(template_id),
                arg(self.deadline),
                arg(logic::instantiate(items)),
                arg(&self.metadata),
                arg(self.by.as_str()),
                arg(self.entity_field),
                arg(self.district),
                arg(self.key),
                arg(digest.as_ref()),
                arg(&self.role),
            ],
        )
    }
}

skill_pg::columns! {
    /// The newest template of a domain.
    struct Template {
        id: Uuid = "id",
        version: i32 = "version",
        items: Value = "items::text",
        rule_domains: Option<Vec<String>> = "rule_domains",
        is_retired: bool = "retired_at IS NOT NULL",
    }
}

fn unknown_template(domain: &str) -> Fault {
    Fault::new(Code::UndefinedObject, format!("compliance domain \"{}\" has no template", shorten(domain)))
        .hint("An administrator creates it with create_template().")
}

/// Keeps the content of a template from changing. Not by the row: an agent's transaction may stay open, and who changes the
/// template may end it.
fn lock_content(id: Uuid, mode: Mode) -> Result<(), Fault> {
    locks::acquire(c"checklist_templates", &[&id.to_string()], mode, "the template").map(drop)
}

/// The template of new filings; the lock keeps it from changing before a filing uses it.
fn lock_template(domain: &str) -> Result<Template, Fault> {
    const NEWEST: &str = "SELECT id FROM skill_system.checklist_templates \
         WHERE tenant_id = skill_system.current_tenant() AND compliance_domain = $1 ORDER BY version DESC LIMIT 1";
    const SQL: &str = concatcp!(
        "SELECT ",
        Template::COLUMNS,
        " FROM skill_system.checklist_templates WHERE tenant_id = skill_system.current_tenant() AND id = $1"
    );
    let newest = spi::first::<Uuid>(NEWEST, As::Owner, See::OwnWrites, &[arg(domain)]);
    newest.map(|id| lock_content(id, Mode::Shared)).transpose()?;
    let template = spi::first::<Template>(SQL, As::Owner, See::Latest, &[arg(newest)]);
    let template = template.ok_or_else(|| unknown_template(domain))?;
    if template.is_retired {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("the template of compliance domain \"{}\" is retired", shorten(domain)),
        )
        .hint("An administrator creates the next version with create_template()."));
    }
    Ok(template)
}

pg_function!(create_checklist);
fn create_checklist(call: &Call) -> Answer {
    let filing = NewFiling::check(call.arguments())?;
    // Before all that depends on when the call comes.
    if let Some((id, status, version)) = filing.repeated()? {
        return Ok(state(call, id, (&status, version)));
    }
    if filing.deadline.is_some_and(|deadline| deadline < sys::clock_timestamp()) {
        return Err(
            invalid("deadline must be in the future").hint("For an overdue filing, give the newly agreed date.")
        );
    }
    check_entity_type(filing.entity_type)?;
    lock_rules(Mode::Shared)?;
    let template = lock_template(filing.domain)?;
    let inserted =
        locks::within_limit("a filing with the same idempotency_key", || filing.insert(template.id, &template.items))?;
    let Some(id) = inserted else {
        let repeated = filing.repeated()?;
        let (id, status, version) =
            repeated.ok_or_else(|| Fault::new(Code::Internal, "checklist was neither inserted nor found"))?;
        return Ok(state(call, id, (&status, version)));
    };
    let frozen = freeze_rules(id, true, template.rule_domains, filing.entity_field);
    let data = json!({
        "checklist_id": id.to_string(), "entity_id": filing.entity_id, "compliance_domain": filing.domain,
        "template_version": template.version, "from": null, "to": "draft", "rules_frozen": frozen,
    });
    audit::append_by("filing.created", [data], &filing.by)?;
    Ok(state(call, id, ("draft", 1)))
}

pg_function!(update_checklist_item);
fn update_checklist_item(call: &Call) -> Answer {
    let (id, index, status, expected_version, note, data, actor_id): (_, Option<i32>, _, _, _, _, _) = call.arguments();
    let id = given(id, "checklist_id")?;
    let index = given(index, "item_index")?;
    let status = parse_choice("status", status, &ITEM_STATUSES)?;
    let note = optional("note", note, 10_000)?;
    let data = json_argument(data, "data")?;
    let by = actor(actor_id)?;
    let mut checklist = lock_checklist(id)?;
    // The version first: a call meant for another state of the checklist should fail as a conflict.
    logic::check_version(checklist.version, expected_version)?;
    logic::next("update_checklist_item", &checklist.status, None)?;
    let now = checklist.now.clone();
    let change = ItemChange { status, note, data: data.as_ref(), by: &by, at: &now };
    let (label, was) = logic::change_item(&mut checklist.items, index, &change)?;
    let more = json!({"item_index": index, "label": label, "item_from": was, "item_to": status});
    let after = change_status(&checklist, "update_checklist_item", None, &by, more)?;
    Ok(state(call, id, after))
}

pg_function!(missing_items);
fn missing_items(call: &Call) -> Answer {
    let id = given(call.arguments(), "checklist_id")?;
    let found = spi::first::<(Value, Option<Value>)>(
        "SELECT c.items::text, t.min_required_items::text FROM skill_system.filing_checklists c \
         LEFT JOIN skill_system.checklist_templates t ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1",
        As::Caller,
        See::Statement,
        &[arg(id)],
    );
    let (items, required_items) = found.ok_or_else(|| unknown("checklist", id))?;
    let found = required_items.map(|required| logic::missing(&items, &required)).unwrap_or_default();
    let mut rows = call.row_set();
    for item in found {
        rows.push(&[arg(item.index), arg(&item.label), arg(&item.status)]);
    }
    Ok(rows.finish())
}

pg_function!(submit_checklist);
fn submit_checklist(call: &Call) -> Answer {
    let (id, actor_id, expected_version) = call.arguments();
    let id = given(id, "checklist_id")?;
    let by = actor(actor_id)?;
    let checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, expected_version)?;
    logic::next("submit_checklist", &checklist.status, None)?;
    logic::check_complete(&checklist.items, &checklist.required_items)?;
    let after = change_status(&checklist, "submit_checklist", None, &by, json!({}))?;
    Ok(state(call, id, after))
}

pg_function!(review_checklist);
fn review_checklist(call: &Call) -> Answer {
    let (id, decision, actor_id, reason, expected): (_, _, _, _, Option<i32>) = call.arguments();
    let id = given(id, "checklist_id")?;
    let decision = parse_choice("decision", decision, &logic::DECISIONS)?;
    let by = actor(actor_id)?;
    let comment = optional("reason", reason, 10_000)?;
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
fn file_checklist(call: &Call) -> Answer {
    let (id, actor_id, reference) = call.arguments();
    let id = given(id, "checklist_id")?;
    let by = actor(actor_id)?;
    let reference = optional("reference", reference, 500)?;
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
fn mark_exception(call: &Call) -> Answer {
    let (id, reason, actor_id, expected_version) = call.arguments();
    let id = given(id, "checklist_id")?;
    let reason = required("reason", reason, 10_000)?;
    let by = actor(actor_id)?;
    let mut checklist = lock_checklist(id)?;
    logic::check_version(checklist.version, expected_version)?;
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

skill_pg::arguments! {
    struct AddArtifact<'c> {
        checklist_id: Option<Uuid>,
        item_index: Option<i32>,
        artifact_type: Option<&'c str>,
        name: Option<&'c str>,
        content: Option<&'c str>,
        content_type: Option<&'c str>,
        file_path: Option<&'c str>,
        content_sha256: Option<&'c str>,
        size_bytes: Option<i64>,
        actor_type: Option<&'c str>,
        metadata: Option<Jsonb<'c>>,
        expires_at: Option<Timestamptz>,
    }
}

pg_function!(add_artifact);
fn add_artifact(call: &Call) -> Answer {
    let arguments: AddArtifact = call.arguments();
    let id = given(arguments.checklist_id, "checklist_id")?;
    let index = given(arguments.item_index, "item_index")?;
    let input = ArtifactInput {
        artifact_type: arguments.artifact_type,
        name: arguments.name,
        content: arguments.content,
        content_type: arguments.content_type,
        file_path: arguments.file_path,
        content_sha256: arguments.content_sha256,
        size_bytes: arguments.size_bytes,
        generated_by: arguments.actor_type,
    };
    let metadata = json_argument(arguments.metadata, "metadata")?.unwrap_or_else(|| json!({}));
    let expires_at = bounded_time(arguments.expires_at, "expires_at")?;
    let valid = input.check()?;
    check_term("artifact_type", "artifact_type", valid.artifact_type)?;
    let checklist = lock_checklist(id)?;
    // What was approved is what the reviewer saw.
    logic::check_status(&checklist.status, &logic::UNDECIDED)?;
    logic::check_item_index(&checklist.items, index)?;
    let artifact = spi::first::<Uuid>(
        "INSERT INTO skill_system.checklist_artifacts (checklist_id, item_index, artifact_type, name, content_type, content, \
             file_path, metadata, generated_by, content_sha256, size_bytes, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id",
        As::Owner,
        See::OwnWrites,
        &[
            arg(id),
            arg(index),
            arg(valid.artifact_type),
            arg(valid.name),
            arg(valid.content_type),
            arg(arguments.content),
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
        "checklist_id": id.to_string(), "artifact_id": artifact.to_string(), "item_index": index,
        "name": valid.name, "content_sha256": valid.content_sha256, "size_bytes": valid.size_bytes, "generated_by": valid.generated_by,
    });
    audit::append_by("filing.artifact_added", [data], &sys::role_name(sys::session_user()))?;
    Ok(call.row(&[arg(artifact), arg(&valid.content_sha256), arg(valid.size_bytes)]))
}
