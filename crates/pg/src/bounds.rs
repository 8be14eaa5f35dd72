//! Values from outside against the bounds of what is accepted, before anything of them is copied.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::limits::{self, Bounds, check_size};
use skill_core::{Fault, jsonb};

use super::datum::{raw_size, varlena_bytes};
use super::value::{Date, Timestamptz};

/// A varlena that is out of bounds: `most` bytes, and what holds for JSON.
///
/// # Safety
/// `datum` is of type `oid`, a varlena, not NULL, and lives as long as `memory`, where a compressed jsonb is copied to.
pub(crate) unsafe fn check_varlena(
    datum: pg_sys::Datum,
    oid: Oid,
    most: usize,
    memory: pg_sys::MemoryContext,
) -> Result<(), Fault> {
    // SAFETY: the caller's.
    unsafe {
        let bytes = raw_size(datum);
        let is_jsonb = oid == pg_sys::JSONBOID;
        // The binary form of short numbers has four times the length of their text.
        check_size(|| "the value".to_owned(), bytes, if is_jsonb { 4 * most } else { most })?;
        if is_jsonb {
            jsonb::measure(varlena_bytes(datum, memory), Bounds::ARGUMENT.with_text(most))?;
        }
        Ok(())
    }
}

/// A timestamptz or date that is out of bounds.
pub(crate) fn check_time(what: &str, datum: pg_sys::Datum, oid: Oid) -> Result<(), Fault> {
    match oid {
        pg_sys::DATEOID => limits::check_day(what, Date(datum.value() as i32).unix_days()),
        _ => limits::check_time(what, Timestamptz(datum.value() as i64).unix_micros()).map(drop),
    }
}

/// A varlena as it lies in a row: perhaps compressed, perhaps only where to find it.
///
/// # Safety
/// `datum` is a varlena, not NULL, and lives as long as `'a`.
pub(crate) unsafe fn stored_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr(), pgrx::varsize_any(datum.cast_mut_ptr())) }
}
