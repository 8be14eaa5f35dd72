//! A client's own names: a schema with views that take its INSERT, UPDATE and DELETE through the registry.

use std::ffi::CStr;

use pgrx::pg_sys;
use serde_json::{Map, Value, json};
use skill_core::error::shorten;
use skill_core::input::{invalid, required, word};
use skill_core::skills::Status;
use skill_core::skills::contract;
use skill_core::skills::metadata::{ParsedBody, SkillMetadata};
use skill_core::skills::names::{self, Reference};
use skill_core::{Code, Fault};

use super::approval;
use super::clients::{check_known, content};
use super::registry::{self, Change, NewVersion, Placement};
use crate::args::read_json;
use crate::audit;
use crate::pg::call::{Answer, Call, text_datum};
use crate::pg::error::notice;
use crate::pg::spi::{self, Access, arg};
use crate::pg::trigger::{Event, Trigger};
use crate::pg::{guc, sys};
use crate::pg_function;

/// What a schema of ours says of itself.
const MARK: &str = "Made by skill_system.create_client_schema() for skills_runtime.";

/// The columns of the packaged table, with the types that they have here: the registry's ids are UUIDs.
const COLUMNS: [(&CStr, pg_sys::Oid); 13] = [
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

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pg_function!(pg_finfo_skill_create_client_schema, skill_create_client_schema, create_client_schema);
/// `create_client_schema(client, schema)`
fn create_client_schema(call: &Call) -> Answer {
    word("client", call.text(0), &["skills_runtime"])?;
    let schema = required("schema_name", call.text(1), 63)?;
    if schema.len() > 63 {
        return Err(invalid("the name of a schema has at most 63 bytes"));
    }
    let (name, view) = (quoted(schema), format!("{}.skills_catalog", quoted(schema)));
    let mut there = None;
    spi::run(
        "SELECT n.nspowner = r.oid AND obj_description(n.oid, 'pg_namespace') = $2 \
             AND NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'skills_catalog' AND (c.relowner <> r.oid OR c.relkind <> 'v')) \
         FROM pg_namespace n, pg_roles r WHERE n.nspname = $1 AND r.rolname = current_user",
        Access::ReadLatest,
        &[arg(schema), arg(MARK)],
        |row| there = Some(row.get::<bool>(1) == Some(true)),
    );
    let run = |sql: String| spi::run_once(&sql, Access::Write, &[], |_| ());
    match there {
        Some(false) => {
            return Err(Fault::new(Code::NotInPrerequisiteState, format!("there is a schema \"{}\" that this function has not made for you", shorten(schema)))
                .hint("Choose another schema, or move what is there: its skills can be inserted into the new view afterwards."));
        }
        Some(true) => (),
        None => {
            run(format!("CREATE SCHEMA {name}"));
            run(format!("COMMENT ON SCHEMA {name} IS '{MARK}'"));
        }
    }
    run(format!(
        "CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS \
         SELECT s.id, s.namespace, s.skill_name, s.description, s.body, s.enabled, s.body_size, s.body_etag, s.created_at, s.updated_at, \
             to_jsonb(s.required_env_vars) AS required_env_vars, s.metadata, s.scope \
         FROM skill_system.skills s WHERE s.tenant_id OPERATOR(pg_catalog.=) skill_system.current_tenant()"
    ));
    run(format!(
        "COMMENT ON VIEW {view} IS 'The skills of the registry as skills-runtime-sdk has them in its own table. INSERT registers a skill, UPDATE of the body a new version, \
         DELETE takes it out of use; all of it is audited, and what an agent writes is a draft until a reviewer sets enabled.'"
    ));
    run(format!(
        "CREATE OR REPLACE TRIGGER write INSTEAD OF INSERT OR UPDATE OR DELETE ON {view} FOR EACH ROW EXECUTE FUNCTION skill_system.write_client_skill()"
    ));
    let all = "skill_system_agent, skill_system_reviewer, skill_system_auditor, skill_system_admin";
    run(format!("GRANT USAGE ON SCHEMA {name} TO {all}"));
    run(format!("GRANT SELECT ON {view} TO {all}"));
    run(format!("GRANT INSERT, UPDATE ON {view} TO skill_system_agent, skill_system_reviewer, skill_system_admin"));
    run(format!("GRANT DELETE ON {view} TO skill_system_admin"));
    let change = Change::by_caller();
    audit::append(
        "skill.client_schema",
        json!({"client": "skills_runtime", "schema": schema, "new": there.is_none()}),
        Some(&change.by),
        Some("user"),
    );
    Ok(text_datum(&view).unwrap_or_else(|| call.null()))
}

fn refused(message: impl Into<String>) -> Fault {
    Fault::new(Code::InsufficientPrivilege, message)
}

/// The columns of a row that were given, as JSON.
fn given(trigger: &Trigger) -> Result<Map<String, Value>, Fault> {
    let mut row = Map::new();
    for (name, kind) in COLUMNS {
        let key = name.to_string_lossy().into_owned();
        let value = match kind {
            pg_sys::TEXTOID => trigger.new_value::<String>(name).map(Value::from),
            pg_sys::BOOLOID => trigger.new_value::<bool>(name).map(Value::from),
            pg_sys::UUIDOID => trigger.new_value::<pgrx::Uuid>(name).map(|id| Value::from(id.to_string())),
            pg_sys::JSONBOID => read_json(trigger.new_datum(name), &key)?,
            // Sizes and times are the registry's.
            _ => None,
        };
        row.insert(key, value.unwrap_or_default());
    }
    row.insert("body_size".to_owned(), Value::Null);
    row.insert("body_etag".to_owned(), Value::Null);
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

pg_function!(pg_finfo_skill_write_client_skill, skill_write_client_skill, write_client_skill);
/// The trigger of the views.
fn write_client_skill(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    if !trigger.is_instead_of(&COLUMNS) {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            "this trigger belongs to the views of create_client_schema()",
        ));
    }
    if !sys::has_rights_of_named(c"skill_system_agent") && !approval::may_approve() {
        return Err(
            refused("only agents, reviewers and administrators write skills").hint("GRANT skill_system_agent TO ...;")
        );
    }
    let id = match trigger.event() {
        Event::Insert => insert(&given(&trigger)?)?,
        Event::Update => update(&trigger, &given(&trigger)?)?,
        Event::Delete | Event::Truncate => {
            if !sys::has_rights_of_named(c"skill_system_admin") {
                return Err(refused("only administrators delete skills"));
            }
            registry::delete(&mut registry::locked(old(&trigger)?)?, &Change::by_caller());
            return Ok(trigger.proceed());
        }
    };
    let mut answer = trigger.proceed();
    spi::run(
        "SELECT h.id, h.namespace, h.skill_name, h.description, v.body, h.enabled, h.body_size, h.body_etag, h.created_at, h.updated_at, \
             to_jsonb(h.required_env_vars), h.metadata, h.scope \
         FROM skill_system.skill_heads h JOIN skill_system.skill_versions v ON v.tenant_id = h.tenant_id AND v.id = h.current_version_id \
         WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1",
        Access::WriteAsOwner,
        &[arg(id)],
        |row| answer = trigger.found(&COLUMNS, row),
    );
    Ok(answer)
}

