//! A client's names for the registry: a schema with views that take its INSERT, UPDATE and DELETE through the registry.

use std::ffi::CStr;

use serde_json::{Map, Value, json};
use skill_core::error::shorten;
use skill_core::input::{invalid, parse_choice, required};
use skill_core::skills::Status;
use skill_core::skills::contract;
use skill_core::skills::metadata::{ParsedBody, SkillMetadata};
use skill_core::skills::names::{self, Reference};
use skill_core::{Code, Fault};
use skill_pg::error::notice;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Call, Event, Oid, Returned, Timing, Trigger, Uuid, arg, pg_function, pg_sys, sys};

use crate::args;
use crate::settings;
use crate::skills::approval;
use crate::skills::content::{check_not_approved_before, content};
use crate::skills::history::append_audit;
use crate::skills::model;
use crate::skills::registry::{self, NewVersion, Placement};
use crate::versioned::Change;

/// The comment of a schema that this module created.
const MARK: &str = "Created by skill_system.create_client_schema() for skills_runtime.";

/// The columns of the packaged table, with the types that they have here: the registry's ids are UUIDs.
const COLUMNS: [(&CStr, Oid); 13] = [
    (c"id", pg_sys::UUIDOID),
    (c"namespace", pg_sys::TEXTOID),
    (c"skill_name", pg_sys::TEXTOID),
    (c"description", pg_sys::TEXTOID),
    (c"body", pg_sys::TEXTOID),
    (c"enabled", pg_sys::BOOLOID),
    (c"body_size", pg_sys::INT4OID),
    (c"body_etag", pg_sys::TEXTOID),
    (c"created_at", pg_sys::TIMESTAMPTZOID),
    (c"updated_at", pg_sys::TIMESTAMPTZOID),
    (c"required_env_vars", pg_sys::JSONBOID),
    (c"metadata", pg_sys::JSONBOID),
    (c"scope", pg_sys::TEXTOID),
];

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pg_function!(create_client_schema);
fn create_client_schema(call: &Call) -> Answer {
    let (client, schema) = call.arguments();
    parse_choice("client", client, &["skills_runtime"])?;
    let schema = required("schema_name", schema, 63)?;
    if schema.len() > 63 {
        return Err(invalid("the name of a schema has at most 63 bytes"));
    }
    let is_own = spi::first::<bool>(
        "SELECT coalesce(n.nspowner = r.oid AND obj_description(n.oid, 'pg_namespace') = $2 \
             AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'skills_catalog' \
                             AND (c.relowner <> r.oid OR c.relkind <> 'v')), false) \
         FROM pg_namespace n, pg_roles r WHERE n.nspname = $1 AND r.rolname = current_user",
        As::Caller,
        See::Latest,
        &[arg(schema), arg(MARK)],
    );
    if is_own == Some(false) {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("schema \"{}\" exists and was not created by this function for this user", shorten(schema)),
        )
        .hint(
            "Choose another schema, or move what is in it: its skills can be inserted into the new view afterwards.",
        ));
    }
    let view = create_view(&quote(schema), is_own.is_none());
    append_audit(
        "skill.client_schema",
        json!({"client": "skills_runtime", "schema": schema, "new": is_own.is_none()}),
    )?;
    Ok(call.answer(view))
}

