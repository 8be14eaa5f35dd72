//! SQL from inside: kept plans, a pinned search_path, the owner's rights where needed.
//!
//! Every statement runs with `search_path = pg_catalog, pg_temp`, so no schema of
//! the caller can put its own operators or functions in the way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;
use skill_core::{Code, Fault};

use super::sys;

/// A parameter of a statement.
#[derive(Clone)]
pub struct Arg {
    datum: Option<pg_sys::Datum>,
    oid: pg_sys::Oid,
}

/// A value as a parameter.
pub fn arg<T: IntoDatum>(value: T) -> Arg {
    Arg { oid: T::type_oid(), datum: value.into_datum() }
}

/// A timestamptz that came as a datum.
pub fn timestamptz(datum: pg_sys::Datum) -> Arg {
    Arg { datum: Some(datum), oid: pg_sys::TIMESTAMPTZOID }
}

/// A value of type `oid` that came as a datum, or NULL.
pub fn given(datum: Option<pg_sys::Datum>, oid: pg_sys::Oid) -> Arg {
    Arg { datum, oid }
}

/// Bytes as a bytea parameter.
pub fn bytea(bytes: &[u8]) -> Arg {
    Arg { datum: Some(super::call::bytea_datum(bytes)), oid: pg_sys::BYTEAOID }
}

/// Bytes as a bytea parameter, or NULL.
pub fn bytea_or_null(bytes: Option<&[u8]>) -> Arg {
    Arg { datum: bytes.map(super::call::bytea_datum), oid: pg_sys::BYTEAOID }
}

/// Parameters as the server takes them.
struct Bound {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<std::ffi::c_char>,
}

impl Bound {
    fn new(args: &[Arg]) -> Self {
        Bound {
            types: args.iter().map(|arg| arg.oid).collect(),
            values: args.iter().map(|arg| arg.datum.unwrap_or(pg_sys::Datum::from(0))).collect(),
            nulls: args.iter().map(|arg| if arg.datum.is_some() { b' ' as _ } else { b'n' as _ }).collect(),
        }
    }
}

/// Starts SPI; it ends with SPI_finish, or with the abort of the (sub)transaction.
unsafe fn connect() {
    // SAFETY: inside a transaction, as every call of ours.
    if unsafe { pg_sys::SPI_connect() } != pg_sys::SPI_OK_CONNECT as i32 {
        super::error::raise(Fault::new(Code::Internal, "SPI_connect failed"));
    }
}

/// What a statement may do and see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads with the snapshot of the calling query.
    Read,
    /// Reads what is committed now, whatever the isolation level.
    ReadLatest,
    /// May write.
    Write,
    /// May write with the rights of the owner of the audit table: as `as_owner`.
    WriteAsOwner,
}

/// One row of a result.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
}

