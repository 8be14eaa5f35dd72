//! Calls of exported functions: arguments with checked types, one answer or a set of rows back.

use std::any::TypeId;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::limits::MAX_VALUE;
use skill_core::{Code, Fault};

use super::arg::{Arg, ToSql};
use super::bounds;
use super::datum::{in_memory, type_name};
use super::error::{self, current_function, raise};
use super::memory;
use super::sys;
use super::value::{Field, Place, read};

/// Exports the function `$name(call: &Call) -> Answer` to SQL as the symbol `skill_$name`. Arguments that are out of bounds
/// are refused before anything of them is copied, unless they are `of any size`.
#[macro_export]
macro_rules! pg_function {
    ($name:ident) => {
        $crate::pg_function!(@ $name, true);
    };
    ($name:ident, of any size) => {
        $crate::pg_function!(@ $name, false);
    };
    (@ $name:ident, $bounded:literal) => {
        $crate::paste::paste! {
            #[allow(unsafe_code, missing_docs)]
            #[unsafe(no_mangle)]
            pub extern "C" fn [<pg_finfo_skill_ $name>]() -> &'static $crate::pg_sys::Pg_finfo_record {
                const V1: $crate::pg_sys::Pg_finfo_record = $crate::pg_sys::Pg_finfo_record { api_version: 1 };
                &V1
            }
            #[allow(unsafe_code, missing_docs)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn [<skill_ $name>](
                fcinfo: $crate::pg_sys::FunctionCallInfo,
            ) -> $crate::pg_sys::Datum {
                #[$crate::pgrx::pg_guard]
                unsafe extern "C-unwind" fn guarded(
                    fcinfo: $crate::pg_sys::FunctionCallInfo,
                ) -> $crate::pg_sys::Datum {
                    // SAFETY: what the function manager passed.
                    unsafe { $crate::call::enter(fcinfo, stringify!($name), $bounded, $name) }
                }
                // SAFETY: passed on as it came; the guard has returned, and nothing here needs to be dropped.
                unsafe {
                    let datum = guarded(fcinfo);
                    $crate::error::throw_returned();
                    datum
                }
            }
        }
    };
}

thread_local! {
    /// Calls of this session up to now.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Declared types of the functions called in this session, dropped when a function of the catalogue changes.
    static SIGNATURES: RefCell<Vec<Rc<Signature>>> = const { RefCell::new(Vec::new()) };
}

/// What the catalogue declares of a function.
struct Signature {
    function: Oid,
    arguments: Box<[Oid]>,
    /// Those that are varlenas: the only ones that can be out of bounds.
    varlenas: Box<[usize]>,
    result: Oid,
}

static MAX_ARGUMENT: OnceLock<fn() -> usize> = OnceLock::new();

/// Sets how many bytes an argument may have; called once when the library is loaded.
pub fn register_max_argument(bytes: fn() -> usize) {
    MAX_ARGUMENT.get_or_init(|| bytes);
}

/// Registers the callback that drops remembered signatures.
pub(crate) fn register() {
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
        // A signature that is being read is dropped with the next change; it is current now.
        let _ = SIGNATURES.try_with(|all| all.try_borrow_mut().map(|mut all| all.clear()));
    }
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            Some(changed),
            pg_sys::Datum::from(0),
        );
    }
}

