//! Tables that the extension protects or watches: append-only ones, and those whose changes become audit records.

use serde_json::json;
use skill_core::{Code, Fault};
use skill_pg::row_json::ChangeWriter;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Event, Oid, Timing, Trigger, arg, pg_function, sys};

use super::append::append;
use super::bypass::{self, Bypass};
use super::record::Appender;
use crate::settings;

pg_function!(refuse_change);
/// UPDATE, DELETE and TRUNCATE on append-only tables.
fn refuse_change(call: &Call) -> Answer {
    let trigger = Trigger::new(
        call,
        &[(Timing::BeforeRow, &[Event::Update, Event::Delete]), (Timing::BeforeStatement, &[Event::Truncate])],
    )?;
    let bypassed = match trigger.event() {
        Event::Delete => bypass::is_active(Bypass::Retention),
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

fn run(sql: &str) {
    spi::execute(Once(sql), As::Caller, See::OwnWrites, &[]);
}

/// The table's qualified name, its partitions included, parents first.
fn table_and_partitions(table: Option<Oid>) -> Result<Vec<String>, Fault> {
    let invalid = |message: &str| Fault::new(Code::InvalidParameterValue, message);
    let table = table.ok_or_else(|| invalid("table_name must not be NULL"))?;
    let names: Vec<(String,)> = spi::collect(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM \
             (SELECT $1 AS oid, 0 AS level WHERE (SELECT relkind FROM pg_class WHERE oid = $1) = 'r' \
              UNION ALL SELECT relid, level FROM pg_partition_tree($1)) t \
         JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
         GROUP BY 1 ORDER BY min(t.level), 1",
        As::Caller,
        See::Statement,
        &[arg(table)],
    );
    if names.is_empty() {
        return Err(invalid("not a table").hint("Give an ordinary or partitioned table."));
    }
    Ok(names.into_iter().map(|(name,)| name).collect())
}

pg_function!(make_append_only);
/// `make_append_only(table_name)`
fn make_append_only(call: &Call) -> Answer {
    let names = table_and_partitions(call.get(0))?;
    for (i, name) in names.iter().enumerate() {
        // Row triggers are cloned to partitions, statement triggers are not.
        let mut triggers = vec![("skill_system_no_truncate", "BEFORE TRUNCATE", "STATEMENT")];
        if i == 0 {
            triggers.push(("skill_system_no_change", "BEFORE UPDATE OR DELETE", "ROW"));
        }
        for (trigger, when, level) in triggers {
            run(&format!(
                "CREATE OR REPLACE TRIGGER {trigger} {when} ON {name} FOR EACH {level} \
                 EXECUTE FUNCTION skill_system.refuse_change()"
            ));
        }
    }
    enable_always(&names, ["skill_system_no_truncate", "skill_system_no_change"]);
    append("table.append_only", json!({"table": names[0]}), None, None)?;
    Ok(call.void())
}

fn enable_always(tables: &[String], triggers: [&str; 2]) {
    for (table, trigger) in tables.iter().flat_map(|table| triggers.map(|trigger| (table, trigger))) {
        run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"));
    }
}

pg_function!(audit_table);
/// `audit_table(table_name, columns, ignored_columns)`
fn audit_table(call: &Call) -> Answer {
    let table: Option<Oid> = call.get(0);
    let list = |n| call.text_array(n).map(|names| names.into_iter().flatten().collect::<Vec<_>>());
    let (only, ignored) = (list(1), list(2).unwrap_or_default());
    let names = table_and_partitions(table)?;
    // Each record would call for another one, without end.
    if names.iter().any(|name| name.starts_with("skill_system.audit_logs")) {
        return Err(Fault::new(Code::InvalidParameterValue, "the audit trail cannot record its own rows")
            .hint("It is append-only and signed as it is; give another table."));
    }
    let chosen = choose_columns(&names[0], arg(table), only.as_deref(), &ignored)?;
    // The trigger keeps what is left out, so that columns added later are audited too.
    let arguments: Vec<&str> = match only {
        Some(_) => std::iter::once("only").chain(chosen.iter().map(String::as_str)).collect(),
        None => std::iter::once("except").chain(ignored).collect(),
    };
    let literals: Vec<_> = arguments.iter().map(|text| sys::quote_literal(text)).collect();
    run(&format!(
        "CREATE OR REPLACE TRIGGER skill_system_audit AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW \
         EXECUTE FUNCTION skill_system.capture_change({})",
        names[0],
        literals.join(", ")
    ));
    for name in &names {
        run(&format!(
            "CREATE OR REPLACE TRIGGER skill_system_audit_truncate AFTER TRUNCATE ON {name} FOR EACH STATEMENT \
             EXECUTE FUNCTION skill_system.capture_change()"
        ));
    }
    enable_always(&names, ["skill_system_audit", "skill_system_audit_truncate"]);
    append("table.audited", json!({"table": names[0], "columns": chosen}), None, None)?;
    Ok(call.void())
}

/// The columns of a table that are to be audited, in their order.
fn choose_columns(name: &str, table: Arg, only: Option<&[&str]>, ignored: &[&str]) -> Result<Vec<String>, Fault> {
    let all: Vec<(String,)> = spi::collect(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        As::Caller,
        See::Statement,
        &[table],
    );
    let all: Vec<String> = all.into_iter().map(|(name,)| name).collect();
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
        Statement { changes: ChangeWriter::new(trigger, includes), records: None }
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
            if let Some(change) = statement.changes.change(&trigger)? {
                let records = match &mut statement.records {
                    Some(records) => records,
                    none => none.insert(Appender::open()?),
                };
                records.append(&settings::tenant(), event_type, Arg::jsonb(change)?, None, None)?;
            }
            Ok(trigger.done())
        },
    )
}
