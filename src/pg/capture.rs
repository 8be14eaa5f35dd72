//! A changed row as jsonb, built from the tuple without SQL.
//!
//! Values come out as `to_jsonb()` would have them: the common types are built
//! here, all others are given to it.

use std::ffi::{CStr, CString};

use pgrx::{PgMemoryContexts, pg_sys};
use pg_sys::JsonbIteratorToken::{WJB_BEGIN_OBJECT, WJB_END_OBJECT, WJB_KEY, WJB_VALUE};

use super::call::{Call, varlena_bytes};
use super::sys;
use super::trigger::{Event, Trigger};

/// `to_jsonb(anyelement)` in pg_proc.dat.
const TO_JSONB: u32 = 3787;

/// What a statement needs to know of the table; lives as long as the statement's trigger call site.
struct Shape {
    table: CString,
    columns: Vec<Captured>,
    /// Positions of the primary key.
    key: Vec<Captured>,
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

/// The record of one firing: `{"table", "key", "old", "new"}`; `None` when none of
/// the chosen columns changed.
pub fn change(call: &Call, trigger: &Trigger) -> Option<pg_sys::Datum> {
    // SAFETY: tuples, descriptor and call site belong to one firing of the trigger.
    unsafe {
        let flinfo = call.call_site();
        if (*flinfo).fn_extra.is_null() {
            let shape = Shape::of(trigger, (*flinfo).fn_mcxt);
            (*flinfo).fn_extra = PgMemoryContexts::For((*flinfo).fn_mcxt).leak_and_drop_on_delete(shape).cast();
        }
        let shape = &*(*flinfo).fn_extra.cast::<Shape>();
        let event = trigger.event();
        let desc = (*trigger.relation()).rd_att;
        let old = matches!(event, Event::Update | Event::Delete).then(|| Values::of(trigger.old_row(), desc));
        let new = matches!(event, Event::Insert | Event::Update).then(|| Values::of(trigger.new_row(), desc));
        if let (Some(old), Some(new)) = (&old, &new) {
            if shape.columns.iter().all(|column| old.same(new, column)) {
                return None;
            }
        }
        let mut writer = Writer { state: std::ptr::null_mut() };
        writer.token(WJB_BEGIN_OBJECT);
        writer.key(c"table");
        writer.string(shape.table.as_bytes());
        if let Some(row) = new.as_ref().or(old.as_ref()) {
            writer.key(c"key");
            row.write(&shape.key, &mut writer);
        }
        for (name, row) in [(c"old", &old), (c"new", &new)] {
            if let Some(row) = row {
                writer.key(name);
                row.write(&shape.columns, &mut writer);
            }
        }
        let object = writer.token(WJB_END_OBJECT);
        Some(pg_sys::Datum::from(pg_sys::JsonbValueToJsonb(object)))
    }
}

impl Shape {
    unsafe fn of(trigger: &Trigger, context: pg_sys::MemoryContext) -> Shape {
        unsafe {
            let relation = trigger.relation();
            let desc = (*relation).rd_att;
            let arguments = trigger.arguments();
            let (only, listed) = match arguments.split_first() {
                Some((word, listed)) => (word == "only", listed),
                None => (false, &[][..]),
            };
            let all: Vec<Captured> = (0..(*desc).natts as usize).filter_map(|i| Captured::of(desc, i, context)).collect();
            let is_listed = |column: &&Captured| listed.iter().any(|name| name.as_bytes() == column.name.as_bytes());
            let columns = all.iter().filter(|column| is_listed(column) == only).cloned().collect();
            let mut key = Vec::new();
            let attributes = pg_sys::RelationGetIndexAttrBitmap(relation, pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY);
            for column in &all {
                let bit = column.position as i32 + 1 - pg_sys::FirstLowInvalidHeapAttributeNumber;
                if pg_sys::bms_is_member(bit, attributes) {
                    key.push(column.clone());
                }
            }
            Shape { table: sys::c_string(&trigger.relation_name()), columns, key }
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
                pg_sys::BOOLOID | pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::NUMERICOID | pg_sys::TEXTOID
                    | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::UUIDOID | pg_sys::JSONBOID | pg_sys::DATEOID
                    | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID
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
unsafe fn to_jsonb_for(attribute: &pg_sys::FormData_pg_attribute, context: pg_sys::MemoryContext) -> *mut pg_sys::FmgrInfo {
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(context);
        let flinfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
        pg_sys::fmgr_info(pg_sys::Oid::from(TO_JSONB), flinfo);
        let value = pg_sys::makeConst(
            attribute.atttypid, attribute.atttypmod, attribute.attcollation, attribute.attlen as i32, pg_sys::Datum::from(0), true, attribute.attbyval,
        );
        let arguments = pg_sys::lappend(std::ptr::null_mut(), value.cast());
        let expression = pg_sys::makeFuncExpr(
            pg_sys::Oid::from(TO_JSONB), pg_sys::JSONBOID, arguments, pg_sys::InvalidOid, pg_sys::InvalidOid,
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
        let (a, b) = (self.datums[at], other.datums[at]);
        unsafe {
            match column.length {
                _ if column.by_value => a.value() == b.value(),
                -1 => varlena_bytes(a) == varlena_bytes(b),
                -2 => CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr()),
                n => {
                    let bytes = |datum: pg_sys::Datum| std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n as usize);
                    bytes(a) == bytes(b)
                }
            }
        }
    }

    unsafe fn write(&self, columns: &[Captured], writer: &mut Writer) {
        unsafe {
            writer.token(WJB_BEGIN_OBJECT);
            for column in columns {
                writer.key(&column.name);
                if self.nulls[column.position] {
                    writer.null();
                } else {
                    writer.value(column, self.datums[column.position]);
                }
            }
            writer.token(WJB_END_OBJECT);
        }
    }
}

/// The server's own jsonb builder.
struct Writer {
    state: *mut pg_sys::JsonbParseState,
}

impl Writer {
    unsafe fn token(&mut self, token: pg_sys::JsonbIteratorToken::Type) -> *mut pg_sys::JsonbValue {
        unsafe { pg_sys::pushJsonbValue(&mut self.state, token, std::ptr::null_mut()) }
    }

