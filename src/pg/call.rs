//! Functions on hot paths: arguments borrowed from the datums, one composite row back.
//!
//! Everything else is an ordinary `#[pg_extern]`; the SQL of both stands in `sql/`.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;
use skill_core::{Code, Fault};

/// Exports a version-1 function `$name` whose body is a safe function
/// `fn(&Call) -> Result<Datum, Fault>`.
#[macro_export]
macro_rules! pg_function {
    ($finfo:ident, $name:ident, $body:path) => {
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            const V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            #[pgrx::pg_guard]
            unsafe extern "C-unwind" fn guarded(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
                $crate::pg::error::answer($body(&$crate::pg::call::Call::new(fcinfo)))
            }
            // SAFETY: passed on as it came; the guard has returned, and nothing here needs to be dropped.
            unsafe {
                let datum = guarded(fcinfo);
                $crate::pg::error::throw_returned();
                datum
            }
        }
    };
}

/// One call of an exported function.
pub struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
}

/// What a body returns.
pub type Answer = Result<pg_sys::Datum, Fault>;

impl Call {
    /// Wraps what the function manager passed.
    pub fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Call { fcinfo }
    }

    /// The raw argument `n`, counted from 0; `None` is NULL.
    pub fn datum(&self, n: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the function manager passes nargs arguments; more are never asked for,
        // which the bound makes certain.
        unsafe {
            let info = &*self.fcinfo;
            if n >= info.nargs as usize {
                return None;
            }
            let argument = info.args.as_slice(info.nargs as usize)[n];
            (!argument.isnull).then_some(argument.value)
        }
    }

    /// A text argument, borrowed.
    pub fn text(&self, n: usize) -> Option<&str> {
        // SAFETY: declared as text in sql/; the bytes live as long as the call.
        self.datum(n).map(|datum| unsafe { text_of(datum) })
    }

    /// An argument of any type that pgrx can read.
    pub fn get<T: FromDatum>(&self, n: usize) -> Option<T> {
        // SAFETY: declared with T's type in sql/.
        self.datum(n).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    /// The bytes of a bytea argument, borrowed.
    pub fn bytes(&self, n: usize) -> Option<&[u8]> {
        // SAFETY: declared as bytea in sql/.
        self.datum(n).map(|datum| unsafe { varlena_bytes(datum) })
    }

    /// The bytes of a jsonb argument behind its header.
    pub fn jsonb(&self, n: usize) -> Option<&[u8]> {
        // SAFETY: declared as jsonb in sql/.
        self.datum(n).map(|datum| unsafe { varlena_bytes(datum) })
    }

    /// The elements of a text[] argument, borrowed; `None` elements are NULL.
    pub fn text_array(&self, n: usize) -> Option<Vec<Option<&str>>> {
        // SAFETY: declared as text[] in sql/.
        self.datum(n).map(|datum| unsafe { text_array_of(datum) })
    }

    /// The node that says how the function was called, a trigger for example.
    pub fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: set by the function manager, null for a plain call.
        unsafe { (*self.fcinfo).context }
    }

    /// The call site, which lives as long as the statement's expression or trigger.
    pub fn call_site(&self) -> *mut pg_sys::FmgrInfo {
        // SAFETY: always set by the function manager.
        unsafe { (*self.fcinfo).flinfo }
    }

    /// SQL NULL.
    pub fn null(&self) -> pg_sys::Datum {
        // SAFETY: the call structure is ours until we return.
        unsafe { (*self.fcinfo).isnull = true };
        pg_sys::Datum::from(0)
    }

    /// A row of the function's result type, a named composite type.
    pub fn row(&self, values: &mut [Option<pg_sys::Datum>]) -> pg_sys::Datum {
        // SAFETY: the descriptor belongs to the type; the number of values is checked against it.
        unsafe {
            let desc = result_descriptor((*(*self.fcinfo).flinfo).fn_oid);
            assert_eq!((*desc).natts as usize, values.len(), "result type of sql/ and code differ");
            let mut nulls = [false; 16];
            let mut datums = [pg_sys::Datum::from(0); 16];
            for (i, value) in values.iter().enumerate() {
                nulls[i] = value.is_none();
                datums[i] = value.unwrap_or(pg_sys::Datum::from(0));
            }
            let tuple = pg_sys::heap_form_tuple(desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

thread_local! {
    /// Result type and descriptor of the functions called in this session. A type's
    /// oid changes when the extension is made anew, and a prepared call is replanned then.
    static DESCRIPTORS: RefCell<Vec<(pg_sys::Oid, pg_sys::TupleDesc)>> = const { RefCell::new(Vec::new()) };
}

unsafe fn result_descriptor(function: pg_sys::Oid) -> pg_sys::TupleDesc {
    // SAFETY: catalogue look-ups; the copy is made where it lives as long as the session.
    unsafe {
        let result_type = pg_sys::get_func_rettype(function);
        if let Some(found) =
            DESCRIPTORS.with_borrow(|all| all.iter().find(|(oid, _)| *oid == result_type).map(|(_, desc)| *desc))
        {
            return found;
        }
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let desc = pg_sys::lookup_rowtype_tupdesc_copy(result_type, -1);
        pg_sys::MemoryContextSwitchTo(context);
        DESCRIPTORS.with_borrow_mut(|all| all.push((result_type, desc)));
        desc
    }
}

/// The result of a set-returning function; goes to disk when it outgrows work_mem.
pub struct RowSet {
    info: *mut pg_sys::ReturnSetInfo,
}

impl Call {
    /// Starts the result of a set-returning function.
    pub fn row_set(&self) -> RowSet {
        // SAFETY: the server checks that the caller takes a set, and fills resultinfo.
        unsafe {
            pg_sys::InitMaterializedSRF(self.fcinfo, 0);
            RowSet { info: (*self.fcinfo).resultinfo.cast() }
        }
    }

    /// The same for a function that returns a set of single values.
    pub fn value_set(&self) -> RowSet {
        // SAFETY: as above; the description of the row is the caller's.
        unsafe {
            pg_sys::InitMaterializedSRF(self.fcinfo, pg_sys::MAT_SRF_USE_EXPECTED_DESC);
            RowSet { info: (*self.fcinfo).resultinfo.cast() }
        }
    }
}

impl RowSet {
    /// Adds one row.
    pub fn push(&mut self, values: &mut [Option<pg_sys::Datum>]) {
        let (mut nulls, mut datums) = ([true; 32], [pg_sys::Datum::from(0); 32]);
        for (i, value) in values.iter().enumerate() {
            nulls[i] = value.is_none();
            datums[i] = value.unwrap_or(pg_sys::Datum::from(0));
        }
        // SAFETY: set up by `row_set`; the number of values is checked against the descriptor.
        unsafe {
            let info = &*self.info;
            assert_eq!((*info.setDesc).natts as usize, values.len(), "result type of sql/ and code differ");
            pg_sys::tuplestore_putvalues(info.setResult, info.setDesc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        }
    }
}

/// A text as a datum.
pub fn text_datum(text: &str) -> Option<pg_sys::Datum> {
    text.into_datum()
}

/// Bytes as a bytea datum.
pub fn bytea_datum(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: freshly allocated with room for the header and the bytes; an allocation too large raises.
    unsafe {
        let varlena = pg_sys::palloc(bytes.len() + pg_sys::VARHDRSZ).cast::<u8>();
        pgrx::set_varsize_4b(varlena.cast(), (bytes.len() + pg_sys::VARHDRSZ) as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), varlena.add(pg_sys::VARHDRSZ), bytes.len());
        pg_sys::Datum::from(varlena)
    }
}

/// The largest jsonb the server itself would make.
const MAX_JSONB_BYTES: usize = 0x0FFF_FFFF;

/// A binary jsonb, written by `core`, as a datum.
pub fn jsonb_datum(root: &[u8]) -> Result<pg_sys::Datum, Fault> {
    let length = root.len() + pg_sys::VARHDRSZ;
    if length > MAX_JSONB_BYTES {
        return Err(Fault::new(Code::ProgramLimitExceeded, "the jsonb value is too large"));
    }
    // SAFETY: freshly allocated with room for the header and the bytes.
    unsafe {
        let varlena = pg_sys::palloc(length).cast::<u8>();
        pgrx::set_varsize_4b(varlena.cast(), length as i32);
        std::ptr::copy_nonoverlapping(root.as_ptr(), varlena.add(pg_sys::VARHDRSZ), root.len());
        Ok(pg_sys::Datum::from(varlena))
    }
}

/// A list as a text[] datum.
pub fn text_array_datum(list: &[String]) -> Option<pg_sys::Datum> {
    let mut elements: Vec<pg_sys::Datum> = list.iter().filter_map(|text| text.as_str().into_datum()).collect();
    // SAFETY: text is passed by reference, of variable length and int-aligned.
    let array = unsafe {
        pg_sys::construct_array(elements.as_mut_ptr(), elements.len() as i32, pg_sys::TEXTOID, -1, false, b'i' as _)
    };
    Some(pg_sys::Datum::from(array))
}

/// Hashes as a bytea[] datum.
pub fn bytea_array_datum(list: &[[u8; 32]]) -> pg_sys::Datum {
    let mut elements: Vec<pg_sys::Datum> = list.iter().map(|bytes| bytea_datum(bytes)).collect();
    // SAFETY: bytea is passed by reference, of variable length and int-aligned.
    let array = unsafe {
        pg_sys::construct_array(elements.as_mut_ptr(), elements.len() as i32, pg_sys::BYTEAOID, -1, false, b'i' as _)
    };
    pg_sys::Datum::from(array)
}

/// The bytes of a varlena behind its header, detoasted where needed.
///
/// # Safety
/// `datum` must be a non-null varlena that lives as long as the result is used.
pub unsafe fn varlena_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    unsafe {
        let varlena = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast::<u8>(), pgrx::varsize_any_exhdr(varlena))
    }
}

/// Two values of one type have the same bytes. `length` is the type's: -1 for a
/// varlena, -2 for a C string.
///
/// # Safety
/// Both datums must be non-null and of a type with this length.
pub unsafe fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum, by_value: bool, length: i16) -> bool {
    let plain = |datum: pg_sys::Datum, n: usize| unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n) };
    unsafe {
        match length {
            _ if by_value => a.value() == b.value(),
            -1 => varlena_bytes(a) == varlena_bytes(b),
            -2 => CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr()),
            n => plain(a, n as usize) == plain(b, n as usize),
        }
    }
}

/// A text datum. The database's encoding is UTF-8 (the install script sees to it),
/// and the server has checked the bytes.
///
/// # Safety
/// As [`varlena_bytes`], and the datum must be of a text type.
pub unsafe fn text_of<'a>(datum: pg_sys::Datum) -> &'a str {
    unsafe { std::str::from_utf8(varlena_bytes(datum)).unwrap_or_default() }
}

/// The elements of a text[] datum.
///
/// # Safety
/// As [`varlena_bytes`], and the datum must be a text[].
pub unsafe fn text_array_of<'a>(datum: pg_sys::Datum) -> Vec<Option<&'a str>> {
    unsafe {
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        let (mut elements, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(array, pg_sys::TEXTOID, -1, false, b'i' as _, &mut elements, &mut nulls, &mut count);
        (0..count as usize).map(|i| (!*nulls.add(i)).then(|| text_of(*elements.add(i)))).collect()
    }
}
