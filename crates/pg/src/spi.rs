//! SQL from the extension: cached plans, a fixed search_path, the owner's rights where needed.
//!
//! Every statement runs with `search_path = pg_catalog, pg_temp`, so no object in a caller's schema can shadow an operator
//! or a function, and with `quote_all_identifiers = off`, so that a name has one spelling. What compares deparsed
//! expressions or values as text does so in [`with_plain_text`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::{Code, Fault};

use super::arg::Arg;
use super::row::{FromRow, Row};
use super::sys;
use super::value::missing_row;

/// Whose rights a statement has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// The current user's.
    Caller,
    /// Those of the owner of the extension's tables, whom row security does not bind: only for fixed, schema-qualified
    /// statements that filter by tenant themselves.
    Owner,
}

/// What a statement sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum See {
    /// The snapshot of the calling query. The statement cannot write.
    Statement,
    /// What is committed now, whatever the isolation level. The statement cannot write.
    Latest,
    /// The transaction's writes up to now. The statement may write.
    OwnWrites,
}

/// Parameters as the server takes them.
struct Bound {
    types: Vec<Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<std::ffi::c_char>,
}

impl Bound {
    /// Values are copied into the current memory context, which is SPI's.
    fn new(args: &[Arg]) -> Self {
        let values: Vec<_> = Arg::datums(args.iter()).collect();
        Bound {
            types: args.iter().map(Arg::oid).collect(),
            nulls: values.iter().map(|value| if value.is_some() { b' ' as _ } else { b'n' as _ }).collect(),
            values: values.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::from(0))).collect(),
        }
    }
}

/// Starts SPI; it ends with SPI_finish, or with the abort of the (sub)transaction.
unsafe fn connect() {
    // SAFETY: no preconditions; a transaction that has ended or failed runs no statements.
    if unsafe { !pg_sys::IsTransactionState() || pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 } {
        super::error::raise(Fault::new(Code::Internal, "SPI_connect failed"));
    }
}

/// Where no query calls, as in a hook or before the commit, no snapshot is set either, and a statement that cannot write
/// would have none.
unsafe fn push_latest_snapshot(wanted: bool) -> bool {
    // SAFETY: inside a transaction; the caller pops it, or the abort of the (sub)transaction.
    unsafe {
        let push = !pg_sys::ActiveSnapshotSet() || wanted && !pg_sys::IsInParallelMode();
        if push {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        push
    }
}

/// A plan is kept for a text, the types of its parameters and its options.
#[derive(PartialEq, Eq, Hash)]
struct PlanKey {
    sql: (usize, usize),
    types: Vec<Oid>,
    options: i32,
}

thread_local! {
    static PLANS: RefCell<HashMap<PlanKey, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// The text of a statement: the plan of a constant one is kept for the life of the session.
pub trait Sql: Copy {
    fn text(&self) -> &str;

    /// The plan is kept.
    fn is_constant(&self) -> bool;
}

impl Sql for &'static str {
    fn text(&self) -> &str {
        self
    }

    fn is_constant(&self) -> bool {
        true
    }
}

/// A statement built for one call.
#[derive(Clone, Copy)]
pub struct Once<'a>(pub &'a str);

impl Sql for Once<'_> {
    fn text(&self) -> &str {
        self.0
    }

    fn is_constant(&self) -> bool {
        false
    }
}

/// Runs a statement and returns the number of its rows.
pub fn execute(sql: impl Sql, rights: As, see: See, args: &[Arg]) -> u64 {
    run(sql, rights, see, args, |rows| rows.processed)
}

/// Runs a statement and passes each row to `body`, which may fail; then the remaining rows are skipped.
pub fn each(
    sql: impl Sql,
    rights: As,
    see: See,
    args: &[Arg],
    mut body: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    run(sql, rights, see, args, |rows| {
        for n in 0..rows.len() {
            body(&rows.row(n))?;
        }
        Ok(rows.processed)
    })
}

/// The first row, if any. Raises XX001, as all of these do, for a column that is NULL and not read as an `Option`.
pub fn first<T: for<'r> FromRow<'r>>(sql: impl Sql, rights: As, see: See, args: &[Arg]) -> Option<T> {
    run(sql, rights, see, args, |rows| (rows.len() > 0).then(|| T::from_row(&rows.row(0))))
}

/// All rows.
pub fn collect<T: for<'r> FromRow<'r>>(sql: impl Sql, rights: As, see: See, args: &[Arg]) -> Vec<T> {
    run(sql, rights, see, args, |rows| (0..rows.len()).map(|n| T::from_row(&rows.row(n))).collect())
}