fn old(trigger: &Trigger) -> Result<Reference<'static>, Fault> {
    let id = trigger.old::<pgrx::Uuid>(c"id").ok_or_else(|| invalid("the row has no id"))?;
    Ok(Reference::Id(uuid::Uuid::from_bytes(*id.as_bytes())))
}

fn waits(head: &str) {
    notice(format!("skill \"{head}\" is a draft; a reviewer approves it"));
}

fn insert(row: &Map<String, Value>) -> Result<pgrx::Uuid, Fault> {
    if !row["id"].is_null() {
        return Err(invalid("id must not be given").hint("The registry makes it; INSERT ... RETURNING id tells it."));
    }
    let namespace = names::namespace(Some(text(row, "namespace")?))?;
    check(row)?;
    let (skill_name, body) = (text(row, "skill_name")?, text(row, "body")?);
    registry::lock_namespace(namespace);
    if registry::find_now(Reference::Name(namespace, skill_name)).is_some() {
        return Err(Fault::new(
            Code::UniqueViolation,
            format!("skill \"{skill_name}\" exists in the namespace \"{namespace}\""),
        )
        .hint("UPDATE its body; that is a new version."));
    }
    let mut about = SkillMetadata::default();
    about.update_from_row(row, &SkillMetadata::CLIENT_COLUMNS);
    let read = ParsedBody::new(body, &mut about);
    let wanted = row["enabled"] != Value::Bool(false);
    let approve = wanted && approval::may_approve() && !guc::signed_approvals();
    let new = NewVersion {
        namespace,
        skill_name,
        body,
        files: &[],
        semver: read.semver,
        about,
        frontmatter: read.frontmatter,
        manifest: read.manifest,
        status: approve.then_some(Status::Approved),
        previous_status: None,
        placement: Placement::WhenServable,
    };
    let state = registry::register(&new, &Change::by_caller())?;
    if wanted && !approve {
        waits(skill_name);
    }
    Ok(state.skill_id)
}

