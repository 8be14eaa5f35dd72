//! What the background workers have in common: registration, signals, a session with fixed settings, and transactions
//! whose errors do not end the worker.

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

use skill_core::Fault;

use super::error::{self, OrRaise};
use super::sys;

/// The server's own signal handlers, which need addresses that pgrx's wrappers do not have.
mod handler {
    unsafe extern "C-unwind" {
        pub fn die(signal: std::ffi::c_int);
        pub fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
    }
}

#[cfg(not(feature = "pg18"))]
use pg_sys::pqsignal as set_handler;
#[cfg(feature = "pg18")]
use pg_sys::pqsignal_be as set_handler;

/// A worker of this library that runs `function`; `name` shows in ps, `kind` in pg_stat_activity.
pub fn worker(name: &str, kind: &str, function: &str) -> BackgroundWorkerBuilder {
    BackgroundWorkerBuilder::new(name)
        .set_type(kind)
        .set_library("skill_system")
        .set_function(function)
        .enable_spi_access()
}

/// Exports the function `$body(Argument)` as `$name`, the entry point of a worker.
#[macro_export]
macro_rules! pg_worker {
    ($name:ident, $body:path) => {
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        #[$crate::pgrx::pg_guard]
        pub extern "C-unwind" fn $name(argument: $crate::pg_sys::Datum) {
            let body: fn($crate::background::Argument) = $body;
            body($crate::background::Argument::new(argument));
        }
    };
}

/// What a worker was started with.
#[derive(Clone, Copy)]
pub struct Argument(pg_sys::Datum);

impl Argument {
    /// For the macro.
    #[doc(hidden)]
    pub fn new(argument: pg_sys::Datum) -> Self {
        Argument(argument)
    }

    pub fn as_usize(self) -> usize {
        self.0.value()
    }

    pub fn oid(self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.0.value() as u32)
    }
}

/// In a worker's transaction: from here on it writes for somebody who logged in elsewhere, with the rights of a role.
pub fn act_for(session_user: pg_sys::Oid, current_user: pg_sys::Oid) {
    sys::write_on_behalf_of(session_user);
    // SAFETY: the session is a superuser's; the end of the transaction restores the role.
    unsafe { pg_sys::SetUserIdAndSecContext(current_user, 0) };
}

/// First call of a worker: SIGTERM ends it like a session, also in the middle of a statement; SIGHUP reads the settings again.
pub fn begin() {
    // SAFETY: the handlers are those that the server uses for its sessions.
    unsafe {
        set_handler(libc::SIGTERM, Some(handler::die));
        set_handler(libc::SIGHUP, Some(handler::SignalHandlerForConfigReload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Connects to a database, or to none (shared catalogues only), as the bootstrap superuser. Settings of role and database
/// that could change what a worker does are overridden here, and no reload changes them back.
pub fn connect(database: Option<pg_sys::Oid>, name: &str) {
    // SAFETY: called once, after `begin`.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            database.unwrap_or(pg_sys::InvalidOid),
            pg_sys::InvalidOid,
            0,
        );
        // ALTER DATABASE can set both of these, too.
        pg_sys::SetSessionAuthorization(pg_sys::BOOTSTRAP_SUPERUSERID.into(), true);
        pg_sys::SetCurrentRoleId(pg_sys::InvalidOid, true);
    }
    for (setting, value) in [
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_deferrable", c"off"),
        (c"session_replication_role", c"origin"),
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        (c"transaction_timeout", c"0"),
    ] {
        set(setting, value);
    }
    set(c"application_name", &sys::c_string(name));
}

/// Sets a setting for the life of this worker.
pub fn set(setting: &CStr, value: &CStr) {
    // SAFETY: NUL-terminated; the session is a superuser's.
    unsafe {
        pg_sys::SetConfigOption(
            setting.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// An error that aborted a transaction.
pub struct Caught {
    code: PgSqlErrorCode,
    /// What went wrong, in one line.
    pub message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Caught {
    fn new(error: CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        Caught {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
        }
    }

    /// Writes it to the server's log.
    pub fn log(self, what: &str) {
        error::send(
            self.code,
            format!("{what}: {}", self.message),
            self.detail,
            self.hint,
            PgLogLevel::LOG_SERVER_ONLY,
        );
    }
}

/// A line for the server's log.
pub fn log(message: String, hint: Option<&str>) {
    error::send(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message,
        None,
        hint.map(str::to_owned),
        PgLogLevel::LOG_SERVER_ONLY,
    );
}

/// Runs `body` in a transaction, which is committed, or rolled back on an error.
pub fn transaction<T>(activity: &CStr, body: impl FnOnce() -> Result<T, Fault>) -> Result<T, Caught> {
    // SAFETY: the main loop of every worker of the server's; outside of a transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        let result = PgTryBuilder::new(AssertUnwindSafe(|| {
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let result = body().or_raise();
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            Ok(result)
        }))
        .catch_others(|error| Err(Caught::new(error)))
        .execute();
        if result.is_err() {
            // Cancellation also passes subtransactions, which would stay open.
            pg_sys::AbortOutOfAnyTransaction();
        }
        pg_sys::pgstat_report_stat(false);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}

/// Waits until the time is over (`None`: forever) or the latch is set. Between transactions only: a worker that is told
/// to stop exits here silently.
pub fn wait(time: Option<Duration>) {
    // SAFETY: the usual wait of a worker; its latch exists as long as the process.
    unsafe {
        let events =
            pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | if time.is_some() { pg_sys::WL_TIMEOUT } else { 0 };
        let millis = time.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        if pg_sys::ProcDiePending != 0 {
            // For the server, status 0 means not to restart the worker.
            let once = (*pg_sys::MyBgworkerEntry).bgw_restart_time == pg_sys::BGW_NEVER_RESTART;
            pg_sys::proc_exit(if once { 0 } else { 1 });
        }
        // No statement is running that could be cancelled.
        pg_sys::QueryCancelPending = 0;
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}
