//! Trigger calls, checked before a row is touched.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::limits::{Bounds, MAX_VALUE};
use skill_core::{Code, Fault};

use super::arg::Arg;
use super::bounds;
use super::call::{Call, Returned};
use super::datum::{in_memory, same_bytes, type_name};
use super::error::{current_function, raise};
use super::hooks::items;
use super::insert::{Columns, TableRow};
use super::row::Row;
use super::sys;
use super::value::{Field, Place, missing_column, read, wrong_type};

/// Why a trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

impl Event {
    /// As SQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Insert => "INSERT",
            Event::Update => "UPDATE",
            Event::Delete => "DELETE",
            Event::Truncate => "TRUNCATE",
        }
    }
}

/// When a trigger fires, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// BEFORE ... FOR EACH ROW
    BeforeRow,
    /// AFTER ... FOR EACH ROW
    AfterRow,
    /// BEFORE ... FOR EACH STATEMENT
    BeforeStatement,
    /// AFTER ... FOR EACH STATEMENT
    AfterStatement,
    /// INSTEAD OF ... FOR EACH ROW
    InsteadOfRow,
}

impl Timing {
    fn as_str(self) -> &'static str {
        match self {
            Timing::BeforeRow => "BEFORE ROW",
            Timing::AfterRow => "AFTER ROW",
            Timing::BeforeStatement => "BEFORE STATEMENT",
            Timing::AfterStatement => "AFTER STATEMENT",
            Timing::InsteadOfRow => "INSTEAD OF ROW",
        }
    }

    fn is_for_each_row(self) -> bool {
        matches!(self, Timing::BeforeRow | Timing::AfterRow | Timing::InsteadOfRow)
    }
}

/// One firing of an event trigger.
pub struct EventTrigger<'c> {
    call: &'c Call,
}

impl<'c> EventTrigger<'c> {
    /// 39P01 when its function is called as anything else.
    pub fn new(call: &'c Call) -> Result<Self, Fault> {
        let context = call.context();
        // SAFETY: a node starts with its tag, which is its type; it lives as long as the call.
        if context.is_null() || unsafe { (*context).type_ } != pg_sys::NodeTag::T_EventTriggerData {
            return Err(Fault::new(
                Code::TriggerProtocolViolated,
                format!("function \"{}\" was not called by event trigger manager", call.name()),
            ));
        }
        Ok(EventTrigger { call })
    }

    /// What its function returns.
    pub fn finish(&self) -> Returned {
        self.call.tuple(std::ptr::null_mut())
    }

    /// What the statement does; the parts of CREATE SCHEMA, which come as one event, are not looked at.
    pub fn table_change(&self) -> TableChange {
        let mut change = TableChange::default();
        // SAFETY: `new` has looked at the tag of the context; the parse tree and its parts are of the kinds that their tags
        // tell.
        unsafe {
            let tree = (*self.call.context().cast::<pg_sys::EventTriggerData>()).parsetree;
            if tree.is_null() {
                return change;
            }
            match (*tree).type_ {
                pg_sys::NodeTag::T_CreateStmt => {
                    change.adds_child = !(*tree.cast::<pg_sys::CreateStmt>()).inhRelations.is_null();
                }
                pg_sys::NodeTag::T_CreateForeignTableStmt => {
                    change.adds_child = !(*tree.cast::<pg_sys::CreateForeignTableStmt>()).base.inhRelations.is_null();
                }
                pg_sys::NodeTag::T_AlterTableStmt => {
                    use pg_sys::AlterTableType as At;
                    for command in items::<pg_sys::AlterTableCmd>((*tree.cast::<pg_sys::AlterTableStmt>()).cmds) {
                        match (*command).subtype {
                            At::AT_AddInherit | At::AT_AttachPartition => change.adds_child = true,
                            At::AT_DetachPartition | At::AT_DetachPartitionFinalize => {
                                change.detached = find_table((*(*command).def.cast::<pg_sys::PartitionCmd>()).name);
                            }
                            At::AT_ChangeOwner => change.changes_owner = true,
                            _ => {}
                        }
                    }
                }
                pg_sys::NodeTag::T_CreateSchemaStmt => change.adds_child = true,
                _ => {}
            }
        }
        change
    }
}

/// What a statement does to the hierarchies and owners of tables.
#[derive(Default)]
pub struct TableChange {
    /// It may add a partition or an inheritance child.
    pub adds_child: bool,
    /// A partition that it detached.
    pub detached: Option<Oid>,
    /// It may give a table to another role.
    pub changes_owner: bool,
}

