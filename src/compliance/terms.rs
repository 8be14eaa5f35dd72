//! Terms: what would be enumerations is data of the tenant, such as that of the Railroad Commission of Texas.

use skill_core::Fault;
use skill_core::compliance::entities::{PRESETS, TEXAS_PRESETS};
use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, RowSet, arg, pg_function};

use super::entities::install_presets;

/// Refuses a term that is not listed, where terms of its kind are. `what` is the argument.
pub fn check_term(kind: &str, what: &str, term: &str) -> Result<(), Fault> {
    let (is_listed, first): (Option<bool>, Option<String>) = spi::one(
        "SELECT bool_or(term = $2), left(string_agg(term, ', ' ORDER BY term), 500) FROM skill_system.compliance_terms \
         WHERE tenant_id = skill_system.current_tenant() AND kind = $1",
        As::Owner,
        See::Statement,
        &[arg(kind), arg(term)],
    );
    if is_listed != Some(false) {
        return Ok(());
    }
    Err(invalid(format!("invalid value for {what}: \"{}\"", shorten(term)))
        .detail(format!("The tenant lists {}.", first.unwrap_or_default()))
        .hint("An administrator lists more in skill_system.compliance_terms."))
}

const TERMS: &str = include_str!("texas_terms.sql");
const TYPES: &str = include_str!("texas_types.sql");
const FIELDS: &str = include_str!("texas_fields.sql");
const RELATIONSHIPS: &str = include_str!("texas_relationships.sql");
const MAPPINGS: &str = include_str!("texas_mappings.sql");

pg_function!(install_texas_rrc);
fn install_texas_rrc(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for (kind, term) in spi::collect::<(String, String)>(TERMS, As::Caller, See::OwnWrites, &[]) {
        rows.push(&[arg(kind), arg(term)]);
    }
    for (key, installed) in install_presets(PRESETS.into_iter().chain(TEXAS_PRESETS)) {
        if installed {
            rows.push(&[arg("validation_preset"), arg(key)]);
        }
    }
    let types = spi::collect::<String>(TYPES, As::Caller, See::OwnWrites, &[]);
    rows_of(&mut rows, "entity_type", &types);
    for (kind, sql) in [("entity_field", FIELDS), ("relationship", RELATIONSHIPS), ("field_mapping", MAPPINGS)] {
        // A type that existed keeps its definition.
        let added = spi::collect::<String>(sql, As::Caller, See::OwnWrites, &[arg(types.as_slice())]);
        rows_of(&mut rows, kind, &added);
    }
    Ok(rows.finish())
}

fn rows_of(rows: &mut RowSet, kind: &str, names: &[String]) {
    for name in names {
        rows.push(&[arg(kind), arg(name)]);
    }
}
