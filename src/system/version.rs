//! Versions of library, catalogue and server.

use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

use super::health::run;
use crate::module::{self, Check, Status};

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

/// The check of what the install script created, which a module above this one registers.
const OBJECTS: &str = "objects";

/// What to do when objects are missing or changed; `None` when they are not.
fn objects_advice() -> Option<String> {
    let mut checks = module::all().iter().flat_map(|module| module.health.iter().map(|check| (module.name, check)));
    let (module, (_, check)) = checks.find(|(_, (name, _))| *name == OBJECTS)?;
    // The same answer for each caller.
    let found = run(module, *check, true);
    matches!(found.status, Status::Error).then(|| {
        "objects of the extension are missing or changed: SELECT * FROM skill_system.health(); names them".to_owned()
    })
}

pg_function!(version_info);
fn version_info(call: &Call) -> Answer {
    let catalogue = catalogue_version();
    let advice = version_advice(&catalogue).or_else(objects_advice).unwrap_or_else(|| "nothing to do".to_owned());
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