fn signature(function: Oid) -> Rc<Signature> {
    let known = SIGNATURES.with_borrow(|all| all.iter().find(|known| known.function == function).cloned());
    known.unwrap_or_else(|| {
        let (mut arguments, mut count) = (std::ptr::null_mut(), 0);
        // SAFETY: a catalogue look-up; the array is palloc'd and copied at once.
        let found = unsafe {
            let result = pg_sys::get_func_signature(function, &mut arguments, &mut count);
            let arguments: Box<[Oid]> = (0..count as usize).map(|i| *arguments.add(i)).collect();
            // The values of anyelement, cstring and the like are not what the catalogue declares.
            let is_pseudo = |oid: &Oid| pg_sys::get_typtype(*oid) as u8 == pg_sys::TYPTYPE_PSEUDO;
            if let Some(n) = arguments.iter().position(is_pseudo) {
                raise(Fault::new(
                    Code::DataCorrupted,
                    format!(
                        "function {}: argument {} has pseudo-type {}",
                        current_function(),
                        n + 1,
                        type_name(arguments[n])
                    ),
                ));
            }
            let varlenas = (0..arguments.len()).filter(|n| pg_sys::get_typlen(arguments[*n]) == -1).collect();
            Rc::new(Signature { function, arguments, varlenas, result })
        };
        SIGNATURES.with_borrow_mut(|all| all.push(found.clone()));
        found
    })
}

/// Runs the body of an exported function.
///
/// # Safety
/// `fcinfo` is what the function manager passed.
pub unsafe fn enter(
    fcinfo: pg_sys::FunctionCallInfo,
    name: &'static str,
    bounded: bool,
    body: fn(&Call) -> Answer,
) -> pg_sys::Datum {
    /// Restores the name of the outer function, after an error too.
    struct Outer(&'static str);
    impl Drop for Outer {
        fn drop(&mut self) {
            error::enter_function(self.0);
        }
    }
    let _outer = Outer(error::enter_function(name));
    // SAFETY: the caller's; the context of the moment is where the result of a function belongs.
    let call = unsafe {
        Call { fcinfo, memory: pg_sys::CurrentMemoryContext, serial: next_serial(), signature: Default::default() }
    };
    // Texts are read as `str`. CREATE EXTENSION refuses other encodings, CREATE FUNCTION does not.
    if !has_utf8_encoding() {
        raise(Fault::new(Code::NotInPrerequisiteState, format!("function {name}: database encoding must be UTF8")));
    }
    let ready = memory::check().and_then(|()| if bounded { call.check_arguments() } else { Ok(()) });
    let answer = ready.and_then(|()| body(&call)).and_then(|returned| memory::check().map(|()| returned));
    let answer = answer.map(|returned| {
        if returned.serial != call.serial {
            raise(Fault::new(Code::Internal, format!("function {name} returned the answer of another call")));
        }
        returned.datum.unwrap_or_else(|| {
            // SAFETY: the call structure is the function's until it returns.
            unsafe { (*fcinfo).isnull = true };
            pg_sys::Datum::from(0)
        })
    });
    error::answer(answer)
}

/// The database has the encoding UTF8; a session stays in its database.
fn has_utf8_encoding() -> bool {
    thread_local! {
        static IS_UTF8: OnceCell<bool> = const { OnceCell::new() };
    }
    // SAFETY: a backend that runs functions is connected to a database.
    IS_UTF8
        .with(|known| *known.get_or_init(|| unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }))
}

fn next_serial() -> u64 {
    CALLS.set(CALLS.get() + 1);
    CALLS.get()
}

/// One call of an exported function.
pub struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
    memory: pg_sys::MemoryContext,
    serial: u64,
    signature: OnceCell<Rc<Signature>>,
}

impl Call {
    /// The function is called by the client's own statement: a SELECT that reads no table and no view, and calls no function
    /// but this one and the server's. Everything else may be somebody else's text: a view, a trigger, a function, DO, a
    /// prepared statement or cursor.
    pub fn is_by_client(&self) -> bool {
        // SAFETY: the portal that runs, its text and its plans live as long as this call; the client's statement is
        // NUL-terminated.
        unsafe {
            let Some(portal) = pg_sys::ActivePortal.as_ref() else { return false };
            let text = pg_sys::debug_query_string;
            // A nested portal has another text. With the same it is the same call.
            if portal.sourceText.is_null()
                || text.is_null()
                || CStr::from_ptr(portal.sourceText) != CStr::from_ptr(text)
            {
                return false;
            }
            let Some(statements) = portal.stmts.as_ref() else { return false };
            if statements.length != 1 {
                return false;
            }
            let statement = (*statements.elements).ptr_value.cast::<pg_sys::PlannedStmt>();
            let own = (*self.fcinfo).flinfo.as_ref().map(|function| function.fn_oid).unwrap_or_default();
            is_bare_call(&*statement, own)
        }
    }
}

