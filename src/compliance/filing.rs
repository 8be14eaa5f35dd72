//! A filing checklist: its locked row and the change of its status.

use serde_json::{Map, Value, json};
use skill_core::Fault;
use skill_core::compliance::checklists as logic;
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::{FromRow, Json, Row, Uuid, arg};

use super::unknown;
use crate::{audit, locks};

/// A checklist whose row is locked until the transaction ends.
pub struct Checklist {
    pub id: Uuid,
    pub status: String,
    pub version: i32,
    pub items: Value,
    pub metadata: Value,
    pub required_items: Value,
    /// Now, RFC 3339.
    pub now: String,
    pub rule_domains: Option<Vec<String>>,
    pub entity_field: Option<String>,
    entity: Map<String, Value>,
}

impl FromRow<'_> for Checklist {
    fn from_row(row: &Row<'_>) -> Self {
        let (id, status, version, items, metadata, required, now, rule_domains, entity_field, Json(entity)) =
            row.read();
        // Without a template, or a list in it, nothing is required.
        let required_items = Option::unwrap_or_else(required, || json!([]));
        Checklist { id, status, version, items, metadata, required_items, now, rule_domains, entity_field, entity }
    }
}

/// Locks a checklist of the session's tenant.
pub fn lock_checklist(id: Uuid) -> Result<Checklist, Fault> {
    locks::acquire(c"filing_checklists", &[&id.to_string()], Mode::Exclusive, &format!("checklist {id}"))?;
    let found = spi::first::<Checklist>(
        "SELECT c.id, c.status::text, c.version, c.items::text, c.metadata::text, t.min_required_items::text, \
             to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), t.rule_domains, \
             c.entity_field::text, \
             jsonb_build_object('entity_id', c.entity_id, 'compliance_domain', c.compliance_domain)::text \
         FROM skill_system.filing_checklists c LEFT JOIN skill_system.checklist_templates t \
             ON t.tenant_id = c.tenant_id AND t.id = c.template_id \
         WHERE c.tenant_id = skill_system.current_tenant() AND c.id = $1 FOR NO KEY UPDATE OF c",
        As::Owner,
        See::OwnWrites,
        &[arg(id)],
    );
    found.ok_or_else(|| unknown("checklist", id))
}

/// Moves a checklist to the next status, writes its items and metadata, and records the change with `more` added.
pub fn change_status(
    checklist: &Checklist,
    action: &str,
    decision: Option<&str>,
    by: &str,
    more: Value,
) -> Result<(&'static str, i32), Fault> {
    let status = logic::next(action, &checklist.status, decision)?;
    spi::execute(
        "UPDATE skill_system.filing_checklists \
         SET status = $2, items = $3, metadata = $4, version = version + 1, updated_at = clock_timestamp() \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(checklist.id), arg(status), arg(&checklist.items), arg(&checklist.metadata)],
    );
    let version = checklist.version + 1;
    let mut data = json!({
        "checklist_id": checklist.id.to_string(), "action": action, "from": checklist.status, "to": status, "version": version,
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(checklist.entity.clone());
        data.extend(more);
    }
    audit::append_by(logic::event_type(action), [data], by)?;
    Ok((status, version))
}
