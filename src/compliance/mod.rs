//! Compliance: entities, checklists, rules with their frozen copies, the status matrix, reports.
//!
//! Who works on filings has no right to write the tables: the functions write with
//! the rights of their owner, in fixed statements for the session's tenant, and one
//! audit record says who, what, from and to.

mod checklists;
mod entities;
mod report;
mod rules;
mod snapshot;
mod status;

use pgrx::datum::IntoDatum;
use pgrx::pg_sys;
use serde_json::Value;
use skill_core::compliance::{optional, parse_json};
use skill_core::{Code, Fault};

use crate::audit;
use crate::pg::call::{Answer, Call, text_datum as text};
use crate::pg::spi::{self, Access, Arg, given};
use crate::pg::sys;
use crate::pg::trigger::Trigger;
use crate::pg_function;

/// A required argument that is not there.
fn missing(what: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{what} must not be NULL"))
}

/// A row that this tenant has not.
fn unknown(what: &str, id: pgrx::Uuid) -> Fault {
    Fault::new(Code::UndefinedObject, format!("{what} {id} does not exist"))
}

fn uuid(call: &Call, n: usize, what: &str) -> Result<pgrx::Uuid, Fault> {
    call.get(n).ok_or_else(|| missing(what))
}

fn uuid_datum(id: pgrx::Uuid) -> Option<pg_sys::Datum> {
    id.into_datum()
}

/// A jsonb argument, read as text: a number beyond a double would make the other way raise something else.
fn json(call: &Call, n: usize, what: &str) -> Result<Option<Value>, Fault> {
    read_json(call.datum(n), what)
}

fn read_json(datum: Option<pg_sys::Datum>, what: &str) -> Result<Option<Value>, Fault> {
    let Some(datum) = datum else {
        return Ok(None);
    };
    let text = spi::one::<String>("SELECT $1::text", Access::Read, &[given(Some(datum), pg_sys::JSONBOID)]);
    parse_json(what, &text.unwrap_or_default()).map(Some)
}

/// JSON that the tables hold; what was let in can be read again.
fn stored(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn jsonb_datum(value: Value) -> Option<pg_sys::Datum> {
    pgrx::JsonB(value).into_datum()
}

fn jsonb(value: Value) -> Arg {
    given(jsonb_datum(value), pg_sys::JSONBOID)
}

/// Who does it: the name in argument `n`, or else the role that logged in.
fn who(call: &Call, n: usize, what: &str) -> Result<String, Fault> {
    Ok(optional(what, call.text(n), 255)?.unwrap_or_else(|| sys::role_name(sys::session_user())).to_owned())
}

/// One audit record of a change of state.
fn record(event_type: &str, data: Value, by: &str) {
    record_all(event_type, std::iter::once(data), by);
}

/// One audit record for each of several changes.
fn record_all(event_type: &str, changes: impl Iterator<Item = Value>, by: &str) {
    let actor = Some(by).filter(|by| by.chars().count() <= skill_core::audit::MAX_ACTOR_ID);
    audit::append_all(event_type, changes, actor, Some("user"));
}

/// Who freezes rules and who publishes them must see each other's work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RuleLock {
    /// Rules stay as they are until the transaction ends.
    Shared,
    /// Nobody else looks at this tenant's rules until the transaction ends.
    Exclusive,
}

/// Also refuses a transaction that does not see the rules as they are now: a filing
/// would freeze what is no longer in force.
fn lock_rules(lock: RuleLock) -> Result<(), Fault> {
    const STATE: &str = "SELECT format('%s %s %s', count(*), count(*) FILTER (WHERE status = 'active'), count(*) FILTER (WHERE status = 'superseded')) \
                         FROM skill_system.rule_versions WHERE tenant_id = skill_system.current_tenant()";
    let sql = match lock {
        RuleLock::Shared => "SELECT pg_advisory_xact_lock_shared(hashtextextended('skill_system.rules ' || skill_system.current_tenant(), 0))",
        RuleLock::Exclusive => "SELECT pg_advisory_xact_lock(hashtextextended('skill_system.rules ' || skill_system.current_tenant(), 0))",
    };
    spi::run(sql, Access::Write, &[], |_| ());
    if sys::read_committed() {
        return Ok(());
    }
    let seen = spi::one::<String>(STATE, Access::WriteAsOwner, &[]);
    if seen == spi::as_owner(|| spi::one::<String>(STATE, Access::ReadLatest, &[])) {
        return Ok(());
    }
    Err(Fault::new(Code::SerializationFailure, "the rules changed since this transaction began").hint("ROLLBACK and begin again."))
}

pg_function!(pg_finfo_skill_keep_updated_at, skill_keep_updated_at, keep_updated_at);
/// BEFORE UPDATE: `updated_at` is now.
fn keep_updated_at(call: &Call) -> Answer {
    Ok(Trigger::new(call).proceed_with(c"updated_at", pg_sys::Datum::from(sys::clock_timestamp())))
}

pg_function!(pg_finfo_skill_guard_columns, skill_guard_columns, guard_columns);
/// BEFORE UPDATE: only the columns in the trigger's arguments may change.
fn guard_columns(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let allowed = trigger.arguments();
    let changed: Vec<String> = trigger.changed_columns().into_iter().filter(|column| !allowed.contains(column)).collect();
    if changed.is_empty() {
        return Ok(trigger.proceed());
    }
    Err(Fault::new(Code::NotInPrerequisiteState, format!("{} of a row of {} never changes", changed.join(", "), trigger.relation_name()))
        .hint("Add a new row instead."))
}

#[pgrx::pg_extern(sql = false)]
fn text_key(value: &str) -> pgrx::AnyNumeric {
    use crate::pg::error::OrRaise;
    let digits = skill_core::compliance::text_key(value).or_raise();
    pgrx::AnyNumeric::try_from(digits.as_str()).map_err(|error| Fault::new(Code::Internal, error.to_string())).or_raise()
}
