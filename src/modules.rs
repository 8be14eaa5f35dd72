//! The one list of modules, and what each registers.

use skill_core::Fault;
use skill_pg::cached::Change;
use skill_pg::xact::End;

use crate::{audit, compliance, ledger, policy, runs, skills, system};

/// What a module registers.
pub struct Module {
    /// Its name on every layer: `src/NAME`, `sql/NAME`, `tests/NAME`.
    pub name: &'static str,
    /// Called once when the library is loaded: settings, hooks, workers.
    pub load: fn(),
    /// Caches to invalidate: see `skill_pg::cached`.
    pub caches: &'static [fn(Change)],
    /// Called at the ends of transactions and subtransactions, in the order of the modules.
    pub transaction_ends: &'static [fn(End)],
    /// Rows of `health()`.
    pub health: &'static [fn() -> Check],
    /// Rows of `maintain()`, in the order of the modules.
    pub maintenance: &'static [MaintenanceTask],
}

/// Does some maintenance and reports it.
pub type MaintenanceTask = fn(&Batch) -> Result<Task, Fault>;

impl Module {
    /// A module that registers nothing.
    pub const fn new(name: &'static str) -> Self {
        Module { name, load: || (), caches: &[], transaction_ends: &[], health: &[], maintenance: &[] }
    }
}

/// All modules. The ledger is last, so that maintenance seals what the others record.
pub const ALL: &[Module] =
    &[system::MODULE, audit::MODULE, policy::MODULE, runs::MODULE, compliance::MODULE, skills::MODULE, ledger::MODULE];

/// One row of `health()`.
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub detail: String,
    pub hint: Option<&'static str>,
}

/// How serious the finding of a check is.
pub enum Status {
    Ok,
    Warning,
    Error,
}

impl Status {
    pub fn as_str(&self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Error => "error",
        }
    }
}

impl Check {
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Check { name, status: Status::Ok, detail: detail.into(), hint: None }
    }

    pub fn warning(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Check { name, status: Status::Warning, detail: detail.into(), hint: Some(hint) }
    }

    pub fn error(name: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Check { name, status: Status::Error, detail: detail.into(), hint: Some(hint) }
    }
}

/// How much one call of `maintain()` may do.
pub struct Batch {
    /// Largest number of rows to delete.
    pub rows: i32,
}

/// One row of `maintain()`.
pub struct Task {
    pub name: &'static str,
    pub affected: i64,
    pub detail: String,
}
