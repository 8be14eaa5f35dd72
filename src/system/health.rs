//! `health()`: one row for each check that a module registers.

use skill_pg::spi::{self, As, See};
use skill_pg::xact::attempt;
use skill_pg::{Answer, Call, arg, pg_function, sys};

use crate::module::{self, Check, HealthCheck};

pg_function!(health);
fn health(call: &Call) -> Answer {
    let mut rows = call.row_set();
    // Who monitors the server may read none of the tables, and belongs to no tenant.
    let monitors = sys::has_rights_of(sys::PG_MONITOR);
    let checks =
        module::all().iter().flat_map(|module| module.health.iter().map(|(name, check)| (module.name, name, check)));
    for (module, name, check) in checks {
        let Check { status, detail, hint } = run(module, *check, monitors);
        rows.push(&[arg(*name), arg(status.as_str()), arg(detail), arg(hint)]);
    }
    Ok(rows.finish())
}

/// Runs a check of a module, with the owner's rights or the caller's. One that fails is an error, and never keeps the others away.
pub fn run(module: &str, check: HealthCheck, as_owner: bool) -> Check {
    let run = || spi::with_plain_text(|| if as_owner { spi::as_owner(check) } else { check() });
    attempt(|| Ok(run())).unwrap_or_else(|fault| {
        let hint = "SELECT * FROM skill_system.repair(); restores what can be restored.";
        Check::error(format!("the check of module {module} failed: {}", fault.message), hint)
    })
}

fn read_text(sql: &'static str) -> Option<String> {
    spi::one(sql, As::Caller, See::Statement, &[])
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
        None => Check::ok("pg_dump saves every table and sequence"),
        Some(tables) => Check::error(
            format!("pg_dump does not save {tables}"),
            "As a superuser: SELECT * FROM skill_system.repair(); it marks them.",
        ),
    }
}

/// A prepared transaction keeps its locks, over restarts too, until somebody ends it.
pub fn prepared_transactions() -> Check {
    let found = read_text(
        "SELECT string_agg(format('%s of role %s since %s', gid, owner, date_trunc('second', prepared)), ', ' ORDER BY prepared) \
         FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - interval '2 seconds'",
    );
    match found {
        None => Check::ok("none is open in this database"),
        Some(found) => Check::warning(
            format!("{found}: what it wrote is not sealed, and its locks stay"),
            "COMMIT PREPARED '...'; or ROLLBACK PREPARED '...';",
        ),
    }
}