fn update(trigger: &Trigger, row: &Map<String, Value>) -> Result<pgrx::Uuid, Fault> {
    let changed = trigger.changed_columns();
    let is_changed = |field: &str| changed.iter().any(|column| column == field);
    if let Some(field) = ["id", "namespace", "skill_name"].into_iter().find(|field| is_changed(field)) {
        return Err(invalid(format!("{field} of a skill does not change"))
            .hint("Register it under its new name and delete the old one."));
    }
    let mut head = registry::locked(old(trigger)?)?;
    let columns: Vec<&str> = SkillMetadata::CLIENT_COLUMNS.into_iter().filter(|field| is_changed(field)).collect();
    let (new_body, reviewer) = (is_changed("body"), approval::may_approve());
    let change = Change::by_caller();
    let wanted = row["enabled"].as_bool().ok_or_else(|| invalid("enabled must not be NULL"))?;
    if is_changed("enabled") && !reviewer {
        return Err(refused("only reviewers and administrators switch skills on and off")
            .hint("SELECT skill_system.set_skill_status(skill, 'approved');"));
    }
    if new_body || !columns.is_empty() {
        check(row)?;
        if !new_body && !reviewer && head.status == Status::Approved {
            return Err(refused(format!("skill \"{}\" is approved as it is described", head.skill_name))
                .hint("Change the body too: that is a new version, which a reviewer approves with its description."));
        }
        let served = registry::version(&head, Some(&head.current_version), Access::WriteAsOwner)?;
        let content = content(&served);
        let mut about = registry::metadata_of(&head);
        let body = if new_body { text(row, "body")? } else { content.body.as_str() };
        let read = if new_body {
            ParsedBody::new(body, &mut about)
        } else {
            ParsedBody {
                frontmatter: content.frontmatter.clone(),
                manifest: content.manifest.clone(),
                semver: served.semver.clone(),
            }
        };
        about.update_from_row(row, &columns);
        check_known(&head, body, &content.files)?;
        let approve = new_body && wanted && reviewer && !guc::signed_approvals();
        let new = NewVersion {
            namespace: &head.namespace,
            skill_name: &head.skill_name,
            body,
            files: &content.files,
            semver: read.semver,
            about,
            frontmatter: read.frontmatter,
            manifest: read.manifest,
            status: approve.then_some(Status::Approved),
            previous_status: None,
            placement: Placement::WhenServable,
        };
        let state = registry::register(&new, &change)?;
        if new_body && state.status == Status::Draft {
            waits(&head.skill_name);
        }
        head = registry::locked(old(trigger)?)?;
    }
    if is_changed("enabled") {
        if wanted && head.status != Status::Approved {
            let version = registry::version(&head, Some(&head.current_version), Access::WriteAsOwner)?;
            let approved_with = approval::check(&head, &version, Status::Approved, None)?;
            registry::set_status(&mut head, &version, Status::Approved, &Change { approved_with, ..change });
        } else {
            registry::switch(&head, wanted, &change);
        }
    }
    Ok(head.id)
}
