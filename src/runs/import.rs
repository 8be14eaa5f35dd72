//! `import_legacy()`: imports a schema of the skill-system-postgres skill.
//!
//! The old tables and all code that reading them may run are somebody else's. So only ordinary tables of one role are read,
//! with the rights of that role; values of types that are not the server's become text by their output functions, never by
//! a cast; and what was read is written with the caller's rights.

use const_format::concatcp;
use serde_json::{Map, Value, json};
use skill_core::error::shorten;
use skill_core::policy::Profile;
use skill_core::runs::RunError;
use skill_core::runs::legacy::{MAX_IMPORTED_ID, keep_valid_rules};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Oid, Row, arg, pg_function, sys};

use crate::audit;

/// Tables of every version of the old schema.
const TABLES: [&str; 3] = ["policy_profiles", "runs", "run_events"];
/// Tables that some versions have.
const OTHER_TABLES: [&str; 2] = ["task_specs", "artifacts"];

/// One row of the result.
struct Imported {
    table_name: &'static str,
    imported: i64,
    skipped: i64,
    detail: String,
}

/// Types of the columns that are read. The status is read as text.
const COLUMNS: &[(&str, &[&str], &str)] = &[
    ("policy_profiles", &["id"], "bigint"),
    ("policy_profiles", &["name"], "text"),
    ("policy_profiles", &["allowed_effects", "allowed_exec", "allowed_write_roots"], "text[]"),
    ("policy_profiles", &["metadata"], "jsonb"),
    ("policy_profiles", &["created_at"], "timestamp with time zone"),
    ("runs", &["id", "policy_profile_id", "task_spec_id"], "bigint"),
    ("runs", &["goal", "agent_id", "error"], "text"),
    ("runs", &["started_at", "ended_at", "created_at"], "timestamp with time zone"),
    ("runs", &["effective_policy", "metrics"], "jsonb"),
    ("run_events", &["id", "run_id"], "bigint"),
    ("run_events", &["ts"], "timestamp with time zone"),
    ("run_events", &["level", "event_type"], "text"),
    ("run_events", &["payload"], "jsonb"),
    ("task_specs", &["id", "policy_profile_id"], "bigint"),
    ("task_specs", &["goal"], "text"),
    ("artifacts", &["id", "run_id"], "bigint"),
    ("artifacts", &["created_at"], "timestamp with time zone"),
];

/// Columns that every version of the schema has, and those of them that the tables here require a value of.
const REQUIRED: &[(&str, &[&str], &[&str])] = &[
    (
        "policy_profiles",
        &["id", "name", "created_at"],
        &["allowed_effects", "allowed_exec", "allowed_write_roots", "metadata"],
    ),
    ("runs", &["id", "status", "created_at"], &["started_at", "ended_at", "effective_policy", "metrics", "error"]),
    ("run_events", &["id", "run_id", "ts", "level", "event_type"], &["payload"]),
    ("artifacts", &["id", "run_id", "created_at"], &[]),
    ("task_specs", &["id"], &[]),
];

pg_function!(import_legacy);
fn import_legacy(call: &Call) -> Answer {
    let schema: Option<&str> = call.arguments();
    let schema = schema.ok_or(RunError::Missing { what: "schema_name" })?;
    if schema == "skill_system" {
        return Err(Fault::new(Code::InvalidParameterValue, "skill_system is the schema of the extension itself")
            .hint(
                "ALTER SCHEMA skill_system RENAME TO skill_system_legacy; CREATE EXTENSION skill_system; \
             and give the new name.",
            ));
    }
    // Before the tables are locked, everything may change once more.
    OldSchema::find(schema)?.lock();
    let old = OldSchema::find(schema)?;
    // Times travel as text.
    let results = spi::with_plain_text(|| old.import())?;
    if results.iter().any(|result| result.imported > 0) {
        let rows: Map<String, Value> =
            results.iter().map(|result| (result.table_name.to_owned(), result.imported.into())).collect();
        audit::append("legacy.imported", json!({"schema": schema, "rows": rows}), None, Some("system"))?;
    }
    let mut rows = call.row_set();
    for result in results {
        rows.push(&[arg(result.table_name), arg(result.imported), arg(result.skipped), arg(result.detail)]);
    }
    Ok(rows.finish())
}

