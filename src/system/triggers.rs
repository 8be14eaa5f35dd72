//! Trigger functions that several modules use.

use skill_core::limits::MAX_INDEXED;
use skill_core::{Code, Fault};
use skill_pg::error::c_string;
use skill_pg::{Answer, Call, Event, Timing, Trigger, arg, pg_function, sys};

use crate::settings;

pg_function!(check_bounds);
/// Trigger: refuses values that could not be read, dumped or put into a document later, and texts that do not fit into an index, whose
/// columns are the trigger's arguments.
fn check_bounds(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update])])?;
    // Older rows, which a superuser restores.
    if !settings::allow_unprotected() {
        trigger.check_bounds()?;
        trigger.arguments().iter().try_for_each(|column| check_indexed(&trigger, column))?;
    }
    Ok(trigger.proceed())
}

/// The server's own error would name the index, not the column.
fn check_indexed(trigger: &Trigger, column: &str) -> Result<(), Fault> {
    match trigger.new_value::<Option<&str>>(&c_string(column)) {
        Some(text) if text.len() > MAX_INDEXED => {
            Err(Fault::new(Code::InvalidParameterValue, format!("{column} must have at most {MAX_INDEXED} bytes"))
                .detail(format!("It has {} bytes, and is a column of {}.", text.len(), trigger.relation_name())))
        }
        _ => Ok(()),
    }
}

pg_function!(keep_updated_at);
/// BEFORE UPDATE: sets `updated_at`.
fn keep_updated_at(call: &Call) -> Answer {
    Ok(Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update])])?
        .proceed_with(&[(c"updated_at", arg(sys::clock_timestamp()))]))
}

pg_function!(guard_columns);
/// BEFORE UPDATE: only the columns in the trigger's arguments may change.
fn guard_columns(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update])])?;
    let allowed = trigger.arguments();
    let changed: Vec<String> =
        trigger.changed_columns().into_iter().filter(|column| !allowed.contains(column)).collect();
    if changed.is_empty() {
        return Ok(trigger.proceed());
    }
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("{} of a row of {} never changes", changed.join(", "), trigger.relation_name()),
    )
    .hint("Add a new row instead."))
}
