//! Settings beyond pgrx's API: values set before the library declared them, and values that users cannot change back.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The value set before the library was loaded. Any user can set one, for example in the connection options, and it takes
/// precedence over those of ALTER ROLE and ALTER DATABASE.
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

/// Reserves a prefix of settings for this library; called when all of its settings are declared.
pub fn reserve_prefix(prefix: &CStr) {
    // SAFETY: a NUL-terminated constant.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) };
}
