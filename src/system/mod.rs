//! The extension as a whole: its version, the session's tenant, health and maintenance.

mod delete_rows;
mod health;
mod maintain;
mod version;

use skill_core::limits::MAX_INDEXED;
use skill_core::{Code, Fault};
use skill_pg::error::c_string;
use skill_pg::{Answer, Call, Event, Timing, Trigger, Uuid, pg_function, sys};

use crate::module::Module;
use crate::{locks, settings};

pub const MODULE: Module = Module {
    transaction_ends: &[locks::at_transaction_end],
    health: &[
        ("versions", version::check),
        ("dump_marking", health::dump_marking),
        ("prepared_transactions", health::prepared_transactions),
    ],
    ..Module::new("system")
};

pg_function!(current_tenant);
fn current_tenant(call: &Call) -> Answer {
    Ok(call.answer(settings::tenant()))
}

pg_function!(uuid_v7);
fn uuid_v7(call: &Call) -> Answer {
    Ok(call.answer(Uuid::from_bytes(sys::new_uuid_v7())))
}

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
