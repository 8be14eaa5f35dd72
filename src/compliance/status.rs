//! The status matrix, which follows the checklists.

use crate::{audit, locks, settings};
use serde_json::{Value, json};
use skill_core::error::shorten;
use skill_core::input::{optional, parse_choice, required};
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Jsonb, Timestamptz, Timing, Trigger, arg, pg_function};

use super::bounded_time;
use super::entities::check_entity_type;
use crate::args::{actor, json as json_argument};

/// Works out one cell from the newest checklist of the entity in the domain.
fn assess(tenant: &str, entity: &str, domain: &str) -> Result<(), Fault> {
    if !lock_cell(tenant, entity, domain)? {
        // Another session may create the cell at the same time; what was read before waiting for it is stale.
        write_cell(tenant, entity, domain);
    }
    if !write_cell(tenant, entity, domain) {
        // Its only checklist was deleted or withdrawn.
        spi::execute(
            "UPDATE skill_system.compliance_status SET status = 'action_needed', checklist_id = NULL, \
                 details = details - 'checklist_status', last_assessed_at = clock_timestamp() \
             WHERE tenant_id = $1 AND entity_id = $2 AND compliance_domain = $3 AND details ? 'checklist_status'",
            As::Owner,
            See::OwnWrites,
            &[arg(tenant), arg(entity), arg(domain)],
        );
    }
    Ok(())
}

/// Sets the cell to the state of the newest checklist; false when none exists.
fn write_cell(tenant: &str, entity: &str, domain: &str) -> bool {
    let cell = [arg(tenant), arg(entity), arg(domain)];
    spi::execute(include_str!("write_cell.sql"), As::Owner, See::OwnWrites, &cell) > 0
}

/// Locks a cell, so that the next statement sees what other transactions did to it. False when it does not exist yet.
fn lock_cell(tenant: &str, entity: &str, domain: &str) -> Result<bool, Fault> {
    let what = format!("the status of \"{}\" in {domain}", shorten(entity));
    locks::acquire(c"compliance_status", &[tenant, entity, domain], Mode::Exclusive, &what)?;
    let found = spi::execute(
        "SELECT FROM skill_system.compliance_status WHERE tenant_id = $1 AND entity_id = $2 AND compliance_domain = $3 FOR NO KEY UPDATE",
        As::Owner,
        See::OwnWrites,
        &[arg(tenant), arg(entity), arg(domain)],
    );
    Ok(found > 0)
}

pg_function!(assess_checklist);
/// Trigger: updates the cell when its filing changes.
fn assess_checklist(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::AfterRow, &[Event::Insert, Event::Update, Event::Delete])])?;
    // The row as it was, or the inserted one: these columns never change.
    let [tenant, entity, domain] =
        [c"tenant_id", c"entity_id", c"compliance_domain"].map(|column| match trigger.event() {
            Event::Insert => trigger.new_value::<&str>(column),
            _ => trigger.old(column),
        });
    assess(tenant, entity, domain)?;
    Ok(trigger.done())
}

/// Status of a cell and whether an open checklist decides it.
fn cell(entity: &str, domain: &str) -> (Option<String>, bool) {
    spi::one(
        "SELECT s.status::text, EXISTS (SELECT FROM skill_system.filing_checklists c \
             WHERE c.tenant_id = skill_system.current_tenant() AND c.entity_id = $1 AND c.compliance_domain = $2 \
                 AND c.status NOT IN ('filed', 'exception', 'withdrawn')) \
         FROM (SELECT) one LEFT JOIN skill_system.compliance_status s \
             ON s.tenant_id = skill_system.current_tenant() AND s.entity_id = $1 AND s.compliance_domain = $2",
        As::Owner,
        See::OwnWrites,
        &[arg(entity), arg(domain)],
    )
}

skill_pg::arguments! {
    struct AssessCompliance<'c> {
        tenant_id: Option<&'c str>,
        entity_id: Option<&'c str>,
        entity_type: Option<&'c str>,
        compliance_domain: Option<&'c str>,
        status: Option<&'c str>,
        deadline: Option<Timestamptz>,
        entity_name: Option<&'c str>,
        entity_field: Option<&'c str>,
        entity_district: Option<&'c str>,
        details: Option<Jsonb<'c>>,
        actor_id: Option<&'c str>,
    }
}

