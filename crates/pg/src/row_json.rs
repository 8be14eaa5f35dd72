//! A changed row as jsonb, built from the tuple without SQL.
//!
//! Values come out as `to_jsonb()` would have them in a session with `spi::with_plain_text`, whatever the writer's settings
//! are: the common types are built here, all others are given to it. It would run the casts to json that their owners made,
//! with the writer's rights, so values of types that are not the server's are given to it as text.

use std::collections::HashSet;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use skill_core::input::sha256;
use skill_core::jsonb::{self, JsonbError, ObjectWriter, key_order};
use skill_core::limits::{Bounds, MAX_JSON_DEPTH, quoted_length};
use skill_core::{Code, Fault};

use super::arg::arg;
use super::datum::{detoasted, in_memory, raw_size, same_bytes, varlena_bytes};
use super::error::check_for_interrupts;
use super::spi::{self, As, See, with_plain_text};
use super::sys;
use super::trigger::{Event, Trigger};

/// `to_jsonb(anyelement)` in pg_proc.dat.
const TO_JSONB: u32 = 3787;

/// Writes the changes of one table, as long as its definition does not change: for one statement.
pub struct ChangeWriter {
    relation: pg_sys::Oid,
    table: CString,
    columns: Vec<Column>,
    /// The primary key.
    key: Vec<Column>,
    buffer: Vec<u8>,
    /// Some value is written as text in a form that settings choose.
    follows_settings: bool,
    /// Holds what `convert` of the columns points to.
    _memory: Memory,
}

#[derive(Clone)]
struct Column {
    position: usize,
    name: CString,
    /// As declared, perhaps a domain.
    declared: pg_sys::Oid,
    /// Its base type.
    type_oid: pg_sys::Oid,
    length: i16,
    by_value: bool,
    /// `to_jsonb` prepared for the type, where it is not one of the common ones; for text where an `output` is set.
    convert: *mut pg_sys::FmgrInfo,
    /// The type's output function, where `to_jsonb` might run a cast that somebody made.
    output: *mut pg_sys::FmgrInfo,
}

/// A memory context, created when it is needed.
struct Memory(pg_sys::MemoryContext);

impl Memory {
    fn get(&mut self) -> pg_sys::MemoryContext {
        if self.0.is_null() {
            // SAFETY: a constant name; the context lives until it is dropped.
            self.0 = unsafe {
                pg_sys::AllocSetContextCreateInternal(
                    pg_sys::TopMemoryContext,
                    c"skill_system row_json".as_ptr(),
                    pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                    pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                    pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
                )
            };
        }
        self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: created above, and no child of a context that could have deleted it.
            unsafe { pg_sys::MemoryContextDelete(self.0) };
        }
    }
}

impl ChangeWriter {
    /// For the table of a trigger and those of its columns whose name `includes` accepts.
    pub fn new(trigger: &Trigger, includes: impl Fn(&[u8]) -> bool) -> Self {
        // SAFETY: the relation is open, and the descriptor is its own.
        unsafe {
            let relation = trigger.relation();
            let desc = (*relation).rd_att;
            let mut memory = Memory(std::ptr::null_mut());
            let mut all: Vec<Column> =
                (0..(*desc).natts as usize).filter_map(|i| Column::new(desc, i, &mut memory)).collect();
            all.sort_by(|a, b| key_order(a.name.as_bytes(), b.name.as_bytes()));
            let attributes = pg_sys::RelationGetIndexAttrBitmap(
                relation,
                pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
            );
            let numbers = if attributes.is_null() { deferrable_key(trigger.relation_oid()) } else { Vec::new() };
            let is_key = |column: &&Column| {
                let number = column.position as i32 + 1;
                pg_sys::bms_is_member(number - pg_sys::FirstLowInvalidHeapAttributeNumber, attributes)
                    || numbers.iter().any(|key| i32::from(*key) == number)
            };
            let columns: Vec<_> = all.iter().filter(|column| includes(column.name.as_bytes())).cloned().collect();
            let key: Vec<_> = all.iter().filter(is_key).cloned().collect();
            let plain = |column: &Column| {
                column.convert.is_null() || matches!(column.type_oid, pg_sys::NUMERICOID | pg_sys::JSONOID)
            };
            ChangeWriter {
                relation: trigger.relation_oid(),
                table: sys::c_string(&trigger.relation_name()),
                follows_settings: !columns.iter().chain(&key).all(plain),
                columns,
                key,
                buffer: Vec::new(),
                _memory: memory,
            }
        }
    }

