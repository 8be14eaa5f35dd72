//! Settings beyond pgrx's API: values set before the library declared them, and values that users cannot change back.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The value that the session has before the library declares the setting. Any user can set one.
pub fn early_value(name: &CStr) -> Option<CString> {
    // SAFETY: a NUL-terminated constant; the answer is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        if value.is_null() { None } else { Some(CStr::from_ptr(value).to_owned()) }
    }
}

/// A setting in the connection options, read before the library declares it.
pub struct ConnectionOption {
    /// Its name, as the options spell it.
    pub name: String,
    /// The role that connected is a superuser or has been granted SET on it.
    pub may_set: bool,
}

/// The settings with this prefix that the connection options of the session set, to any value. They have replaced what
/// ALTER ROLE, ALTER DATABASE and the configuration file set, also as the value that RESET restores.
pub fn connection_options(prefix: &str) -> Vec<ConnectionOption> {
    let mut found = Vec::new();
    // SAFETY: the server's array of settings, whose names are NUL-terminated; nothing in the loop changes it. Connection
    // options exist inside of sessions only, which load libraries in a transaction.
    unsafe {
        for setting in all() {
            let setting = &*setting;
            let name = CStr::from_ptr(setting.name);
            let has_prefix =
                name.to_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
            if has_prefix && setting.reset_source == pg_sys::GucSource::PGC_S_CLIENT {
                let right = pg_sys::pg_parameter_aclcheck(
                    setting.name,
                    setting.reset_srole,
                    pg_sys::ACL_SET as pg_sys::AclMode,
                );
                found.push(ConnectionOption {
                    name: name.to_string_lossy().into_owned(),
                    may_set: right == pg_sys::AclResult::ACLCHECK_OK,
                });
            }
        }
    }
    found
}

/// All settings of this process.
fn all() -> Vec<*mut pg_sys::config_generic> {
    // SAFETY: the server's array of as many pointers as it says; only the pointers are copied.
    unsafe {
        #[cfg(feature = "pg15")]
        let (variables, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (variables, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        std::slice::from_raw_parts(variables, count as usize).to_vec()
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
