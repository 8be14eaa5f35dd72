//! Settings beyond what pgrx offers: what was set before the library declared them, and values that nobody changes back.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// What somebody set before the library was loaded. Anybody can do that, at the latest in the options of the connection,
/// and it hides what ALTER ROLE or ALTER DATABASE said.
pub fn startup_value(name: &CStr) -> Option<CString> {
    // SAFETY: a NUL-terminated constant; the answer is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() { None } else { Some(CStr::from_ptr(value).to_owned()) }
    }
}

/// Sets a value that survives ROLLBACK and reaches parallel workers.
pub fn override_value(name: &CStr, value: &CStr) {
    // SAFETY: NUL-terminated constants.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Nobody else can declare settings that begin so; called when all are declared.
pub fn reserve_prefix(prefix: &CStr) {
    // SAFETY: a NUL-terminated constant.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
