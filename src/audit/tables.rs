//! Tables that the extension protects or watches: append-only ones, and those whose changes become audit records.

use std::cell::Cell;

use const_format::concatcp;
use serde_json::json;
use skill_core::input::optional;
use skill_core::{Code, Fault};
use skill_pg::row_json::ChangeWriter;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::xact::End;
use skill_pg::{Answer, Arg, Call, Event, EventTrigger, Oid, Timing, Trigger, arg, pg_function, sys};

use super::append::append;
use super::bypass::{self, Bypass};
use super::identity;
use super::record::Appender;
use crate::args::missing as missing_argument;
use crate::settings;

pg_function!(refuse_change);
/// UPDATE, DELETE and TRUNCATE on append-only tables.
fn refuse_change(call: &Call) -> Answer {
    let trigger = Trigger::new(
        call,
        &[(Timing::BeforeRow, &[Event::Update, Event::Delete]), (Timing::BeforeStatement, &[Event::Truncate])],
    )?;
    let bypassed = match trigger.event() {
        Event::Delete => bypass::is_active(Bypass::Retention) || bypass::is_active(Bypass::Moving),
        Event::Update => bypass::is_active(Bypass::Sealing),
        _ => false,
    };
    if bypassed {
        return Ok(trigger.proceed());
    }
    Err(Fault::new(
        Code::NotInPrerequisiteState,
        format!("{} is append-only: {} is refused", trigger.relation_name(), trigger.event().as_str()),
    )
    .detail("Rows can be added, never changed or removed.")
    .hint("Record a correction as a new row."))
}

/// What is done to a table, by a row trigger and by one for TRUNCATE.
struct Kind {
    function: &'static str,
    row_trigger: &'static str,
    row_events: &'static str,
    truncate_trigger: &'static str,
    truncate_event: &'static str,
}

const APPEND_ONLY: Kind = Kind {
    function: "refuse_change",
    row_trigger: "skill_system_no_change",
    row_events: "BEFORE UPDATE OR DELETE",
    truncate_trigger: "skill_system_no_truncate",
    truncate_event: "BEFORE TRUNCATE",
};
const AUDITED: Kind = Kind {
    function: "capture_change",
    row_trigger: "skill_system_audit",
    row_events: "AFTER INSERT OR UPDATE OR DELETE",
    truncate_trigger: "skill_system_audit_truncate",
    truncate_event: "AFTER TRUNCATE",
};

skill_pg::columns! {
    /// A table or one below it: a partition, which has the row triggers of its parent, or an inheritance child, which has none.
    struct Table {
        oid: Oid = "c.oid",
        owner: Oid = "c.relowner",
        name: String = "format('%I.%I', n.nspname, c.relname)",
        is_partition: bool = "c.relispartition AND c.oid <> $1",
/// The names of its triggers, which somebody may have changed.
        row_trigger: Option<String> = "(SELECT min(g.tgname::text) FROM pg_trigger g \
             WHERE g.tgrelid = c.oid AND g.tgfoid = f.oid AND g.tgtype & 1 = 1)",
        /// The row trigger, if it is not that of its parent.
        separate_row_trigger: Option<String> = "(SELECT min(g.tgname::text) FROM pg_trigger g \
             WHERE g.tgrelid = c.oid AND g.tgfoid = f.oid AND g.tgtype & 1 = 1 AND g.tgparentid = 0)",
        truncate_trigger: Option<String> = "(SELECT min(g.tgname::text) FROM pg_trigger g \
             WHERE g.tgrelid = c.oid AND g.tgfoid = f.oid AND g.tgtype & 32 = 32)",
        is_own: bool = "c.relnamespace = f.pronamespace",
    }
}

impl Kind {
    /// The table and all below it, parents first.
    fn tree(&self, table: Oid) -> Vec<Table> {
        const SQL: &str = concatcp!(
            "WITH RECURSIVE t(oid, level) AS (SELECT $1, 0 \
                 UNION SELECT i.inhrelid, t.level + 1 FROM t JOIN pg_inherits i ON i.inhparent = t.oid) \
             SELECT ",
            Table::COLUMNS,
            " FROM (SELECT oid, min(level) AS level FROM t GROUP BY oid) t JOIN pg_class c ON c.oid = t.oid \
              JOIN pg_namespace n ON n.oid = c.relnamespace \
              JOIN pg_proc f ON f.proname = $2 AND f.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'skill_system') \
              WHERE c.relkind IN ('r', 'p') OR c.relkind = 'f' AND c.oid <> $1 ORDER BY t.level, 1"
        );
        spi::collect(SQL, As::Caller, See::OwnWrites, &[arg(table), arg(self.function)])
    }