/// The plan is of a SELECT of this function alone.
///
/// # Safety
/// A plan as the planner created it.
unsafe fn is_bare_call(statement: &pg_sys::PlannedStmt, function: Oid) -> bool {
    if statement.type_ != pg_sys::NodeTag::T_PlannedStmt
        || statement.commandType != pg_sys::CmdType::CMD_SELECT
        || !statement.utilityStmt.is_null()
        || statement.hasModifyingCTE
        || !statement.relationOids.is_null()
    {
        return false;
    }
    // The functions of a plan that are not the server's, also those that were inlined, and the domains.
    let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: the caller's; a list of these items, or none. The hash is computed from the oid alone.
    unsafe {
        let hash = pg_sys::GetSysCacheHashValue(cache, pg_sys::Datum::from(function), 0.into(), 0.into(), 0.into());
        statement.invalItems.as_ref().is_some_and(|items| {
            (0..items.length as usize).all(|i| {
                let item = &*(*items.elements.add(i)).ptr_value.cast::<pg_sys::PlanInvalItem>();
                item.cacheId == cache && item.hashValue == hash
            })
        })
    }
}

/// What a body returns.
pub type Answer = Result<Returned, Fault>;

/// An answer in the server's form, built by the [`Call`] that it answers.
pub struct Returned {
    serial: u64,
    datum: Option<pg_sys::Datum>,
}

/// State of a call site and its type.
#[repr(C)]
struct State<T> {
    of: TypeId,
    value: Cell<Option<T>>,
}

impl Call {
    fn returned(&self, datum: Option<pg_sys::Datum>) -> Returned {
        Returned { serial: self.serial, datum }
    }

    fn signature(&self) -> &Signature {
        // SAFETY: the function manager sets flinfo.
        self.signature.get_or_init(|| signature(unsafe { (*(*self.fcinfo).flinfo).fn_oid }))
    }

    fn datum(&self, n: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the function manager passes nargs arguments, and the bound is checked.
        unsafe {
            let info = &*self.fcinfo;
            let argument = info.args.as_slice(info.nargs as usize).get(n)?;
            (!argument.isnull).then_some(argument.value)
        }
    }

    fn declared(&self, n: usize) -> Oid {
        match self.signature().arguments.get(n) {
            Some(oid) => *oid,
            None => raise(Fault::new(
                Code::DataCorrupted,
                format!("function {}: argument {} is not declared", current_function(), n + 1),
            )),
        }
    }

    /// Refuses arguments that are out of bounds.
    fn check_arguments(&self) -> Result<(), Fault> {
        // SAFETY: the function manager sets it.
        if unsafe { (*self.fcinfo).nargs } == 0 {
            return Ok(());
        }
        let most = MAX_ARGUMENT.get().map_or(MAX_VALUE, |most| most());
        let Signature { arguments, varlenas, .. } = self.signature();
        for &n in varlenas {
            let Some(datum) = self.datum(n) else { continue };
            // SAFETY: an argument that is a varlena of this type, not NULL; it and the memory live as long as the call.
            unsafe { bounds::check_varlena(datum, arguments[n], most, self.memory) }
                .map_err(|fault| fault.detail(format!("It is argument {} of {}().", n + 1, self.name())))?;
        }
        Ok(())
    }

    /// How many arguments are declared.
    pub(crate) fn argument_count(&self) -> usize {
        self.signature().arguments.len()
    }

