//! Places where a test can have the server killed, to see that a crash there loses nothing.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static FAULT_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Declares the setting; called once when the library is loaded.
pub fn register() {
    GucRegistry::define_string_guc(
        c"skill_system.fault_point",
        c"For tests: the step of sealing at which this process kills itself.",
        c"Empty, the default, outside of tests.",
        &FAULT_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
    );
}

/// Kills this process when the setting `skill_system.fault_point`, which is empty outside of tests, names this point.
pub fn reached(name: &str) {
    if FAULT_POINT.get().is_some_and(|point| point.to_bytes() == name.as_bytes()) {
        // SAFETY: as somebody else's kill -9 would.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}
