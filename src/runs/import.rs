//! `import_legacy()`: imports a schema of the skill-system-postgres skill.

use serde_json::{Map, Value, json};
use skill_core::error::shorten;
use skill_core::policy::Profile;
use skill_core::runs::RunError;
use skill_core::runs::legacy::keep_valid_rules;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Row, arg, pg_function, sys};

use crate::audit;

/// Tables of every version of the old schema, and the condition by which a row counts as imported before.
const TABLES: [(&str, &str); 3] = [
    ("policy_profiles", "n.name = l.name"),
    ("runs", "n.created_at = l.created_at"),
    ("run_events", "n.run_id = l.run_id AND n.ts = l.ts AND n.event_type = l.event_type"),
];

/// One row of the result.
struct Imported {
    table_name: &'static str,
    imported: i64,
    skipped: i64,
    detail: String,
}

/// Types of the columns that are read. The status is read as text, and what other columns hold becomes jsonb.
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

pg_function!(import_legacy);
/// `import_legacy(schema_name)`
fn import_legacy(call: &Call) -> Answer {
    let schema = call.text(0).ok_or(RunError::Missing { what: "schema_name" })?;
    if schema == "skill_system" {
        return Err(Fault::new(Code::InvalidParameterValue, "skill_system is the schema of the extension itself")
            .hint(
                "ALTER SCHEMA skill_system RENAME TO skill_system_legacy; CREATE EXTENSION skill_system; \
             and give the new name.",
            ));
    }
    let old = OldSchema::find(schema)?;
    old.lock();
    old.check_ids()?;
    let mut results = vec![old.import_profiles()?, old.import_runs(), old.import_events()];
    old.advance_sequences();
    results.extend(old.import_task_specs());
    results.extend(old.import_artifacts());
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

/// Runs a statement of this import and returns the number of its rows.
fn execute(sql: String, args: &[Arg]) -> i64 {
    spi::execute(Once(&sql), As::Caller, See::OwnWrites, args) as i64
}

/// The number that a query returns; 0 for NULL.
fn number(sql: String) -> i64 {
    spi::one::<i64>(Once(&sql), As::Caller, See::OwnWrites, &[]).unwrap_or(0)
}

struct OldSchema {
    /// The schema's name as an SQL identifier.
    old: String,
    /// Its tables, their columns and the columns' types.
    columns: Vec<(String, String, String)>,
    /// Runs refer to task specs.
    runs_have_specs: bool,
}

impl OldSchema {
    fn find(schema: &str) -> Result<Self, Fault> {
        let columns = spi::collect::<(String, String, String)>(
            "SELECT c.relname::text, a.attname::text, a.atttypid::regtype::text FROM pg_class c \
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relkind IN ('r', 'p') \
             ORDER BY 1, 2",
            As::Caller,
            See::OwnWrites,
            &[arg(schema)],
        );
        let mut found = OldSchema { old: sys::quote_identifier(schema), columns, runs_have_specs: false };
        found.runs_have_specs = found.has("task_specs", "id") && found.has("runs", "task_spec_id");
        match TABLES.iter().find(|(table, _)| !found.has(table, "id")) {
            None => found.check_types().map(|()| found),
            Some((missing, _)) => Err(Fault::new(
                Code::UndefinedObject,
                format!("table {missing} does not exist in schema \"{}\"", shorten(schema)),
            )
            .detail("The legacy schema has the tables policy_profiles, runs and run_events.")
            .hint(
                "Rename the old schema with ALTER SCHEMA before CREATE EXTENSION skill_system, and give its new name.",
            )),
        }
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns.iter().any(|(t, c, _)| t == table && c == column)
    }

    /// What another type holds could often be cast, and would mean something else.
    fn check_types(&self) -> Result<(), Fault> {
        for (table, column, found) in &self.columns {
            let known = COLUMNS.iter().find(|(t, columns, _)| t == table && columns.contains(&column.as_str()));
            if let Some((.., wanted)) = known
                && found != wanted
            {
                return Err(Fault::new(
                    Code::NotInPrerequisiteState,
                    format!("column {table}.{column} has type {}, not {wanted}", shorten(found)),
                )
                .detail("The columns of the old schema must have the types that the skill system gave them."));
            }
        }
        Ok(())
    }

    /// Locks both schemas while ids are compared and kept.
    fn lock(&self) {
        let old = &self.old;
        execute(format!("LOCK TABLE {old}.policy_profiles, {old}.runs, {old}.run_events IN SHARE MODE"), &[]);
        execute(
            "LOCK TABLE skill_system.policy_profiles, skill_system.runs, skill_system.run_events \
             IN SHARE ROW EXCLUSIVE MODE"
                .into(),
            &[],
        );
    }

    /// Refuses the import when an id belongs to another row: importing again is allowed, overwriting is not.
    fn check_ids(&self) -> Result<(), Fault> {
        let old = &self.old;
        for (table, same) in TABLES {
            let taken = number(format!(
                "SELECT min(l.id) FROM {old}.{table} l JOIN skill_system.{table} n \
                 ON n.tenant_id = skill_system.current_tenant() AND n.id = l.id WHERE NOT ({same})"
            ));
            if taken != 0 {
                return Err(Fault::new(
                    Code::NotInPrerequisiteState,
                    format!("id {taken} of {table} is taken by another row"),
                )
                .detail("Ids are kept, so the import comes before anything else is written.")
                .hint("Import right after CREATE EXTENSION, or into a separate tenant (skill_system.tenant)."));
            }
        }
        Ok(())
    }

    fn import_profiles(&self) -> Result<Imported, Fault> {
        let old = &self.old;
        let mut chosen = ChosenProfiles::default();
        let sql = format!(
            "SELECT l.id, l.name, l.allowed_effects, l.allowed_exec, l.allowed_write_roots, \
                 EXISTS (SELECT FROM skill_system.policy_profiles n \
                     WHERE n.tenant_id = skill_system.current_tenant() AND n.name = l.name) \
             FROM {old}.policy_profiles l ORDER BY l.id"
        );
        spi::each(Once(&sql), As::Caller, See::OwnWrites, &[], |row| {
            chosen.consider(row);
            Ok(())
        })?;
        let imported = execute(
            format!(
                "INSERT INTO skill_system.policy_profiles \
                     (id, name, allowed_effects, allowed_exec, allowed_write_roots, metadata, created_at) \
                 SELECT l.id, l.name, ARRAY(SELECT jsonb_array_elements_text(g->'effects')), \
                     ARRAY(SELECT jsonb_array_elements_text(g->'exec')), \
                     ARRAY(SELECT jsonb_array_elements_text(g->'roots')), \
                     CASE WHEN jsonb_typeof(l.metadata) = 'object' THEN l.metadata \
                          ELSE jsonb_build_object('legacy', l.metadata) END || (g->'note'), l.created_at \
                 FROM jsonb_array_elements($1) WITH ORDINALITY AS given(g, n) \
                 JOIN {old}.policy_profiles l ON l.id = (g->>'id')::bigint ORDER BY n"
            ),
            &[arg(Value::Array(chosen.profiles))],
        );
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
        match (self.has("runs", column), in_spec && self.runs_have_specs) {
            (true, true) => format!("coalesce(l.{column}, s.{column})"),
            (true, false) => format!("l.{column}"),
            (false, true) => format!("s.{column}"),
            (false, false) => "NULL".into(),
        }
    }

    fn import_runs(&self) -> Imported {
        let old = &self.old;
        let join = if self.runs_have_specs {
            format!("LEFT JOIN {old}.task_specs s ON s.id = l.task_spec_id")
        } else {
            String::new()
        };
        let policy = match self.run_column("policy_profile_id", true).as_str() {
            "NULL" => "NULL::bigint".to_owned(),
            found => found.to_owned(),
        };
        let total = number(format!("SELECT count(*) FROM {old}.runs"));
        let imported = execute(
            format!(
                "INSERT INTO skill_system.runs (id, goal, agent_id, policy_profile_id, task_spec_id, status, started_at, \
                     ended_at, effective_policy, metrics, error, created_at) \
                 SELECT l.id, {goal}, {agent}, p.id, {task}, l.status::text::skill_system.run_status, l.started_at, \
                     l.ended_at, l.effective_policy, l.metrics, l.error, l.created_at \
                 FROM {old}.runs l {join} LEFT JOIN {old}.policy_profiles o ON o.id = {policy} \
                 LEFT JOIN skill_system.policy_profiles p \
                     ON p.tenant_id = skill_system.current_tenant() AND p.name = o.name \
                 WHERE NOT EXISTS (SELECT FROM skill_system.runs n \
                     WHERE n.tenant_id = skill_system.current_tenant() AND n.id = l.id) ORDER BY l.id",
                goal = self.run_column("goal", true),
                agent = self.run_column("agent_id", false),
                task = self.run_column("task_spec_id", false),
            ),
            &[],
        );
        Imported { table_name: "runs", imported, skipped: total - imported, detail: String::new() }
    }

    fn import_events(&self) -> Imported {
        let old = &self.old;
        let total = number(format!("SELECT count(*) FROM {old}.run_events"));
        let imported = execute(
            format!(
                "INSERT INTO skill_system.run_events (id, run_id, ts, level, event_type, payload) \
                 SELECT l.id, l.run_id, l.ts, l.level, l.event_type, l.payload FROM {old}.run_events l \
                 WHERE NOT EXISTS (SELECT FROM skill_system.run_events n \
                     WHERE n.tenant_id = skill_system.current_tenant() AND n.id = l.id) ORDER BY l.id"
            ),
            &[],
        );
        Imported { table_name: "run_events", imported, skipped: total - imported, detail: String::new() }
    }

    /// Moves the sequence past every id that was ever used in the old schema; never backwards.
    fn advance_sequences(&self) {
        for (table, _) in TABLES {
            execute(
                format!(
                    "SELECT setval('skill_system.{table}_id_seq', top) FROM (SELECT greatest( \
                         (SELECT max(id) FROM skill_system.{table}), \
                         pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass)) AS top) t \
                     WHERE top > coalesce(pg_sequence_last_value('skill_system.{table}_id_seq'), 0)"
                ),
                &[arg(format!("{}.{table}", self.old))],
            );
        }
    }

    fn import_task_specs(&self) -> Option<Imported> {
        if !self.has("task_specs", "id") {
            return None;
        }
        let old = &self.old;
        let (imported, wanted, idle) = if self.runs_have_specs {
            let imported = execute(
                format!(
                    "INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) \
                     SELECT l.id, l.created_at, 'task_spec', to_jsonb(s) \
                     FROM {old}.runs l JOIN {old}.task_specs s ON s.id = l.task_spec_id \
                     WHERE NOT EXISTS (SELECT FROM skill_system.run_events n \
                         WHERE n.tenant_id = skill_system.current_tenant() AND n.run_id = l.id \
                         AND n.event_type = 'task_spec') ORDER BY l.id"
                ),
                &[],
            );
            let wanted =
                number(format!("SELECT count(*) FROM {old}.runs l JOIN {old}.task_specs s ON s.id = l.task_spec_id"));
            let idle = number(format!(
                "SELECT count(*) FROM {old}.task_specs s \
                 WHERE NOT EXISTS (SELECT FROM {old}.runs l WHERE l.task_spec_id = s.id)"
            ));
            (imported, wanted, idle)
        } else {
            (0, 0, number(format!("SELECT count(*) FROM {old}.task_specs")))
        };
        let mut detail = "as event task_spec of each of its runs".to_owned();
        if idle > 0 {
            detail.push_str(&format!("; {idle} never ran and stay in the old schema"));
        }
        Some(Imported { table_name: "task_specs", imported, skipped: wanted - imported + idle, detail })
    }

    fn import_artifacts(&self) -> Option<Imported> {
        if !self.has("artifacts", "id") {
            return None;
        }
        let old = &self.old;
        let imported = execute(
            format!(
                "INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) \
                 SELECT a.run_id, a.created_at, 'artifact', to_jsonb(a) - 'run_id' FROM {old}.artifacts a \
                 WHERE NOT EXISTS (SELECT FROM skill_system.run_events n \
                     WHERE n.tenant_id = skill_system.current_tenant() AND n.run_id = a.run_id \
                     AND n.event_type = 'artifact' AND n.payload->'id' = to_jsonb(a.id)) ORDER BY a.id"
            ),
            &[],
        );
        let total = number(format!("SELECT count(*) FROM {old}.artifacts"));
        let detail = "as event artifact of its run".into();
        Some(Imported { table_name: "artifacts", imported, skipped: total - imported, detail })
    }
}

/// The profiles to import, and what was skipped.
#[derive(Default)]
struct ChosenProfiles {
    profiles: Vec<Value>,
    refused_rules: usize,
    skipped: i64,
    bad_names: Vec<String>,
}

impl ChosenProfiles {
    /// One profile of the old schema: id, name, three lists of rules, and whether its name exists here already.
    fn consider(&mut self, row: &Row) {
        let (id, name, exists): (i64, String, bool) = (row.get(1), row.get(2), row.get(6));
        if exists {
            self.skipped += 1;
            return;
        }
        if (Profile { name: name.clone(), ..Profile::default() }).validate().is_err() {
            self.skipped += 1;
            self.bad_names.push(shorten(&name));
            return;
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
        self.profiles.push(json!({"id": id, "effects": effects, "exec": exec, "roots": roots, "note": note}));
    }
}
