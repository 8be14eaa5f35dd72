//! Where the extension's objects are.

use pgrx::pg_sys;

/// The schema of this extension; `InvalidOid` when none exists.
pub fn schema() -> pg_sys::Oid {
    // SAFETY: a catalogue look-up inside a transaction; the schema of the extension cannot be renamed
    // (relocatable = false).
    unsafe { pg_sys::get_namespace_oid(c"skill_system".as_ptr(), true) }
}