fn execute(sql: &str, args: &[Arg]) -> i64 {
    spi::execute(Once(sql), As::Caller, See::OwnWrites, args) as i64
}

fn refused(message: String) -> Fault {
    Fault::new(Code::NotInPrerequisiteState, message)
}

struct OldSchema {
    /// The schema's name as an SQL identifier.
    old: String,
    /// Owner of all its tables.
    owner: Oid,
    columns: Vec<Column>,
    /// Runs refer to task specs.
    runs_have_specs: bool,
}

skill_pg::columns! {
    /// A column of one of the tables.
    struct Column {
        table: String = "c.relname::text",
        name: String = "a.attname::text",
        type_name: String = "a.atttypid::regtype::text",
        /// The type is one of the server's.
        is_builtin: bool = "a.atttypid < 16384",
    }
}

skill_pg::columns! {
    /// A table of the old schema.
    struct Table {
        name: String = "c.relname::text",
        owner: Oid = "c.relowner",
        role: String = "pg_get_userbyid(c.relowner)::text",
        /// The schema belongs to the same role or to a superuser, so nobody else exchanges the table while it is read.
        has_own_schema: bool = "n.nspowner = c.relowner OR (SELECT rolsuper FROM pg_roles WHERE oid = n.nspowner)",
        /// What an ordinary table of that skill does not have.
        oddity: Option<String> = "CASE WHEN c.relkind <> 'r' THEN 'is not an ordinary table' \
             WHEN c.relrowsecurity THEN 'has row security' \
             WHEN EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid) THEN 'has rules' \
             WHEN EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) THEN 'is part of an inheritance tree' \
             WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attgenerated <> '') THEN 'has generated columns' END",
    }
}

impl OldSchema {
    fn find(schema: &str) -> Result<Self, Fault> {
        const OF_SCHEMA: &str = "c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) \
             AND c.relname = ANY ($2) AND c.relkind NOT IN ('i', 'I', 'S', 'c', 't')";
        const TABLES_SQL: &str = concatcp!(
            "SELECT ",
            Table::COLUMNS,
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ",
            OF_SCHEMA,
            " ORDER BY c.relname"
        );
        const COLUMNS_SQL: &str = concatcp!(
            "SELECT ",
            Column::COLUMNS,
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE ",
            OF_SCHEMA,
            " ORDER BY c.relname, a.attnum"
        );
        let names: Vec<&str> = TABLES.into_iter().chain(OTHER_TABLES).collect();
        let args = [arg(schema), arg(names)];
        let tables = spi::collect::<Table>(TABLES_SQL, As::Caller, See::Latest, &args);
        if let Some(missing) = TABLES.iter().find(|name| !tables.iter().any(|table| table.name == **name)) {
            return Err(Fault::new(
                Code::UndefinedObject,
                format!("table {missing} does not exist in schema \"{}\"", shorten(schema)),
            )
            .detail("The legacy schema has the tables policy_profiles, runs and run_events.")
            .hint(
                "Rename the old schema with ALTER SCHEMA before CREATE EXTENSION skill_system, and give its new name.",
            ));
        }
        let owner = check_tables(schema, &tables)?;
        let columns = spi::collect::<Column>(COLUMNS_SQL, As::Caller, See::Latest, &args);
        let mut found = OldSchema { old: sys::quote_identifier(schema), owner, columns, runs_have_specs: false };
        found.runs_have_specs = found.has("task_specs", "id") && found.has("runs", "task_spec_id");
        found.check_columns()?;
        found.check_types().map(|()| found)
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns_of(table).any(|found| found.name == column)
    }

