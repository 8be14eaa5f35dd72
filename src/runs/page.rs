//! A run as a page.

use serde_json::Value;
use skill_core::runs::{RunError, page};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use super::required_id;

/// Denials have no number of a run: those are shown that the run's policy gave while the run went on.
fn denials(run: &Value) -> Option<Vec<Value>> {
    const MAY_READ: &str = "SELECT has_table_privilege('skill_system.audit_logs', 'SELECT')";
    if !spi::one::<bool>(MAY_READ, As::Caller, See::Statement, &[]) {
        return None;
    }
    let (Some(policy), Some(begin)) = (run["policy"].as_str(), run["begin"].as_f64()) else { return Some(Vec::new()) };
    let end = run["end"].as_f64().or(run["now"].as_f64()).unwrap_or(begin);
    let args = [arg(policy), arg(begin), arg(end), arg(page::MAX_ROWS)];
    Some(spi::collect(include_str!("page_denials.sql"), As::Caller, See::Statement, &args))
}

pg_function!(run_page);
fn run_page(call: &Call) -> Answer {
    let run_id = required_id(call.arguments())?;
    let found = spi::first(include_str!("page.sql"), As::Caller, See::Statement, &[arg(run_id), arg(page::MAX_ROWS)]);
    let mut run: Value = found.ok_or(RunError::Unknown { run_id })?;
    run["denials"] = denials(&run).into();
    let html = page::render(run)?;
    Ok(call.answer(&html))
}