impl Row {
    /// Column `n`, counted from 1; `None` is NULL.
    pub fn get<T: FromDatum>(&self, n: i32) -> Option<T> {
        // SAFETY: declared with T's type in the statement.
        self.datum(n).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    /// The bytes of column `n`, a bytea, borrowed.
    pub fn bytes(&self, n: i32) -> Option<&[u8]> {
        // SAFETY: only asked for bytea and jsonb columns; lives as long as the row.
        self.datum(n).map(|datum| unsafe { super::call::varlena_bytes(datum) })
    }

    /// Column `n`, a text, borrowed.
    pub fn text(&self, n: i32) -> Option<&str> {
        // SAFETY: only asked for text columns; lives as long as the row.
        self.datum(n).map(|datum| unsafe { super::call::text_of(datum) })
    }

    /// The elements of column `n`, a text[], borrowed.
    pub fn text_array(&self, n: i32) -> Option<Vec<Option<&str>>> {
        // SAFETY: only asked for text[] columns; lives as long as the row.
        self.datum(n).map(|datum| unsafe { super::call::text_array_of(datum) })
    }

    /// Column `n` as it is.
    pub fn datum(&self, n: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: the tuple table lives until SPI_finish, which comes after the last use of a Row.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.desc, n, &mut null) };
        (!null).then_some(datum)
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<(usize, usize), pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// Runs a statement whose plan is kept for the life of the session.
pub fn run(sql: &'static str, access: Access, args: &[Arg], mut each: impl FnMut(&Row)) -> u64 {
    execute(sql, Some((sql.as_ptr() as usize, sql.len())), access, args, |rows| rows.for_each(|row| each(&row)))
}

/// As [`run`], with all rows at hand at once, to be put in order.
pub fn run_all(sql: &'static str, access: Access, args: &[Arg], all: impl FnOnce(&[Row])) {
    let key = Some((sql.as_ptr() as usize, sql.len()));
    execute(sql, key, access, args, |rows| all(&rows.collect::<Vec<_>>()));
}

/// Runs a statement that was put together for this one call.
pub fn run_once(sql: &str, access: Access, args: &[Arg], mut each: impl FnMut(&Row)) -> u64 {
    execute(sql, None, access, args, |rows| rows.for_each(|row| each(&row)))
}

/// The first column of the first row.
pub fn one<T: FromDatum>(sql: &'static str, access: Access, args: &[Arg]) -> Option<T> {
    let mut found = None;
    let mut first = true;
    run(sql, access, args, |row| {
        if std::mem::take(&mut first) {
            found = row.get(1);
        }
    });
    found
}

/// The rows of a result, which end with SPI.
struct Rows {
    table: *mut pg_sys::SPITupleTable,
    next: usize,
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        // SAFETY: a table of SPI has numvals tuples of one descriptor.
        unsafe {
            let table = self.table.as_ref().filter(|table| self.next < table.numvals as usize)?;
            self.next += 1;
            Some(Row { tuple: *table.vals.add(self.next - 1), desc: table.tupdesc })
        }
    }
}

fn execute(sql: &str, keep: Option<(usize, usize)>, access: Access, args: &[Arg], all: impl FnOnce(Rows)) -> u64 {
    let _pinned = Pinned::new((access == Access::WriteAsOwner).then(sys::owner));
    // SAFETY: the usual SPI protocol. An error leaves by unwinding; the abort of
    // the (sub)transaction then cleans up what SPI_finish and PopActiveSnapshot would have.
    unsafe {
        connect();
        let mut bound = Bound::new(args);
        let plan = match keep.and_then(|key| PLANS.with_borrow(|plans| plans.get(&key).copied())) {
            Some(plan) => plan,
            None => {
                let text = sys::c_string(sql);
                // A long read may use parallel workers.
                let options = if access == Access::Read { pg_sys::CURSOR_OPT_PARALLEL_OK as i32 } else { 0 };
                let plan = pg_sys::SPI_prepare_cursor(
                    text.as_ptr(),
                    bound.types.len() as i32,
                    bound.types.as_mut_ptr(),
                    options,
                );
                if plan.is_null() {
                    super::error::raise(Fault::new(Code::Internal, "SPI_prepare failed"));
                }
                if let Some(key) = keep {
                    pg_sys::SPI_keepplan(plan);
                    PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
                }
                plan
            }
        };
        let latest = access == Access::ReadLatest && !pg_sys::IsInParallelMode();
        if latest {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        let status = pg_sys::SPI_execute_plan(
            plan,
            bound.values.as_mut_ptr(),
            bound.nulls.as_ptr(),
            matches!(access, Access::Read | Access::ReadLatest),
            0,
        );
        if latest {
            pg_sys::PopActiveSnapshot();
        }
        if status < 0 {
            super::error::raise(Fault::new(Code::Internal, format!("SPI_execute_plan failed with {status}")));
        }
        let processed = pg_sys::SPI_processed;
        all(Rows { table: pg_sys::SPI_tuptable, next: 0 });
        pg_sys::SPI_finish();
        processed
    }
}

/// Runs a query through a cursor: any number of rows in constant memory.
pub fn stream(sql: &str, args: &[Arg], mut each: impl FnMut(&Row)) {
    let _pinned = Pinned::new(None);
    // SAFETY: the usual SPI protocol, as in `execute`.
    unsafe {
        connect();
        let text = sys::c_string(sql);
        let mut bound = Bound::new(args);
        let portal = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            text.as_ptr(),
            bound.types.len() as i32,
            bound.types.as_mut_ptr(),
            bound.values.as_mut_ptr(),
            bound.nulls.as_ptr(),
            true,
            0,
        );
        // What `each` allocates for a row ends with its batch, or a long result would fill the memory.
        let scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"skill_system batch".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        loop {
            pg_sys::SPI_cursor_fetch(portal, true, 1000);
            let table = pg_sys::SPI_tuptable;
            let fetched = pg_sys::SPI_processed as usize;
            let context = pg_sys::MemoryContextSwitchTo(scratch);
            for i in 0..fetched {
                each(&Row { tuple: *(*table).vals.add(i), desc: (*table).tupdesc });
            }
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::MemoryContextReset(scratch);
            pg_sys::SPI_freetuptable(table);
            if fetched == 0 {
                break;
            }
            super::error::check_for_interrupts();
        }
        pg_sys::SPI_cursor_close(portal);
        pg_sys::SPI_finish();
    }
}