    /// Partitions and children that come later are protected as those that exist.
    fn protect(&self, tree: &[Table], arguments: &str) {
        self.apply(tree, arguments, true, As::Caller);
        grant_to_owners();
    }

    /// Creates the triggers on a table and all below it, with `arguments` as SQL; where they exist, only with `replace`.
    fn apply(&self, tree: &[Table], arguments: &str, replace: bool, rights: As) {
        let run = |sql: String| spi::execute(Once(&sql), rights, See::OwnWrites, &[]);
        for table in tree {
            let name = &table.name;
            let mut triggers = Vec::new();
            if replace || table.truncate_trigger.is_none() {
                let trigger = table.truncate_trigger.as_deref().unwrap_or(self.truncate_trigger);
                triggers.push((trigger, format!("{} ON {name} FOR EACH STATEMENT", self.truncate_event), ""));
            }
            let row_trigger = table.row_trigger.as_deref().unwrap_or(self.row_trigger);
            if !table.is_partition && (replace || table.row_trigger.is_none()) {
                triggers.push((row_trigger, format!("{} ON {name} FOR EACH ROW", self.row_events), arguments));
            }
            for (trigger, when, arguments) in &triggers {
                run(format!(
                    "CREATE OR REPLACE TRIGGER {} {when} EXECUTE FUNCTION skill_system.{}({arguments})",
                    sys::quote_identifier(trigger),
                    self.function
                ));
            }
            // A partition has the row trigger of its parent, enabled as that was when it became one.
            if replace && table.is_partition {
                triggers.push((row_trigger, String::new(), ""));
            }
            for (trigger, ..) in triggers {
                run(format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {}", sys::quote_identifier(trigger)));
            }
        }
    }
}

/// The table of an argument with all below it.
fn chosen_tree(kind: &Kind, table: Option<Oid>) -> Result<Vec<Table>, Fault> {
    let invalid = |message: &str| Fault::new(Code::InvalidParameterValue, message);
    let tree = kind.tree(table.ok_or_else(|| missing_argument("table_name"))?);
    if tree.is_empty() {
        return Err(invalid("not a table").hint("Give an ordinary or partitioned table."));
    }
    if let Some(own) = tree.iter().find(|table| table.is_own) {
        return Err(invalid(&format!("{} is a table of the extension", own.name))
            .detail(
                "The extension protects and records its tables itself; a dump would not hold more triggers on them.",
            )
            .hint("Give another table."));
    }
    Ok(tree)
}

pg_function!(make_append_only);
fn make_append_only(call: &Call) -> Answer {
    let tree = chosen_tree(&APPEND_ONLY, call.arguments())?;
    APPEND_ONLY.protect(&tree, "");
    append("table.append_only", json!({"table": tree[0].name}), None, None)?;
    Ok(call.void())
}

thread_local! {
    static PROTECTING: Cell<bool> = const { Cell::new(false) };
}

/// A role that creates a partition needs EXECUTE on the functions of the triggers that this gets from its parent: the owner
/// of a protected partitioned table has it. Nobody else needs it: with it, any role could create a table and fill the audit
/// trail by it.
fn grant_to_owners() {
    let rights = rights_of_owner();
    let missing: Vec<(String, String)> = spi::collect(OWNER_GRANTS, rights, See::OwnWrites, &[]);
    for (_, grant) in missing {
        bypass::with(Bypass::Definition, || spi::execute(Once(&grant), rights, See::OwnWrites, &[]));
    }
}

/// The rights that such owners lack, and the statements that grant them.
pub const OWNER_GRANTS: &str = include_str!("owner_grants.sql");

/// Those of the extension's owner, who is a superuser as a rule: who adds a child need not have the right to use the
/// triggers' functions.
fn rights_of_owner() -> As {
    if sys::is_superuser(sys::owner()) { As::Owner } else { As::Caller }
}

pg_function!(protect_children);
/// Event trigger after statements that may add a partition or an inheritance child, which gets the triggers of its parent;
/// that detach a partition, which keeps them; or that give such a table to another role.
fn protect_children(call: &Call) -> Answer {
    let event = EventTrigger::new(call)?;
    // Other statements about such tables, as those of a restore, which bring the triggers themselves. What is done here are
    // such statements, too.
    let change = event.table_change();
    if PROTECTING.get() || !(change.adds_child || change.changes_owner || change.detached.is_some()) {
        return Ok(event.finish());
    }
    let mut parents: Vec<(Oid, String, Vec<u8>)> = Vec::new();
    spi::each(include_str!("protected_parents.sql"), As::Caller, See::OwnWrites, &[arg(change.detached)], |row| {
        parents.push(row.read());
        Ok(())
    })?;
    PROTECTING.set(true);
    for (parent, function, arguments) in parents {
        let kind = [APPEND_ONLY, AUDITED].into_iter().find(|kind| kind.function == function);
        let Some(kind) = kind else { continue };
        // Each argument ends with a zero byte.
        let arguments: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let literals: Vec<_> =
            arguments[..arguments.len() - 1].iter().map(|argument| sys::quote_literal(argument)).collect();
        kind.apply(&kind.tree(parent), &literals.join(", "), false, rights_of_owner());
    }
    grant_to_owners();
    PROTECTING.set(false);
    Ok(event.finish())
}

/// Ends what an error left set.
pub fn at_transaction_end(end: End) -> Result<(), Fault> {
    if end.is_rollback() {
        PROTECTING.set(false);
    }
    Ok(())
}

pg_function!(audit_table);
fn audit_table(call: &Call) -> Answer {
    let (table, columns, ignored): (Option<Oid>, _, _) = call.arguments();
    let only = column_names(columns, "an element of columns")?;
    let ignored = column_names(ignored, "an element of ignored_columns")?.unwrap_or_default();
    let tree = chosen_tree(&AUDITED, table)?;
    let name = &tree[0].name;
    let chosen = choose_columns(name, arg(table), only.as_deref(), &ignored)?;
    // The trigger keeps what is left out, so that columns added later are audited too.
    let arguments: Vec<&str> = match only {
        Some(_) => std::iter::once("only").chain(chosen.iter().map(String::as_str)).collect(),
        None => std::iter::once("except").chain(ignored).collect(),
    };
    let literals: Vec<_> = arguments.iter().map(|text| sys::quote_literal(text)).collect();
    AUDITED.protect(&tree, &literals.join(", "));
    append("table.audited", json!({"table": name, "columns": chosen}), None, None)?;
    Ok(call.void())
}

pg_function!(stop_audit_table);
/// Drops what `audit_table()` created, but where another table above is audited.
fn stop_audit_table(call: &Call) -> Answer {
    let (table, reason): (Option<Oid>, _) = call.arguments();
    let reason = optional("reason", reason, 10_000)?;
    let tree = chosen_tree(&AUDITED, table)?;
    let root = &tree[0];
    let kept: Vec<(Oid, Option<String>)> = spi::collect(
        include_str!("audited_elsewhere.sql"),
        As::Caller,
        See::OwnWrites,
        &[arg(root.oid), arg(AUDITED.function)],
    );
    let fault = |message| Fault::new(Code::NotInPrerequisiteState, message);
    if let Some((_, Some(parent))) = kept.iter().find(|(oid, _)| *oid == root.oid) {
        return Err(fault(format!("{} is audited with {parent}", root.name))
            .detail("A partition or an inheritance child is recorded as long as the table above it is.")
            .hint(format!("SELECT skill_system.stop_audit_table({});", sys::quote_literal(parent))));
    }
    let mut dropped = false;
    for table in tree.iter().filter(|table| kept.iter().all(|(oid, _)| *oid != table.oid)) {
        for trigger in table.separate_row_trigger.iter().chain(&table.truncate_trigger) {
            let drop = format!("DROP TRIGGER {} ON {}", sys::quote_identifier(trigger), table.name);
            spi::execute(Once(&drop), As::Caller, See::OwnWrites, &[]);
            dropped = true;
        }
    }
    if !dropped {
        return Err(fault(format!("{} is not audited", root.name)));
    }
    revoke_from_owner(root.owner);
    append("table.audit_stopped", json!({"table": root.name, "reason": reason}), None, None)?;
    Ok(call.void())
}

/// An owner of no audited partitioned table needs no right to use the trigger's function.
fn revoke_from_owner(owner: Oid) {
    let rights = rights_of_owner();
    let surplus: Vec<String> =
        spi::collect(include_str!("surplus_owner_grants.sql"), rights, See::OwnWrites, &[arg(owner)]);
    for revoke in surplus {
        bypass::with(Bypass::Definition, || spi::execute(Once(&revoke), rights, See::OwnWrites, &[]));
    }
}

/// Names of columns that a caller gives, or none.
fn column_names<'c>(given: Option<Vec<Option<&'c str>>>, what: &str) -> Result<Option<Vec<&'c str>>, Fault> {
    let names: Option<Option<Vec<&str>>> = given.map(|names| names.into_iter().collect());
    names.map(|names| names.ok_or_else(|| missing_argument(what))).transpose()
}