/// The first row of a query that always returns one. Raises XX001 without one.
pub fn one<T: for<'r> FromRow<'r>>(sql: impl Sql, rights: As, see: See, args: &[Arg]) -> T {
    first(sql, rights, see, args).unwrap_or_else(|| missing_row())
}

/// All rows at once, for what needs them in another order.
pub fn with_rows<T>(sql: impl Sql, rights: As, see: See, args: &[Arg], body: impl FnOnce(&[Row<'_>]) -> T) -> T {
    run(sql, rights, see, args, |rows| body(&(0..rows.len()).map(|n| rows.row(n)).collect::<Vec<_>>()))
}

/// The rows of a result, which end with SPI.
struct Rows {
    table: *mut pg_sys::SPITupleTable,
    processed: u64,
}

impl Rows {
    fn len(&self) -> usize {
        // SAFETY: SPI's table, or null when the statement returns no rows.
        unsafe { self.table.as_ref().map_or(0, |table| table.numvals as usize) }
    }

    fn row(&self, n: usize) -> Row<'_> {
        assert!(n < self.len());
        // SAFETY: a table of SPI has numvals tuples of one descriptor; both live until SPI_finish, as does the memory.
        unsafe { Row::new(*(*self.table).vals.add(n), (*self.table).tupdesc, pg_sys::CurrentMemoryContext) }
    }
}

fn run<T>(sql: impl Sql, rights: As, see: See, args: &[Arg], body: impl FnOnce(&Rows) -> T) -> T {
    let _pinned = Pinned::new((rights == As::Owner).then(sys::owner));
    // SAFETY: the usual SPI protocol. An error leaves by unwinding; the abort of the (sub)transaction then cleans up what
    // SPI_finish and PopActiveSnapshot would have.
    unsafe {
        connect();
        let mut bound = Bound::new(args);
        // A long read may use parallel workers.
        let parallel = see == See::Statement && rights == As::Caller;
        let options = if parallel { pg_sys::CURSOR_OPT_PARALLEL_OK as i32 } else { 0 };
        let plan = plan(sql, &bound, options);
        let pushed = push_latest_snapshot(see == See::Latest);
        let status =
            pg_sys::SPI_execute_plan(plan, bound.values.as_mut_ptr(), bound.nulls.as_ptr(), see != See::OwnWrites, 0);
        if pushed {
            pg_sys::PopActiveSnapshot();
        }
        if status < 0 {
            super::error::raise(Fault::new(Code::Internal, format!("SPI_execute_plan failed with {status}")));
        }
        let result = body(&Rows { table: pg_sys::SPI_tuptable, processed: pg_sys::SPI_processed });
        pg_sys::SPI_finish();
        result
    }
}

/// Inside of SPI.
unsafe fn plan(sql: impl Sql, bound: &Bound, options: i32) -> pg_sys::SPIPlanPtr {
    let text = sql.text();
    let key = sql.is_constant().then(|| PlanKey {
        sql: (text.as_ptr() as usize, text.len()),
        types: bound.types.clone(),
        options,
    });
    if let Some(plan) = key.as_ref().and_then(|key| PLANS.with_borrow(|plans| plans.get(key).copied())) {
        return plan;
    }
    let text = sys::c_string(text);
    let mut types = bound.types.clone();
    // SAFETY: the usual SPI protocol.
    unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), options);
        if plan.is_null() {
            super::error::raise(Fault::new(Code::Internal, "SPI_prepare failed"));
        }
        if let Some(key) = key {
            pg_sys::SPI_keepplan(plan);
            PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
        }
        plan
    }
}

