//! `repair()`: brings back what the install script created, as far as a script can: never rows, columns or tables.

use skill_core::audit::shipped;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::xact::attempt;
use skill_pg::{Answer, Call, RowSet, Uuid, arg, pg_function, sys};

use super::bypass::{self, Bypass};
use super::protection::{self, SCRIPTS};
use super::{expected, identity};

pg_function!(repair);
/// `repair()` → what was done, and what could not be done.
fn repair(call: &Call) -> Answer {
    sys::prevent_if_read_only(c"repair()");
    if !sys::is_superuser(sys::current_user()) {
        return Err(Fault::new(Code::InsufficientPrivilege, "only a superuser can repair the extension"));
    }
    let scripts = SCRIPTS.iter().flat_map(|script| shipped::statements(script, true)).collect();
    let mut repair = Repair { rows: call.row_set(), scripts };
    repair.run_found(include_str!("repair_roles.sql"));
    repair.identity();
    repair.functions();
    repair.views_and_indexes();
    repair.triggers();
    repair.event_triggers();
    repair.run_found(include_str!("repair_definitions.sql"));
    repair.run_found(include_str!("repair_partitions.sql"));
    repair.run_found(include_str!("repair_additions.sql"));
    repair.members();
    repair.row_security();
    repair.privileges();
    // Only a script of an extension may call pg_extension_config_dump().
    repair.run_found(include_str!("repair_dump_marking.sql"));
    Ok(repair.rows.finish())
}

struct Repair<'c> {
    rows: RowSet<'c>,
    /// The statements of the install script.
    scripts: Vec<String>,
}