/// The columns of a table that are to be audited, in their order.
fn choose_columns(name: &str, table: Arg, only: Option<&[&str]>, ignored: &[&str]) -> Result<Vec<String>, Fault> {
    let all: Vec<String> = spi::collect(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        As::Caller,
        See::Statement,
        &[table],
    );
    let given = only.unwrap_or_default().iter().chain(ignored);
    if let Some(unknown) = given.into_iter().find(|column| !all.iter().any(|name| name == *column)) {
        return Err(Fault::new(Code::UndefinedObject, format!("column \"{unknown}\" of {name} does not exist"))
            .detail(format!("Its columns are {}.", all.join(", "))));
    }
    let is_chosen = |column: &String| {
        only.is_none_or(|only| only.contains(&column.as_str())) && !ignored.contains(&column.as_str())
    };
    let chosen: Vec<String> = all.into_iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        return Err(Fault::new(Code::InvalidParameterValue, "no column is left to audit"));
    }
    Ok(chosen)
}

/// What a statement needs to know of the table, and the open audit partition; lives as long as the statement's trigger.
struct Statement {
    changes: ChangeWriter,
    /// A column that is to be audited and does not exist.
    lost: Option<String>,
    /// The log that comes with the rows has recorded them already.
    restored: bool,
    records: Option<Appender>,
}