    /// The table has, of the chosen columns, one of this name.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name.as_bytes() == name.as_bytes())
    }

    /// The change of one firing as the bytes of a jsonb of at most `most` bytes of text: `{"table", "key", "old", "new"}`, with
    /// `old_key` where the key changed and `digests` of the values that are too large or too deep for it; `None` when
    /// neither the key nor any of the columns did.
    pub fn change(&mut self, trigger: &Trigger, most: usize) -> Result<Option<&[u8]>, Fault> {
        if self.follows_settings { with_plain_text(|| self.write(trigger, most)) } else { self.write(trigger, most) }
            .map(|is_change| is_change.then_some(self.buffer.as_slice()))
    }

    /// Writes the change into the buffer; false when none exists.
    fn write(&mut self, trigger: &Trigger, most: usize) -> Result<bool, Fault> {
        // SAFETY: tuples and descriptor belong to one firing of the trigger, and have the columns that are read.
        let (old, new) = unsafe {
            let desc = (*trigger.relation()).rd_att;
            if trigger.relation_oid() != self.relation
                || !self.columns.iter().chain(&self.key).all(|column| column.is_in(desc))
            {
                let message = format!("table {} was redefined", self.table.to_string_lossy());
                return Err(Fault::new(Code::Internal, message));
            }
            (Values::new(trigger.old_row(), desc), Values::new(trigger.new_row(), desc))
        };
        // The row before, where the change gives it another key.
        let mut moved = None;
        if let (Event::Update, Some(old), Some(new)) = (trigger.event(), &old, &new) {
            let differ = |columns: &[Column]| columns.iter().any(|column| !old.same(new, column));
            moved = Some(old).filter(|_| differ(&self.key));
            if moved.is_none() && !differ(&self.columns) {
                return Ok(false);
            }
        }
        // In the order of the keys of a jsonb.
        let mut budget = Budget { text: most.saturating_sub(OVERHEAD) };
        let mut members = Vec::with_capacity(3);
        for (name, columns, row) in [
            ("key", &self.key, new.as_ref().or(old.as_ref())),
            ("new", &self.columns, new.as_ref()),
            ("old", &self.columns, old.as_ref()),
        ] {
            if let Some(row) = row {
                members.push((name, row.parts(columns, &mut budget)?));
            }
        }
        let old_key = moved.map(|old| old.parts(&self.key, &mut budget)).transpose()?;
        let old_key = old_key.map(|parts| ("old_key", parts));
        let digested = || members.iter().chain(&old_key).filter(|(_, parts)| parts.iter().any(Part::is_digest));
        let has_digests = usize::from(digested().next().is_some());
        self.buffer.clear();
        let count = members.len() + 1 + has_digests + usize::from(old_key.is_some());
        let mut change = ObjectWriter::new(&mut self.buffer, count);
        members.iter().for_each(|(name, _)| change.string(name.as_bytes()));
        change.string(b"table");
        if has_digests > 0 {
            change.string(b"digests");
        }
        old_key.iter().for_each(|(name, _)| change.string(name.as_bytes()));
        for (_, parts) in &members {
            write_values(parts, &mut change)?;
        }
        change.string(self.table.as_bytes());
        if has_digests > 0 {
            change.object(digested().count(), |object| {
                digested().for_each(|(name, _)| object.string(name.as_bytes()));
                digested().try_for_each(|(_, parts)| write_digests(parts, object))
            })?;
        }
        if let Some((_, parts)) = &old_key {
            write_values(parts, &mut change)?;
        }
        Ok(true)
    }
}

/// Numbers of the columns of a primary key that is deferrable, which the server's list of key columns leaves out.
fn deferrable_key(relation: pg_sys::Oid) -> Vec<i16> {
    const SQL: &str = "SELECT k FROM pg_index, unnest(indkey::int2[]) k WHERE indrelid = $1 AND indisprimary";
    spi::collect(SQL, As::Caller, See::Statement, &[arg(relation)])
}

