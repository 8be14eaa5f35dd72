//! `repair()`: brings back what the install script created, as far as a script can: never rows, columns or tables.

use const_format::concatcp;
use skill_core::audit::shipped;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::xact::attempt;
use skill_pg::{Answer, Call, RowSet, arg, pg_function, sys};

use super::bypass::{self, Bypass};
use super::protection::SCRIPTS;
use super::{expected, identity, partitions, structure, tables};

pg_function!(repair);
/// `repair()` → what was done, and what could not be done.
fn repair(call: &Call) -> Answer {
    sys::prevent_if_read_only(c"repair()");
    spi::with_plain_text(|| repair_all(call))
}

fn repair_all(call: &Call) -> Answer {
    if !sys::is_superuser(sys::current_user()) {
        return Err(Fault::new(Code::InsufficientPrivilege, "only a superuser can repair the extension"));
    }
    let scripts = SCRIPTS.iter().flat_map(|script| shipped::statements(script, true)).collect();
    let mut repair = Repair { rows: call.row_set(), scripts };
    repair.run_found(expected::ROLES);
    repair.run_found(concatcp!(PLACES, include_str!("repair_places.sql")));
    repair.renames();
    repair.identity();
    repair.functions();
    repair.event_triggers();
    repair.run_all(structure::repairs());
    repair.views();
    repair.run_found(include_str!("repair_definitions.sql"));
    repair.partitions();
    repair.run_found(include_str!("repair_partitions.sql"));
    repair.run_found(include_str!("repair_additions.sql"));
    repair.row_security();
    repair.surplus_functions();
    repair.privileges();
    repair.run_all(structure::late_sequences());
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
            execute(sql);
            Ok(())
        });
        self.report(what, done);
    }

    /// Runs statements, each with what it is about.
    fn run_all(&mut self, found: Vec<(String, String)>) {
        for (what, statement) in found {
            self.run(&what, &statement);
        }
    }

    /// Runs what a query finds.
    fn run_found(&mut self, sql: &'static str) {
        self.run_all(spi::collect(sql, As::Caller, See::Latest, &[]));
    }

    /// Before anything is created again: what others refer to is the renamed object. The parts of a table are compared once
    /// it has its name.
    fn renames(&mut self) {
        self.run_all(structure::impostors());
        for _ in 0..2 {
            self.run_all(structure::renames());
        }
    }

    fn statements(&self, begin: &str) -> Vec<String> {
        self.scripts.iter().filter(|statement| statement.starts_with(begin)).cloned().collect()
    }

    fn identity(&mut self) {
        let lost = attempt(|| Ok(identity::lost_log_id()));
        if let Ok(Some(id)) = lost {
            let done = attempt(|| identity::write_identity(*id.as_bytes()));
            self.report("the identity of the log in audit_state", done);
        }
    }

    fn functions(&mut self) {
        let wrong: Vec<String> = structure::to_create("function").into_iter().map(|(name, _)| name).collect();
        for statement in self.statements("CREATE FUNCTION skill_system.") {
            let name = name_after(&statement, "skill_system.");
            if wrong.iter().any(|wrong| wrong.split('(').next() == Some(&name)) {
                let sql = statement
                    .replacen("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
                    .replace("'MODULE_PATHNAME'", "'$libdir/skill_system'");
                self.run(&format!("function {name}"), &sql);
                self.comments(&format!("FUNCTION skill_system.{name}("));
            }
        }
    }

    /// Without its comment, lockdown.sql does not accept an object that was created again.
    fn comments(&mut self, object: &str) {
        for statement in self.statements(&format!("COMMENT ON {object}")) {
            self.run(&format!("comment of {}", object.trim_end_matches('(')), &statement);
        }
    }

    fn views(&mut self) {
        const LENDS_RIGHTS: &str = "SELECT relname::text, false FROM pg_class WHERE relkind = 'v' \
             AND relnamespace = 'skill_system'::regnamespace AND NOT coalesce(reloptions @> ARRAY['security_invoker=true'], false)";
        let mut wrong = structure::to_create("view");
        wrong.extend(spi::collect::<(String, bool)>(LENDS_RIGHTS, As::Caller, See::Latest, &[]));
        for statement in self.statements("CREATE VIEW skill_system.") {
            let name = name_after(&statement, "CREATE VIEW skill_system.");
            let Some((_, is_missing)) = wrong.iter().find(|(wrong, _)| *wrong == name) else { continue };
            self.run(&format!("view {name}"), &statement.replacen("CREATE VIEW", "CREATE OR REPLACE VIEW", 1));
            if *is_missing {
                self.run(
                    &format!("view {name}"),
                    &format!("ALTER EXTENSION skill_system ADD VIEW skill_system.{name}"),
                );
            }
        }
    }

    fn event_triggers(&mut self) {
        let wrong = structure::to_create("event trigger");
        for statement in self.statements("CREATE EVENT TRIGGER ") {
            let name = name_after(&statement, "CREATE EVENT TRIGGER ");
            let Some((_, is_missing)) = wrong.iter().find(|(wrong, _)| *wrong == name) else { continue };
            let member = |verb: &str| format!("ALTER EXTENSION skill_system {verb} EVENT TRIGGER {name}");
            let enable = self.statements(&format!("ALTER EVENT TRIGGER {name} "));
            let done = attempt(|| {
                if !is_missing {
                    if spi::one(IS_MEMBER, As::Caller, See::Latest, &[arg(&name)]) {
                        execute(&member("DROP"));
                    }
                    execute(&format!("DROP EVENT TRIGGER {name}"));
                }
                execute(&statement);
                execute(&member("ADD"));
                enable.iter().for_each(|sql| execute(sql));
                Ok(())
            });
            self.report(&format!("event trigger {name}"), done);
            self.comments(&format!("EVENT TRIGGER {name} "));
        }
    }

    fn partitions(&mut self) {
        for partition in partitions::displaced() {
            let done = attempt(|| partitions::attach_again(&partition));
            self.report(&format!("partition {}", partition.name), done);
        }
        // Rows that only an administrator can decide about.
        const MISPLACED: &str = concatcp!(PLACES, include_str!("repair_misplaced.sql"));
        for (what, why) in spi::collect::<(String, String)>(MISPLACED, As::Caller, See::Latest, &[]) {
            self.report(&what, Err(Fault::new(Code::NotInPrerequisiteState, why)));
        }
    }

    /// What somebody added does not stay in the schema, where it could shadow what belongs there.
    fn surplus_functions(&mut self) {
        for (function, is_member) in structure::surplus_functions() {
            let name = format!("function skill_system.{function}");
            if is_member {
                self.run(&name, &format!("ALTER EXTENSION skill_system DROP {name}"));
            }
            self.run(&name, &format!("DROP {name}"));
        }
    }

    /// All policies or none: none is dropped whose successor cannot be created.
    fn row_security(&mut self) {
        const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_policy WHERE polname = $2 \
             AND polrelid = to_regclass('skill_system.' || quote_ident($1)))";
        let found: Vec<(String, Option<String>)> = spi::collect(expected::ROW_SECURITY, As::Caller, See::Latest, &[]);
        let is_switch =
            |(_, sql): &(String, Option<String>)| sql.as_ref().is_some_and(|sql| sql.starts_with("ALTER TABLE"));
        let (switches, found): (Vec<_>, Vec<_>) = found.into_iter().partition(is_switch);
        self.run_all(switches.into_iter().filter_map(|(what, sql)| Some((what, sql?))).collect());
        if found.is_empty() {
            return;
        }
        let policies = self.statements("CREATE POLICY ");
        // The part of the install script that may be repeated. What else is not as it must be keeps no policy away.
        let is_lockdown = |sql: &&String| sql.starts_with("DO ") && sql.contains("CREATE POLICY %I");
        let lockdown = self.scripts.iter().filter(is_lockdown);
        let lockdown: Vec<_> = lockdown.map(|sql| sql.replace("RAISE EXCEPTION", "RAISE WARNING")).collect();
        let done = attempt(|| {
            found.iter().filter_map(|(_, sql)| sql.as_deref()).for_each(execute);
            for policy in &policies {
                let (name, table) = (name_after(policy, "CREATE POLICY "), table_of(policy));
                if !spi::one::<bool>(EXISTS, As::Caller, See::OwnWrites, &[arg(&table), arg(&name)]) {
                    execute(policy);
                }
            }
            lockdown.iter().for_each(|sql| execute(sql));
            Ok(())
        });
        for (what, _) in &found {
            self.report(what, done.clone());
        }
    }

    fn privileges(&mut self) {
        let found: Vec<(String, bool, String)> =
            spi::collect(expected::PRIVILEGES, As::Caller, See::Latest, &[expected::grants()]);
        for (what, _, sql) in found {
            self.run(&what, &sql);
        }
        self.run_found(tables::OWNER_GRANTS);
    }
}

/// The partitions of `audit_logs` as they are and as they must be called.
const PLACES: &str = include_str!("places.sql");

/// An event trigger belongs to the extension.
const IS_MEMBER: &str = "SELECT EXISTS (SELECT FROM pg_depend d JOIN pg_event_trigger e ON e.oid = d.objid AND e.evtname = $1 \
     WHERE d.classid = 'pg_event_trigger'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')";

fn execute(sql: &str) {
    spi::with_settings(&[(c"lock_timeout", c"5s")], || {
        bypass::with(Bypass::Definition, || spi::execute(Once(sql), As::Caller, See::OwnWrites, &[]));
    });
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