    unsafe fn push(&mut self, token: pg_sys::JsonbIteratorToken::Type, mut value: pg_sys::JsonbValue) {
        unsafe { pg_sys::pushJsonbValue(&mut self.state, token, &mut value) };
    }

    unsafe fn key(&mut self, name: &CStr) {
        unsafe { self.push(WJB_KEY, string_value(name.to_bytes())) };
    }

    unsafe fn string(&mut self, bytes: &[u8]) {
        unsafe { self.push(WJB_VALUE, string_value(bytes)) };
    }

    unsafe fn null(&mut self) {
        let value = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvNull, ..Default::default() };
        unsafe { self.push(WJB_VALUE, value) };
    }

    unsafe fn numeric(&mut self, numeric: pg_sys::Datum) {
        let mut value = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvNumeric, ..Default::default() };
        value.val.numeric = numeric.cast_mut_ptr();
        unsafe { self.push(WJB_VALUE, value) };
    }

    /// A jsonb value, scalar or not.
    unsafe fn jsonb(&mut self, datum: pg_sys::Datum) {
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::Jsonb>();
            let mut value = pg_sys::JsonbValue::default();
            if (*jsonb).root.header & pg_sys::JB_FSCALAR != 0 {
                pg_sys::JsonbExtractScalar(&mut (*jsonb).root, &mut value);
            } else {
                pg_sys::JsonbToJsonbValue(jsonb, &mut value);
            }
            self.push(WJB_VALUE, value);
        }
    }

    unsafe fn value(&mut self, column: &Captured, datum: pg_sys::Datum) {
        unsafe {
            match column.type_oid {
                _ if !column.convert.is_null() => {
                    self.jsonb(pg_sys::FunctionCall1Coll(column.convert, pg_sys::InvalidOid, datum));
                }
                pg_sys::BOOLOID => {
                    let mut value = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvBool, ..Default::default() };
                    value.val.boolean = datum.value() != 0;
                    self.push(WJB_VALUE, value);
                }
                pg_sys::INT2OID => self.integer(i64::from(datum.value() as i16)),
                pg_sys::INT4OID => self.integer(i64::from(datum.value() as i32)),
                pg_sys::INT8OID => self.integer(datum.value() as i64),
                pg_sys::NUMERICOID => {
                    let numeric = pg_sys::Datum::from(pg_sys::pg_detoast_datum(datum.cast_mut_ptr()));
                    let special = |is: unsafe fn(pg_sys::Numeric) -> bool| is(numeric.cast_mut_ptr());
                    if special(pg_sys::numeric_is_nan) || special(pg_sys::numeric_is_inf) {
                        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT), numeric);
                        self.string(CStr::from_ptr(text).to_bytes());
                    } else {
                        self.numeric(numeric);
                    }
                }
                pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => self.string(varlena_bytes(datum)),
                pg_sys::UUIDOID => {
                    let bytes = std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), 16);
                    let mut text = [0; 36];
                    let mut at = 0;
                    for (i, byte) in bytes.iter().enumerate() {
                        if matches!(i, 4 | 6 | 8 | 10) {
                            text[at] = b'-';
                            at += 1;
                        }
                        let _ = hex::encode_to_slice([*byte], &mut text[at..at + 2]);
                        at += 2;
                    }
                    self.string(&text);
                }
                pg_sys::JSONBOID => self.jsonb(datum),
                _ => {
                    // date, timestamp, timestamptz in ISO 8601, as to_jsonb writes them.
                    let buffer = pg_sys::palloc(pg_sys::MAXDATELEN as usize + 1).cast::<std::ffi::c_char>();
                    let text = pg_sys::JsonEncodeDateTime(buffer, datum, column.type_oid, std::ptr::null());
                    self.string(CStr::from_ptr(text).to_bytes());
                }
            }
        }
    }

    unsafe fn integer(&mut self, value: i64) {
        unsafe { self.numeric(pg_sys::Datum::from(pg_sys::int64_to_numeric(value))) };
    }
}

/// Copied into the current memory context: the builder keeps pointers until the end.
unsafe fn string_value(bytes: &[u8]) -> pg_sys::JsonbValue {
    let mut value = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvString, ..Default::default() };
    value.val.string.len = bytes.len() as i32;
    unsafe {
        let copy = pg_sys::palloc(bytes.len().max(1)).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        value.val.string.val = copy.cast();
    }
    value
}
