//! A changed row as jsonb, built from the tuple without SQL.
//!
//! Values come out as `to_jsonb()` would have them: the common types are built
//! here, all others are given to it.

use std::ffi::{CStr, CString};

use pgrx::{PgMemoryContexts, pg_sys};
use skill_core::Fault;
use skill_core::jsonb::{JsonbError, ObjectWriter, key_order};

use super::audit_table::Inserter;
use skill_pg::call::{Call, jsonb_datum, same_bytes, varlena_bytes};
use skill_pg::sys;
use skill_pg::trigger::{Event, Trigger};

/// `to_jsonb(anyelement)` in pg_proc.dat.
const TO_JSONB: u32 = 3787;

/// What a statement needs to know of the table, and the open audit partition; lives
/// as long as the statement's trigger call site.
pub struct Statement {
    table: CString,
    columns: Vec<Captured>,
    /// The primary key.
    key: Vec<Captured>,
    inserter: Option<Inserter>,
    buffer: Vec<u8>,
}

#[derive(Clone)]
struct Captured {
    position: usize,
    name: CString,
    type_oid: pg_sys::Oid,
    length: i16,
    by_value: bool,
    /// `to_jsonb` prepared for the type, where it is not one of the common ones.
    convert: *mut pg_sys::FmgrInfo,
}

/// Runs `body` with the statement's state, which is made at its first row.
pub fn with_statement<T>(call: &Call, trigger: &Trigger, body: impl FnOnce(&mut Statement) -> T) -> T {
    // SAFETY: fn_extra belongs to this function alone; it is dropped with its memory
    // context, at the end of the statement. A trigger is not fired again for the same
    // call site while it runs.
    let statement = unsafe {
        let flinfo = call.call_site();
        if (*flinfo).fn_extra.is_null() {
            let statement = Statement::of(trigger, (*flinfo).fn_mcxt);
            (*flinfo).fn_extra = PgMemoryContexts::For((*flinfo).fn_mcxt).leak_and_drop_on_delete(statement).cast();
        }
        &mut *(*flinfo).fn_extra.cast::<Statement>()
    };
    body(statement)
}

impl Statement {
    /// The audit partition for this transaction's records.
    pub fn inserter(&mut self, created_at: i64) -> &Inserter {
        self.inserter.get_or_insert_with(|| Inserter::open(created_at))
    }

    /// The record of one firing: `{"table", "key", "old", "new"}`; `None` when none of
    /// the chosen columns changed.
    pub fn change(&mut self, trigger: &Trigger) -> Result<Option<pg_sys::Datum>, Fault> {
        // SAFETY: tuples and descriptor belong to one firing of the trigger.
        unsafe {
            let event = trigger.event();
            let desc = (*trigger.relation()).rd_att;
            let old = matches!(event, Event::Update | Event::Delete).then(|| Values::of(trigger.old_row(), desc));
            let new = matches!(event, Event::Insert | Event::Update).then(|| Values::of(trigger.new_row(), desc));
            let unchanged = |old: &Values, new: &Values| self.columns.iter().all(|column| old.same(new, column));
            if old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| unchanged(old, new)) {
                return Ok(None);
            }
            self.buffer.clear();
            let rows: Vec<(&[u8], &[Captured], &Values)> = [
                ("key", &self.key, new.as_ref().or(old.as_ref())),
                ("new", &self.columns, new.as_ref()),
                ("old", &self.columns, old.as_ref()),
            ]
            .into_iter()
            .filter_map(|(name, columns, row)| row.map(|row| (name.as_bytes(), columns.as_slice(), row)))
            .collect();
            let mut record = ObjectWriter::new(&mut self.buffer, rows.len() + 1);
            rows.iter().for_each(|(name, _, _)| record.string(name));
            record.string(b"table");
            for (_, columns, row) in rows {
                record.object(columns.len(), |object| row.write(columns, object))?;
            }
            record.string(self.table.as_bytes());
            Ok(Some(jsonb_datum(&self.buffer)?))
        }
    }

    unsafe fn of(trigger: &Trigger, context: pg_sys::MemoryContext) -> Statement {
        unsafe {
            let relation = trigger.relation();
            let desc = (*relation).rd_att;
            let arguments = trigger.arguments();
            let (only, listed) = match arguments.split_first() {
                Some((word, listed)) => (word == "only", listed),
                None => (false, &[][..]),
            };
            let mut all: Vec<Captured> =
                (0..(*desc).natts as usize).filter_map(|i| Captured::of(desc, i, context)).collect();
            all.sort_by(|a, b| key_order(a.name.as_bytes(), b.name.as_bytes()));
            let is_listed = |column: &&Captured| listed.iter().any(|name| name.as_bytes() == column.name.as_bytes());
            let columns = all.iter().filter(|column| is_listed(column) == only).cloned().collect();
            let mut key = Vec::new();
            let attributes = pg_sys::RelationGetIndexAttrBitmap(
                relation,
                pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
            );
            for column in &all {
                let bit = column.position as i32 + 1 - pg_sys::FirstLowInvalidHeapAttributeNumber;
                if pg_sys::bms_is_member(bit, attributes) {
                    key.push(column.clone());
                }
            }
            Statement {
                table: sys::c_string(&trigger.relation_name()),
                columns,
                key,
                inserter: None,
                buffer: Vec::new(),
            }
        }
    }
}

