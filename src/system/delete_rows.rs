//! `delete_rows()`: the right to DELETE from a table would also be the right to lock it against all tenants.

use serde_json::{Map, Value};
use skill_core::input::invalid;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Call, Jsonb, Oid, arg, pg_function, sys};

use crate::args::{given, json};
use crate::locks;
use crate::module;

pg_function!(delete_rows);
/// `delete_rows(table_name, key)` → how many.
fn delete_rows(call: &Call) -> Answer {
    let (table, condition): (Option<Oid>, Option<Jsonb>) = call.arguments();
    sys::prevent_if_read_only(c"delete_rows()");
    let table = given(table, "table_name")?;
    let key = given(json(condition, "key")?, "key")?;
    let key: &Map<String, Value> = key.as_object().filter(|key| !key.is_empty()).ok_or_else(|| {
        invalid("key must be an object with at least one column").hint("For example '{\"name\": \"dev\"}'.")
    })?;
    let name = sys::relation_name(table).filter(|name| sys::find_table(&sys::c_string(name)) == Some(table));
    let tables: Vec<&str> = module::all().iter().flat_map(|module| module.maintained_tables).copied().collect();
    let Some(name) = name.filter(|name| tables.contains(&name.as_str())) else {
        return Err(Fault::new(Code::InvalidParameterValue, "not a table whose rows administrators delete")
            .hint(format!("They are {}.", tables.join(", "))));
    };
    const COLUMN: &str = "SELECT EXISTS (SELECT FROM pg_attribute \
         WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped)";
    for column in key.keys() {
        if !spi::one::<bool>(COLUMN, As::Caller, See::Latest, &[arg(table), arg(column.as_str())]) {
            return Err(Fault::new(Code::UndefinedObject, format!("column \"{column}\" of {name} does not exist")));
        }
    }
    let rows = format!("skill_system.{name} t WHERE t.tenant_id = skill_system.current_tenant() AND to_jsonb(t) @> $1");
    // An agent's open transaction may refer to them.
    locks::acquire_rows(&rows, "FOR UPDATE", &[arg(condition)], &format!("the rows of {name}"))?;
    let deleted = spi::execute(Once(&format!("DELETE FROM {rows}")), As::Owner, See::OwnWrites, &[arg(condition)]);
    Ok(call.answer(deleted as i64))
}
