//! Compliance: entities, checklists, rules with their frozen copies, the status matrix, reports.
//!
//! Callers have no right to write the tables: the functions write with the rights of their owner, in fixed statements for
//! the session's tenant, and one audit record holds the actor, the action and the change.

mod checklists;
mod entities;
mod filing;
mod frozen_rules;
mod report;
mod rules;
mod snapshot;
mod status;

use skill_core::limits::check_time;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Event, Timestamptz, Timing, Trigger, Uuid, arg, pg_function, sys};

use crate::module::Module;

pub const MODULE: Module = Module { event_types: &["filing.", "rule.", "compliance."], ..Module::new("compliance") };

/// The error for a row that does not exist in this tenant.
fn unknown(what: &str, id: Uuid) -> Fault {
    Fault::new(Code::UndefinedObject, format!("{what} {id} does not exist"))
}

/// Functions that freeze rules and functions that publish them exclude each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RuleLock {
    /// No other transaction changes rules until this one ends.
    Shared,
    /// No other transaction freezes or changes rules of this tenant until this one ends.
    Exclusive,
}

/// Under REPEATABLE READ and SERIALIZABLE, the server refuses (40001) a transaction whose snapshot does not have the
/// current rules: a filing would freeze what is no longer in force.
fn lock_rules(lock: RuleLock) {
    let sql = match lock {
        RuleLock::Shared => {
            "SELECT FROM skill_system.rule_books WHERE tenant_id = skill_system.current_tenant() FOR SHARE"
        }
        RuleLock::Exclusive => {
            "UPDATE skill_system.rule_books SET revision = revision + 1 WHERE tenant_id = skill_system.current_tenant()"
        }
    };
    if spi::execute(sql, As::Owner, See::OwnWrites, &[]) == 0 {
        const INSERT: &str = "INSERT INTO skill_system.rule_books DEFAULT VALUES ON CONFLICT DO NOTHING";
        spi::execute(INSERT, As::Owner, See::OwnWrites, &[]);
        spi::execute(sql, As::Owner, See::OwnWrites, &[]);
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

/// A time that a caller gives, or none.
fn time_arg(call: &Call, n: usize, what: &str) -> Result<Option<Timestamptz>, Fault> {
    let given: Option<Timestamptz> = call.get(n);
    given.map(|given| check_time(what, given.unix_micros())).transpose()?;
    Ok(given)
}