impl Repair<'_> {
    fn report(&mut self, what: &str, done: Result<(), Fault>) {
        let result = done.map_or_else(|fault| format!("failed: {}", fault.message), |()| "done".to_owned());
        self.rows.push(&[arg(what), arg(result)]);
    }

    fn run(&mut self, what: &str, sql: &str) {
        let done = attempt(|| {
            spi::with_settings(&[(c"lock_timeout", c"5s")], || {
                bypass::with(Bypass::Definition, || spi::execute(Once(sql), As::Caller, See::OwnWrites, &[]));
            });
            Ok(())
        });
        self.report(what, done);
    }

    /// Runs what a query finds: in words, and as a statement.
    fn run_found(&mut self, sql: &'static str) {
        for (what, statement) in spi::collect::<(String, String)>(sql, As::Caller, See::Latest, &[]) {
            self.run(&what, &statement);
        }
    }

    fn statements(&self, begin: &str) -> Vec<String> {
        self.scripts.iter().filter(|statement| statement.starts_with(begin)).cloned().collect()
    }

    /// The state of the seal has the identity, too.
    fn identity(&mut self) {
        const LOST: &str = "SELECT sealed_log_id FROM skill_system.audit_seal_state \
             WHERE NOT EXISTS (SELECT FROM skill_system.audit_state)";
        let lost = attempt(|| Ok(spi::one::<Uuid>(LOST, As::Owner, See::Latest, &[])));
        if let Ok(Some(id)) = lost {
            let done = attempt(|| identity::write_identity(*id.as_bytes()));
            self.report("the identity of the log in audit_state", done);
        }
    }

    fn functions(&mut self) {
        let problems: Vec<String> = protection::problems().iter().map(ToString::to_string).collect();
        for statement in self.statements("CREATE FUNCTION skill_system.") {
            let name = name_after(&statement, "skill_system.");
            let (altered, missing) = (format!("function {name}("), format!("function {name}:"));
            if problems.iter().any(|problem| problem.contains(&altered) || problem.contains(&missing)) {
                let sql = statement
                    .replacen("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
                    .replace("'MODULE_PATHNAME'", "'$libdir/skill_system'");
                self.run(&format!("function {name}"), &sql);
            }
        }
    }

    fn views_and_indexes(&mut self) {
        const WHOLE: &str = "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'skill_system'::regnamespace \
             AND relname = $1 AND (relkind = 'i' OR reloptions @> ARRAY['security_invoker=true']))";
        for begin in ["CREATE VIEW skill_system.", "CREATE INDEX ", "CREATE UNIQUE INDEX "] {
            for statement in self.statements(begin) {
                let name = name_after(&statement, begin);
                if spi::one(WHOLE, As::Caller, See::Latest, &[arg(&name)]) != Some(true) {
                    self.run(&name, &statement.replacen("CREATE VIEW", "CREATE OR REPLACE VIEW", 1));
                }
            }
        }
    }

    fn event_triggers(&mut self) {
        const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = $1)";
        for statement in self.statements("CREATE EVENT TRIGGER ") {
            let name = name_after(&statement, "CREATE EVENT TRIGGER ");
            if spi::one(EXISTS, As::Caller, See::Latest, &[arg(&name)]) != Some(true) {
                self.run(&format!("event trigger {name}"), &statement);
                self.run(
                    &format!("event trigger {name}"),
                    &format!("ALTER EXTENSION skill_system ADD EVENT TRIGGER {name}"),
                );
            }
        }
    }

    fn triggers(&mut self) {
        const WHOLE: &str = "SELECT EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
             WHERE t.tgrelid = to_regclass('skill_system.' || quote_ident($1)) AND t.tgname = $2 \
                 AND t.tgenabled IN ('A', 'O') AND p.pronamespace = 'skill_system'::regnamespace)";
        let mut created = false;
        for statement in self.statements("CREATE TRIGGER ") {
            let (name, table) = (name_after(&statement, "CREATE TRIGGER "), table_of(&statement));
            if spi::one(WHOLE, As::Caller, See::Latest, &[arg(&table), arg(&name)]) != Some(true) {
                let sql = statement.replacen("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1);
                self.run(&format!("trigger {name} of {table}"), &sql);
                created = true;
            }
        }
        if created {
            self.lockdown();
        }
    }

    /// What was created again belongs to the extension; what somebody added does not stay in its schema.
    fn members(&mut self) {
        let names = self.statements("CREATE FUNCTION skill_system.");
        let names: Vec<String> = names.iter().map(|statement| name_after(statement, "skill_system.")).collect();
        let found: Vec<(String, bool)> = spi::collect(
            "SELECT p.oid::regprocedure::text, p.proname = ANY ($1) FROM pg_proc p \
             WHERE p.pronamespace = 'skill_system'::regnamespace \
                 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid \
                     AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')",
            As::Caller,
            See::Latest,
            &[arg(names.as_slice())],
        );
        for (function, is_shipped) in found {
            let sql = match is_shipped {
                true => format!("ALTER EXTENSION skill_system ADD FUNCTION {function}"),
                false => format!("DROP FUNCTION {function}"),
            };
            self.run(&format!("function {function}"), &sql);
        }
    }

    fn row_security(&mut self) {
        let found: Vec<(String, Option<String>)> = spi::collect(expected::ROW_SECURITY, As::Caller, See::Latest, &[]);
        for (what, sql) in &found {
            if let Some(sql) = sql {
                self.run(what, sql);
            }
        }
        const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_policy WHERE polname = $2 \
             AND polrelid = to_regclass('skill_system.' || quote_ident($1)))";
        for statement in self.statements("CREATE POLICY ") {
            let (name, table) = (name_after(&statement, "CREATE POLICY "), table_of(&statement));
            if spi::one(EXISTS, As::Caller, See::Latest, &[arg(&table), arg(&name)]) != Some(true) {
                self.run(&format!("policy {name} of {table}"), &statement);
            }
        }
        if !found.is_empty() {
            self.lockdown();
        }
    }

    /// The part of the install script that may be repeated.
    fn lockdown(&mut self) {
        let uniform = |statement: &&String| statement.starts_with("DO ") && statement.contains("ENABLE ALWAYS TRIGGER");
        if let Some(uniform) = self.scripts.iter().find(uniform).cloned() {
            self.run("row security and triggers of all tables", &uniform);
        }
    }

    fn privileges(&mut self) {
        let found: Vec<(String, bool, String)> =
            spi::collect(expected::PRIVILEGES, As::Caller, See::Latest, &[expected::grants()]);
        for (what, _, sql) in found {
            self.run(&what, &sql);
        }
    }
}

/// The name that follows a part of a statement.
fn name_after(statement: &str, part: &str) -> String {
    let flat = statement.replace('\n', " ");
    let rest = flat.split_once(part).map_or("", |(_, rest)| rest);
    rest.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// The table of a trigger or a policy.
fn table_of(statement: &str) -> String {
    name_after(statement, " ON skill_system.")
}