    fn columns_of(&self, table: &str) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(move |column| column.table == table)
    }

    fn check_columns(&self) -> Result<(), Fault> {
        for (table, required, others) in REQUIRED {
            let is_imported = self.has(table, "id") || TABLES.contains(table);
            let missing = required.iter().chain(*others).find(|column| !self.has(table, column));
            if let Some(column) = missing.filter(|_| is_imported) {
                return Err(refused(format!("column {table}.{column} does not exist in schema {}", self.old))
                    .detail("The tables of the old schema must have the columns that the skill system gave them.")
                    .hint("Add it with ALTER TABLE, with values for its rows."));
            }
        }
        Ok(())
    }

    /// Refuses rows without a value that the tables here require.
    fn check_values(&self) -> Result<(), Fault> {
        for (table, required, _) in REQUIRED.iter().filter(|(table, ..)| self.has(table, "id")) {
            for column in *required {
                let sql = format!(
                    "SELECT coalesce('with id ' || t.id, 'at ' || t.ctid) FROM ONLY {}.{table} t WHERE t.{column} IS NULL LIMIT 1",
                    self.old
                );
                let mut row = None;
                self.read(&sql, |found| {
                    row = Some(found.get::<String>(1));
                    Ok(())
                })?;
                if let Some(row) = row {
                    return Err(refused(format!(
                        "column {table}.{column} of schema {} is NULL in the row {row}",
                        self.old
                    ))
                    .hint("Set a value in the old schema, or delete the row there."));
                }
            }
        }
        Ok(())
    }

    /// What another type holds could often be cast, and would mean something else.
    fn check_types(&self) -> Result<(), Fault> {
        for column in &self.columns {
            let known =
                COLUMNS.iter().find(|(t, columns, _)| *t == column.table && columns.contains(&column.name.as_str()));
            if let Some((.., wanted)) = known
                && column.type_name != *wanted
            {
                let (table, name, found) = (&column.table, &column.name, shorten(&column.type_name));
                return Err(refused(format!("column {table}.{name} has type {found}, not {wanted}"))
                    .detail("The columns of the old schema must have the types that the skill system gave them."));
            }
        }
        Ok(())
    }

    /// Locks both schemas while ids are compared and kept.
    fn lock(&self) {
        let old = &self.old;
        let tables = TABLES.iter().chain(OTHER_TABLES.iter().filter(|table| self.columns_of(table).next().is_some()));
        let tables: Vec<_> = tables.map(|table| format!("{old}.{table}")).collect();
        execute(&format!("LOCK TABLE ONLY {} IN SHARE MODE", tables.join(", ONLY ")), &[]);
        execute(
            "LOCK TABLE skill_system.policy_profiles, skill_system.runs, skill_system.run_events \
             IN SHARE ROW EXCLUSIVE MODE",
            &[],
        );
    }

    /// Reads old rows with the rights of their owner; `body` has the caller's.
    fn read(&self, sql: &str, body: impl FnMut(&Row) -> Result<(), Fault>) -> Result<(), Fault> {
        spi::stream_as(self.owner, Once(sql), &[], body)
    }

    /// The one number that a query on the old schema returns.
    fn number(&self, sql: &str) -> Result<Option<i64>, Fault> {
        let mut number = None;
        self.read(sql, |row| {
            number = row.get(1);
            Ok(())
        })?;
        Ok(number)
    }

    /// A column, where the old table has it, in a SELECT from that table under `alias`. What is not of the server's types is
    /// written by its output function: a cast may be anybody's.
    fn value(&self, table: &str, alias: &str, column: &str) -> Option<String> {
        let found = self.columns_of(table).find(|found| found.name == column)?;
        let name = format!("{alias}.{}", sys::quote_identifier(column));
        Some(match found.is_builtin {
            true => name,
            false => format!("CASE WHEN num_nulls({name}) = 0 THEN concat({name}) END"),
        })
    }

    /// All columns of a table but `except`, for a SELECT.
    fn values(&self, table: &str, alias: &str, except: &str) -> String {
        let columns = self.columns_of(table).filter(|column| column.name != except).filter_map(|column| {
            let value = self.value(table, alias, &column.name)?;
            Some(format!("{value} AS {}", sys::quote_identifier(&column.name)))
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The last id that the old sequence gave, or 0.
    fn last_value(&self, table: &str) -> Result<i64, Fault> {
        let name = sys::quote_literal(&format!("{}.{table}", self.old));
        let last =
            self.number(&format!("SELECT pg_sequence_last_value(pg_get_serial_sequence({name}, 'id')::regclass)"))?;
        Ok(last.unwrap_or(0))
    }

    /// The sequences go on after what is imported: they must not be at their end then.
    fn check_ids(&self) -> Result<(), Fault> {
        for table in TABLES {
            let highest = self.number(&format!("SELECT max(id) FROM ONLY {}.{table}", self.old))?;
            let last = self.last_value(table)?;
            if let Some(id) = highest.into_iter().chain([last]).find(|id| *id > MAX_IMPORTED_ID) {
                return Err(Fault::new(Code::InvalidParameterValue, format!("id {id} of {table} is too large"))
                    .detail(format!("New ids follow the imported ones, which may be up to {MAX_IMPORTED_ID}."))
                    .hint("Give the row another id in the old schema, and set the sequence of its table back with setval()."));
            }
        }
        Ok(())
    }

    fn import(&self) -> Result<Vec<Imported>, Fault> {
        self.check_values()?;
        self.check_ids()?;
        let mut results = vec![self.import_profiles()?, self.import_runs()?, self.import_events()?];
        self.advance_sequences()?;
        results.extend(self.import_task_specs()?);
        results.extend(self.import_artifacts()?);
        Ok(results)
    }

    /// Inserts each row of `select`, a jsonb, with `insert`, which returns how many rows it added, and the id when that
    /// belongs to another row: importing again is allowed, overwriting is not. Returns the numbers of old and new rows.
    fn import_rows(&self, table: &str, select: &str, insert: &'static str) -> Result<(i64, i64), Fault> {
        let (mut total, mut imported) = (0, 0);
        self.read(&format!("SELECT to_jsonb(x) FROM ({select}) x"), |row| {
            let (added, taken): (i64, Option<i64>) = spi::one(insert, As::Caller, See::OwnWrites, &[row.get(1)]);
            total += 1;
            imported += added;
            taken.map_or(Ok(()), |id| Err(taken_by_another(table, id)))
        })?;
        Ok((total, imported))
    }

    fn import_profiles(&self) -> Result<Imported, Fault> {
        let old = &self.old;
        let mut chosen = ChosenProfiles::default();
        let mut imported = 0;
        let sql = format!(
            "SELECT l.id, l.name, l.allowed_effects, l.allowed_exec, l.allowed_write_roots, \
                 jsonb_build_object('metadata', l.metadata, 'created_at', l.created_at) \
             FROM ONLY {old}.policy_profiles l ORDER BY l.id"
        );
        self.read(&sql, |row| {
            let (id, name): (i64, &str) = row.read();
            let (exists, taken): (bool, bool) = spi::one(
                "SELECT coalesce(bool_or(n.name = $2), false), coalesce(bool_or(n.id = $1 AND n.name <> $2), false) \
                 FROM skill_system.policy_profiles n \
                 WHERE n.tenant_id = skill_system.current_tenant() AND (n.id = $1 OR n.name = $2)",
                As::Caller,
                See::OwnWrites,
                &[arg(id), arg(name)],
            );
            if taken {
                return Err(taken_by_another("policy_profiles", id));
            }
            if let Some(rules) = chosen.consider(row, exists) {
                spi::execute(
                    include_str!("import_profile.sql"),
                    As::Caller,
                    See::OwnWrites,
                    &[arg(id), arg(name), row.get(6), arg(rules)],
                );
                imported += 1;
            }
            Ok(())
        })?;
        let mut detail = Vec::new();
        if chosen.refused_rules > 0 {
            detail.push(format!("{} rule(s) refused: see metadata->'import_refused'", chosen.refused_rules));
        }
        if !chosen.bad_names.is_empty() {
            detail.push(format!("names refused: {}", chosen.bad_names.join(", ")));
        }
        Ok(Imported { table_name: "policy_profiles", imported, skipped: chosen.skipped, detail: detail.join("; ") })
    }

    /// A column of the old runs. Versions of the schema differ: a missing column comes from the task, or is NULL.
    fn run_column(&self, column: &str, in_spec: bool) -> String {
        let run = self.value("runs", "l", column);
        let spec = if in_spec && self.runs_have_specs { self.value("task_specs", "s", column) } else { None };
        match (run, spec) {
            (Some(run), Some(spec)) => format!("coalesce({run}, {spec})"),
            (Some(value), None) | (None, Some(value)) => value,
            (None, None) => "NULL".into(),
        }
    }

    fn import_runs(&self) -> Result<Imported, Fault> {
        let old = &self.old;
        let join = if self.runs_have_specs {
            format!("LEFT JOIN ONLY {old}.task_specs s ON s.id = l.task_spec_id")
        } else {
            String::new()
        };
        let select = format!(
            "SELECT l.id, {goal} AS goal, {agent} AS agent_id, o.name AS policy_name, {task} AS task_spec_id, \
                 {status} AS status, l.started_at, l.ended_at, l.effective_policy, l.metrics, l.error, l.created_at \
             FROM ONLY {old}.runs l {join} LEFT JOIN ONLY {old}.policy_profiles o ON o.id = {policy}::bigint ORDER BY l.id",
            goal = self.run_column("goal", true),
            agent = self.run_column("agent_id", false),
            task = self.run_column("task_spec_id", false),
            status = self.run_column("status", false),
            policy = self.run_column("policy_profile_id", true),
        );
        let (total, imported) = self.import_rows("runs", &select, include_str!("import_run.sql"))?;
        Ok(Imported { table_name: "runs", imported, skipped: total - imported, detail: String::new() })
    }

    fn import_events(&self) -> Result<Imported, Fault> {
        let select = format!(
            "SELECT l.id, l.run_id, l.ts, l.level, l.event_type, l.payload FROM ONLY {}.run_events l ORDER BY l.id",
            self.old
        );
        let (total, imported) = self.import_rows("run_events", &select, include_str!("import_event.sql"))?;
        Ok(Imported { table_name: "run_events", imported, skipped: total - imported, detail: String::new() })
    }

    /// Moves the sequence past every id that was ever used in the old schema; never backwards.
    fn advance_sequences(&self) -> Result<(), Fault> {
        for table in TABLES {
            let last = self.last_value(table)?;
            execute(
                &format!(
                    "SELECT setval('skill_system.{table}_id_seq', top) FROM (SELECT greatest( \
                         (SELECT max(id) FROM skill_system.{table} WHERE id <= {MAX_IMPORTED_ID}), nullif($1, 0)) AS top) t \
                     WHERE top > coalesce(pg_sequence_last_value('skill_system.{table}_id_seq'), 0)"
                ),
                &[arg(last)],
            );
        }
        Ok(())
    }

    fn import_task_specs(&self) -> Result<Option<Imported>, Fault> {
        if !self.has("task_specs", "id") {
            return Ok(None);
        }
        let old = &self.old;
        // count(*) is never NULL.
        let count = |sql: String| self.number(&sql).map(|count| count.unwrap_or(0));
        let (total, imported, idle) = if self.runs_have_specs {
            let select = format!(
                "SELECT l.id AS run_id, l.created_at, 'task_spec' AS event_type, \
                     (SELECT to_jsonb(y) FROM (SELECT {}) y) AS payload \
                 FROM ONLY {old}.runs l JOIN ONLY {old}.task_specs s ON s.id = l.task_spec_id ORDER BY l.id",
                self.values("task_specs", "s", "")
            );
            let (total, imported) = self.import_rows("task_specs", &select, include_str!("import_extra.sql"))?;
            let idle = count(format!(
                "SELECT count(*) FROM ONLY {old}.task_specs s \
                 WHERE NOT EXISTS (SELECT FROM ONLY {old}.runs l WHERE l.task_spec_id = s.id)"
            ))?;
            (total, imported, idle)
        } else {
            (0, 0, count(format!("SELECT count(*) FROM ONLY {old}.task_specs"))?)
        };
        let mut detail = "as event task_spec of each of its runs".to_owned();
        if idle > 0 {
            detail.push_str(&format!("; {idle} never ran and stay in the old schema"));
        }
        Ok(Some(Imported { table_name: "task_specs", imported, skipped: total - imported + idle, detail }))
    }

    fn import_artifacts(&self) -> Result<Option<Imported>, Fault> {
        if !self.has("artifacts", "id") {
            return Ok(None);
        }
        let select = format!(
            "SELECT a.run_id, a.created_at, 'artifact' AS event_type, (SELECT to_jsonb(y) FROM (SELECT {}) y) AS payload \
             FROM ONLY {}.artifacts a ORDER BY a.id",
            self.values("artifacts", "a", "run_id"),
            self.old
        );
        let (total, imported) = self.import_rows("artifacts", &select, include_str!("import_extra.sql"))?;
        let detail = "as event artifact of its run".into();
        Ok(Some(Imported { table_name: "artifacts", imported, skipped: total - imported, detail }))
    }
}

/// The role that owns all tables, whose rights the caller has.
fn check_tables(schema: &str, tables: &[Table]) -> Result<Oid, Fault> {
    for table in tables {
        if let Some(oddity) = &table.oddity {
            return Err(refused(format!("table {} of schema \"{}\" {oddity}", table.name, shorten(schema)))
                .detail("Only tables as the skill system created them are imported.")
                .hint("Copy its rows into an ordinary table with the same columns."));
        }
    }
    let Some(first) = tables.first() else {
        return Err(Fault::new(Code::Internal, "the old schema has no tables"));
    };
    if let Some(other) = tables.iter().find(|table| table.owner != first.owner || !table.has_own_schema) {
        return Err(refused(format!("schema \"{}\" and its tables do not belong to one role", shorten(schema)))
            .detail(format!(
                "They are read with the rights of their owner; table {} belongs to \"{}\".",
                other.name, other.role
            ))
            .hint("Give the schema and its tables to one role with ALTER SCHEMA and ALTER TABLE ... OWNER TO."));
    }
    if !sys::has_rights_of(first.owner) {
        return Err(Fault::new(
            Code::InsufficientPrivilege,
            format!("permission denied for schema \"{}\"", shorten(schema)),
        )
        .detail(format!("Its tables belong to role \"{}\", whose rights the caller does not have.", first.role)));
    }
    Ok(first.owner)
}

fn taken_by_another(table: &str, id: i64) -> Fault {
    refused(format!("id {id} of {table} is taken by another row"))
        .detail("Ids are kept, so the import comes before anything else is written.")
        .hint("Import right after CREATE EXTENSION, or into a separate tenant (skill_system.tenant).")
}

/// What was skipped of the old profiles.
#[derive(Default)]
struct ChosenProfiles {
    refused_rules: usize,
    skipped: i64,
    bad_names: Vec<String>,
}

impl ChosenProfiles {
    /// One profile of the old schema: id, name, three lists of rules; and whether its name exists here already. Returns the
    /// rules to import.
    fn consider(&mut self, row: &Row, exists: bool) -> Option<Value> {
        let name = row.get::<String>(2);
        if exists {
            self.skipped += 1;
            return None;
        }
        if (Profile { name: name.clone(), ..Profile::default() }).validate().is_err() {
            self.skipped += 1;
            self.bad_names.push(shorten(&name));
            return None;
        }
        let mut refused = Vec::new();
        let mut valid = |n: i32, column: &str, put: fn(Vec<String>) -> Profile| {
            let rules: Option<Vec<Option<String>>> = row.get(n);
            keep_valid_rules(rules.unwrap_or_default(), column, put, &mut refused)
        };
        let effects = valid(3, "allowed_effects", |list| Profile { allowed_effects: list, ..Profile::default() });
        let exec = valid(4, "allowed_exec", |list| Profile { allowed_exec: list, ..Profile::default() });
        let roots = valid(5, "allowed_write_roots", |list| Profile { allowed_write_roots: list, ..Profile::default() });
        self.refused_rules += refused.len();
        let note = if refused.is_empty() { json!({}) } else { json!({"import_refused": refused}) };
        Some(json!({"effects": effects, "exec": exec, "roots": roots, "note": note}))
    }
}