/// Text of a change for its table, keys and punctuation.
const OVERHEAD: usize = 64 << 10;
/// Levels of a change around the values of a row.
const LEVELS: usize = 2;

/// How much text still fits into the change.
struct Budget {
    text: usize,
}

impl Budget {
    fn reserve(&mut self, text: usize) -> bool {
        let fits = text <= self.text;
        if fits {
            self.text -= text;
        }
        fits
    }
}

/// What a change keeps of one column.
enum Part<'c> {
    Value(&'c Column, Option<pg_sys::Datum>),
    /// As `to_jsonb` has it.
    Converted(&'c Column, &'c [u8]),
    /// SHA-256 and length of the text of a text or json value and of `to_jsonb(...)::text` of others; of the server's bytes of
    /// values of other types that are too large for that, which are those of a bytea.
    Digest(&'c Column, String, u64),
}

impl Part<'_> {
    fn column(&self) -> &Column {
        match self {
            Part::Value(column, _) | Part::Converted(column, _) | Part::Digest(column, ..) => column,
        }
    }

    fn is_digest(&self) -> bool {
        matches!(self, Part::Digest(..))
    }
}

/// The values that are kept, in the order of keys.
fn write_values(parts: &[Part<'_>], object: &mut ObjectWriter<'_>) -> Result<(), JsonbError> {
    let kept = || parts.iter().filter(|part| !part.is_digest());
    object.object(kept().count(), |object| {
        kept().for_each(|part| object.string(part.column().name.as_bytes()));
        kept().try_for_each(|part| match part {
            // SAFETY: a value of the column, not NULL.
            Part::Value(column, Some(datum)) => unsafe { write_value(column, *datum, object) },
            Part::Converted(_, root) => object.jsonb(root),
            Part::Value(_, None) | Part::Digest(..) => {
                object.null();
                Ok(())
            }
        })
    })
}

/// The digests of the others.
fn write_digests(parts: &[Part<'_>], object: &mut ObjectWriter<'_>) -> Result<(), JsonbError> {
    let digests = || {
        parts.iter().filter_map(|part| match part {
            Part::Digest(column, hash, length) => Some((column, hash, *length)),
            _ => None,
        })
    };
    object.object(digests().count(), |object| {
        digests().for_each(|(column, ..)| object.string(column.name.as_bytes()));
        digests().try_for_each(|(_, hash, length)| {
            object.object(2, |digest| {
                digest.string(b"length");
                digest.string(b"content_sha256");
                digest.integer(i64::try_from(length).unwrap_or(i64::MAX));
                digest.string(hash.as_bytes());
                Ok(())
            })
        })
    })
}

impl Column {
    /// The descriptor has this column at its place.
    ///
    /// # Safety
    /// A valid descriptor.
    unsafe fn is_in(&self, desc: pg_sys::TupleDesc) -> bool {
        // SAFETY: the caller's; the position is checked.
        unsafe {
            self.position < (*desc).natts as usize && (*sys::attribute(desc, self.position)).atttypid == self.declared
        }
    }

    /// # Safety
    /// A valid descriptor with more than `position` attributes.
    unsafe fn new(desc: pg_sys::TupleDesc, position: usize, memory: &mut Memory) -> Option<Column> {
        // SAFETY: the caller's; the rest are catalogue look-ups.
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
            let (mut convert, mut output) = (std::ptr::null_mut(), std::ptr::null_mut());
            if !common && has_foreign_part(type_oid, 0, &mut HashSet::new()) {
                output = output_of(type_oid, memory.get());
                convert = to_jsonb_for(pg_sys::TEXTOID, -1, pg_sys::DEFAULT_COLLATION_OID, -1, false, memory.get());
            } else if !common {
                let &pg_sys::FormData_pg_attribute { atttypid, atttypmod, attcollation, attlen, attbyval, .. } =
                    attribute;
                convert = to_jsonb_for(atttypid, atttypmod, attcollation, attlen, attbyval, memory.get());
            }
            Some(Column {
                position,
                name: CStr::from_ptr(attribute.attname.data.as_ptr()).to_owned(),
                declared: attribute.atttypid,
                type_oid,
                length: attribute.attlen,
                by_value: attribute.attbyval,
                convert,
                output,
            })
        }
    }

    /// The value as a jsonb, by `convert`.
    ///
    /// # Safety
    /// `datum` is a value of the column, which is not one of the common types.
    unsafe fn converted(&self, datum: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: the caller's; both functions were prepared for the type.
        unsafe {
            let value = if self.output.is_null() {
                datum
            } else {
                pg_sys::Datum::from(pg_sys::cstring_to_text(pg_sys::OutputFunctionCall(self.output, datum)))
            };
            pg_sys::FunctionCall1Coll(self.convert, pg_sys::InvalidOid, value)
        }
    }
}

/// A type that is not the server's, or an array or row with such a part: anybody who owns it may have made a cast to json, or
/// make one while this runs.
///
/// # Safety
/// A type that exists.
unsafe fn has_foreign_part(type_oid: pg_sys::Oid, depth: usize, seen: &mut HashSet<pg_sys::Oid>) -> bool {
    const DEEPEST: usize = 32;
    check_for_interrupts();
    // SAFETY: the caller's; the descriptor is held while it is read.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let element = pg_sys::get_element_type(base);
        if depth > DEEPEST {
            true
        } else if !seen.insert(base) {
            // A row type may be a part of others in more ways than can be followed.
            false
        } else if element != pg_sys::InvalidOid {
            has_foreign_part(element, depth + 1, seen)
        } else if base != pg_sys::RECORDOID && pg_sys::type_is_rowtype(base) {
            let desc = pg_sys::lookup_rowtype_tupdesc_copy(base, -1);
            (0..(*desc).natts as usize)
                .map(|i| &*sys::attribute(desc, i))
                .any(|part| !part.attisdropped && has_foreign_part(part.atttypid, depth + 1, seen))
        } else {
            base.to_u32() >= pg_sys::FirstNormalObjectId
        }
    }
}

