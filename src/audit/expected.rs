//! What the install script created, compared with the catalogue: objects, rights, row security. For `health()`, and for
//! `repair()`, which brings back what it can.

use serde_json::json;
use skill_core::audit::shipped;
use skill_pg::spi::{self, As, See};
use skill_pg::{Arg, arg};

use super::protection::SCRIPTS;
use crate::module::Check;

const REPAIR: &str = "As a superuser: SELECT * FROM skill_system.repair();";

/// The rights that the script grants, as a parameter.
pub fn grants() -> Arg<'static> {
    let all: Vec<_> = SCRIPTS.iter().flat_map(|script| shipped::grants(script)).collect();
    arg(json!(all))
}

/// Kind and name of each relation that the script creates: `table`, `view` or `index`.
fn relations() -> Arg<'static> {
    let statements = SCRIPTS.iter().flat_map(|script| shipped::statements(script, false));
    let all: Vec<_> = statements.filter_map(|statement| relation(&statement)).collect();
    arg(json!(all))
}

fn relation(statement: &str) -> Option<[String; 2]> {
    let rest = statement.strip_prefix("CREATE ")?;
    let (kind, name) = match rest.split_once(' ')? {
        ("TABLE", rest) => ("table", rest.strip_prefix("skill_system.")?),
        ("VIEW", rest) => ("view", rest.strip_prefix("skill_system.")?),
        ("INDEX", rest) => ("index", rest),
        ("UNIQUE", rest) => ("index", rest.strip_prefix("INDEX ")?),
        _ => return None,
    };
    Some([kind.to_owned(), name.split([' ', '(']).next()?.to_owned()])
}

fn listed(sql: &'static str, args: &[Arg]) -> Option<String> {
    spi::one::<String>(sql, As::Caller, See::Statement, args)
}

/// Tables, views and indexes exist.
pub fn objects() -> Check {
    let wrong = listed(include_str!("expected_objects.sql"), &[relations()]);
    match wrong {
        None => Check::ok("all tables, views, indexes and triggers exist"),
        Some(wrong) => Check::error(
            wrong,
            "As a superuser: SELECT * FROM skill_system.repair(); creates views, indexes and triggers again. Rename a renamed \
             table back; restore a dropped one from a backup.",
        ),
    }
}

/// The rights that differ, as `object`, `column`, `privilege`, `role`, `is_missing` and what to run.
pub const PRIVILEGES: &str = include_str!("expected_privileges.sql");

/// Nobody lacks a right of the script, and nobody has more.
pub fn privileges() -> Check {
    let found: Vec<(String, bool, String)> = spi::collect(PRIVILEGES, As::Caller, See::Statement, &[grants()]);
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