pg_function!(assess_compliance);
fn assess_compliance(call: &Call) -> Answer {
    let given: AssessCompliance = call.arguments();
    let tenant = required("tenant_id", given.tenant_id, usize::MAX)?;
    if !settings::is_tenant(tenant)? {
        return Err(Fault::new(Code::InsufficientPrivilege, "permission denied for another tenant")
            .hint("SELECT skill_system.current_tenant();"));
    }
    let entity = required("entity_id", given.entity_id, 255)?;
    let entity_type = optional("entity_type", given.entity_type, 50)?;
    let domain = optional("compliance_domain", given.compliance_domain, 50)?;
    let by = actor(given.actor_id)?;
    let mut changes: Vec<(String, Option<String>, Option<String>)> = Vec::new();
    let details = json_argument(given.details, "details")?;
    entity_type.map_or(Ok(()), check_entity_type)?;
    bounded_time(given.deadline, "deadline")?;
    if let Some(status) = given.status {
        let domain = required("compliance_domain", domain, 50)?;
        let before = set_cell(&given, entity, entity_type, domain, details.as_ref())?;
        changes.push((domain.to_owned(), before, Some(status.to_owned())));
    } else {
        let domains = spi::collect::<String>(
            "SELECT compliance_domain::text FROM skill_system.compliance_status \
             WHERE tenant_id = skill_system.current_tenant() AND entity_id = $1 AND ($2 IS NULL OR compliance_domain = $2) \
             UNION SELECT compliance_domain::text FROM skill_system.filing_checklists \
             WHERE tenant_id = skill_system.current_tenant() AND entity_id = $1 AND ($2 IS NULL OR compliance_domain = $2) \
             ORDER BY 1",
            As::Owner,
            See::OwnWrites,
            &[arg(entity), arg(domain)],
        );
        if domains.is_empty() {
            return Err(Fault::new(Code::UndefinedObject, format!("entity \"{}\" has no status", shorten(entity)))
                .hint("Begin a filing with create_checklist(), or call assess_compliance() with compliance_domain and status."));
        }
        for domain in domains {
            let (before, _) = cell(entity, &domain);
            assess(tenant, entity, &domain)?;
            changes.push((domain.clone(), before, cell(entity, &domain).0));
        }
    }
    let mut rows = call.row_set();
    for (domain, before, after) in changes {
        if before != after {
            let data = json!({
                "entity_id": entity, "compliance_domain": domain, "from": before, "to": after, "details": details,
            });
            audit::append_by("compliance.assessed", [data], &by)?;
        }
        rows.push(&[arg(&domain), arg(before.as_deref()), arg(after.as_deref())]);
    }
    Ok(rows.finish())
}

/// Sets a cell that no open checklist decides; returns the status it had.
fn set_cell(
    given: &AssessCompliance,
    entity: &str,
    entity_type: Option<&str>,
    domain: &str,
    details: Option<&Value>,
) -> Result<Option<String>, Fault> {
    let status = parse_choice("status", given.status, &["compliant", "action_needed", "in_review", "not_applicable"])?;
    let name = optional("entity_name", given.entity_name, 500)?;
    let field = optional("entity_field", given.entity_field, 255)?;
    let district = optional("entity_district", given.entity_district, 10)?;
    if details.is_some_and(|details| !details.is_object()) {
        return Err(Fault::new(Code::InvalidParameterValue, "details must be a JSON object"));
    }
    let values = [
        arg(entity),
        arg(entity_type),
        arg(domain),
        arg(status),
        arg(given.deadline),
        arg(name),
        arg(field),
        arg(district),
        arg(given.details),
    ];
    let tenant = settings::tenant()?;
    if !lock_cell(&tenant, entity, domain)? {
        required("entity_type", entity_type, 50)?;
        let created = spi::execute(
            "INSERT INTO skill_system.compliance_status (entity_id, entity_type, compliance_domain, status, deadline, \
                 entity_name, entity_field, entity_district, details) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, '{}')) ON CONFLICT (tenant_id, entity_id, compliance_domain) DO NOTHING",
            As::Owner,
            See::OwnWrites,
            &values,
        );
        if created > 0 {
            return Ok(None);
        }
        // Another session created it meanwhile.
        lock_cell(&tenant, entity, domain)?;
    }
    let (before, decided) = cell(entity, domain);
    if decided {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("an open checklist decides the status of \"{}\" in {domain}", shorten(entity)),
        )
        .hint("Work on the checklist, or end it with mark_exception() or withdraw_checklist()."));
    }
    spi::execute(
        "UPDATE skill_system.compliance_status s SET entity_type = coalesce($2, s.entity_type), status = $4, deadline = $5, \
             entity_name = coalesce($6, s.entity_name), entity_field = coalesce($7, s.entity_field), \
             entity_district = coalesce($8, s.entity_district), \
             details = (s.details - 'checklist_status') || coalesce($9, '{}'), last_assessed_at = clock_timestamp() \
         WHERE s.tenant_id = skill_system.current_tenant() AND s.entity_id = $1 AND s.compliance_domain = $3",
        As::Owner,
        See::OwnWrites,
        &values,
    );
    Ok(before)
}