/// # Safety
/// A type that exists; `memory` lives as long as the result.
unsafe fn output_of(type_oid: pg_sys::Oid, memory: pg_sys::MemoryContext) -> *mut pg_sys::FmgrInfo {
    let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: the caller's.
    unsafe {
        pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena);
        in_memory(memory, || {
            let flinfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
            pg_sys::fmgr_info(function, flinfo);
            flinfo
        })
    }
}

/// `to_jsonb` as if it had been called with an expression of the type.
///
/// # Safety
/// `memory` lives as long as the result.
unsafe fn to_jsonb_for(
    type_oid: pg_sys::Oid,
    modifier: i32,
    collation: pg_sys::Oid,
    length: i16,
    by_value: bool,
    memory: pg_sys::MemoryContext,
) -> *mut pg_sys::FmgrInfo {
    // SAFETY: the caller's; the nodes are those that the parser would build.
    unsafe {
        in_memory(memory, || {
            let flinfo = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
            pg_sys::fmgr_info(pg_sys::Oid::from(TO_JSONB), flinfo);
            let value = pg_sys::makeConst(
                type_oid,
                modifier,
                collation,
                i32::from(length),
                pg_sys::Datum::from(0),
                true,
                by_value,
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
            flinfo
        })
    }
}

/// The values of one tuple, which lives as long as its trigger fires.
struct Values {
    datums: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Values {
    /// `None` for a null pointer.
    ///
    /// # Safety
    /// Tuple and descriptor belong together; the tuple lives longer than the values.
    unsafe fn new(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc) -> Option<Values> {
        if tuple.is_null() {
            return None;
        }
        // SAFETY: the caller's; the descriptor has as many attributes as the lists.
        unsafe {
            let count = (*desc).natts as usize;
            let mut values = Values { datums: vec![pg_sys::Datum::from(0); count], nulls: vec![true; count] };
            pg_sys::heap_deform_tuple(tuple, desc, values.datums.as_mut_ptr(), values.nulls.as_mut_ptr());
            Some(values)
        }
    }

    /// The column has the same bytes in both rows.
    fn same(&self, other: &Values, column: &Column) -> bool {
        let at = column.position;
        if self.nulls[at] || other.nulls[at] {
            return self.nulls[at] == other.nulls[at];
        }
        // SAFETY: values of the column, which has this length.
        unsafe { same_bytes(self.datums[at], other.datums[at], column.by_value, column.length) }
    }

    /// What a change within the budget keeps of `columns`.
    fn parts<'c>(&self, columns: &'c [Column], budget: &mut Budget) -> Result<Vec<Part<'c>>, JsonbError> {
        let mut parts = Vec::with_capacity(columns.len());
        for column in columns {
            let value = (!self.nulls[column.position]).then_some(self.datums[column.position]);
            parts.push(match value {
                // SAFETY: a value of the column, not NULL.
                Some(datum) if column.length == -1 => unsafe { part(column, datum, budget) }?,
                _ => Part::Value(column, value),
            });
        }
        Ok(parts)
    }
}