pg_function!(drop_client_schema);
/// Drops the schema with the views that write through this extension; the server refuses while others are in it.
fn drop_client_schema(call: &Call) -> Answer {
    let (client, schema) = call.arguments();
    parse_choice("client", client, &["skills_runtime"])?;
    let schema = required("schema_name", schema, 63)?;
    let is_own = spi::first::<bool>(
        "SELECT coalesce(n.nspowner = r.oid AND obj_description(n.oid, 'pg_namespace') = $2, false) \
         FROM pg_namespace n, pg_roles r WHERE n.nspname = $1 AND r.rolname = current_user",
        As::Caller,
        See::Latest,
        &[arg(schema), arg(MARK)],
    );
    match is_own {
        None => return Ok(call.answer(false)),
        Some(true) => {}
        Some(false) => {
            return Err(Fault::new(
                Code::NotInPrerequisiteState,
                format!("schema \"{}\" was not created by create_client_schema() for this user", shorten(schema)),
            ));
        }
    }
    let views = spi::collect::<String>(
        "SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_trigger t ON t.tgrelid = c.oid JOIN pg_proc p ON p.oid = t.tgfoid \
         WHERE n.nspname = $1 AND c.relkind = 'v' AND p.pronamespace = to_regnamespace('skill_system')",
        As::Caller,
        See::Latest,
        &[arg(schema)],
    );
    let views = views.into_iter().map(|view| format!("DROP VIEW {view}"));
    for sql in views.chain([format!("DROP SCHEMA {}", quote(schema))]) {
        spi::execute(Once(&sql), As::Caller, See::OwnWrites, &[]);
    }
    append_audit("skill.client_schema_dropped", json!({"client": "skills_runtime", "schema": schema}))?;
    Ok(call.answer(true))
}

/// Creates the view, with the rights of the caller. Returns its quoted name.
fn create_view(schema: &str, is_new: bool) -> String {
    const ALL_ROLES: &str = "skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin";
    let run = |sql: String| spi::execute(Once(&sql), As::Caller, See::OwnWrites, &[]);
    let view = format!("{schema}.skills_catalog");
    if is_new {
        run(format!("CREATE SCHEMA {schema}"));
        run(format!("COMMENT ON SCHEMA {schema} IS '{MARK}'"));
    }
    run(format!(
        "CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS \
         SELECT s.id, s.namespace, s.skill_name, s.description, s.body, s.enabled, s.body_size, s.body_etag, s.created_at, \
             s.updated_at, to_jsonb(s.required_env_vars) AS required_env_vars, s.metadata, s.scope \
         FROM skill_system.skills s WHERE s.tenant_id OPERATOR(pg_catalog.=) skill_system.current_tenant()"
    ));
    run(format!(
        "COMMENT ON VIEW {view} IS 'The skills of the registry as skills-runtime-sdk has them in its table. INSERT registers a \
         skill, UPDATE of the body a new version, DELETE takes it out of use; all of it is audited, and what an agent writes \
         is a draft until a reviewer sets enabled.'"
    ));
    run(format!(
        "CREATE OR REPLACE TRIGGER write INSTEAD OF INSERT OR UPDATE OR DELETE ON {view} \
         FOR EACH ROW EXECUTE FUNCTION skill_system.write_client_skill()"
    ));
    run(format!("GRANT USAGE ON SCHEMA {schema} TO {ALL_ROLES}"));
    run(format!("GRANT SELECT ON {view} TO {ALL_ROLES}"));
    run(format!("GRANT INSERT, UPDATE ON {view} TO skill_system_agent, skill_system_reviewer, skill_system_admin"));
    run(format!("GRANT DELETE ON {view} TO skill_system_admin"));
    view
}

fn denied(message: impl Into<String>) -> Fault {
    Fault::new(Code::InsufficientPrivilege, message)
}

/// The columns of a row that were given, as JSON. Sizes and times are the registry's.
fn given_columns(trigger: &Trigger) -> Result<Map<String, Value>, Fault> {
    let mut row = Map::new();
    for (name, kind) in COLUMNS {
        let key = name.to_string_lossy().into_owned();
        let value = match kind {
            _ if key == "body_etag" => None,
            pg_sys::TEXTOID => trigger.new_value::<Option<&str>>(name).map(Value::from),
            pg_sys::BOOLOID => trigger.new_value::<Option<bool>>(name).map(Value::from),
            pg_sys::UUIDOID => trigger.new_value::<Option<Uuid>>(name).map(|id| Value::from(id.to_string())),
            pg_sys::JSONBOID => args::json(trigger.new_value(name), &key)?,
            _ => None,
        };
        row.insert(key, value.unwrap_or_default());
    }
    Ok(row)
}

fn text<'r>(row: &'r Map<String, Value>, field: &str) -> Result<&'r str, Fault> {
    row[field].as_str().ok_or_else(|| invalid(format!("{field} must not be NULL")))
}

