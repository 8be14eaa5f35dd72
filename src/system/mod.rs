//! The extension as a whole: its version, the session's tenant, health and maintenance.

mod health;
mod maintain;
mod version;

use skill_pg::{Answer, Call, Uuid, pg_function, sys};

use crate::module::Module;
use crate::settings;

pub const MODULE: Module = Module {
    health: &[version::check, health::roles, health::row_security, health::dump_marking],
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
