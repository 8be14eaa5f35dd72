//! Datums as the server keeps them: only this crate sees them.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

use super::error::OrRaise;
use super::memory;

/// Name of a type, as SQL writes it.
pub(crate) fn type_name(oid: Oid) -> String {
    // SAFETY: a palloc'd, NUL-terminated name, copied at once; an unknown type has the name ???.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(oid)).to_string_lossy().into_owned() }
}

/// Types with the representation of text.
pub(crate) fn is_text(oid: Oid) -> bool {
    matches!(oid, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID)
}

/// How the server stores values of a type.
pub(crate) struct Layout {
    pub(crate) length: i16,
    pub(crate) by_value: bool,
    pub(crate) align: u8,
}

impl Layout {
    pub(crate) fn of(oid: Oid) -> Layout {
        // What decisions return; fixed in pg_type.dat.
        if matches!(oid, pg_sys::TEXTOID | pg_sys::BYTEAOID) {
            return Layout { length: -1, by_value: false, align: b'i' };
        }
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: a catalogue look-up inside a transaction; raises for an unknown type.
        unsafe { pg_sys::get_typlenbyvalalign(oid, &mut length, &mut by_value, &mut align) };
        Layout { length, by_value, align: align as u8 }
    }
}

/// Runs `body` with `memory` as the current memory context.
///
/// # Safety
/// `memory` is a valid memory context.
pub(crate) unsafe fn in_memory<T>(memory: pg_sys::MemoryContext, body: impl FnOnce() -> T) -> T {
    // SAFETY: the caller's. An error leaves by unwinding, and the server sets the context where it catches it.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let result = body();
        pg_sys::MemoryContextSwitchTo(before);
        result
    }
}

/// Bytes of a varlena behind its header, without reading what is compressed or stored elsewhere.
///
/// # Safety
/// `datum` is a varlena, not NULL.
pub(crate) unsafe fn raw_size(datum: pg_sys::Datum) -> usize {
    // SAFETY: the caller's.
    unsafe {
        let varlena = datum.cast_mut_ptr();
        match is_stored_apart(varlena) {
            true => pg_sys::toast_raw_datum_size(datum).saturating_sub(pg_sys::VARHDRSZ),
            false => pgrx::varsize_any_exhdr(varlena),
        }
    }
}

/// The varlena is compressed or stored elsewhere. Most are neither, which is cheaper to see here than to ask the server.
///
/// # Safety
/// A varlena.
unsafe fn is_stored_apart(varlena: *const pg_sys::varlena) -> bool {
    // SAFETY: the caller's.
    unsafe { pgrx::varatt_is_4b_c(varlena) || pgrx::varatt_is_1b_e(varlena) }
}

/// The bytes of a varlena behind its header; a copy in `context` where it is compressed or stored elsewhere.
///
/// # Safety
/// `datum` is a varlena, not NULL, and lives, as `context` does, as long as `'a`.
pub(crate) unsafe fn detoasted<'a>(datum: pg_sys::Datum, context: pg_sys::MemoryContext) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe {
        let mut varlena = datum.cast_mut_ptr();
        if is_stored_apart(varlena) {
            varlena = in_memory(context, || pg_sys::pg_detoast_datum_packed(varlena));
        }
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast::<u8>(), pgrx::varsize_any_exhdr(varlena))
    }
}

/// As [`detoasted`], for bytes that may be copied. Raises 53200 when the memory for that cannot be had.
///
/// # Safety
/// As there.
pub(crate) unsafe fn varlena_bytes<'a>(datum: pg_sys::Datum, context: pg_sys::MemoryContext) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe {
        let bytes = detoasted(datum, context);
        memory::probe(bytes.len()).or_raise();
        bytes
    }
}

/// Two values of one type have the same bytes. `length` is the type's: -1 for a varlena, -2 for a C string.
///
/// # Safety
/// Both datums must be non-null and of a type with this length.
pub(crate) unsafe fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum, by_value: bool, length: i16) -> bool {
    // SAFETY: the caller's.
    let plain = |datum: pg_sys::Datum, n: usize| unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n) };
    // SAFETY: the caller's; copies are made in the current memory context and compared at once.
    unsafe {
        let memory = pg_sys::CurrentMemoryContext;
        match length {
            _ if by_value => a.value() == b.value(),
            -1 => detoasted(a, memory) == detoasted(b, memory),
            -2 => CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr()),
            n => plain(a, n as usize) == plain(b, n as usize),
        }
    }
}
