//! Places where a test can crash the server, to check that nothing is lost.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use super::sys;

static FAULT_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Declares the setting; called once when the library is loaded.
pub fn register() {
    GucRegistry::define_string_guc(
        c"skill_system.fault_point",
        c"Point at which this process kills itself. For tests only.",
        c"Empty, the default, disables it.",
        &FAULT_POINT,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
    );
}

/// Kills this process when the setting `skill_system.fault_point`, which is empty outside of tests, names this point.
pub fn reached(name: &str) {
    // A parallel worker commits transactions while it starts, with the leader's settings.
    if sys::is_parallel_worker() {
        return;
    }
    if FAULT_POINT.get().is_some_and(|point| point.to_bytes() == name.as_bytes()) {
        // SAFETY: the same as kill -9 from outside.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}
