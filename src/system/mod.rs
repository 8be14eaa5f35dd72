//! What belongs to no room: the tenant, versions, health.

use skill_pg::{Answer, Call, Uuid, arg, pg_function, sys};
use skill_pg::spi::{self, As, See};
use crate::{settings, compat};
use pgrx::iter::TableIterator;

use crate::audit::{self, protection};
use crate::{ledger, skills};

pg_function!(current_tenant);
fn current_tenant(call: &Call) -> Answer {
    Ok(settings::tenant_datum().unwrap_or_else(|| call.null()))
}

pg_function!(uuid_v7);
fn uuid_v7(call: &Call) -> Answer {
    Ok(Uuid::from_bytes(arg(sys::new_uuid_v7())).unwrap_or_else(|| call.null()))
}

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The pgrx this was built with: it is pinned, so the manifest says it.
fn pgrx_version() -> &'static str {
    let manifest = include_str!("../../Cargo.toml");
    manifest
        .split_once("pgrx = { version = \"=")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("unknown", |(version, _)| version)
}

fn catalogue_version() -> String {
    spi::one("SELECT extversion FROM pg_extension WHERE extname = 'skill_system'", As::Caller, See::Statement, &[])
        .unwrap_or_default()
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

#[pg_extern(sql = false)]
fn version_info() -> TableIterator<
    'static,
    (
        name!(library, String),
        name!(catalogue, String),
        name!(server, String),
        name!(pgrx, String),
        name!(advice, String),
    ),
> {
    let catalogue = catalogue_version();
    let advice = version_advice(&catalogue).unwrap_or_else(|| "nothing to do".to_owned());
    let server = spi::one("SELECT current_setting('server_version')", As::Caller, See::Statement, &[]).unwrap_or_default();
    TableIterator::once((LIBRARY.to_owned(), catalogue, server, pgrx_version().to_owned(), advice))
}

/// One row of `health()`.
type Check = (&'static str, &'static str, String, Option<&'static str>);

#[pg_extern(sql = false)]
fn health() -> TableIterator<
    'static,
    (name!(check, String), name!(status, String), name!(detail, String), name!(hint, Option<String>)),
> {
    let checks = [
        versions(),
        keyring(),
        roles(),
        audit_protection(),
        utility_guard(),
        audit_partitions(),
        audit_seal(),
        sealer(),
        row_security(),
        dump_marking(),
        stuck_runs(),
        skills_integrity(),
    ];
    TableIterator::new(
        checks.into_iter().map(|(check, status, detail, hint)| {
            (check.to_owned(), status.to_owned(), detail, hint.map(str::to_owned))
        }),
    )
}

fn versions() -> Check {
    match version_advice(&catalogue_version()) {
        None => ("versions", "ok", format!("library and catalogue are {LIBRARY}"), None),
        Some(advice) => ("versions", "error", advice, Some("ALTER EXTENSION skill_system UPDATE;")),
    }
}

fn keyring() -> Check {
    if !keys::exists() && !audit::has_identity() {
        return ("keyring", "ok", "none yet: it is made with the first record".into(), None);
    }
    match keys::keyring() {
        Ok(ring) => match ledger::key_warning(&ring) {
            Some(warning) => (
                "keyring",
                "warning",
                warning,
                Some(
                    "SELECT skill_system.rotate_audit_key(); announces it, unless somebody put it there who should not.",
                ),
            ),
            None => (
                "keyring",
                "ok",
                format!("{} key(s), {} signs; readable by the server's user only", ring.len(), ring.active().id),
                None,
            ),
        },
        // The detail may name the file, which is for those who may see the setting anyway.
        Err(fault) => (
            "keyring",
            "error",
            fault.message,
            Some("Until it is mended nothing can be signed: see the settings keyring_file and keyring_command."),
        ),
    }
}

fn roles() -> Check {
    let mut wrong: Vec<String> = Vec::new();
    compat::run(
        "SELECT wanted || CASE WHEN r.rolname IS NULL THEN ' is missing' WHEN r.rolsuper THEN ' is superuser' ELSE ' bypasses row security' END \
         FROM unnest(ARRAY['skill_system_agent', 'skill_system_reviewer', 'skill_system_auditor', 'skill_system_admin']) AS wanted \
         LEFT JOIN pg_roles r ON r.rolname = wanted WHERE r.rolname IS NULL OR r.rolsuper OR r.rolbypassrls",
        As::Caller, See::Statement,
        &[],
        |row| wrong.extend(row.get::<Option<String>>(1)),
    );
    match wrong[..] {
        [] => ("roles", "ok", "the four group roles are there".into(), None),
        _ => (
            "roles",
            "error",
            wrong.join(", "),
            Some("CREATE ROLE ... NOLOGIN what is missing and grant as sql/ does; take away SUPERUSER and BYPASSRLS."),
        ),
    }
}

fn audit_protection() -> Check {
    let missing = protection::problems();
    if missing.is_empty() {
        return ("audit_protection", "ok", "audit tables and functions are as the extension ships them".into(), None);
    }
    let detail = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    (
        "audit_protection",
        "error",
        detail,
        Some(
            "SELECT * FROM skill_system.verify_audit() names the tables; a superuser mends them with skill_system.allow_unprotected on.",
        ),
    )
}

fn utility_guard() -> Check {
    match (utility::installed(), settings::allow_unprotected()) {
        (true, false) => ("utility_guard", "ok", "statements that take away protection are refused".into(), None),
        (true, true) => (
            "utility_guard",
            "warning",
            "skill_system.allow_unprotected is on for this session".into(),
            Some("RESET skill_system.allow_unprotected;"),
        ),
        (false, _) => (
            "utility_guard",
            "warning",
            "statements that take away protection are reported afterwards, not refused".into(),
            Some("Add skill_system to shared_preload_libraries and restart the server."),
        ),
    }
}

fn audit_partitions() -> Check {
    let ahead = spi::one::<bool>(
        "SELECT to_regclass('skill_system.audit_logs_' || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')) IS NOT NULL",
        As::Caller, See::Statement,
        &[],
    );
    if ahead == Some(true) {
        ("audit_partitions", "ok", "next month has its partition".into(), None)
    } else {
        (
            "audit_partitions",
            "warning",
            "next month has no partition, so its records would go to audit_logs_default".into(),
            Some("Call SELECT * FROM skill_system.maintain() once a day, for example with pg_cron."),
        )
    }
}

fn audit_seal() -> Check {
    match ledger::backlog() {
        Ok(None) => ("audit_seal", "ok", "no record has been waiting for long".into(), None),
        Ok(Some(why)) => (
            "audit_seal",
            "warning",
            why,
            Some("SELECT * FROM skill_system.seal_audit(); says more. Preload the library, or call maintain() often."),
        ),
        Err(fault) => {
            ("audit_seal", "error", fault.message, fault.hint.map(|_| "SELECT * FROM skill_system.verify_audit();"))
        }
    }
}

fn row_security() -> Check {
    let open: Option<String> = spi::one(
        "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_class c \
         WHERE c.relnamespace = 'skill_system'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity",
        As::Caller, See::Statement,
        &[],
    );
    match open {
        None => ("row_security", "ok", "every table separates the tenants".into(), None),
        Some(tables) => {
            ("row_security", "error", format!("off for {tables}"), Some("ALTER TABLE ... ENABLE ROW LEVEL SECURITY;"))
        }
    }
}

fn dump_marking() -> Check {
    let unmarked: Option<String> = spi::one(
        "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM pg_extension e \
         JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass \
         JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'S') \
         WHERE e.extname = 'skill_system' AND NOT c.oid = ANY (coalesce(e.extconfig, '{}'))",
        As::Caller, See::Statement,
        &[],
    );
    match unmarked {
        None => ("dump_marking", "ok", "pg_dump saves every table and sequence".into(), None),
        Some(tables) => (
            "dump_marking",
            "error",
            format!("pg_dump would leave out {tables}"),
            Some("DROP and CREATE EXTENSION mark them; tables added by hand belong into another schema."),
        ),
    }
}

fn stuck_runs() -> Check {
    match spi::one::<i64>("SELECT count(*) FROM skill_system.stuck_runs", As::Caller, See::Statement, &[]) {
        Some(0) | None => ("stuck_runs", "ok", "no unfinished run is silent".into(), None),
        Some(n) => (
            "stuck_runs",
            "warning",
            format!("{n} run(s) unfinished and silent for longer than skill_system.stuck_after"),
            Some("SELECT * FROM skill_system.stuck_runs; end them with finish_run()."),
        ),
    }
}

fn skills_integrity() -> Check {
    match skills::health() {
        ("ok", detail) => ("skills_integrity", "ok", detail, None),
        (status, detail) => ("skills_integrity", status, detail, Some("SELECT * FROM skill_system.check_integrity();")),
    }
}

fn sealer() -> Check {
    match worker::status() {
        worker::Status::NotPreloaded => {
            ("sealer", "ok", "not preloaded: seal_audit() and maintain() seal when they are called".into(), None)
        }
        worker::Status::Running(pid, None) => (
            "sealer",
            "ok",
            format!("process {pid} seals this database every {} ms", settings::seal_interval_millis()),
            None,
        ),
        worker::Status::Running(pid, Some(error)) => (
            "sealer",
            "error",
            format!("process {pid} cannot seal: {error}"),
            Some("The server's log has the details; it goes on trying, at most a minute apart."),
        ),
        worker::Status::Missing if sys::in_recovery() => {
            ("sealer", "ok", "a standby verifies; the sealer starts after promotion".into(), None)
        }
        worker::Status::Missing if !audit::has_identity() => {
            ("sealer", "ok", "starts with the first record".into(), None)
        }
        worker::Status::Missing => (
            "sealer",
            "error",
            "no process seals this database".into(),
            Some(
                "It starts within seconds, unless this is a template database or no background worker is free: see max_worker_processes and the server's log.",
            ),
        ),
    }
}
