//! `skill_system`: policy, run log and signed audit trail for AI agents, inside PostgreSQL.
//!
//! This is the face towards the server: thin functions, one file per room. What
//! needs no server is in `core/`, what SQL says best is in `sql/`, and everything
//! that touches its memory is in `src/pg/`.

mod args;
mod audit;
mod compliance;
mod ledger;
mod pg;
mod policy;
mod runs;
mod skills;
mod system;

pgrx::pg_module_magic!(name, version);

/// Called by the server when it loads the library.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::error::register();
    pg::guc::register();
    pg::cache::register();
    pg::utility::register();
    pg::worker::register();
}
