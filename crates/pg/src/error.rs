//! Conversion of `core`'s faults into errors of the server.

use std::cell::Cell;
use std::ffi::CString;
use std::ptr::NonNull;

use pgrx::PgSqlErrorCode as Sql;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgLogLevel, pg_sys};
use skill_core::{Code, Fault};

/// Keeps internals of the library out of messages: with RUST_BACKTRACE in the server's environment, pgrx would put a
/// backtrace into the DETAIL of errors. Lets long loops of the core be cancelled.
pub fn register() {
    // SAFETY: a backend has one thread.
    unsafe {
        std::env::remove_var("RUST_BACKTRACE");
        std::env::remove_var("RUST_LIB_BACKTRACE");
    }
    skill_core::interrupt::install(check_for_interrupts);
}

thread_local! {
    static FUNCTION: Cell<&'static str> = const { Cell::new("") };
}

/// Name of the exported function that runs, for messages.
pub(crate) fn current_function() -> &'static str {
    FUNCTION.get()
}

/// Names the function that runs from now on, and returns the one before it.
pub(crate) fn enter_function(name: &'static str) -> &'static str {
    FUNCTION.replace(name)
}

/// A text for the server; a NUL byte ends it.
pub fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// Exports the function `$body() -> Result<(), Fault>` as the one that the server calls when it loads the library.
#[macro_export]
macro_rules! pg_init {
    ($body:path) => {
        #[allow(missing_docs)]
        #[$crate::pgrx::pg_guard]
        pub extern "C-unwind" fn _PG_init() {
            $crate::error::init($body);
        }
    };
}

/// For the macro.
#[doc(hidden)]
pub fn init(body: fn() -> Result<(), Fault>) {
    body().or_raise();
}

/// Raises the fault as an ERROR, where the server takes no `Result`. Not for faults of class `SK`: pgrx's guard knows only
/// the server's own SQLSTATEs.
pub(crate) fn raise(fault: Fault) -> ! {
    report(fault, PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Sends the fault as a message of the given level.
pub fn report(fault: Fault, level: PgLogLevel) {
    let code = match fault.code {
        Code::InvalidParameterValue => Sql::ERRCODE_INVALID_PARAMETER_VALUE,
        Code::NotNullViolation => Sql::ERRCODE_NOT_NULL_VIOLATION,
        Code::UniqueViolation => Sql::ERRCODE_UNIQUE_VIOLATION,
        Code::ActiveTransaction => Sql::ERRCODE_ACTIVE_SQL_TRANSACTION,
        Code::ReadOnlyTransaction => Sql::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Code::SerializationFailure => Sql::ERRCODE_T_R_SERIALIZATION_FAILURE,
        Code::InsufficientPrivilege => Sql::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Code::UndefinedObject => Sql::ERRCODE_UNDEFINED_OBJECT,
        Code::OutOfMemory => Sql::ERRCODE_OUT_OF_MEMORY,
        Code::ConfigurationLimitExceeded => Sql::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        Code::ProgramLimitExceeded => Sql::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        Code::TriggerProtocolViolated => Sql::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        Code::NotInPrerequisiteState => Sql::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Code::LockNotAvailable => Sql::ERRCODE_LOCK_NOT_AVAILABLE,
        Code::ConfigFileError => Sql::ERRCODE_CONFIG_FILE_ERROR,
        Code::AssertFailure => Sql::ERRCODE_ASSERT_FAILURE,
        Code::ApprovalRejected | Code::SkillNotFound | Code::VersionNotFound | Code::SkillConflict => {
            Sql::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION
        }
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

pub fn notice(message: String) {
    send(Sql::ERRCODE_SUCCESSFUL_COMPLETION, message, None, None, PgLogLevel::NOTICE);
}

pub fn warning(message: String) {
    send(Sql::ERRCODE_WARNING, message, None, None, PgLogLevel::WARNING);
}

/// Sends a WARNING with detail and hint.
pub fn warning_with(message: String, detail: String, hint: &str) {
    send(Sql::ERRCODE_WARNING, message, Some(detail), Some(hint.to_owned()), PgLogLevel::WARNING);
}

/// Sends the fault as a WARNING.
pub fn report_warning(fault: Fault) {
    report(fault, PgLogLevel::WARNING);
}

thread_local! {
    static RETURNED: Cell<Option<NonNull<pg_sys::ErrorData>>> = const { Cell::new(None) };
}

/// Unwraps the result of a function's body inside pgrx's guard, which knows only the server's own SQLSTATEs: a fault of class
/// `SK` waits here for [`throw_returned`].
pub(crate) fn answer(answer: Result<pg_sys::Datum, Fault>) -> pg_sys::Datum {
    match answer {
        Ok(datum) => datum,
        Err(fault) if fault.code.is_own() => {
            RETURNED.set(Some(error_data(fault)));
            pg_sys::Datum::from(0)
        }
        Err(fault) => raise(fault),
    }
}

/// Raises what the body returned, if it is a fault of class `SK`.
///
/// # Safety
/// Outside of pgrx's guard, in a frame without destructors: an ERROR leaves it by longjmp.
#[allow(ffi_unwind_calls)] // The only intended place.
pub unsafe fn throw_returned() {
    unsafe extern "C-unwind" {
        fn ThrowErrorData(data: *mut pg_sys::ErrorData);
    }
    if let Some(data) = RETURNED.take() {
        // SAFETY: a complete structure; the server copies what it points to. Nothing is allocated here.
        unsafe { ThrowErrorData(data.as_ptr()) };
    }
}

/// The fault in the server's form, in the memory of the call; allocated inside of the guard, where running out of memory
/// is an ordinary error.
fn error_data(fault: Fault) -> NonNull<pg_sys::ErrorData> {
    // SAFETY: freshly allocated; a structure of zeros is an empty one.
    unsafe {
        let copy = |text: &str| pg_sys::pstrdup(c_string(text).as_ptr());
        let mut data =
            NonNull::new_unchecked(pg_sys::palloc0(size_of::<pg_sys::ErrorData>()).cast::<pg_sys::ErrorData>());
        let error = data.as_mut();
        error.elevel = PgLogLevel::ERROR as i32;
        // MAKE_SQLSTATE of elog.h
        error.sqlerrcode =
            fault.code.sqlstate().bytes().rev().fold(0, |code, byte| code << 6 | i32::from((byte - b'0') & 0x3f));
        error.assoc_context = pg_sys::CurrentMemoryContext;
        error.filename = c"skill_system".as_ptr();
        error.funcname = c"skill_system".as_ptr();
        error.message = copy(&fault.message);
        error.detail = fault.detail.map_or(std::ptr::null_mut(), |detail| copy(&detail));
        error.hint = fault.hint.map_or(std::ptr::null_mut(), |hint| copy(&hint));
        data
    }
}

/// `raise` for results.
pub(crate) trait OrRaise<T> {
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

/// Lets the user cancel a long loop.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Runs a wait for a lock; tells whether lock_timeout ended it. Then another error must follow: the transaction is not
/// cleaned up.
pub(crate) fn lock_timed_out(wait: impl FnOnce()) -> bool {
    pgrx::PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
        wait();
        false
    }))
    .catch_when(Sql::ERRCODE_LOCK_NOT_AVAILABLE, |caught| {
        // The extension's error, of a trigger, names the lock; the server's has no hint.
        if report_of(&caught).hint().is_some() {
            caught.rethrow();
        }
        true
    })
    .execute()
}

fn report_of(error: &CaughtError) -> &ErrorReportWithLevel {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    report
}

/// lock_timeout, or NOWAIT.
pub(crate) fn is_lock_timeout(error: &CaughtError) -> bool {
    report_of(error).sql_error_code() == Sql::ERRCODE_LOCK_NOT_AVAILABLE
}

/// An error that a subtransaction takes back, as a fault whose detail has the SQLSTATE. Cancellation and termination go on.
pub(crate) fn caught(error: CaughtError) -> Fault {
    let report = report_of(&error);
    let code = report.sql_error_code();
    if matches!(code, Sql::ERRCODE_QUERY_CANCELED | Sql::ERRCODE_ADMIN_SHUTDOWN | Sql::ERRCODE_CRASH_SHUTDOWN) {
        error.rethrow();
    }
    // UNPACK_SQL_STATE of elog.h
    let state: String = (0..5).map(|n| char::from((code as i32 >> (6 * n) & 0x3f) as u8 + b'0')).collect();
    let message = format!("{} ({state})", report.message());
    let fault = Fault::new(Code::Internal, message);
    match report.detail() {
        Some(detail) => fault.detail(detail),
        None => fault,
    }
}
