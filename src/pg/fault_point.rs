//! Places where a test can have the server killed, to see that a crash there loses nothing.

use super::guc;

/// Kills this process when the setting `skill_system.fault_point`, which is empty outside of tests, names this point.
pub fn reached(name: &str) {
    if guc::fault_point_is(name) {
        // SAFETY: as somebody else's kill -9 would.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}
