//! Trigger calls.

use std::ffi::CStr;

use pgrx::pg_sys;
use skill_core::{Code, Fault};

use super::call::{Call, same_bytes};
use super::error::raise;

/// One firing of a trigger.
pub struct Trigger {
    data: *mut pg_sys::TriggerData,
}

/// Why it fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// INSERT
    Insert,
    /// UPDATE
    Update,
    /// DELETE
    Delete,
    /// TRUNCATE
    Truncate,
}

impl Trigger {
    /// Raises when the function is called as anything but a trigger.
    pub fn new(call: &Call) -> Self {
        match call.trigger_data() {
            Some(data) => Trigger { data },
            None => raise(Fault::new(Code::NotInPrerequisiteState, "this function can only be called as a trigger")),
        }
    }

    fn data(&self) -> &pg_sys::TriggerData {
        // SAFETY: checked in `new`; lives as long as the call.
        unsafe { &*self.data }
    }

    /// Why it fired.
    pub fn event(&self) -> Event {
        match self.data().tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    /// The relation whose trigger it is.
    pub fn relation(&self) -> pg_sys::Relation {
        self.data().tg_relation
    }

    /// `schema.table`, quoted where needed.
    pub fn relation_name(&self) -> String {
        // SAFETY: the relation is open; both names are NUL-terminated.
        unsafe {
            let class = (*self.data().tg_relation).rd_rel;
            let schema = pg_sys::get_namespace_name((*class).relnamespace);
            let name = pg_sys::quote_qualified_identifier(schema, (*class).relname.data.as_ptr());
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// The arguments of CREATE TRIGGER.
    pub fn arguments(&self) -> Vec<String> {
        // SAFETY: tgargs has tgnargs NUL-terminated strings.
        unsafe {
            let trigger = &*self.data().tg_trigger;
            (0..trigger.tgnargs as usize)
                .map(|i| CStr::from_ptr(*trigger.tgargs.add(i)).to_string_lossy().into_owned())
                .collect()
        }
    }

    /// The row as it was: for UPDATE and DELETE.
    pub fn old_row(&self) -> pg_sys::HeapTuple {
        self.data().tg_trigtuple
    }

    /// The row as it becomes: for INSERT and UPDATE.
    pub fn new_row(&self) -> pg_sys::HeapTuple {
        match self.event() {
            Event::Insert => self.data().tg_trigtuple,
            _ => self.data().tg_newtuple,
        }
    }

    /// What a BEFORE trigger returns so that the operation goes on unchanged.
    pub fn proceed(&self) -> pg_sys::Datum {
        let row = match self.event() {
            Event::Update => self.data().tg_newtuple,
            _ => self.data().tg_trigtuple,
        };
        pg_sys::Datum::from(row)
    }

    /// As [`Trigger::proceed`], with columns of the new row set.
    pub fn proceed_with(&self, columns: &[(&CStr, pg_sys::Datum)]) -> pg_sys::Datum {
        // SAFETY: tuple and descriptor belong together; the values are of the columns' types by sql/.
        unsafe {
            let desc = (*self.data().tg_relation).rd_att;
            let mut numbers: Vec<i32> = columns
                .iter()
                .map(|(name, _)| match pg_sys::SPI_fnumber(desc, name.as_ptr()) {
                    number if number > 0 => number,
                    _ => raise(Fault::new(Code::Internal, format!("column {} is missing", name.to_string_lossy()))),
                })
                .collect();
            let mut values: Vec<pg_sys::Datum> = columns.iter().map(|(_, value)| *value).collect();
            let mut nulls = vec![false; columns.len()];
            let row = pg_sys::heap_modify_tuple_by_cols(
                self.new_row(),
                desc,
                numbers.len() as i32,
                numbers.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::Datum::from(row)
        }
    }

    /// The bytes of column `name`, a text, of the new row, borrowed.
    pub fn new_bytes(&self, name: &CStr) -> Option<&[u8]> {
        // SAFETY: only asked for columns of variable length; the row lives as long as the call.
        self.new_datum(name).map(|datum| unsafe { super::call::varlena_bytes(datum) })
    }

    /// It fires instead of the operation, and the relation has these columns with these types.
    pub fn is_instead_of(&self, columns: &[(&CStr, pg_sys::Oid)]) -> bool {
        // SAFETY: the descriptor is the relation's; both functions look by name and number only.
        unsafe {
            let desc = (*self.data().tg_relation).rd_att;
            self.data().tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_INSTEAD
                && columns.iter().all(|(name, kind)| {
                    let number = pg_sys::SPI_fnumber(desc, name.as_ptr());
                    number > 0 && pg_sys::SPI_gettypeid(desc, number) == *kind
                })
        }
    }

    /// What an INSTEAD OF trigger returns for RETURNING: the new row with these columns, whose values are those of a row that
    /// a query has just found.
    pub fn found(&self, columns: &[(&CStr, pg_sys::Oid)], row: &super::spi::Row) -> pg_sys::Datum {
        // SAFETY: inside of SPI, so the copy is made where it outlives the query; types as checked by `is_instead_of`.
        unsafe {
            let relation = self.data().tg_relation;
            let mut numbers: Vec<i32> =
                columns.iter().map(|(name, _)| pg_sys::SPI_fnumber((*relation).rd_att, name.as_ptr())).collect();
            let values: Vec<_> = (1..=columns.len() as i32).map(|n| row.datum(n)).collect();
            let nulls: Vec<std::ffi::c_char> =
                values.iter().map(|value| if value.is_some() { b' ' as _ } else { b'n' as _ }).collect();
            let mut values: Vec<pg_sys::Datum> =
                values.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::from(0))).collect();
            let row = pg_sys::SPI_modifytuple(
                relation,
                self.new_row(),
                numbers.len() as i32,
                numbers.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
            );
            pg_sys::Datum::from(row)
        }
    }

    /// What an AFTER trigger returns: a null pointer, which is not SQL NULL.
    pub fn done(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(0)
    }

    /// Column `name` of the old (or inserted) row.
    pub fn old<T: pgrx::datum::FromDatum>(&self, name: &CStr) -> Option<T> {
        self.column(self.data().tg_trigtuple, name)
    }

    /// Column `name` of the new row.
    pub fn new_value<T: pgrx::datum::FromDatum>(&self, name: &CStr) -> Option<T> {
        self.column(self.new_row(), name)
    }

    /// Column `name` of the new row as it is.
    pub fn new_datum(&self, name: &CStr) -> Option<pg_sys::Datum> {
        self.datum(self.new_row(), name)
    }

    fn column<T: pgrx::datum::FromDatum>(&self, tuple: pg_sys::HeapTuple, name: &CStr) -> Option<T> {
        // SAFETY: T is the type of the column by sql/.
        self.datum(tuple, name).and_then(|datum| unsafe { T::from_datum(datum, false) })
    }

    fn datum(&self, tuple: pg_sys::HeapTuple, name: &CStr) -> Option<pg_sys::Datum> {
        // SAFETY: tuple and descriptor belong together.
        unsafe {
            let desc = (*self.data().tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(desc, name.as_ptr());
            if number <= 0 {
                raise(Fault::new(Code::Internal, format!("column {} is missing", name.to_string_lossy())));
            }
            let mut null = false;
            let datum = pg_sys::heap_getattr(tuple, number, desc, &mut null);
            (!null).then_some(datum)
        }
    }

    /// Names of the columns whose values differ between the old and the new row, by
    /// their bytes.
    pub fn changed_columns(&self) -> Vec<String> {
        // SAFETY: both tuples have the relation's descriptor; attributes are counted by it.
        unsafe {
            let desc = (*self.data().tg_relation).rd_att;
            let mut changed = Vec::new();
            for i in 0..(*desc).natts {
                let attribute = super::sys::attribute(desc, i as usize);
                if (*attribute).attisdropped {
                    continue;
                }
                let (mut null_a, mut null_b) = (false, false);
                let a = pg_sys::heap_getattr(self.data().tg_trigtuple, i + 1, desc, &mut null_a);
                let b = pg_sys::heap_getattr(self.data().tg_newtuple, i + 1, desc, &mut null_b);
                let same = if null_a || null_b {
                    null_a == null_b
                } else {
                    same_bytes(a, b, (*attribute).attbyval, (*attribute).attlen)
                };
                if !same {
                    changed.push(CStr::from_ptr((*attribute).attname.data.as_ptr()).to_string_lossy().into_owned());
                }
            }
            changed
        }
    }
}

impl Call {
    fn trigger_data(&self) -> Option<*mut pg_sys::TriggerData> {
        let context = self.context();
        // SAFETY: a node starts with its tag.
        (!context.is_null() && unsafe { (*context).type_ } == pg_sys::NodeTag::T_TriggerData).then_some(context.cast())
    }
}