    /// Argument `n`, counted from 0.
    pub(crate) fn argument<'c, T: Field<'c>>(&'c self, n: usize) -> T {
        // SAFETY: declared with this type; arguments and memory live as long as the call.
        unsafe { read(self.datum(n), self.declared(n), self.memory, Place::Argument(n)) }
    }

    /// Name of the function in the catalogue.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the function manager sets flinfo; the name is palloc'd and copied at once.
        unsafe {
            let name = pg_sys::get_func_name((*(*self.fcinfo).flinfo).fn_oid);
            if name.is_null() {
                current_function().to_owned()
            } else {
                CStr::from_ptr(name).to_string_lossy().into_owned()
            }
        }
    }

    /// The context node of the call, for example of a trigger.
    pub(crate) fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: set by the function manager, null for a plain call.
        unsafe { (*self.fcinfo).context }
    }

    /// The memory that lives as long as the call.
    pub(crate) fn memory(&self) -> pg_sys::MemoryContext {
        self.memory
    }

    /// State of the call site, which lives as long as the statement's expression or trigger; created by `make` at the
    /// first call from there. Each function keeps state of one type.
    pub fn with_statement_state<T: 'static, R>(&self, make: impl FnOnce() -> T, body: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: fn_extra belongs to this function alone, which keeps a `State` there; it is dropped with its memory
        // context. It is taken out while the body runs, so that a nested call from the same site cannot see it.
        unsafe {
            let flinfo = (*self.fcinfo).flinfo;
            if (*flinfo).fn_extra.is_null() {
                let state = make();
                let mut memory = pgrx::PgMemoryContexts::For((*flinfo).fn_mcxt);
                let state = State { of: TypeId::of::<T>(), value: Cell::new(Some(state)) };
                (*flinfo).fn_extra = memory.leak_and_drop_on_delete(state).cast();
            }
            if *(*flinfo).fn_extra.cast::<TypeId>() != TypeId::of::<T>() {
                raise(Fault::new(Code::Internal, format!("function {} keeps state of two types", current_function())));
            }
            let kept = &(*(*flinfo).fn_extra.cast::<State<T>>()).value;
            let Some(mut state) = kept.take() else {
                raise(Fault::new(
                    Code::Internal,
                    format!("function {} was called from within itself", current_function()),
                ));
            };
            let result = body(&mut state);
            kept.set(Some(state));
            result
        }
    }

    pub fn null(&self) -> Returned {
        self.returned(None)
    }

    /// One value. Raises XX001 when the function is declared to return another type.
    pub fn answer<'a>(&self, value: impl ToSql<'a>) -> Returned {
        let value = value.to_arg();
        let declared = self.signature().result;
        if !value.fits(declared) {
            wrong_result(&value, declared, "result");
        }
        // SAFETY: the memory lives as long as the call's result is used.
        self.returned(unsafe { in_memory(self.memory, || value.copied_datum()) })
    }

    /// Nothing: the answer of a function that returns void. Raises XX001 when it is declared to return something.
    pub fn void(&self) -> Returned {
        let declared = self.signature().result;
        if declared != pg_sys::VOIDOID {
            wrong_result(&Arg::null(pg_sys::VOIDOID), declared, "result");
        }
        self.returned(Some(pg_sys::Datum::from(0)))
    }

    /// What a trigger returns.
    pub(crate) fn tuple(&self, tuple: pg_sys::HeapTuple) -> Returned {
        self.returned(Some(pg_sys::Datum::from(tuple)))
    }

    /// A row of the function's result type, a named composite type. Raises XX001 when the types differ.
    pub fn row(&self, values: &[Arg]) -> Returned {
        // SAFETY: the descriptor is the type's of this moment, held until the row is built (an abort releases it too), and
        // the values are checked against it; the memory lives as long as the call's result is used. The look-up raises
        // for a type that is not composite.
        unsafe {
            let desc = pg_sys::lookup_rowtype_tupdesc(self.signature().result, -1);
            check_row(desc, values);
            let row = in_memory(self.memory, || {
                let (mut datums, mut nulls) = ([pg_sys::Datum::from(0); MAX_COLUMNS], [true; MAX_COLUMNS]);
                fill(values, &mut datums, &mut nulls);
                let tuple = pg_sys::heap_form_tuple(desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
            });
            if (*desc).tdrefcount >= 0 {
                pg_sys::DecrTupleDescRefCount(desc);
            }
            self.returned(Some(row))
        }
    }

    /// Starts the result of a set-returning function with several columns.
    pub fn row_set(&self) -> RowSet<'_> {
        self.set(0)
    }

    /// Starts the result of a function that returns a set of single values.
    pub fn value_set(&self) -> RowSet<'_> {
        self.set(pg_sys::MAT_SRF_USE_EXPECTED_DESC)
    }

    fn set(&self, flags: u32) -> RowSet<'_> {
        // SAFETY: the server checks that the caller takes a set, and fills resultinfo.
        unsafe {
            pg_sys::InitMaterializedSRF(self.fcinfo, flags);
            RowSet { call: self, info: (*self.fcinfo).resultinfo.cast() }
        }
    }
}

