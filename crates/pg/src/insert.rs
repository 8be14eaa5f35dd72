//! Rows of a table, taken apart and inserted without SQL: without parsing, planning or privilege checks, triggers and
//! indexes included.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::marker::PhantomData;
use std::rc::Rc;
use std::thread::LocalKey;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::Fault;

use super::arg::Arg;
use super::cached::{self, Change};
use super::datum::{in_memory, type_name};
use super::sys;
use super::value::{Field, Place, Timestamptz, read};
use super::xact::{self, End};

thread_local! {
    /// The last table that had the columns expected of it, and the last one that is partitioned by a timestamptz. Both
    /// are asked for with each row, and forgotten when any relation changes.
    static DESCRIBED: Cell<Option<(Oid, usize)>> = const { Cell::new(None) };
    static PARTITIONED: Cell<Option<Oid>> = const { Cell::new(None) };
}

fn notice(change: Change) {
    if let Change::Relation(_) = change {
        DESCRIBED.set(None);
        PARTITIONED.set(None);
    }
}

fn checked_once<K: Copy + PartialEq>(
    last: &'static LocalKey<Cell<Option<K>>>,
    key: K,
    check: impl FnOnce() -> bool,
) -> bool {
    let passed = last.get() == Some(key) || check();
    if passed {
        last.set(Some(key));
    }
    passed
}

