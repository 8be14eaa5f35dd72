//! Functions of other extensions, called by their OID: no name is resolved, which others could give to their own code.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// The language c in pg_language.dat.
const C_LANGUAGE: u32 = 13;

/// A C function `(text, text)` that returns real.
pub struct Similarity(pg_sys::FmgrInfo);

impl Similarity {
    /// The function, when it is the C function `symbol` of `library` with these arguments and this result, has no settings and
    /// is not SECURITY DEFINER. Only superusers create C functions.
    pub fn find(function: Oid, library: &str, symbol: &str) -> Option<Self> {
        // SAFETY: catalogue look-ups inside a transaction. The tuple is held until the function is prepared from the same
        // row; its text columns are detoasted copies.
        unsafe {
            let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
            let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
            if tuple.is_null() {
                return None;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            let column = |number: u32| {
                let mut null = false;
                let datum = pg_sys::SysCacheGetAttr(cache, tuple, number as i16, &mut null);
                (!null).then_some(datum)
            };
            let text = |number| {
                let bytes = super::datum::varlena_bytes(column(number)?, pg_sys::CurrentMemoryContext);
                Some(String::from_utf8_lossy(bytes).into_owned())
            };
            let arguments = form.proargtypes.values.as_slice(form.pronargs.max(0) as usize);
            let is_it = form.prolang == Oid::from(C_LANGUAGE)
                && form.prorettype == pg_sys::FLOAT4OID
                && arguments == [pg_sys::TEXTOID, pg_sys::TEXTOID]
                && !form.prosecdef
                && !form.proretset
                && column(pg_sys::Anum_pg_proc_proconfig).is_none()
                && text(pg_sys::Anum_pg_proc_probin).as_deref() == Some(library)
                && text(pg_sys::Anum_pg_proc_prosrc).as_deref() == Some(symbol);
            let found = is_it.then(|| {
                let mut prepared = pg_sys::FmgrInfo::default();
                pg_sys::fmgr_info_cxt(function, &mut prepared, pg_sys::CurrentMemoryContext);
                Similarity(prepared)
            });
            pg_sys::ReleaseSysCache(tuple);
            found
        }
    }

    pub fn of(&mut self, a: &str, b: &str) -> f32 {
        // SAFETY: the arguments are texts and the result is a real, as `find` made sure; the function never returns NULL for
        // arguments that are not.
        unsafe {
            let text = |value: &str| {
                pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(value.as_ptr().cast(), value.len() as i32))
            };
            let datum = pg_sys::FunctionCall2Coll(&mut self.0, pg_sys::DEFAULT_COLLATION_OID, text(a), text(b));
            f32::from_bits(datum.value() as u32)
        }
    }
}
