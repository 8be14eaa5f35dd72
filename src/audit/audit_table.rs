//! Rows of `audit_logs`, taken apart and put together without SQL.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys;
use skill_core::{Code, Fault};

use skill_pg::call::{text_of, varlena_bytes};
use skill_pg::error::OrRaise;
use skill_pg::{error, sys};

/// The columns, in the order of `sql/audit.sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    /// uuid
    Id,
    /// text
    TenantId,
    /// varchar(100)
    EventType,
    /// jsonb
    EventData,
    /// varchar(100)
    ActorId,
    /// varchar(20)
    ActorType,
    /// timestamptz
    CreatedAt,
    /// varchar(256)
    Signature,
    /// timestamptz
    RecordedAt,
    /// bigint
    TransactionId,
    /// text
    SessionUser,
    /// text
    CurrentUser,
    /// text
    KeyId,
}

const COLUMNS: usize = 13;
const NAMES: [&CStr; COLUMNS] = [
    c"id",
    c"tenant_id",
    c"event_type",
    c"event_data",
    c"actor_id",
    c"actor_type",
    c"created_at",
    c"signature",
    c"recorded_at",
    c"transaction_id",
    c"session_user_name",
    c"current_user_name",
    c"key_id",
];

/// The values of one row.
pub struct AuditRow {
    values: [pg_sys::Datum; COLUMNS],
    nulls: [bool; COLUMNS],
}

impl AuditRow {
    /// A row of NULLs.
    pub fn new() -> Self {
        AuditRow { values: [pg_sys::Datum::from(0); COLUMNS], nulls: [true; COLUMNS] }
    }

    /// The values of a tuple of `audit_logs` or one of its partitions.
    pub fn from_tuple(tuple: pg_sys::HeapTuple, relation: pg_sys::Relation) -> Result<Self, Fault> {
        let mut row = AuditRow::new();
        // SAFETY: the descriptor is the tuple's own and has as many attributes as the arrays.
        unsafe {
            let desc = (*relation).rd_att;
            check_shape(desc)?;
            pg_sys::heap_deform_tuple(tuple, desc, row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
        }
        Ok(row)
    }

    /// Sets a value; `None` is NULL.
    pub fn set(&mut self, column: Column, value: Option<pg_sys::Datum>) {
        self.nulls[column as usize] = value.is_none();
        self.values[column as usize] = value.unwrap_or(pg_sys::Datum::from(0));
    }

    fn datum(&self, column: Column) -> Option<pg_sys::Datum> {
        (!self.nulls[column as usize]).then_some(self.values[column as usize])
    }

    /// A text value, borrowed.
    pub fn text(&self, column: Column) -> Option<&str> {
        // SAFETY: only asked for text columns; the shape was checked.
        self.datum(column).map(|datum| unsafe { text_of(datum) })
    }

    /// The bytes of `event_data` behind its header.
    pub fn event_data(&self) -> Option<&[u8]> {
        // SAFETY: a jsonb column.
        self.datum(Column::EventData).map(|datum| unsafe { varlena_bytes(datum) })
    }

    /// A server timestamp.
    pub fn timestamp(&self, column: Column) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    /// The row as a tuple for `relation`.
    pub fn into_tuple(mut self, relation: pg_sys::Relation) -> pg_sys::HeapTuple {
        // SAFETY: as in `from_tuple`.
        unsafe { pg_sys::heap_form_tuple((*relation).rd_att, self.values.as_mut_ptr(), self.nulls.as_mut_ptr()) }
    }
}

/// A partition whose columns are not ours could be signed wrongly, so it is refused.
fn check_shape(desc: pg_sys::TupleDesc) -> Result<(), Fault> {
    // SAFETY: a valid descriptor; the index is below natts.
    let same = unsafe {
        (*desc).natts as usize == COLUMNS
            && NAMES.iter().enumerate().all(|(i, name)| {
                let attribute = sys::attribute(desc, i);
                CStr::from_ptr((*attribute).attname.data.as_ptr()) == *name
            })
    };
    if same {
        Ok(())
    } else {
        Err(Fault::new(Code::NotInPrerequisiteState, "the columns of the audit table are not those of this version")
            .hint("Update the extension with ALTER EXTENSION skill_system UPDATE, and detach foreign partitions."))
    }
}

/// Puts rows into one partition of `audit_logs`, signing trigger included, without
/// parsing, planning or privilege checks: whoever may call the function may have
/// the record written.
pub struct Inserter(Rc<Cell<Option<Open>>>);

/// What is open. It belongs to the transaction's resource owner, because an inserter
/// may live as long as a statement, and then as a portal's or as a subtransaction's
/// memory, which all end at other moments.
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

/// Closes what is still open: to be called before the transaction commits.
pub fn before_commit() {
    for inserter in OPEN.take() {
        if let Some(open) = inserter.take() {
            open.close();
        }
    }
}

/// Forgets what was open: the abort of the transaction has released it.
pub fn after_abort() {
    for inserter in OPEN.take() {
        inserter.set(None);
    }
}

/// Runs `body` with the resources it takes or gives back booked on the transaction.
unsafe fn for_transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; an abort sets the owner anew.
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
}

