//! Entities: the definitions in the tables, read for `core`.

use std::collections::BTreeMap;

use pgrx::pg_sys;
use skill_core::compliance::entities::{EntityType, Field, InputType, PRESETS, Preset, Relation};
use skill_core::error::shorten;
use skill_core::input::required;
use skill_core::{Code, Fault};

use super::text;
use crate::args::{json, jsonb_datum, missing, stored};
use crate::pg::call::{Answer, Call, text_array_datum};
use crate::pg::guc;
use crate::pg::spi::{self, Access, arg};
use crate::pg::trigger::{Event, Trigger};
use crate::pg_function;

/// A kind of entity of the session's tenant, with its id.
fn entity_type(call: &Call) -> Result<(pgrx::Uuid, EntityType), Fault> {
    let key = required("type_key", call.text(0), 64)?;
    let mut found = None;
    spi::run(
        "SELECT type_id, display_name::text FROM skill_system.entity_type_definitions WHERE tenant_id = skill_system.current_tenant() AND type_key = $1",
        Access::Read,
        &[arg(key)],
        |row| found = row.get::<pgrx::Uuid>(1).zip(row.get::<String>(2)),
    );
    let (id, name) = found.ok_or_else(|| {
        Fault::new(Code::UndefinedObject, format!("entity type \"{}\" does not exist", shorten(key)))
            .hint("SELECT type_key FROM skill_system.entity_type_definitions;")
    })?;
    let (mut fields, mut broken) = (Vec::new(), None);
    spi::run(
        "SELECT f.field_key::text, f.label::text, f.input_type::text, f.required, f.options::text, p.pattern, p.description \
         FROM skill_system.entity_field_definitions f LEFT JOIN skill_system.validation_presets p \
             ON p.tenant_id = f.tenant_id AND p.preset_key = f.validation_preset \
         WHERE f.tenant_id = skill_system.current_tenant() AND f.type_id = $1 ORDER BY f.sort_order, f.field_key",
        Access::Read,
        &[arg(id)],
        |row| {
            let preset = match (row.get::<String>(6), row.get::<String>(7)) {
                (Some(pattern), Some(description)) => match Preset::new(&pattern, &description) {
                    Ok(preset) => Some(preset),
                    Err(fault) => {
                        broken.get_or_insert(fault);
                        None
                    }
                },
                _ => None,
            };
            fields.push(Field {
                key: row.get(1).unwrap_or_default(),
                label: row.get(2).unwrap_or_default(),
                input: InputType::parse(&row.get::<String>(3).unwrap_or_default()),
                required: row.get(4).unwrap_or_default(),
                preset,
                options: Field::read_options(Some(&stored(row.get(5)))),
            });
        },
    );
    if let Some(fault) = broken {
        return Err(fault);
    }
    let mut relations = Vec::new();
    spi::run(
        "SELECT o.type_key::text, r.cardinality::text, r.required, r.child_type_id = $1 \
         FROM skill_system.entity_relationship_rules r JOIN skill_system.entity_type_definitions o ON o.tenant_id = r.tenant_id \
             AND o.type_id = CASE WHEN r.child_type_id = $1 THEN r.parent_type_id ELSE r.child_type_id END \
         WHERE r.tenant_id = skill_system.current_tenant() AND $1 IN (r.child_type_id, r.parent_type_id) ORDER BY 4 DESC, 1",
        Access::Read,
        &[arg(id)],
        |row| {
            let (cardinality, required) = (row.get::<String>(2).unwrap_or_default(), row.get(3).unwrap_or_default());
            relations.push(Relation::of(
                row.get(1).unwrap_or_default(),
                &cardinality,
                required,
                row.get(4).unwrap_or_default(),
            ));
        },
    );
    Ok((id, EntityType { key: key.to_owned(), name, fields, relations }))
}

