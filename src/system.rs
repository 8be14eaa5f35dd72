//! What belongs to no room: the tenant, versions, health.

use pgrx::datum::IntoDatum;
use pgrx::prelude::*;

use crate::pg::call::{Answer, Call, text_datum};
use crate::pg::{guc, sys};
use crate::pg_function;

pg_function!(pg_finfo_skill_current_tenant, skill_current_tenant, current_tenant);
fn current_tenant(call: &Call) -> Answer {
    Ok(text_datum(&guc::tenant()).unwrap_or_else(|| call.null()))
}

pg_function!(pg_finfo_skill_uuid_v7, skill_uuid_v7, uuid_v7);
fn uuid_v7(call: &Call) -> Answer {
    let now = sys::unix_micros(sys::clock_timestamp()).unwrap_or_default();
    Ok(pgrx::Uuid::from_bytes(sys::uuid_v7(now)).into_datum().unwrap_or_else(|| call.null()))
}

#[pg_extern(sql = false)]
fn library_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
