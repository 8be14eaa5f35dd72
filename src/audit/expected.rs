//! What the install script created, compared with the catalogue: objects, rights, row security. For `health()`, and for
//! `repair()`, which brings back what it can.

use serde_json::json;
use skill_core::audit::shipped;
use skill_pg::spi::{self, As, See};
use skill_pg::{Arg, arg};

use super::protection::SCRIPTS;
use super::{structure, tables};
use crate::module::Check;

const REPAIR: &str = "As a superuser: SELECT * FROM skill_system.repair();";

/// The rights that the script grants, as a parameter.
pub fn grants() -> Arg<'static> {
    let all: Vec<_> = SCRIPTS.iter().flat_map(|script| shipped::grants(script)).collect();
    arg(json!(all))
}

/// What is wrong with the group roles, and what to run against it.
pub const ROLES: &str = include_str!("repair_roles.sql");

/// The group roles exist and have no rights that the extension did not give them.
pub fn roles() -> Check {
    let found: Vec<(String, String)> = spi::collect(ROLES, As::Caller, See::Statement, &[]);
    if found.is_empty() {
        return Check::ok("all four group roles exist, and have no attributes or rights of other roles");
    }
    let wrong: Vec<String> = found.into_iter().map(|(what, _)| what).collect();
    Check::error(wrong.join("; "), REPAIR)
}

/// Everything that the script created is as it created it.
pub fn objects() -> Check {
    const SQL: &str = include_str!("expected_objects.sql");
    let mut wrong = structure::problems();
    wrong.extend(spi::collect::<String>(SQL, As::Caller, See::Statement, &[]));
    let late = structure::late_sequences().into_iter();
    wrong.extend(late.map(|(sequence, _)| format!("{sequence} would give numbers that rows have")));
    if wrong.is_empty() {
        return Check::ok("all objects are as the extension created them");
    }
    let more = wrong.len().saturating_sub(MAX_LISTED);
    wrong.truncate(MAX_LISTED);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    Check::error(
        wrong.join("; ") + &rest,
        "As a superuser: SELECT * FROM skill_system.repair(); creates what is missing, and drops triggers, rules and \
         constraints that do not belong there. It touches no rows: restore dropped tables and columns from a backup, and \
         drop columns and tables that were added, or move them to another schema.",
    )
}

/// Differences that one row of `health()` lists.
const MAX_LISTED: usize = 40;

/// The rights that differ, as `object`, `column`, `privilege`, `role`, `is_missing` and what to run.
pub const PRIVILEGES: &str = include_str!("expected_privileges.sql");

/// Nobody lacks a right of the script, and nobody has more.
pub fn privileges() -> Check {
    let mut found: Vec<(String, bool, String)> = spi::collect(PRIVILEGES, As::Caller, See::Statement, &[grants()]);
    let owners: Vec<(String, String)> = spi::collect(tables::OWNER_GRANTS, As::Caller, See::Statement, &[]);
    found.extend(owners.into_iter().map(|(what, grant)| (what, true, grant)));
    let name = |missing: bool| {
        let which: Vec<&str> =
            found.iter().filter(|(_, is, _)| *is == missing).map(|(what, ..)| what.as_str()).collect();
        let more = which.len().saturating_sub(5);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!which.is_empty()).then(|| {
            let verb = if missing { "missing" } else { "not granted by the extension" };
            format!("{verb}: {}{rest}", which[..which.len().min(5)].join(", "))
        })
    };
    let wrong: Vec<String> = name(true).into_iter().chain(name(false)).collect();
    if wrong.is_empty() {
        return Check::ok("as the extension grants them");
    }
    Check::error(wrong.join("; "), REPAIR)
}

/// What is wrong with row security, and what to run against it.
pub const ROW_SECURITY: &str = include_str!("expected_row_security.sql");

/// Row security is on, and its policies are the extension's.
pub fn row_security() -> Check {
    let found: Vec<(String, Option<String>)> = spi::collect(ROW_SECURITY, As::Caller, See::Statement, &[]);
    if found.is_empty() {
        return Check::ok("on for every table, with the policies of the extension");
    }
    let wrong: Vec<String> = found.into_iter().map(|(what, _)| what).collect();
    Check::error(wrong.join("; "), REPAIR)
}