/// Runs `body` under one new snapshot: each `Access::Read` in it sees the same, whatever the isolation level.
pub fn with_latest_snapshot<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: an error leaves by unwinding, and the abort of the (sub)transaction pops the snapshot.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Runs `body` with other settings, restored after it.
pub fn with_settings<T>(settings: &[(&CStr, &CStr)], body: impl FnOnce() -> T) -> T {
    // SAFETY: a GUC nest level of our own; an error leaves by unwinding, and the abort restores the settings.
    unsafe {
        let nest = pg_sys::NewGUCNestLevel();
        for (name, value) in settings {
            set_option(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
        }
        let result = body();
        pg_sys::AtEOXact_GUC(false, nest);
        result
    }
}

/// The commit of this transaction waits until it is on disk, and on the synchronous standbys if there are any.
pub fn commit_synchronously() {
    // SAFETY: reads a setting of this session and sets it up to the end of the transaction.
    unsafe {
        if pg_sys::synchronous_commit < pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_REMOTE_FLUSH as i32 {
            set_option(c"synchronous_commit", c"on", pg_sys::GucAction::GUC_ACTION_LOCAL);
        }
    }
}

unsafe fn set_option(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    use pg_sys::{GucContext::PGC_USERSET, GucSource::PGC_S_SESSION};
    // SAFETY: NUL-terminated; only settings that any user may change.
    unsafe {
        pg_sys::set_config_option(name.as_ptr(), value.as_ptr(), PGC_USERSET, PGC_S_SESSION, action, true, 0, false);
    }
}

/// Restores search_path and user when it goes out of scope.
struct Pinned {
    nest: i32,
    user: Option<(pg_sys::Oid, i32)>,
}

impl Pinned {
    fn new(become_user: Option<pg_sys::Oid>) -> Self {
        // SAFETY: a GUC nest level of our own, ended in drop; the previous user is kept there too.
        unsafe {
            let nest = pg_sys::NewGUCNestLevel();
            set_option(c"search_path", c"pg_catalog, pg_temp", pg_sys::GucAction::GUC_ACTION_SAVE);
            let user = become_user.map(|owner| {
                let (mut user, mut context) = (pg_sys::InvalidOid, 0);
                pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
                let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
                pg_sys::SetUserIdAndSecContext(owner, context | restricted as i32);
                (user, context)
            });
            Pinned { nest, user }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction restores both.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: restores what `new` saved, in reverse order.
        unsafe {
            if let Some((user, context)) = self.user {
                pg_sys::SetUserIdAndSecContext(user, context);
            }
            pg_sys::AtEOXact_GUC(false, self.nest);
        }
    }
}

/// Runs `body` with the settings at their usual values that change how the server writes values and names as text.
pub fn with_plain_text<T>(body: impl FnOnce() -> T) -> T {
    const PLAIN: [(&CStr, &CStr); 6] = [
        (c"TimeZone", c"UTC"),
        (c"DateStyle", c"ISO, YMD"),
        (c"IntervalStyle", c"postgres"),
        (c"extra_float_digits", c"1"),
        (c"bytea_output", c"hex"),
        (c"quote_all_identifiers", c"off"),
    ];
    with_settings(&PLAIN, body)
}

/// Runs `body` with the rights of the owner of the audit table. Only for fixed,
/// schema-qualified statements that filter by tenant themselves: row security
/// does not apply to the owner.
pub fn as_owner<T>(body: impl FnOnce() -> T) -> T {
    let _owner = Pinned::new(Some(sys::owner()));
    body()
}
