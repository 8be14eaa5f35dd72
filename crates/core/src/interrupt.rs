//! Lets a waiting caller cancel a long loop: the server's check for interrupts, which this crate does not know.

use std::sync::OnceLock;

static CHECK: OnceLock<fn()> = OnceLock::new();

/// Installs the check, which unwinds to end the work.
pub fn install(check: fn()) {
    let _ = CHECK.set(check);
}

/// To be called in every loop over untrusted input that may run long, at bounded intervals. Does nothing outside of the server.
#[inline]
pub fn check() {
    if let Some(check) = CHECK.get() {
        check();
    }
}

/// The same items, with a check at each: for loops that an iterator runs.
pub fn each<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().inspect(|_| check())
}
