//! Faults of `core` become errors of the server.

use pgrx::PgSqlErrorCode as Sql;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::PgLogLevel;
use skill_core::{Code, Fault};

/// Keeps the inside of the library out of what clients see: with RUST_BACKTRACE in
/// the server's environment, pgrx would put a backtrace into the DETAIL of errors.
pub fn register() {
    // SAFETY: a backend has one thread.
    unsafe {
        std::env::remove_var("RUST_BACKTRACE");
        std::env::remove_var("RUST_LIB_BACKTRACE");
    }
}

/// Raises the fault as an ERROR.
pub fn raise(fault: Fault) -> ! {
    report(fault, PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Sends the fault as a message of the given level.
pub fn report(fault: Fault, level: PgLogLevel) {
    let code = match fault.code {
        Code::InvalidParameterValue => Sql::ERRCODE_INVALID_PARAMETER_VALUE,
        Code::UniqueViolation => Sql::ERRCODE_UNIQUE_VIOLATION,
        Code::ReadOnlyTransaction => Sql::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Code::SerializationFailure => Sql::ERRCODE_T_R_SERIALIZATION_FAILURE,
        Code::InsufficientPrivilege => Sql::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Code::UndefinedObject => Sql::ERRCODE_UNDEFINED_OBJECT,
        Code::ConfigurationLimitExceeded => Sql::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        Code::ProgramLimitExceeded => Sql::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Code::NotInPrerequisiteState => Sql::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Code::LockNotAvailable => Sql::ERRCODE_LOCK_NOT_AVAILABLE,
        Code::ConfigFileError => Sql::ERRCODE_CONFIG_FILE_ERROR,
        Code::AssertFailure => Sql::ERRCODE_ASSERT_FAILURE,
        Code::Internal => Sql::ERRCODE_INTERNAL_ERROR,
        Code::DataCorrupted => Sql::ERRCODE_DATA_CORRUPTED,
    };
    send(code, fault.message, fault.detail, fault.hint, level);
}

/// Sends a message of the given level.
pub fn send(code: Sql, message: String, detail: Option<String>, hint: Option<String>, level: PgLogLevel) {
    let mut report = ErrorReport::new(code, message, "skill_system");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(level);
}

/// Sends an INFO message, which reaches the client whatever its settings.
pub fn info(message: String) {
    send(Sql::ERRCODE_SUCCESSFUL_COMPLETION, message, None, None, PgLogLevel::INFO);
}

/// Sends a NOTICE.
pub fn notice(message: String) {
    send(Sql::ERRCODE_SUCCESSFUL_COMPLETION, message, None, None, PgLogLevel::NOTICE);
}

/// `raise` for results.
pub trait OrRaise<T> {
    /// The value, or the fault as an ERROR.
    fn or_raise(self) -> T;
}

impl<T, E: Into<Fault>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => raise(error.into()),
        }
    }
}

/// Lets a long loop be cancelled.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