/// The client must be able to read the row.
fn check(row: &Map<String, Value>) -> Result<(), Fault> {
    let mut row = row.clone();
    row.insert("id".to_owned(), 0.into());
    row.insert("created_at".to_owned(), "now".into());
    contract::writable(&row)
}

pg_function!(write_client_skill);
/// The trigger of the views.
fn write_client_skill(call: &Call) -> Answer {
    let events = [Event::Insert, Event::Update, Event::Delete];
    let trigger = Trigger::new(call, &[(Timing::InsteadOfRow, &events)])?;
    if !trigger.has_columns(&COLUMNS) {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            "this trigger belongs to the views of create_client_schema()",
        ));
    }
    if !sys::has_rights_of_named(c"skill_system_agent") && !approval::may_approve() {
        return Err(
            denied("only agents, reviewers and administrators write skills").hint("GRANT skill_system_agent TO ...;")
        );
    }
    let skill_id = match trigger.event() {
        Event::Insert => insert(&given_columns(&trigger)?)?,
        Event::Update => update(&trigger, &given_columns(&trigger)?)?,
        Event::Delete | Event::Truncate => {
            if !sys::has_rights_of_named(c"skill_system_admin") {
                return Err(denied("only administrators delete skills"));
            }
            registry::delete(&mut model::lock(old_reference(&trigger)?)?, &Change::by_caller())?;
            return Ok(trigger.proceed());
        }
    };
    Ok(written_row(&trigger, skill_id))
}

/// The row for RETURNING, as it is now.
fn written_row(trigger: &Trigger, skill_id: Uuid) -> Returned {
    spi::with_rows(
        "SELECT h.id, h.namespace, h.skill_name, h.description, v.body, h.enabled, h.body_size, h.body_etag, h.created_at, \
             h.updated_at, to_jsonb(h.required_env_vars), h.metadata, h.scope \
         FROM skill_system.skill_heads h \
         JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(skill_id)],
        |rows| match rows {
            [row, ..] => trigger.proceed_with_row(&COLUMNS.map(|(name, _)| name), row),
            [] => trigger.proceed(),
        },
    )
}

fn old_reference(trigger: &Trigger) -> Result<Reference<'static>, Fault> {
    let id = trigger.old::<Option<Uuid>>(c"id").ok_or_else(|| invalid("the row has no id"))?;
    Ok(Reference::Id(uuid::Uuid::from_bytes(*id.as_bytes())))
}

fn notify_pending_review(skill_name: &str) {
    notice(format!("skill \"{skill_name}\" is a draft; a reviewer approves it"));
}

fn insert(row: &Map<String, Value>) -> Result<Uuid, Fault> {
    if !row["id"].is_null() {
        return Err(
            invalid("id must not be given").hint("The registry creates it; INSERT ... RETURNING id returns it.")
        );
    }
    let namespace = names::namespace(Some(text(row, "namespace")?))?;
    check(row)?;
    let (skill_name, body) = (text(row, "skill_name")?, text(row, "body")?);
    model::lock_namespace(namespace)?;
    if model::find_now(Reference::Name(namespace, skill_name)).is_some() {
        return Err(Fault::new(
            Code::UniqueViolation,
            format!("skill \"{skill_name}\" already exists in the namespace \"{namespace}\""),
        )
        .hint("UPDATE its body; that is a new version."));
    }
    let mut metadata = SkillMetadata::default();
    metadata.update_from_row(row, &SkillMetadata::CLIENT_COLUMNS);
    let parsed = ParsedBody::new(body, &mut metadata);
    let wanted = row["enabled"] != Value::Bool(false);
    let approve = wanted && approval::may_approve() && !settings::signed_approvals();
    let new = NewVersion {
        namespace,
        skill_name,
        body,
        files: &[],
        semver: parsed.semver,
        metadata,
        frontmatter: parsed.frontmatter,
        manifest: parsed.manifest,
        status: approve.then_some(Status::Approved),
        previous_status: None,
        placement: Placement::WhenServable,
    };
    let state = registry::register(&new, &Change::by_caller())?;
    if wanted && !approve {
        notify_pending_review(skill_name);
    }
    Ok(state.skill_id)
}