pg_function!(pg_finfo_skill_validate_entity, skill_validate_entity, validate_entity);
/// `validate_entity(type_key, data)`
fn validate_entity(call: &Call) -> Answer {
    let (_, kind) = entity_type(call)?;
    let data = json(call, 1, "data")?.ok_or_else(|| missing("data"))?;
    let problems = kind.validate(&data)?;
    let mut rows = call.row_set();
    for problem in problems {
        rows.push(&mut [text(&problem.field), text(problem.code), text(&problem.message)]);
    }
    Ok(call.null())
}

pg_function!(pg_finfo_skill_entity_json_schema, skill_entity_json_schema, entity_json_schema);
/// `entity_json_schema(type_key)`
fn entity_json_schema(call: &Call) -> Answer {
    let (id, kind) = entity_type(call)?;
    Ok(jsonb_datum(kind.json_schema(&format!("urn:uuid:{id}"))).unwrap_or_else(|| call.null()))
}

pg_function!(pg_finfo_skill_map_import, skill_map_import, map_import);
/// `map_import(type_key, record)`
fn map_import(call: &Call) -> Answer {
    let (id, kind) = entity_type(call)?;
    let record = json(call, 1, "record")?.ok_or_else(|| missing("record"))?;
    let mut mappings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    spi::run(
        "SELECT m.rrc_field_key::text, f.field_key::text FROM skill_system.rrc_field_mappings m \
         JOIN skill_system.entity_field_definitions f ON f.tenant_id = m.tenant_id AND f.field_id = m.entity_field_id \
         WHERE m.tenant_id = skill_system.current_tenant() AND m.type_id = $1 ORDER BY m.created_at, m.mapping_id",
        Access::Read,
        &[arg(id)],
        |row| mappings.entry(row.get(1).unwrap_or_default()).or_default().push(row.get(2).unwrap_or_default()),
    );
    let (entity, unmapped, empty) = kind.import(&mappings, &record)?;
    Ok(call.row(&mut [jsonb_datum(entity), jsonb_datum(unmapped), text_array_datum(&empty)]))
}

pg_function!(pg_finfo_skill_install_validation_presets, skill_install_validation_presets, install_validation_presets);
/// `install_validation_presets()`
fn install_validation_presets(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for [key, pattern, description, example] in PRESETS {
        let installed = spi::run(
            "INSERT INTO skill_system.validation_presets (preset_key, pattern, description, example) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            Access::Write,
            &[arg(key), arg(pattern), arg(description), arg(example)],
            |_| (),
        ) == 1;
        rows.push(&mut [text(key), Some(pg_sys::Datum::from(installed))]);
    }
    Ok(call.null())
}

pg_function!(pg_finfo_skill_guard_preset, skill_guard_preset, guard_preset);
/// BEFORE INSERT OR UPDATE on `validation_presets`.
fn guard_preset(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let column = |name| trigger.new_value::<String>(name).unwrap_or_default();
    let preset = Preset::new(&column(c"pattern"), &column(c"description"))?;
    if !preset.matches(&column(c"example")) {
        return Err(Fault::new(
            Code::InvalidParameterValue,
            format!("the pattern of preset \"{}\" does not match its example", column(c"preset_key")),
        )
        .detail(format!("Pattern {}, example {}.", shorten(&column(c"pattern")), shorten(&column(c"example")))));
    }
    Ok(trigger.proceed())
}

pg_function!(pg_finfo_skill_guard_entity_type, skill_guard_entity_type, guard_entity_type);
/// BEFORE UPDATE OR DELETE on `entity_type_definitions`.
fn guard_entity_type(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    if trigger.old::<bool>(c"is_system_type") != Some(true) {
        return Ok(trigger.proceed());
    }
    let refused = match trigger.event() {
        Event::Delete => "deleted",
        _ if trigger
            .changed_columns()
            .iter()
            .any(|column| ["is_system_type", "type_key", "type_id", "tenant_id"].contains(&column.as_str())) =>
        {
            "renamed or made an ordinary one"
        }
        _ => return Ok(trigger.proceed()),
    };
    let key = trigger.old::<String>(c"type_key").unwrap_or_default();
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("system type \"{key}\" of tenant \"{}\" cannot be {refused}", guc::tenant()),
    )
    .hint("Set compliance_footprint to false to take it out of sight."))
}