/// The columns of a table: names and types, in order.
pub struct Columns<const N: usize>(pub [(&'static CStr, Oid); N]);

impl<const N: usize> Columns<N> {
    /// The table has these columns and no others.
    ///
    /// # Safety
    /// `table` is open.
    unsafe fn describe(&'static self, table: pg_sys::Relation) -> bool {
        // SAFETY: the caller's; the index is below natts.
        unsafe {
            checked_once(&DESCRIBED, ((*table).rd_id, std::ptr::from_ref(self).addr()), || {
                let desc = (*table).rd_att;
                (*desc).natts as usize == N
                    && self.0.iter().enumerate().all(|(i, (name, oid))| {
                        let attribute = &*sys::attribute(desc, i);
                        attribute.atttypid == *oid
                            && !attribute.attisdropped
                            && CStr::from_ptr(attribute.attname.data.as_ptr()) == *name
                    })
            })
        }
    }
}

/// The values of one row of a table with known columns.
pub struct TableRow<'r, const N: usize> {
    values: [pg_sys::Datum; N],
    nulls: [bool; N],
    columns: &'static Columns<N>,
    desc: pg_sys::TupleDesc,
    memory: pg_sys::MemoryContext,
    row: PhantomData<&'r ()>,
}

impl<'r, const N: usize> TableRow<'r, N> {
    /// The values of a tuple; `None` when its table has other columns.
    ///
    /// # Safety
    /// The tuple is one of `table`, which is open; both, and `memory`, live as long as `'r`.
    pub(crate) unsafe fn new(
        tuple: pg_sys::HeapTuple,
        table: pg_sys::Relation,
        columns: &'static Columns<N>,
        memory: pg_sys::MemoryContext,
    ) -> Option<Self> {
        let (mut values, mut nulls) = ([pg_sys::Datum::from(0); N], [true; N]);
        // SAFETY: the caller's; the descriptor has as many attributes as the arrays.
        unsafe {
            if !columns.describe(table) {
                return None;
            }
            let desc = (*table).rd_att;
            pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            Some(TableRow { values, nulls, columns, desc, memory, row: PhantomData })
        }
    }

    /// Column `n`, counted from 0. Of a table of the extension: XX001 when it has another type, 23502 when it is NULL and `T` is no
    /// `Option`; of any other: 39P01.
    pub fn get<'s, T: Field<'s>>(&'s self, n: usize) -> T {
        let (name, oid) = self.columns.0[n];
        let datum = (!self.nulls[n]).then_some(self.values[n]);
        // SAFETY: the columns were checked; the tuple and the memory live as long as the row.
        unsafe { read(datum, oid, self.memory, Place::Attribute(name, (*self.desc).tdtypeid)) }
    }

    /// The row as a tuple of the table, with other values in some columns.
    pub(crate) fn into_tuple(mut self, changes: &[(usize, Arg)]) -> pg_sys::HeapTuple {
        // SAFETY: the values are of the columns' types; the memory lives as long as the result is used.
        unsafe {
            in_memory(self.memory, || {
                let datums = Arg::datums(changes.iter().map(|(_, value)| value));
                for ((n, value), datum) in changes.iter().zip(datums) {
                    check_type(value, &self.columns.0[*n], (*self.desc).tdtypeid);
                    self.nulls[*n] = datum.is_none();
                    self.values[*n] = datum.unwrap_or(pg_sys::Datum::from(0));
                }
                pg_sys::heap_form_tuple(self.desc, self.values.as_mut_ptr(), self.nulls.as_mut_ptr())
            })
        }
    }
}

fn check_type(value: &Arg, (name, oid): &(&'static CStr, Oid), row_type: Oid) {
    if value.oid() != *oid && !value.fits(*oid) {
        super::value::wrong_type(&type_name(value.oid()), *oid, Place::Attribute(name, row_type));
    }
}

/// Why a row cannot be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No partition takes the row.
    NoPartition,
    /// The partition has other columns.
    OtherColumns,
    /// The partition is a foreign table, which nothing here can write to.
    NotATable,
    /// A trigger returned NULL instead of a row.
    Swallowed,
}

/// Puts rows into one partition of a table that is partitioned by ranges of one timestamptz.
pub struct Inserter<const N: usize> {
    open: Rc<Cell<Option<Open>>>,
    columns: &'static Columns<N>,
}

/// What is open. It belongs to the transaction's resource owner, because an inserter may live as long as a statement, and
/// then as a portal's or as a subtransaction's memory, which all end at other moments:
/// - while the transaction goes on, `Inserter::drop` closes it;
/// - an error that unwinds leaves it open, because the server is in no state to close anything;
/// - before the commit, `at_transaction_end` closes what is still open;
/// - in an abort the inserter may be dropped first, with its portal's memory (AtAbort_Portals): closing is still legal then,
///   because the resource owner is released only later;
/// - after the abort has released everything, `at_transaction_end` forgets it.
#[derive(Clone, Copy)]
struct Open {
    parent: pg_sys::Relation,
    leaf: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    result: *mut pg_sys::ResultRelInfo,
}

thread_local! {
    /// Every inserter of this transaction that is not closed yet.
    static OPEN: RefCell<Vec<Rc<Cell<Option<Open>>>>> = const { RefCell::new(Vec::new()) };
}

/// Called once when the library is loaded.
pub(crate) fn register() {
    xact::listen(at_transaction_end);
    cached::listen(&[notice]);
}

fn at_transaction_end(end: End) -> Result<(), Fault> {
    match end {
        End::BeforeCommit | End::BeforePrepare => {
            OPEN.take().iter().filter_map(|inserter| inserter.take()).for_each(Open::close);
        }
        End::Aborted | End::ParallelAborted => OPEN.take().iter().for_each(|inserter| inserter.set(None)),
        _ => {}
    }
    Ok(())
}

/// Runs `body` with the resources it takes or gives back booked on the transaction.
///
/// # Safety
/// Inside a transaction.
unsafe fn for_transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: the caller's; an abort sets the owner again.
    unsafe {
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
        let result = body();
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

impl Open {
    fn close(self) {
        // SAFETY: everything was opened by `Inserter::open` and nothing released it since.
        unsafe {
            for_transaction(|| {
                pg_sys::ExecCloseIndices(self.result);
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::FreeExecutorState(self.estate);
                pg_sys::table_close(self.leaf, pg_sys::NoLock as i32);
                pg_sys::table_close(self.parent, pg_sys::NoLock as i32);
            });
        }
    }

    /// The protocol of the executor for single rows, as the server's own logical replication follows it.
    ///
    /// # Safety
    /// Inside a transaction, whose resource owner is the current one.
    unsafe fn new<const N: usize>(
        table: &CStr,
        columns: &'static Columns<N>,
        key: Timestamptz,
    ) -> Result<Open, Refused> {
        // SAFETY: the caller's; an error leaves by unwinding, and the abort releases what is open.
        unsafe {
            let parent = pg_sys::table_open(sys::relation(table), pg_sys::RowExclusiveLock as i32);
            let leaf = locked_partition_for(parent, key).and_then(|leaf| {
                let refused = match (*(*leaf).rd_rel).relkind as u8 {
                    b'r' if columns.describe(leaf) => return Ok(leaf),
                    b'r' => Refused::OtherColumns,
                    _ => Refused::NotATable,
                };
                pg_sys::table_close(leaf, pg_sys::NoLock as i32);
                Err(refused)
            });
            let leaf = leaf.inspect_err(|_| pg_sys::table_close(parent, pg_sys::NoLock as i32))?;
            // Not the current context, which may be reset after each row.
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
            let estate = pg_sys::CreateExecutorState();
            pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let slot = pg_sys::table_slot_create(leaf, std::ptr::null_mut());
            let result = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, leaf, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            pg_sys::MemoryContextSwitchTo(context);
            Ok(Open { parent, leaf, estate, slot, result })
        }
    }
}

impl<const N: usize> Inserter<N> {
    /// Opens the partition of a table of the extension that rows with this key belong to.
    pub fn open(table: &CStr, columns: &'static Columns<N>, key: Timestamptz) -> Result<Self, Refused> {
        sys::prevent_if_read_only(c"INSERT");
        // SAFETY: exported functions run inside a transaction.
        let open = unsafe { for_transaction(|| Open::new(table, columns, key)) }?;
        let open = Rc::new(Cell::new(Some(open)));
        OPEN.with_borrow_mut(|all| all.push(open.clone()));
        Ok(Inserter { open, columns })
    }

    /// Adds one row and returns its first column as it was stored.
    pub fn insert<T: for<'r> Field<'r>>(&self, values: &[Arg; N]) -> Result<T, Refused> {
        // Closed before the commit, after which no statement runs.
        let Some(Open { estate, slot, result, .. }) = self.open.get() else { return Err(Refused::NoPartition) };
        // SAFETY: everything was opened by `open` and is still open; the slot has N columns of the checked types.
        unsafe {
            pg_sys::ExecClearTuple(slot);
            let row_type = (*(*slot).tts_tupleDescriptor).tdtypeid;
            for (n, (value, datum)) in values.iter().zip(Arg::datums(values.iter())).enumerate() {
                check_type(value, &self.columns.0[n], row_type);
                *(*slot).tts_isnull.add(n) = datum.is_none();
                *(*slot).tts_values.add(n) = datum.unwrap_or(pg_sys::Datum::from(0));
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            let indexes = IndexCaches(result);
            pg_sys::ExecSimpleRelationInsert(result, estate, slot);
            drop(indexes);
            // The place of the new row; none when a trigger returned NULL.
            if (*slot).tts_tid.ip_posid == pg_sys::InvalidOffsetNumber {
                return Err(Refused::Swallowed);
            }
            pg_sys::slot_getsomeattrs_int(slot, 1);
            let datum = (!*(*slot).tts_isnull).then_some(*(*slot).tts_values);
            let (name, oid) = self.columns.0[0];
            let stored = read(datum, oid, pg_sys::CurrentMemoryContext, Place::Attribute(name, row_type));
            // Nothing of the row is kept, its buffer included: the slot may live longer than the statement.
            pg_sys::ExecClearTuple(slot);
            let scratch = (*estate).es_per_tuple_exprcontext;
            if !scratch.is_null() {
                pg_sys::MemoryContextReset((*scratch).ecxt_per_tuple_memory);
            }
            Ok(stored)
        }
    }
}

/// From PostgreSQL 17 on, a BRIN index keeps pages pinned between insertions, in the name of the resource owner of the
/// moment, which ends before the transaction does. So they are given back after each row.
struct IndexCaches(#[cfg_attr(any(feature = "pg15", feature = "pg16"), allow(dead_code))] *mut pg_sys::ResultRelInfo);

impl Drop for IndexCaches {
    fn drop(&mut self) {
        // SAFETY: the indexes stay open as long as the inserter.
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        unsafe {
            for i in 0..(*self.0).ri_NumIndices as usize {
                let info = *(*self.0).ri_IndexRelationInfo.add(i);
                if std::thread::panicking() {
                    // The abort releases the pins; closing the indexes later must not do it again.
                    (*info).ii_AmCache = std::ptr::null_mut();
                } else {
                    pg_sys::index_insert_cleanup(*(*self.0).ri_IndexRelationDescs.add(i), info);
                }
            }
        }
    }
}

impl<const N: usize> Drop for Inserter<N> {
    fn drop(&mut self) {
        // See `Open`.
        if std::thread::panicking() {
            return;
        }
        if let Some(open) = self.open.take() {
            open.close();
        }
        OPEN.with_borrow_mut(|all| all.retain(|other| !Rc::ptr_eq(other, &self.open)));
    }
}

/// Opens the partition for a key. While its lock is waited for, the key may get another partition: a row that was on its way
/// to the default partition then goes there.
///
/// # Safety
/// As [`partition_for`].
unsafe fn locked_partition_for(parent: pg_sys::Relation, key: Timestamptz) -> Result<pg_sys::Relation, Refused> {
    // SAFETY: the caller's.
    unsafe {
        let mut wanted = partition_for(parent, key)?;
        loop {
            let leaf = pg_sys::table_open(wanted, pg_sys::RowExclusiveLock as i32);
            let now = partition_for(parent, key).inspect_err(|_| pg_sys::table_close(leaf, pg_sys::NoLock as i32))?;
            if now == wanted {
                return Ok(leaf);
            }
            pg_sys::table_close(leaf, pg_sys::RowExclusiveLock as i32);
            wanted = now;
        }
    }
}

/// The range search of the executor's get_partition_for_tuple, for one timestamptz key.
///
/// # Safety
/// `parent` is open.
unsafe fn partition_for(parent: pg_sys::Relation, key: Timestamptz) -> Result<Oid, Refused> {
    use pg_sys::PartitionRangeDatumKind::{PARTITION_RANGE_DATUM_MINVALUE, PARTITION_RANGE_DATUM_VALUE};
    // SAFETY: the caller's; the key is checked, so each bound has one datum, a timestamptz.
    unsafe {
        if (*(*parent).rd_rel).relkind as u8 != b'p'
            || !checked_once(&PARTITIONED, (*parent).rd_id, || has_timestamptz_key(parent))
        {
            return Err(Refused::NoPartition);
        }
        let desc = &*pg_sys::RelationGetPartitionDesc(parent, true);
        let bounds = desc.boundinfo.as_ref().filter(|bounds| bounds.strategy as u8 == b'r');
        let index = bounds.and_then(|bounds| {
            // The number of bounds that are not above the value.
            let below = (0..bounds.ndatums as usize).take_while(|i| match **bounds.kind.add(*i) {
                PARTITION_RANGE_DATUM_VALUE => (**bounds.datums.add(*i)).value() as i64 <= key.0,
                PARTITION_RANGE_DATUM_MINVALUE => true,
                _ => false,
            });
            let index = *bounds.indexes.add(below.count());
            let index = if index < 0 { bounds.default_index } else { index };
            usize::try_from(index).ok()
        });
        match index {
            Some(index) if *desc.is_leaf.add(index) => Ok(*desc.oids.add(index)),
            _ => Err(Refused::NoPartition),
        }
    }
}

/// The table is partitioned by one column, a timestamptz.
///
/// # Safety
/// `table` is open and partitioned.
unsafe fn has_timestamptz_key(table: pg_sys::Relation) -> bool {
    /// Columns of pg_partitioned_table.
    const PARTNATTS: pg_sys::AttrNumber = 3;
    const PARTATTRS: pg_sys::AttrNumber = 5;
    // SAFETY: a partitioned table has a row in this catalogue; its columns have these types and are never NULL.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PARTRELID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from((*table).rd_id));
        if tuple.is_null() {
            return false;
        }
        let mut null = false;
        let mut attribute = |n| pg_sys::SysCacheGetAttr(cache, tuple, n, &mut null);
        let count = attribute(PARTNATTS).value() as i16;
        let columns = attribute(PARTATTRS).cast_mut_ptr::<pg_sys::int2vector>();
        let number = if count == 1 { (*columns).values.as_slice(1)[0] } else { 0 };
        pg_sys::ReleaseSysCache(tuple);
        number > 0 && (*sys::attribute((*table).rd_att, number as usize - 1)).atttypid == pg_sys::TIMESTAMPTZOID
    }
}
