//! `health()`: one row for each check that a module registers.

use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use crate::module::{self, Check};

pg_function!(health);
fn health(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for check in module::all().iter().flat_map(|module| module.health) {
        let Check { name, status, detail, hint } = check();
        rows.push(&[arg(name), arg(status.as_str()), arg(detail), arg(hint)]);
    }
    Ok(rows.finish())
}

fn read_text(sql: &'static str) -> Option<String> {
    spi::one::<String>(sql, As::Caller, See::Statement, &[])
}

pub fn roles() -> Check {
    let wrong = read_text(
        "SELECT string_agg(wanted || CASE WHEN r.rolname IS NULL THEN ' is missing' \
             WHEN r.rolsuper THEN ' is superuser' ELSE ' bypasses row security' END, ', ' ORDER BY n) \
         FROM unnest(ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin']) \
             WITH ORDINALITY AS listed(wanted, n) \
         LEFT JOIN pg_roles r ON r.rolname = wanted WHERE r.rolname IS NULL OR r.rolsuper OR r.rolbypassrls",
    );
    match wrong {
        None => Check::ok("roles", "all four group roles exist"),
        Some(wrong) => Check::error(
            "roles",
            wrong,
            "Create missing roles with NOLOGIN and grant them what sql/ grants; ALTER ROLE ... NOSUPERUSER NOBYPASSRLS.",
        ),
    }
}

pub fn row_security() -> Check {
    let open = read_text(
        "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c \
         WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity",
    );
    match open {
        None => Check::ok("row_security", "enabled for every table"),
        Some(tables) => {
            Check::error("row_security", format!("disabled for {tables}"), "ALTER TABLE ... ENABLE ROW LEVEL SECURITY;")
        }
    }
}

pub fn dump_marking() -> Check {
    let unmarked = read_text(
        "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_extension e \
         JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' \
             AND d.classid = 'pg_class'::regclass \
         JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'S') \
         WHERE e.extname = 'skill_system' AND NOT c.oid = ANY (coalesce(e.extconfig, '{}'))",
    );
    match unmarked {
        None => Check::ok("dump_marking", "pg_dump saves every table and sequence"),
        Some(tables) => Check::error(
            "dump_marking",
            format!("pg_dump does not save {tables}"),
            "Move tables that were created by hand to another schema. CREATE EXTENSION marks the extension's own.",
        ),
    }
}