impl Inserter {
    /// Opens the partition that `created_at`, a server timestamp, belongs to.
    pub fn open(created_at: i64) -> Self {
        sys::prevent_if_read_only(c"INSERT");
        // SAFETY: the protocol of the executor for single rows, as the server's own
        // logical replication follows it.
        let open = unsafe {
            for_transaction(|| {
                let parent = pg_sys::table_open(sys::relation(c"audit_logs"), pg_sys::RowExclusiveLock as i32);
                let leaf = partition_for(parent, created_at).and_then(|leaf| {
                    let leaf = pg_sys::table_open(leaf, pg_sys::RowExclusiveLock as i32);
                    check_shape((*leaf).rd_att).inspect_err(|_| pg_sys::table_close(leaf, pg_sys::NoLock as i32))?;
                    Ok(leaf)
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
                Ok::<_, Fault>(Open { parent, leaf, estate, slot, result })
            })
        };
        // Raised here and not inside, where a savepoint's rollback would not close what is open.
        let open = open.or_raise();
        let open = Rc::new(Cell::new(Some(open)));
        OPEN.with_borrow_mut(|all| all.push(open.clone()));
        Inserter(open)
    }

    /// Adds one row and returns its id.
    pub fn insert(&self, row: &AuditRow) -> [u8; 16] {
        let Some(Open { estate, slot, result, .. }) = self.0.get() else {
            error::raise(Fault::new(Code::Internal, "the audit partition is closed already"));
        };
        // SAFETY: everything was opened by `open` and is still open.
        unsafe {
            pg_sys::ExecClearTuple(slot);
            std::ptr::copy_nonoverlapping(row.values.as_ptr(), (*slot).tts_values, COLUMNS);
            std::ptr::copy_nonoverlapping(row.nulls.as_ptr(), (*slot).tts_isnull, COLUMNS);
            pg_sys::ExecStoreVirtualTuple(slot);
            let indexes = IndexCaches(result);
            pg_sys::ExecSimpleRelationInsert(result, estate, slot);
            drop(indexes);
            // The place of the new row; none when a trigger of somebody else's returned NULL.
            if (*slot).tts_tid.ip_posid == pg_sys::InvalidOffsetNumber {
                error::raise(
                    Fault::new(Code::NotInPrerequisiteState, "a trigger has swallowed the audit record")
                        .hint("SELECT * FROM skill_system.verify_audit(); names the trigger."),
                );
            }
            // The signing trigger has set the id.
            pg_sys::slot_getsomeattrs_int(slot, 1);
            let mut id = [0; 16];
            std::ptr::copy_nonoverlapping((*(*slot).tts_values).cast_mut_ptr::<u8>(), id.as_mut_ptr(), id.len());
            // Nothing of the row is kept, its buffer included: the slot may live longer than the statement.
            pg_sys::ExecClearTuple(slot);
            let scratch = (*estate).es_per_tuple_exprcontext;
            if !scratch.is_null() {
                pg_sys::MemoryContextReset((*scratch).ecxt_per_tuple_memory);
            }
            id
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

impl Drop for Inserter {
    fn drop(&mut self) {
        // While an error unwinds, the server is in no state to close anything; the
        // end of the transaction does it.
        if std::thread::panicking() {
            return;
        }
        if let Some(open) = self.0.take() {
            open.close();
        }
        OPEN.with_borrow_mut(|all| all.retain(|other| !Rc::ptr_eq(other, &self.0)));
    }
}

/// The range search of the executor's get_partition_for_tuple, for one timestamptz key.
unsafe fn partition_for(parent: pg_sys::Relation, created_at: i64) -> Result<pg_sys::Oid, Fault> {
    use pg_sys::PartitionRangeDatumKind::{PARTITION_RANGE_DATUM_MINVALUE, PARTITION_RANGE_DATUM_VALUE};
    unsafe {
        let desc = &*pg_sys::RelationGetPartitionDesc(parent, true);
        let bounds = desc.boundinfo.as_ref();
        let index = bounds.and_then(|bounds| {
            // The number of bounds that are not above the value.
            let below = (0..bounds.ndatums as usize).take_while(|i| match **bounds.kind.add(*i) {
                PARTITION_RANGE_DATUM_VALUE => (**bounds.datums.add(*i)).value() as i64 <= created_at,
                PARTITION_RANGE_DATUM_MINVALUE => true,
                _ => false,
            });
            let index = *bounds.indexes.add(below.count());
            let index = if index < 0 { bounds.default_index } else { index };
            usize::try_from(index).ok()
        });
        match index {
            Some(index) if *desc.is_leaf.add(index) => Ok(*desc.oids.add(index)),
            _ => Err(Fault::new(Code::NotInPrerequisiteState, "no partition of the audit table takes this record")
                .hint("The partition audit_logs_default belongs to it; attach it again.")),
        }
    }
}