/// Runs a query through a cursor: any number of rows in constant memory.
pub fn stream(sql: impl Sql, args: &[Arg], body: impl FnMut(&Row<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
    stream_with(None, sql, args, body)
}

/// As [`stream`], for a query on objects of `role`, whatever code they run: it has the rights of `role`, and `body` those of
/// the caller.
pub fn stream_as(
    role: Oid,
    sql: impl Sql,
    args: &[Arg],
    body: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    stream_with(Some(role), sql, args, body)
}

fn stream_with(
    role: Option<Oid>,
    sql: impl Sql,
    args: &[Arg],
    mut body: impl FnMut(&Row<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let _pinned = Pinned::new(None);
    // SAFETY: the usual SPI protocol, as in `run`.
    unsafe {
        connect();
        let pushed = push_latest_snapshot(false);
        let text = sys::c_string(sql.text());
        let mut bound = Bound::new(args);
        let become_role = Pinned::new(role);
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
        drop(become_role);
        // What `body` calls may run CLOSE ALL.
        pg_sys::PinPortal(portal);
        // What `body` allocates for a row ends with its batch, or a long result would fill the memory.
        let scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"skill_system batch".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let mut result = Ok(());
        while result.is_ok() {
            let become_role = Pinned::new(role);
            pg_sys::SPI_cursor_fetch(portal, true, 1000);
            drop(become_role);
            let table = pg_sys::SPI_tuptable;
            let fetched = pg_sys::SPI_processed as usize;
            let context = pg_sys::MemoryContextSwitchTo(scratch);
            result = (0..fetched).try_for_each(|i| body(&Row::new(*(*table).vals.add(i), (*table).tupdesc, scratch)));
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::MemoryContextReset(scratch);
            pg_sys::SPI_freetuptable(table);
            if fetched == 0 {
                break;
            }
            super::error::check_for_interrupts();
        }
        pg_sys::UnpinPortal(portal);
        pg_sys::SPI_cursor_close(portal);
        if pushed {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::SPI_finish();
        result
    }
}

/// Runs `body` under one new snapshot: each `See::Statement` in it sees the same, whatever the isolation level.
pub fn with_latest_snapshot<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: an error leaves by unwinding, and the abort of the (sub)transaction pops the snapshot.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = body();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// What the running statement wrote becomes visible to those after it: in a trigger AFTER STATEMENT, what it reacts to.
pub fn increment_command_counter() {
    // SAFETY: inside a transaction that is not parallel.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Runs `body` with other settings, restored after it.
pub fn with_settings<T>(settings: &[(&CStr, &CStr)], body: impl FnOnce() -> T) -> T {
    // SAFETY: a separate GUC nest level; an error leaves by unwinding, and the abort restores the settings.
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

/// The commit of this transaction waits until it is on disk, and on the synchronous standbys, if any.
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
    user: Option<(Oid, i32)>,
    /// The caller before, where the owner's rights were taken.
    caller: Option<Option<Oid>>,
}

impl Pinned {
    fn new(become_user: Option<Oid>) -> Self {
        // SAFETY: a separate GUC nest level, ended in drop; the previous user is kept there too.
        unsafe {
            let nest = pg_sys::NewGUCNestLevel();
            set_option(c"search_path", c"pg_catalog, pg_temp", pg_sys::GucAction::GUC_ACTION_SAVE);
            // Names are compared as text in many statements.
            if pg_sys::quote_all_identifiers {
                set_option(c"quote_all_identifiers", c"off", pg_sys::GucAction::GUC_ACTION_SAVE);
            }
            // The literals of the statements have backslashes that mean themselves.
            if !pg_sys::standard_conforming_strings {
                set_option(c"standard_conforming_strings", c"on", pg_sys::GucAction::GUC_ACTION_SAVE);
            }
            let caller = become_user.map(sys::keep_caller);
            let user = become_user.map(|owner| {
                let (mut user, mut context) = (pg_sys::InvalidOid, 0);
                pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
                let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
                pg_sys::SetUserIdAndSecContext(owner, context | restricted as i32);
                (user, context)
            });
            Pinned { nest, user, caller }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            sys::restore_caller(caller);
        }
        // While an error unwinds, the abort of the (sub)transaction restores the rest.
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

/// Runs `body` with fixed values of the settings that affect how the server writes values and names as text.
pub fn with_plain_text<T>(body: impl FnOnce() -> T) -> T {
    const PLAIN: [(&CStr, &CStr); 11] = [
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"TimeZone", c"UTC"),
        (c"DateStyle", c"ISO, YMD"),
        (c"IntervalStyle", c"postgres"),
        (c"extra_float_digits", c"1"),
        (c"bytea_output", c"hex"),
        (c"xmlbinary", c"base64"),
        (c"lc_monetary", c"C"),
        (c"lc_numeric", c"C"),
        (c"lc_time", c"C"),
        (c"quote_all_identifiers", c"off"),
    ];
    with_settings(&PLAIN, body)
}

/// Runs `body` with the rights of the owner of the extension's tables. Only for fixed, schema-qualified statements that
/// filter by tenant themselves: row security does not apply to the owner.
pub fn as_owner<T>(body: impl FnOnce() -> T) -> T {
    let _owner = Pinned::new(Some(sys::owner()));
    body()
}
