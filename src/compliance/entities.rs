//! Entities: reads their definitions from the tables for `core`.

use crate::settings;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Timing, Trigger, Uuid, arg, pg_function};
use std::collections::BTreeMap;

use serde_json::Value;
use skill_core::compliance::entities::{EntityType, Field, InputType, PRESETS, Preset, Relation};
use skill_core::error::shorten;
use skill_core::input::required;
use skill_core::{Code, Fault};

use crate::args::{given, json};

fn unknown_type(key: &str) -> Fault {
    Fault::new(Code::UndefinedObject, format!("entity type \"{}\" does not exist", shorten(key)))
        .hint("SELECT type_key FROM skill_system.entity_type_definitions;")
}

/// Refuses what is none of the tenant's entity types. A tenant that defines none may name any.
pub fn check_entity_type(key: &str) -> Result<(), Fault> {
    let is_defined: Option<bool> = spi::one(
        "SELECT bool_or(type_key = $1) FROM skill_system.entity_type_definitions \
         WHERE tenant_id = skill_system.current_tenant()",
        As::Owner,
        See::Statement,
        &[arg(key)],
    );
    if is_defined == Some(false) { Err(unknown_type(key)) } else { Ok(()) }
}

/// An entity type of the session's tenant, with its id.
fn entity_type(key: Option<&str>) -> Result<(Uuid, EntityType), Fault> {
    let key = required("type_key", key, 64)?;
    let found = spi::first::<(Uuid, String)>(
        "SELECT type_id, display_name::text FROM skill_system.entity_type_definitions \
         WHERE tenant_id = skill_system.current_tenant() AND type_key = $1",
        As::Caller,
        See::Statement,
        &[arg(key)],
    );
    let (id, name) = found.ok_or_else(|| unknown_type(key))?;
    let mut fields = Vec::new();
    spi::each(
        "SELECT f.field_key::text, f.label::text, f.input_type::text, f.required, f.options::text, p.pattern, p.description \
         FROM skill_system.entity_field_definitions f LEFT JOIN skill_system.validation_presets p \
             ON p.tenant_id = f.tenant_id AND p.preset_key = f.validation_preset \
         WHERE f.tenant_id = skill_system.current_tenant() AND f.type_id = $1 ORDER BY f.sort_order, f.field_key",
        As::Caller,
        See::Statement,
        &[arg(id)],
        |row| {
            let (key, label, input, required, options, pattern, what): (_, _, _, _, Option<Value>, _, _) = row.read();
            let preset = Option::zip(pattern, what).map(|(pattern, what)| Preset::new(pattern, what)).transpose()?;
            fields.push(Field {
                key,
                label,
                input: InputType::parse(input),
                required,
                preset,
                options: Field::read_options(options.as_ref()),
            });
            Ok(())
        },
    )?;
    let relations = spi::collect::<(String, String, bool, bool)>(
        "SELECT o.type_key::text, r.cardinality::text, r.required, r.child_type_id = $1 \
         FROM skill_system.entity_relationship_rules r \
         JOIN skill_system.entity_type_definitions o ON o.tenant_id = r.tenant_id \
             AND o.type_id = CASE WHEN r.child_type_id = $1 THEN r.parent_type_id ELSE r.child_type_id END \
         WHERE r.tenant_id = skill_system.current_tenant() AND $1 IN (r.child_type_id, r.parent_type_id) \
         ORDER BY 4 DESC, 1",
        As::Caller,
        See::Statement,
        &[arg(id)],
    );
    let relations = relations
        .into_iter()
        .map(|(other, cardinality, required, is_child)| Relation::of(other, &cardinality, required, is_child))
        .collect();
    Ok((id, EntityType { key: key.to_owned(), name, fields, relations }))
}

pg_function!(validate_entity);
fn validate_entity(call: &Call) -> Answer {
    let (type_key, data) = call.arguments();
    let (_, kind) = entity_type(type_key)?;
    let data = given(json(data, "data")?, "data")?;
    let problems = kind.validate(&data)?;
    let mut rows = call.row_set();
    for problem in problems {
        rows.push(&[arg(&problem.field), arg(problem.code), arg(&problem.message)]);
    }
    Ok(rows.finish())
}

pg_function!(entity_json_schema);
fn entity_json_schema(call: &Call) -> Answer {
    let (id, kind) = entity_type(call.arguments())?;
    Ok(call.answer(kind.json_schema(&format!("urn:uuid:{id}"))))
}

pg_function!(map_import);
fn map_import(call: &Call) -> Answer {
    let (type_key, record) = call.arguments();
    let (id, kind) = entity_type(type_key)?;
    let record = given(json(record, "record")?, "record")?;
    let mut mappings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let pairs = spi::collect::<(String, String)>(
        "SELECT m.rrc_field_key::text, f.field_key::text FROM skill_system.rrc_field_mappings m \
         JOIN skill_system.entity_field_definitions f ON f.tenant_id = m.tenant_id AND f.field_id = m.entity_field_id \
         WHERE m.tenant_id = skill_system.current_tenant() AND m.type_id = $1 ORDER BY m.created_at, m.mapping_id",
        As::Caller,
        See::Statement,
        &[arg(id)],
    );
    for (rrc_field, entity_field) in pairs {
        mappings.entry(rrc_field).or_default().push(entity_field);
    }
    let (entity, unmapped, empty) = kind.import(&mappings, &record)?;
    Ok(call.row(&[arg(entity), arg(unmapped), arg(empty)]))
}

/// Adds presets that do not exist; tells of each whether it was added.
pub fn install_presets(presets: impl Iterator<Item = [&'static str; 4]>) -> Vec<(&'static str, bool)> {
    const INSERT: &str = "INSERT INTO skill_system.validation_presets (preset_key, pattern, description, example) \
        VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    presets.map(|preset| (preset[0], spi::execute(INSERT, As::Caller, See::OwnWrites, &preset.map(arg)) == 1)).collect()
}

pg_function!(install_validation_presets);
fn install_validation_presets(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for (key, installed) in install_presets(PRESETS.into_iter()) {
        rows.push(&[arg(key), arg(installed)]);
    }
    Ok(rows.finish())
}

pg_function!(guard_preset);
/// The pattern must be valid and match its example.
fn guard_preset(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update])])?;
    let [key, pattern, description, example] =
        [c"preset_key", c"pattern", c"description", c"example"].map(|column| trigger.new_value::<&str>(column));
    if !Preset::new(pattern, description)?.matches(example) {
        return Err(Fault::new(
            Code::InvalidParameterValue,
            format!("the pattern of preset \"{key}\" does not match its example"),
        )
        .detail(format!("Pattern {}, example {}.", shorten(pattern), shorten(example))));
    }
    Ok(trigger.proceed())
}

pg_function!(guard_entity_type);
/// Trigger: system types can neither be deleted nor renamed.
fn guard_entity_type(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update, Event::Delete])])?;
    if !trigger.old::<bool>(c"is_system_type") {
        return Ok(trigger.proceed());
    }
    let refused = match trigger.event() {
        Event::Delete => "deleted",
        _ if trigger
            .changed_columns()
            .iter()
            .any(|column| ["is_system_type", "type_key", "type_id", "tenant_id"].contains(&column.as_str())) =>
        {
            "renamed or changed into an ordinary type"
        }
        _ => return Ok(trigger.proceed()),
    };
    let key: &str = trigger.old(c"type_key");
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("system type \"{key}\" of tenant \"{}\" cannot be {refused}", settings::tenant()?),
    )
    .hint("Set compliance_footprint to false to hide it."))
}