/// The table of this name, if it exists.
///
/// # Safety
/// A name of a parse tree, inside a transaction.
unsafe fn find_table(name: *mut pg_sys::RangeVar) -> Option<Oid> {
    // SAFETY: the caller's; no lock is needed of what the statement has locked.
    let oid = unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// One firing of a trigger.
pub struct Trigger<'c> {
    call: &'c Call,
    data: &'c pg_sys::TriggerData,
    timing: Timing,
    event: Event,
}

impl<'c> Trigger<'c> {
    /// The firing, when it is one of `accepted`; else 39P01, as the server's own trigger functions raise it.
    pub fn new(call: &'c Call, accepted: &[(Timing, &[Event])]) -> Result<Self, Fault> {
        let violated = |message: String| Fault::new(Code::TriggerProtocolViolated, message);
        let context = call.context();
        // SAFETY: a node starts with its tag, which is its type; it lives as long as the call.
        let data = unsafe {
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(violated(format!("function \"{}\" was not called by trigger manager", call.name())));
            }
            &*context.cast::<pg_sys::TriggerData>()
        };
        let event = match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        };
        let for_each_row = data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0;
        let timing = match (data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK, for_each_row) {
            (pg_sys::TRIGGER_EVENT_BEFORE, true) => Timing::BeforeRow,
            (pg_sys::TRIGGER_EVENT_BEFORE, false) => Timing::BeforeStatement,
            (pg_sys::TRIGGER_EVENT_INSTEAD, _) => Timing::InsteadOfRow,
            (_, true) => Timing::AfterRow,
            (_, false) => Timing::AfterStatement,
        };
        if accepted.iter().any(|(when, events)| *when == timing && events.contains(&event)) {
            return Ok(Trigger { call, data, timing, event });
        }
        let list = |(when, events): &(Timing, &[Event])| {
            let events: Vec<_> = events.iter().map(|event| event.as_str()).collect();
            format!("{} for {}", when.as_str(), events.join(" or "))
        };
        let accepted: Vec<_> = accepted.iter().map(list).collect();
        Err(violated(format!("function \"{}\" must be fired {}", call.name(), accepted.join(", or "))).detail(format!(
            "It was fired {} for {}.",
            timing.as_str(),
            event.as_str()
        )))
    }

    pub fn event(&self) -> Event {
        self.event
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The relation whose trigger it is.
    pub fn relation_oid(&self) -> Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.data.tg_relation).rd_id }
    }

    /// The relation and its descriptor, open as long as the trigger runs.
    pub(crate) fn relation(&self) -> pg_sys::Relation {
        self.data.tg_relation
    }

    /// `schema.table`, quoted where needed.
    pub fn relation_name(&self) -> String {
        // SAFETY: the relation is open; both names are NUL-terminated.
        unsafe {
            let class = (*self.data.tg_relation).rd_rel;
            let schema = pg_sys::get_namespace_name((*class).relnamespace);
            let name = pg_sys::quote_qualified_identifier(schema, (*class).relname.data.as_ptr());
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// The arguments of CREATE TRIGGER.
    pub fn arguments(&self) -> Vec<String> {
        // SAFETY: tgargs has tgnargs NUL-terminated strings.
        unsafe {
            let trigger = &*self.data.tg_trigger;
            (0..trigger.tgnargs as usize)
                .map(|i| CStr::from_ptr(*trigger.tgargs.add(i)).to_string_lossy().into_owned())
                .collect()
        }
    }

    /// The row as it was: for UPDATE and DELETE of a row trigger; else null.
    pub(crate) fn old_row(&self) -> pg_sys::HeapTuple {
        match self.event {
            Event::Update | Event::Delete if self.timing.is_for_each_row() => self.data.tg_trigtuple,
            _ => std::ptr::null_mut(),
        }
    }

    /// The row as it becomes: for INSERT and UPDATE of a row trigger; else null.
    pub(crate) fn new_row(&self) -> pg_sys::HeapTuple {
        match self.event {
            Event::Insert if self.timing.is_for_each_row() => self.data.tg_trigtuple,
            Event::Update if self.timing.is_for_each_row() => self.data.tg_newtuple,
            _ => std::ptr::null_mut(),
        }
    }

    /// What a BEFORE or INSTEAD OF trigger returns so that the operation goes on unchanged.
    pub fn proceed(&self) -> Returned {
        self.call.tuple(if self.event == Event::Delete { self.old_row() } else { self.new_row() })
    }

    /// As [`Trigger::proceed`], with columns of the new row set. Raises 39P01 when a column has another type.
    pub fn proceed_with(&self, columns: &[(&CStr, Arg)]) -> Returned {
        let numbers = columns.iter().map(|(name, value)| self.column_for(name, value)).collect();
        self.modified(numbers, columns.iter().map(|(_, value)| value))
    }

    /// What an INSTEAD OF trigger returns for RETURNING: the new row with these columns set from the first columns of a
    /// row that a query has just found.
    pub fn proceed_with_row(&self, columns: &[&CStr], row: &Row<'_>) -> Returned {
        let values = row.args(columns.len() as i32);
        let numbers = columns.iter().zip(&values).map(|(name, value)| self.column_for(name, value)).collect();
        self.modified(numbers, values.iter())
    }

    /// Number of a column that takes this value.
    fn column_for(&self, name: &CStr, value: &Arg) -> i32 {
        let (number, oid) = self.column(name);
        if value.oid() != oid && !value.fits(oid) {
            wrong_type(&type_name(value.oid()), oid, self.place(name));
        }
        number
    }

    fn modified<'v, 'a: 'v>(
        &self,
        mut numbers: Vec<i32>,
        values: impl Iterator<Item = &'v Arg<'a>> + Clone,
    ) -> Returned {
        let row = self.new_row();
        if row.is_null() {
            raise(Fault::new(Code::Internal, format!("function {}: new row does not exist", current_function())));
        }
        // SAFETY: tuple and descriptor belong together; the values are of the columns' types. The new row is created where
        // it outlives a query that may be running.
        unsafe {
            in_memory(self.call.memory(), || {
                let values: Vec<_> = Arg::datums(values).collect();
                let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
                let mut values: Vec<_> =
                    values.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::from(0))).collect();
                self.call.tuple(pg_sys::heap_modify_tuple_by_cols(
                    row,
                    (*self.data.tg_relation).rd_att,
                    numbers.len() as i32,
                    numbers.as_mut_ptr(),
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                ))
            })
        }
    }

    /// The new row, when its table has these columns and no others.
    pub fn table_row<const N: usize>(&self, columns: &'static Columns<N>) -> Option<TableRow<'_, N>> {
        let row = self.new_row();
        if row.is_null() {
            return None;
        }
        // SAFETY: the row is one of the trigger's table; both, and the memory, live as long as the call.
        unsafe { TableRow::new(row, self.data.tg_relation, columns, self.call.memory()) }
    }

    /// As [`Trigger::proceed`], with this row and other values in some of its columns.
    pub fn proceed_with_table_row<const N: usize>(&self, row: TableRow<'_, N>, changes: &[(usize, Arg)]) -> Returned {
        self.call.tuple(row.into_tuple(changes))
    }

    /// What an AFTER trigger returns: a null pointer, which is not SQL NULL.
    pub fn done(&self) -> Returned {
        self.call.tuple(std::ptr::null_mut())
    }

    /// The relation has these columns with these types.
    pub fn has_columns(&self, columns: &[(&CStr, Oid)]) -> bool {
        columns.iter().all(|(name, oid)| self.find_column(name).is_some_and(|(_, found)| found == *oid))
    }

    /// Column `name` of the old row. Raises 39P01 when it has another type, or is NULL and `T` is not an `Option`.
    pub fn old<'t, T: Field<'t>>(&'t self, name: &CStr) -> T {
        self.value(self.old_row(), name)
    }

    /// Column `name` of the new row, likewise.
    pub fn new_value<'t, T: Field<'t>>(&'t self, name: &CStr) -> T {
        self.value(self.new_row(), name)
    }

    fn value<'t, T: Field<'t>>(&'t self, tuple: pg_sys::HeapTuple, name: &CStr) -> T {
        let (datum, oid) = self.datum(tuple, name);
        // SAFETY: the type is that of the column; the row and the memory live as long as the call.
        unsafe { read(datum, oid, self.call.memory(), self.place(name)) }
    }

    fn datum(&self, tuple: pg_sys::HeapTuple, name: &CStr) -> (Option<pg_sys::Datum>, Oid) {
        let (number, oid) = self.column(name);
        if tuple.is_null() {
            raise(Fault::new(
                Code::Internal,
                format!("function {}: row of {} does not exist in this event", current_function(), self.place(name)),
            ));
        }
        let mut null = false;
        // SAFETY: tuple and descriptor belong together, and the column exists.
        let datum = unsafe { pg_sys::heap_getattr(tuple, number, (*self.data.tg_relation).rd_att, &mut null) };
        ((!null).then_some(datum), oid)
    }

    fn place<'n>(&self, name: &'n CStr) -> Place<'n> {
        // SAFETY: the relation's descriptor.
        Place::Attribute(name, unsafe { (*(*self.data.tg_relation).rd_att).tdtypeid })
    }

    /// Number and type of a column.
    fn column(&self, name: &CStr) -> (i32, Oid) {
        self.find_column(name).unwrap_or_else(|| missing_column(self.place(name)))
    }

    fn find_column(&self, name: &CStr) -> Option<(i32, Oid)> {
        // SAFETY: the relation's descriptor; both functions look by name and number only.
        unsafe {
            let desc = (*self.data.tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(desc, name.as_ptr());
            (number > 0).then(|| (number, pg_sys::SPI_gettypeid(desc, number)))
        }
    }

    /// Names of the columns whose values differ between the old and the new row, by their bytes.
    pub fn changed_columns(&self) -> Vec<String> {
        let (old, new) = (self.old_row(), self.new_row());
        if old.is_null() || new.is_null() {
            return Vec::new();
        }
        // SAFETY: both tuples have the relation's descriptor; attributes are counted by it.
        unsafe {
            let desc = (*self.data.tg_relation).rd_att;
            let mut changed = Vec::new();
            for i in 0..(*desc).natts {
                let attribute = &*sys::attribute(desc, i as usize);
                if attribute.attisdropped {
                    continue;
                }
                let (mut null_a, mut null_b) = (false, false);
                let a = pg_sys::heap_getattr(old, i + 1, desc, &mut null_a);
                let b = pg_sys::heap_getattr(new, i + 1, desc, &mut null_b);
                let same = if null_a || null_b {
                    null_a == null_b
                } else {
                    same_bytes(a, b, attribute.attbyval, attribute.attlen)
                };
                if !same {
                    changed.push(CStr::from_ptr(attribute.attname.data.as_ptr()).to_string_lossy().into_owned());
                }
            }
            changed
        }
    }

    /// Refuses a new row with a new value that is out of bounds.
    pub fn check_bounds(&self) -> Result<(), Fault> {
        let (old, row) = (self.old_row(), self.new_row());
        if row.is_null() {
            return Ok(());
        }
        // SAFETY: the row is one of the trigger's table, whose descriptor counts its attributes; both live as long as the
        // call.
        unsafe {
            let desc = (*self.relation()).rd_att;
            for i in 0..(*desc).natts {
                let attribute = &*sys::attribute(desc, i as usize);
                let is_time = matches!(attribute.atttypid, pg_sys::TIMESTAMPTZOID | pg_sys::DATEOID);
                if attribute.attisdropped || attribute.attlen != -1 && !is_time {
                    continue;
                }
                let value = |row: pg_sys::HeapTuple| {
                    let mut null = row.is_null();
                    let datum = if null { 0.into() } else { pg_sys::heap_getattr(row, i + 1, desc, &mut null) };
                    (!null).then_some(datum)
                };
                let Some(datum) = value(row) else { continue };
                if is_time {
                    if value(old) != Some(datum) {
                        let name = CStr::from_ptr(attribute.attname.data.as_ptr()).to_string_lossy();
                        bounds::check_time(&name, datum, attribute.atttypid)
                            .map_err(|fault| fault.detail(format!("It is a column of {}.", self.relation_name())))?;
                    }
                    continue;
                }
                // Compared as it is stored: what an UPDATE leaves alone is not read.
                if value(old).is_some_and(|old| bounds::stored_bytes(old) == bounds::stored_bytes(datum)) {
                    continue;
                }
                let is_jsonb = attribute.atttypid == pg_sys::JSONBOID;
                let most = if is_jsonb { Bounds::STORED.text } else { MAX_VALUE };
                bounds::check_varlena(datum, attribute.atttypid, most, pg_sys::CurrentMemoryContext).map_err(
                    |fault| {
                        let name = CStr::from_ptr(attribute.attname.data.as_ptr()).to_string_lossy();
                        fault.detail(format!("It is the value of column \"{name}\" of {}.", self.relation_name()))
                    },
                )?;
            }
        }
        Ok(())
    }
}
