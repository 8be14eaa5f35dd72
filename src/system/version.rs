//! Versions of library, catalogue and server.

use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use crate::module::Check;

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The version of pgrx, which the manifest pins.
fn pgrx_version() -> &'static str {
    let manifest = include_str!("../../Cargo.toml");
    manifest
        .split_once("pgrx = { version = \"=")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("unknown", |(version, _)| version)
}

fn catalogue_version() -> String {
    const SQL: &str = "SELECT extversion FROM pg_extension WHERE extname = 'skill_system'";
    spi::one(SQL, As::Caller, See::Statement, &[])
}

/// What to do when library and catalogue differ; `None` when they do not.
fn version_advice(catalogue: &str) -> Option<String> {
    (catalogue != LIBRARY).then(|| {
        format!(
            "library {LIBRARY}, catalogue {catalogue}: run ALTER EXTENSION skill_system UPDATE, or connect again if the \
             library was replaced while this session was open"
        )
    })
}

pg_function!(version_info);
fn version_info(call: &Call) -> Answer {
    let catalogue = catalogue_version();
    let advice = version_advice(&catalogue).unwrap_or_else(|| "nothing to do".to_owned());
    let server: String = spi::one("SELECT current_setting('server_version')", As::Caller, See::Statement, &[]);
    let mut rows = call.row_set();
    rows.push(&[arg(LIBRARY), arg(catalogue), arg(server), arg(pgrx_version()), arg(advice)]);
    Ok(rows.finish())
}

pub fn check() -> Check {
    match version_advice(&catalogue_version()) {
        None => Check::ok(format!("library and catalogue are {LIBRARY}")),
        Some(advice) => Check::error(advice, "ALTER EXTENSION skill_system UPDATE;"),
    }
}
