//! Skills: one registry behind several faces.
//!
//! `registry` is the only place that writes heads, versions and history. It writes with the rights of the tables' owner,
//! in fixed statements for the session's tenant; a face decides what may be written, and by whom.

mod agents;
mod approval;
mod client_schema;
mod clients;
mod documents;
mod ecosystem;
mod registry;
mod search;
mod store;
mod versions;

use skill_pg::{Answer, Call, arg, pg_function};
use skill_pg::spi::{self, As, See};

pub use agents::health;
use skill_core::skills::Status;
use skill_core::skills::names::Reference;

use crate::args::uuid_datum;
use registry::{Change, State};
pub use versions::{Ran, ran};

/// The composite `skill_state`.
fn state(call: &Call, state: &State) -> pgrx::pg_sys::Datum {
    call.row(&[
        uuid_datum(state.skill_id),
        arg(&state.namespace),
        arg(&state.skill_name),
        arg(&state.version),
        arg(state.status.as_str()),
        arg(&state.current_version),
        uuid_datum(state.version_id),
        arg(&state.content_hash),
        state.semver.as_deref().and_then(text_datum),
        arg(state.created),
    ])
}

pg_function!(set_skill_status);
/// `set_skill_status(skill, status, version, signature, reason)`
fn set_skill_status(call: &Call) -> Answer {
    let reference = Reference::parse(call.text(0))?;
    let status = Status::from_argument(call.text(1))?;
    let change = Change { reason: call.text(4).map(str::to_owned), ..Change::by_caller() };
    let mut head = registry::locked(reference)?;
    let version = registry::version(&head, call.text(2), As::Owner, See::OwnWrites)?;
    let approved_with = approval::check(&head, &version, status, call.text(3))?;
    let done = registry::set_status(&mut head, &version, status, &Change { approved_with, ..change });
    Ok(state(call, &done))
}

pg_function!(delete_skill);
/// `delete_skill(skill, reason)`
fn delete_skill(call: &Call) -> Answer {
    let mut head = registry::locked(Reference::parse(call.text(0))?)?;
    registry::delete(&mut head, &Change { reason: call.text(1).map(str::to_owned), ..Change::by_caller() });
    Ok(pgrx::pg_sys::Datum::from(true))
}