impl Statement {
    fn new(trigger: &Trigger) -> Self {
        let arguments = trigger.arguments();
        let (only, listed) = match arguments.split_first() {
            Some((word, listed)) => (word == "only", listed),
            None => (false, &[][..]),
        };
        let includes = |column: &[u8]| listed.iter().any(|name| name.as_bytes() == column) == only;
        let changes = ChangeWriter::new(trigger, includes);
        let lost = listed.iter().find(|name| only && !changes.has_column(name)).cloned();
        let restored = sys::is_restore() && sys::has_rights_of(sys::owner()) && !identity::is_of_this_server();
        Statement { changes, lost, restored, records: None }
    }
}

pg_function!(capture_change);
/// AFTER INSERT, UPDATE, DELETE for each row and TRUNCATE: the change becomes an audit record.
fn capture_change(call: &Call) -> Answer {
    let trigger = Trigger::new(
        call,
        &[
            (Timing::AfterRow, &[Event::Insert, Event::Update, Event::Delete]),
            (Timing::AfterStatement, &[Event::Truncate]),
        ],
    )?;
    let event_type = match trigger.event() {
        Event::Insert => "row.inserted",
        Event::Update => "row.updated",
        Event::Delete => "row.deleted",
        Event::Truncate => "table.truncated",
    };
    call.with_statement_state(
        || Statement::new(&trigger),
        |statement| {
            // Without the error, a renamed column would no longer be audited.
            if let Some(column) = statement.lost.as_ref().filter(|_| trigger.event() != Event::Truncate) {
                let message = format!("audited column \"{column}\" of {} does not exist", trigger.relation_name());
                return Err(Fault::new(Code::NotInPrerequisiteState, message)
                    .detail("It was dropped or renamed after audit_table() had chosen it.")
                    .hint("Call audit_table() again."));
            }
            if statement.restored {
                return Ok(trigger.done());
            }
            if let Some(change) = statement.changes.change(&trigger, settings::max_record_bytes())? {
                let records = match &mut statement.records {
                    Some(records) => records,
                    none => none.insert(Appender::open()?),
                };
                records.append(&settings::tenant()?, event_type, Arg::jsonb(change)?, None, None)?;
            }
            Ok(trigger.done())
        },
    )
}
