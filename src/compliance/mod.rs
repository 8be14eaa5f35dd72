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
mod terms;
mod withdrawal;

use std::cell::RefCell;

use skill_core::limits::check_time;
use skill_core::{Code, Fault};
use skill_pg::lock::Mode;
use skill_pg::spi::{self, As, See};
use skill_pg::xact::End;
use skill_pg::{Timestamptz, Uuid, arg};

use crate::module::Module;
use crate::{locks, settings};

pub const MODULE: Module = Module {
    event_types: &["filing.", "rule.", "compliance."],
    transaction_ends: &[at_transaction_end],
    maintained_tables: &[
        "checklist_templates",
        "entity_type_definitions",
        "validation_presets",
        "entity_field_definitions",
        "entity_relationship_rules",
        "rrc_field_mappings",
        "compliance_terms",
    ],
    ..Module::new("compliance")
};

/// The error for a row that does not exist in this tenant.
fn unknown(what: &str, id: Uuid) -> Fault {
    Fault::new(Code::UndefinedObject, format!("{what} {id} does not exist"))
}

thread_local! {
    /// The tenant, and the revision of its rules when an agent began to freeze them in this transaction.
    static FROZEN: RefCell<Option<(String, Option<i64>)>> = const { RefCell::new(None) };
}

fn revision(tenant: &str) -> Option<i64> {
    const SQL: &str = "SELECT revision FROM skill_system.rule_books WHERE tenant_id = $1";
    spi::first(SQL, As::Owner, See::Latest, &[arg(tenant)])
}

/// Called at the ends of transactions. What an agent froze is still in force when it commits, or it does not commit: in
/// between, nobody who publishes a rule waited for it.
fn at_transaction_end(end: End) -> Result<(), Fault> {
    match end {
        End::BeforeCommit => {
            if let Some((tenant, before)) = FROZEN.take() {
                locks::acquire(c"rule_books", &[&tenant], Mode::Shared, "the rules of this tenant")?;
                if revision(&tenant) != before {
                    let message = "rules were published since this transaction froze them";
                    return Err(Fault::new(Code::SerializationFailure, message).hint("Repeat the transaction."));
                }
            }
        }
        End::Aborted => drop(FROZEN.take()),
        _ => {}
    }
    Ok(())
}

/// Functions that freeze rules (shared) and functions that publish them (exclusive) exclude each other, to the end of the
/// transaction. Under REPEATABLE READ and SERIALIZABLE, the server refuses (40001) a transaction whose snapshot does not have the
/// current rules: a filing would freeze what is no longer in force.
///
/// Agents, whose transactions may stay open, lock nothing before they commit: see [`at_transaction_end`].
fn lock_rules(mode: Mode) -> Result<(), Fault> {
    if mode == Mode::Shared && locks::rank() == 0 {
        let tenant = settings::tenant()?;
        let now = revision(&tenant);
        FROZEN.with_borrow_mut(|frozen| {
            frozen.get_or_insert((tenant, now));
        });
        return Ok(());
    }
    locks::acquire(c"rule_books", &[&settings::tenant()?], mode, "the rules of this tenant")?;
    let sql = match mode {
        Mode::Shared => "SELECT FROM skill_system.rule_books WHERE tenant_id = skill_system.current_tenant() FOR SHARE",
        Mode::Exclusive => {
            "UPDATE skill_system.rule_books SET revision = revision + 1 WHERE tenant_id = skill_system.current_tenant()"
        }
    };
    if spi::execute(sql, As::Owner, See::OwnWrites, &[]) == 0 {
        const INSERT: &str = "INSERT INTO skill_system.rule_books DEFAULT VALUES ON CONFLICT DO NOTHING";
        spi::execute(INSERT, As::Owner, See::OwnWrites, &[]);
        spi::execute(sql, As::Owner, See::OwnWrites, &[]);
    }
    Ok(())
}

/// A time that a caller gives, or none.
fn bounded_time(given: Option<Timestamptz>, what: &str) -> Result<Option<Timestamptz>, Fault> {
    given.map(|given| check_time(what, given.unix_micros())).transpose()?;
    Ok(given)
}
