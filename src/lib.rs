//! `skill_system`: policies, runs, skills, compliance and a signed audit trail for AI agents, inside PostgreSQL.
//!
//! Thin functions, one folder per module. Logic that needs no server is in `crates/core`, tables and views are in `sql/`,
//! and everything that touches the server's memory is in `crates/pg`.

mod args;
mod audit;
mod compliance;
mod ledger;
mod locks;
mod module;
mod modules;
mod policy;
mod runs;
mod settings;
mod skills;
mod system;
mod versioned;

pgrx::pg_module_magic!(name, version);

skill_pg::pg_init!(load);
/// Called by the server when it loads the library, and again after an error.
fn load() -> Result<(), skill_core::Fault> {
    settings::refuse_connection_options()?;
    skill_pg::register();
    settings::register();
    module::register(modules::ALL);
    Ok(())
}
