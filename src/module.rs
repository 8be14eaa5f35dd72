//! A module as the rest of the extension sees it: what it registers.

use std::sync::OnceLock;

use skill_core::audit::{check_characters, reserved_prefix};
use skill_core::{Code, Fault};
use skill_pg::cached::Change;
use skill_pg::xact::Listener;

pub struct Module {
    /// Its name on every layer: `src/NAME`, `sql/NAME`, `tests/NAME`.
    pub name: &'static str,
    /// Event types of its audit records begin so; nobody else may write such records.
    pub event_types: &'static [&'static str],
    /// Called once when the library is loaded: settings, hooks, workers.
    pub load: fn(),
    /// Caches to invalidate: see `skill_pg::cached`.
    pub caches: &'static [fn(Change)],
    /// Called at the ends of transactions and subtransactions, in the order of the modules.
    pub transaction_ends: &'static [Listener],
    /// Rows of `health()`.
    pub health: &'static [(&'static str, HealthCheck)],
    /// Rows of `maintain()`, in the order of the modules.
    pub maintenance: &'static [(&'static str, MaintenanceTask)],
    /// Tables whose rows administrators maintain with INSERT, UPDATE and `delete_rows()`.
    pub maintained_tables: &'static [&'static str],
}

/// Looks whether something is in order.
pub type HealthCheck = fn() -> Check;
/// Does some maintenance and reports it.
pub type MaintenanceTask = fn(&Batch) -> Result<Task, Fault>;

impl Module {
    /// A module that registers nothing.
    pub const fn new(name: &'static str) -> Self {
        Module {
            name,
            event_types: &[],
            load: || (),
            caches: &[],
            transaction_ends: &[],
            health: &[],
            maintenance: &[],
            maintained_tables: &[],
        }
    }
}

/// One row of `health()`.
pub struct Check {
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
    pub fn ok(detail: impl Into<String>) -> Self {
        Check { status: Status::Ok, detail: detail.into(), hint: None }
    }

    pub fn warning(detail: impl Into<String>, hint: &'static str) -> Self {
        Check { status: Status::Warning, detail: detail.into(), hint: Some(hint) }
    }

    pub fn error(detail: impl Into<String>, hint: &'static str) -> Self {
        Check { status: Status::Error, detail: detail.into(), hint: Some(hint) }
    }
}

/// How much one call of `maintain()` may do.
pub struct Batch {
    /// Largest number of rows to delete.
    pub rows: i32,
}

/// One row of `maintain()`.
pub struct Task {
    pub affected: i64,
    pub detail: String,
}

static ALL: OnceLock<&'static [Module]> = OnceLock::new();

/// All modules, in the order of the list.
pub fn all() -> &'static [Module] {
    ALL.get().copied().unwrap_or_default()
}

/// Refuses an event type of a caller that a module reserves for its records, or that could be taken for one.
pub fn check_event_type(event_type: &str) -> Result<(), Fault> {
    let reserved = all().iter().flat_map(|module| module.event_types.iter().copied());
    match reserved_prefix(event_type, reserved) {
        None => check_characters(event_type),
        Some(prefix) => Err(Fault::new(
            Code::InsufficientPrivilege,
            format!("event types that begin with \"{prefix}\" are reserved for the extension's records"),
        )
        .detail("Such a record states what the extension itself did.")
        .hint("Choose another event_type.")),
    }
}

/// Registers every module; called once when the library is loaded.
pub fn register(list: &'static [Module]) {
    ALL.get_or_init(|| list);
    for module in list {
        (module.load)();
        skill_pg::cached::listen(module.caches);
        module.transaction_ends.iter().for_each(|listener| skill_pg::xact::listen(*listener));
    }
}