/// What a change keeps of a varlena.
///
/// # Safety
/// `datum` is a value of the column, not NULL.
unsafe fn part<'c>(column: &'c Column, datum: pg_sys::Datum, budget: &mut Budget) -> Result<Part<'c>, JsonbError> {
    /// Values up to this size are converted before they are measured.
    const CONVERTED: usize = 1 << 20;
    let within = |budget: &Budget| Bounds { depth: MAX_JSON_DEPTH - LEVELS, ..Bounds::STORED.with_text(budget.text) };
    // SAFETY: the caller's; what is detoasted lies in the current context, and is only read.
    unsafe {
        let size = raw_size(datum);
        let bytes = || detoasted(datum, pg_sys::CurrentMemoryContext);
        let digest_of = |bytes: &[u8]| Part::Digest(column, sha256(bytes), bytes.len() as u64);
        Ok(match column.type_oid {
            _ if !column.convert.is_null() => {
                if size > CONVERTED {
                    return Ok(digest_of(bytes()));
                }
                let value = column.converted(datum);
                let root = detoasted(value, pg_sys::CurrentMemoryContext);
                match jsonb::measure(root, within(budget)) {
                    Ok(text) if budget.reserve(text) => Part::Converted(column, root),
                    _ => {
                        let (hash, length) = jsonb::text_digest(root)?;
                        Part::Digest(column, hash, length)
                    }
                }
            }
            pg_sys::JSONBOID => match jsonb::measure(bytes(), within(budget)) {
                Ok(text) if budget.reserve(text) => Part::Value(column, Some(datum)),
                Err(JsonbError::Damaged) => return Err(JsonbError::Damaged),
                _ => {
                    let (hash, length) = jsonb::text_digest(bytes())?;
                    Part::Digest(column, hash, length)
                }
            },
            _ => {
                let text = if size > budget.text { usize::MAX } else { quoted_length(bytes()) };
                if budget.reserve(text) { Part::Value(column, Some(datum)) } else { digest_of(bytes()) }
            }
        })
    }
}

/// # Safety
/// `datum` is a value of the column.
unsafe fn write_value(column: &Column, datum: pg_sys::Datum, object: &mut ObjectWriter<'_>) -> Result<(), JsonbError> {
    // SAFETY: the caller's; each type is read as the server stores it. What is detoasted lies in the current context.
    unsafe {
        let bytes = |datum| varlena_bytes(datum, pg_sys::CurrentMemoryContext);
        match column.type_oid {
            _ if !column.convert.is_null() => {
                let value = column.converted(datum);
                object.jsonb(bytes(value))?;
            }
            pg_sys::BOOLOID => object.bool(datum.value() != 0),
            pg_sys::INT2OID => object.integer(i64::from(datum.value() as i16)),
            pg_sys::INT4OID => object.integer(i64::from(datum.value() as i32)),
            pg_sys::INT8OID => object.integer(datum.value() as i64),
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => object.string(bytes(datum)),
            pg_sys::UUIDOID => {
                let uuid = pgrx::Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>());
                object.string(uuid.to_string().as_bytes());
            }
            pg_sys::JSONBOID => object.jsonb(bytes(datum))?,
            _ => {
                // date, timestamp, timestamptz in ISO 8601, as to_jsonb writes them in UTC.
                let mut buffer = [0; pg_sys::MAXDATELEN as usize + 1];
                let utc = 0;
                let zone = if column.type_oid == pg_sys::TIMESTAMPTZOID { &raw const utc } else { std::ptr::null() };
                let text = pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, column.type_oid, zone);
                object.string(CStr::from_ptr(text).to_bytes());
            }
        }
        Ok(())
    }
}