/// What an UPDATE of a row asks for.
struct Update<'t> {
    row: &'t Map<String, Value>,
    /// Changed columns that describe the skill.
    columns: Vec<&'static str>,
    new_body: bool,
    switched: bool,
    enabled: bool,
    is_reviewer: bool,
}

fn update(trigger: &Trigger, row: &Map<String, Value>) -> Result<Uuid, Fault> {
    let changed = trigger.changed_columns();
    let is_changed = |field: &str| changed.iter().any(|column| column == field);
    if let Some(field) = ["id", "namespace", "skill_name"].into_iter().find(|field| is_changed(field)) {
        return Err(invalid(format!("{field} of a skill does not change"))
            .hint("Register it under its new name and delete the old one."));
    }
    let reference = old_reference(trigger)?;
    let mut head = model::lock(reference)?;
    let wanted = Update {
        row,
        columns: SkillMetadata::CLIENT_COLUMNS.into_iter().filter(|field| is_changed(field)).collect(),
        new_body: is_changed("body"),
        switched: is_changed("enabled"),
        enabled: row["enabled"].as_bool().ok_or_else(|| invalid("enabled must not be NULL"))?,
        is_reviewer: approval::may_approve(),
    };
    let change = Change::by_caller();
    if wanted.switched && !wanted.is_reviewer {
        return Err(denied("only reviewers and administrators switch skills on and off")
            .hint("SELECT skill_system.set_skill_status(skill, 'approved', version);"));
    }
    if wanted.new_body || !wanted.columns.is_empty() {
        wanted.register(&head, &change)?;
        head = model::lock(reference)?;
    }
    if wanted.switched {
        if wanted.enabled && head.status != Status::Approved {
            if !settings::single_user_store() {
                return Err(approval::version_missing());
            }
            let version = model::current_version(&head)?;
            let approved_with = approval::check(&head, &version, Status::Approved, None)?;
            registry::set_status(&mut head, &version, Status::Approved, &Change { approved_with, ..change })?;
        } else {
            registry::set_enabled(&head, wanted.enabled, &change)?;
        }
    }
    Ok(head.id)
}

impl Update<'_> {
    /// Registers the new body, or the old one with its new description.
    fn register(&self, head: &model::Head, change: &Change) -> Result<(), Fault> {
        check(self.row)?;
        if !self.new_body && !self.is_reviewer && head.status == Status::Approved {
            return Err(denied(format!("skill \"{}\" is approved as it is described", head.skill_name))
                .hint("Change the body too: that is a new version, which a reviewer approves with its description."));
        }
        let served = model::current_version(head)?;
        let content = content(&served)?;
        let mut metadata = model::head_metadata(head);
        let body = if self.new_body { text(self.row, "body")? } else { content.body.as_str() };
        let parsed = if self.new_body {
            ParsedBody::new(body, &mut metadata)
        } else {
            ParsedBody { frontmatter: content.frontmatter, manifest: content.manifest, semver: served.semver }
        };
        metadata.update_from_row(self.row, &self.columns);
        check_not_approved_before(head, body, &content.files)?;
        // Files and metadata come along from what is served, which must be approved then too.
        let approve = self.new_body
            && self.enabled
            && self.is_reviewer
            && head.status == Status::Approved
            && !settings::signed_approvals();
        let new = NewVersion {
            namespace: &head.namespace,
            skill_name: &head.skill_name,
            body,
            files: &content.files,
            semver: parsed.semver,
            metadata,
            frontmatter: parsed.frontmatter,
            manifest: parsed.manifest,
            status: approve.then_some(Status::Approved),
            previous_status: None,
            placement: Placement::WhenServable,
        };
        let state = registry::register(&new, change)?;
        if self.new_body && state.status == Status::Draft {
            notify_pending_review(&head.skill_name);
        }
        Ok(())
    }
}
