//! The extension as a whole: its version, the session's tenant, health and maintenance.

mod delete_rows;
mod health;
mod maintain;
mod triggers;
mod version;

use skill_pg::{Answer, Call, Uuid, pg_function, sys};

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
    Ok(call.answer(settings::tenant()?))
}

pg_function!(uuid_v7);
fn uuid_v7(call: &Call) -> Answer {
    Ok(call.answer(Uuid::from_bytes(sys::new_uuid_v7())))
}