impl Captured {
    unsafe fn of(desc: pg_sys::TupleDesc, position: usize, context: pg_sys::MemoryContext) -> Option<Captured> {
        unsafe {
            let attribute = &*sys::attribute(desc, position);
            if attribute.attisdropped {
                return None;
            }
            // A domain has the values of its base type.
            let type_oid = pg_sys::getBaseType(attribute.atttypid);
            let common = matches!(
                type_oid,
                pg_sys::BOOLOID
                    | pg_sys::INT2OID
                    | pg_sys::INT4OID
                    | pg_sys::INT8OID
                    | pg_sys::TEXTOID
                    | pg_sys::VARCHAROID
                    | pg_sys::BPCHAROID
                    | pg_sys::UUIDOID
                    | pg_sys::JSONBOID
                    | pg_sys::DATEOID
                    | pg_sys::TIMESTAMPOID
                    | pg_sys::TIMESTAMPTZOID
            );
            let convert = if common { std::ptr::null_mut() } else { to_jsonb_for(attribute, context) };
            Some(Captured {
                position,
                name: CStr::from_ptr(attribute.attname.data.as_ptr()).to_owned(),
                type_oid,
                length: attribute.attlen,
                by_value: attribute.attbyval,
                convert,
            })
        }
    }
}

/// `to_jsonb` as if it had been called with an expression of the column's type.
unsafe fn to_jsonb_for(
    attribute: &pg_sys::FormData_pg_attribute,
    context: pg_sys::MemoryContext,
) -> *mut pg_sys::FmgrInfo {
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(context);
        let flinfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
        pg_sys::fmgr_info(pg_sys::Oid::from(TO_JSONB), flinfo);
        let value = pg_sys::makeConst(
            attribute.atttypid,
            attribute.atttypmod,
            attribute.attcollation,
            attribute.attlen as i32,
            pg_sys::Datum::from(0),
            true,
            attribute.attbyval,
        );
        let arguments = pg_sys::lappend(std::ptr::null_mut(), value.cast());
        let expression = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(TO_JSONB),
            pg_sys::JSONBOID,
            arguments,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
        );
        (*flinfo).fn_expr = expression.cast();
        pg_sys::MemoryContextSwitchTo(before);
        flinfo
    }
}

/// The values of one tuple.
struct Values {
    datums: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Values {
    unsafe fn of(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc) -> Values {
        unsafe {
            let count = (*desc).natts as usize;
            let mut values = Values { datums: vec![pg_sys::Datum::from(0); count], nulls: vec![true; count] };
            pg_sys::heap_deform_tuple(tuple, desc, values.datums.as_mut_ptr(), values.nulls.as_mut_ptr());
            values
        }
    }

    /// The column has the same bytes in both rows.
    unsafe fn same(&self, other: &Values, column: &Captured) -> bool {
        let at = column.position;
        if self.nulls[at] || other.nulls[at] {
            return self.nulls[at] == other.nulls[at];
        }
        unsafe { same_bytes(self.datums[at], other.datums[at], column.by_value, column.length) }
    }

    /// `columns` in the order of keys.
    unsafe fn write(&self, columns: &[Captured], object: &mut ObjectWriter<'_>) -> Result<(), JsonbError> {
        columns.iter().for_each(|column| object.string(column.name.as_bytes()));
        columns.iter().try_for_each(|column| {
            if self.nulls[column.position] {
                object.null();
                return Ok(());
            }
            unsafe { write_value(column, self.datums[column.position], object) }
        })
    }
}

unsafe fn write_value(
    column: &Captured,
    datum: pg_sys::Datum,
    object: &mut ObjectWriter<'_>,
) -> Result<(), JsonbError> {
    unsafe {
        match column.type_oid {
            _ if !column.convert.is_null() => {
                let value = pg_sys::FunctionCall1Coll(column.convert, pg_sys::InvalidOid, datum);
                object.jsonb(varlena_bytes(value))?;
            }
            pg_sys::BOOLOID => object.bool(datum.value() != 0),
            pg_sys::INT2OID => object.integer(i64::from(datum.value() as i16)),
            pg_sys::INT4OID => object.integer(i64::from(datum.value() as i32)),
            pg_sys::INT8OID => object.integer(datum.value() as i64),
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => object.string(varlena_bytes(datum)),
            pg_sys::UUIDOID => {
                let bytes: [u8; 16] =
                    std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), 16).try_into().unwrap_or_default();
                object.string(pgrx::Uuid::from_bytes(bytes).to_string().as_bytes());
            }
            pg_sys::JSONBOID => object.jsonb(varlena_bytes(datum))?,
            _ => {
                // date, timestamp, timestamptz in ISO 8601, as to_jsonb writes them.
                let mut buffer = [0; pg_sys::MAXDATELEN as usize + 1];
                let text = pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, column.type_oid, std::ptr::null());
                object.string(CStr::from_ptr(text).to_bytes());
            }
        }
        Ok(())
    }
}