/// The most columns of a result.
const MAX_COLUMNS: usize = 32;

fn fill(values: &[Arg], datums: &mut [pg_sys::Datum; MAX_COLUMNS], nulls: &mut [bool; MAX_COLUMNS]) {
    for ((value, datum), null) in Arg::datums(values.iter()).zip(datums).zip(nulls) {
        (*datum, *null) = value.map_or((pg_sys::Datum::from(0), true), |datum| (datum, false));
    }
}

/// Compares values with the columns of a result.
///
/// # Safety
/// `desc` is a valid descriptor.
unsafe fn check_row(desc: pg_sys::TupleDesc, values: &[Arg]) {
    // SAFETY: the caller's; attributes are counted by the descriptor.
    unsafe {
        if (*desc).natts as usize != values.len() || values.len() > MAX_COLUMNS {
            raise(Fault::new(
                Code::DataCorrupted,
                format!(
                    "function {}: the result has {} columns, not {}",
                    current_function(),
                    (*desc).natts,
                    values.len()
                ),
            ));
        }
        for (i, value) in values.iter().enumerate() {
            let declared = (*sys::attribute(desc, i)).atttypid;
            if value.oid() != declared && !value.fits(declared) {
                wrong_result(value, declared, &format!("result column {}", i + 1));
            }
        }
    }
}

#[cold]
fn wrong_result(value: &Arg, declared: Oid, place: &str) -> ! {
    raise(
        Fault::new(
            Code::DataCorrupted,
            format!(
                "function {}: {place} is declared as {}, not {}",
                current_function(),
                type_name(declared),
                type_name(value.oid())
            ),
        )
        .hint("The installed objects do not fit the library: compare SELECT * FROM skill_system.version_info();"),
    )
}

/// The result of a set-returning function; goes to disk when it outgrows work_mem.
pub struct RowSet<'c> {
    call: &'c Call,
    info: *mut pg_sys::ReturnSetInfo,
}

impl RowSet<'_> {
    /// Adds one row. Raises XX001 when its types are not those of the function's result.
    pub fn push(&mut self, values: &[Arg]) {
        let (mut datums, mut nulls) = ([pg_sys::Datum::from(0); MAX_COLUMNS], [true; MAX_COLUMNS]);
        // SAFETY: set up by `Call::set`; the values are checked against the descriptor, and copied by the server.
        unsafe {
            let info = &*self.info;
            check_row(info.setDesc, values);
            fill(values, &mut datums, &mut nulls);
            pg_sys::tuplestore_putvalues(info.setResult, info.setDesc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        }
    }

    /// The answer of the function.
    pub fn finish(self) -> Returned {
        self.call.returned(Some(pg_sys::Datum::from(0)))
    }
}
