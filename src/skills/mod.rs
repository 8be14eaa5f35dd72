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

pub use agents::health;
use pgrx::datum::IntoDatum;
use skill_core::skills::Status;
use skill_core::skills::names::Reference;

use crate::args::uuid_datum;
use crate::pg::call::{Answer, Call, text_datum};
use crate::pg::spi::Access;
use crate::pg_function;
use registry::{Change, State};
pub use versions::{Ran, ran};

/// The composite `skill_state`.
fn state(call: &Call, state: &State) -> pgrx::pg_sys::Datum {
    call.row(&mut [
        uuid_datum(state.skill_id),
        text_datum(&state.namespace),
        text_datum(&state.skill_name),
        text_datum(&state.version),
        text_datum(state.status.as_str()),
        text_datum(&state.current_version),
        uuid_datum(state.version_id),
        text_datum(&state.content_hash),
        state.semver.as_deref().and_then(text_datum),
        state.created.into_datum(),
    ])
}

pg_function!(pg_finfo_skill_set_skill_status, skill_set_skill_status, set_skill_status);
/// `set_skill_status(skill, status, version, signature, reason)`
fn set_skill_status(call: &Call) -> Answer {
    let reference = Reference::parse(call.text(0))?;
    let status = Status::from_argument(call.text(1))?;
    let change = Change { reason: call.text(4).map(str::to_owned), ..Change::by_caller() };
    let mut head = registry::locked(reference)?;
    let version = registry::version(&head, call.text(2), Access::WriteAsOwner)?;
    let approved_with = approval::check(&head, &version, status, call.text(3))?;
    let done = registry::set_status(&mut head, &version, status, &Change { approved_with, ..change });
    Ok(state(call, &done))
}

pg_function!(pg_finfo_skill_delete_skill, skill_delete_skill, delete_skill);
/// `delete_skill(skill, reason)`
fn delete_skill(call: &Call) -> Answer {
    let mut head = registry::locked(Reference::parse(call.text(0))?)?;
    registry::delete(&mut head, &Change { reason: call.text(1).map(str::to_owned), ..Change::by_caller() });
    Ok(pgrx::pg_sys::Datum::from(true))
}
