//! Values from the server: which Rust type reads which type of the server.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

use serde::de::DeserializeOwned;
use skill_core::{Code, Fault};

use super::datum::{Layout, in_memory, is_text, raw_size, type_name, varlena_bytes};
use super::error::{OrRaise, current_function, raise};
use super::schema::schema;

pub use pgrx::Uuid;

/// Microseconds from 1970-01-01 to the server's epoch, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A timestamptz: microseconds since 2000-01-01 00:00 UTC; the infinities are the smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamptz(pub i64);

impl Timestamptz {
    /// Before all others.
    pub const NEG_INFINITY: Timestamptz = Timestamptz(i64::MIN);
    /// After all others.
    pub const INFINITY: Timestamptz = Timestamptz(i64::MAX);

    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// The time so many microseconds after 1970 UTC.
    pub fn from_unix_micros(micros: i64) -> Self {
        Timestamptz(micros.saturating_sub(EPOCH_MICROS))
    }

    /// Microseconds since 1970 UTC; `None` for the infinities.
    pub fn unix_micros(self) -> Option<i64> {
        if self.is_finite() { self.0.checked_add(EPOCH_MICROS) } else { None }
    }
}

/// A date: days since 2000-01-01; the infinities are the smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i32);

impl Date {
    /// Days since 1970; `None` for the infinities.
    pub fn unix_days(self) -> Option<i64> {
        let is_finite = self.0 != i32::MIN && self.0 != i32::MAX;
        is_finite.then(|| i64::from(self.0) + EPOCH_MICROS / 86_400_000_000)
    }
}

/// A span of time without months and days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub micros: i64,
}

/// The text of a json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(pub String);

/// The label of an enum's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumLabel(pub String);

/// The bytes of a jsonb behind its header, in the server's binary form; `skill_core::jsonb` reads and writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jsonb<'a>(pub &'a [u8]);

/// A Rust type that reads datums of some types of the server without conversion.
pub trait FromSql<'a>: Sized {
    /// The type as an error message names it.
    const NAME: &'static str;

    /// Datums of this type can be read.
    fn accepts(oid: Oid) -> bool;

    /// Reads a datum, or says what is wrong with it, as in "column x ...".
    ///
    /// # Safety
    /// `datum` is not NULL, is of type `oid`, which is accepted, and lives as long as `'a`; so does `memory`, where copies
    /// are made of what is compressed or stored elsewhere.
    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String>;
}

/// What can stand in a column, an argument or an attribute: a type that rejects NULL, or an `Option` of one.
pub trait Field<'a>: Sized {
    /// The type as an error message names it.
    const NAME: &'static str;

    /// Datums of this type can be read.
    fn accepts(oid: Oid) -> bool;

    /// NULL of a type; `None` where it is an error.
    fn null(oid: Oid) -> Option<Self>;

    /// Reads a datum that is not NULL, or says what is wrong with it.
    ///
    /// # Safety
    /// As [`FromSql::from_datum`].
    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String>;
}

impl<'a, T: FromSql<'a>> Field<'a> for T {
    const NAME: &'static str = T::NAME;

    fn accepts(oid: Oid) -> bool {
        T::accepts(oid)
    }

    fn null(_: Oid) -> Option<Self> {
        None
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        unsafe { <T as FromSql>::from_datum(datum, oid, memory) }
    }
}

impl<'a, T: FromSql<'a>> Field<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn accepts(oid: Oid) -> bool {
        T::accepts(oid)
    }

    fn null(_: Oid) -> Option<Self> {
        Some(None)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        unsafe { <T as FromSql>::from_datum(datum, oid, memory) }.map(Some)
    }
}

/// A jsonb that is read once its size is known to be acceptable.
pub struct UnreadJsonb<'a> {
    datum: pg_sys::Datum,
    memory: pg_sys::MemoryContext,
    value: PhantomData<&'a [u8]>,
}

impl<'a> UnreadJsonb<'a> {
    /// Bytes behind the header.
    pub fn size(&self) -> usize {
        // SAFETY: a varlena that lives as long as `'a`.
        unsafe { raw_size(self.datum) }
    }

    pub fn read(&self) -> Jsonb<'a> {
        // SAFETY: as above, and so does the memory.
        Jsonb(unsafe { varlena_bytes(self.datum, self.memory) })
    }
}

impl<'a> FromSql<'a> for UnreadJsonb<'a> {
    const NAME: &'static str = "jsonb";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::JSONBOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        Ok(UnreadJsonb { datum, memory, value: PhantomData })
    }
}

/// Where a value was read, for the message of an error.
pub(crate) enum Place<'a> {
    Argument(usize),
    Column(i32),
    /// Of a table, whose row type it is.
    Attribute(&'a CStr, Oid),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Argument(n) => write!(f, "argument {}", n + 1),
            Place::Column(n) => write!(f, "result column {n}"),
            Place::Attribute(name, _) => write!(f, "column \"{}\"", name.to_string_lossy()),
        }
    }
}

/// Reads one value after comparing its type with the Rust type.
///
/// # Safety
/// `datum` is of type `oid` and lives, as `memory` does, as long as `'a`.
pub(crate) unsafe fn read<'a, T: Field<'a>>(
    datum: Option<pg_sys::Datum>,
    oid: Oid,
    memory: pg_sys::MemoryContext,
    place: Place,
) -> T {
    // A domain has the values of its base type. Asked for only where the types differ.
    // SAFETY: a catalogue look-up inside a transaction.
    let base = if T::accepts(oid) { oid } else { unsafe { pg_sys::getBaseType(oid) } };
    if !T::accepts(base) {
        wrong_type(T::NAME, oid, place);
    }
    match datum {
        // SAFETY: checked, and the caller's.
        Some(datum) => match unsafe { T::from_datum(datum, base, memory) } {
            Ok(value) => value,
            Err(why) => damaged(place, &why),
        },
        None => T::null(oid).unwrap_or_else(|| unexpected_null(place)),
    }
}

impl Place<'_> {
    /// A column of a table that is not the extension's.
    fn is_foreign(&self) -> bool {
        let Place::Attribute(_, row_type) = self else { return false };
        // SAFETY: catalogue look-ups inside a transaction; both return InvalidOid for what does not exist.
        unsafe { pg_sys::get_rel_namespace(pg_sys::get_typ_typrelid(*row_type)) != schema() }
    }

    /// The fault of a value there: a trigger may be on any table, everything else is as the extension declared it.
    fn fault(&self, message: String) -> Fault {
        let message = format!("function {}: {message}", current_function());
        if self.is_foreign() {
            return Fault::new(Code::TriggerProtocolViolated, message)
                .detail("The function is made for triggers of a table of the extension.")
                .hint("Drop the trigger that calls it.");
        }
        Fault::new(Code::DataCorrupted, message)
            .detail("The installed objects, or what was written past the extension, do not fit the library.")
            .hint("SELECT * FROM skill_system.health() WHERE status <> 'ok'; names what was changed.")
    }
}

#[cold]
pub(crate) fn wrong_type(wanted: &str, oid: Oid, place: Place) -> ! {
    raise(place.fault(format!("{place} has type {}, not {wanted}", type_name(oid))))
}

#[cold]
pub(crate) fn missing_column(place: Place) -> ! {
    raise(place.fault(format!("{place} does not exist")))
}

/// A query that must return a row has returned none.
#[cold]
pub(crate) fn missing_row() -> ! {
    raise(Place::Column(1).fault("the query returned no row".to_owned()))
}

#[cold]
fn damaged(place: Place, why: &str) -> ! {
    raise(place.fault(format!("{place} {why}")))
}

#[cold]
fn unexpected_null(place: Place) -> ! {
    // A BEFORE trigger sees what the server will refuse.
    if let Place::Attribute(..) = place
        && !place.is_foreign()
    {
        raise(Fault::new(Code::NotNullViolation, format!("{place} must not be NULL")));
    }
    raise(place.fault(format!("{place} is NULL")))
}

macro_rules! by_value {
    ($($type:ty, $name:literal, $oid:pat, $datum:ident => $read:expr;)*) => {$(
        impl FromSql<'_> for $type {
            const NAME: &'static str = $name;

            fn accepts(oid: Oid) -> bool {
                matches!(oid, $oid)
            }

            unsafe fn from_datum($datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Result<Self, String> {
                Ok($read)
            }
        }
    )*};
}

by_value! {
    bool, "boolean", pg_sys::BOOLOID, datum => datum.value() & 0xff != 0;
    i16, "smallint", pg_sys::INT2OID, datum => datum.value() as i16;
    i32, "integer", pg_sys::INT4OID, datum => datum.value() as i32;
    i64, "bigint", pg_sys::INT8OID, datum => datum.value() as i64;
    f32, "real", pg_sys::FLOAT4OID, datum => f32::from_bits(datum.value() as u32);
    f64, "double precision", pg_sys::FLOAT8OID, datum => f64::from_bits(datum.value() as u64);
    Oid, "oid", pg_sys::OIDOID | pg_sys::REGCLASSOID | pg_sys::REGPROCOID | pg_sys::REGPROCEDUREOID | pg_sys::REGROLEOID
        | pg_sys::REGNAMESPACEOID | pg_sys::REGTYPEOID, datum => Oid::from(datum.value() as u32);
    Timestamptz, "timestamp with time zone", pg_sys::TIMESTAMPTZOID, datum => Timestamptz(datum.value() as i64);
    Date, "date", pg_sys::DATEOID, datum => Date(datum.value() as i32);
}

/// JSON of a known form that a statement selects as text.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromSql<'_> for Json<T> {
    const NAME: &'static str = "text";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::TEXTOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        let text = unsafe { <&str as FromSql>::from_datum(datum, oid, memory) }?;
        let read = serde_json::from_str(text).map(Json);
        read.map_err(|error| format!("is a stored JSON value that cannot be read: {error}"))
    }
}

/// Any JSON that a statement selects as text.
impl FromSql<'_> for serde_json::Value {
    const NAME: &'static str = "text";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::TEXTOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        unsafe { <Json<Self> as FromSql>::from_datum(datum, oid, memory) }.map(|Json(value)| value)
    }
}

impl FromSql<'_> for Uuid {
    const NAME: &'static str = "uuid";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::UUIDOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: a uuid is 16 bytes.
        Ok(Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() }))
    }
}

impl FromSql<'_> for EnumLabel {
    const NAME: &'static str = "an enum";

    fn accepts(oid: Oid) -> bool {
        // SAFETY: a catalogue look-up inside a transaction.
        unsafe { pg_sys::type_is_enum(oid) }
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Result<Self, String> {
        Ok(EnumLabel(pgrx::enum_helper::lookup_enum_by_oid(Oid::from(datum.value() as u32)).0))
    }
}

impl<'a> FromSql<'a> for &'a str {
    const NAME: &'static str = "text";

    fn accepts(oid: Oid) -> bool {
        is_text(oid) || oid == pg_sys::NAMEOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: a name is 64 bytes that end with NUL, the others are varlenas; the caller's for the rest. The bytes are
        // UTF-8: the install script refuses databases of another encoding, and the server checks what comes in.
        Ok(unsafe {
            std::str::from_utf8_unchecked(if oid == pg_sys::NAMEOID {
                CStr::from_ptr(datum.cast_mut_ptr()).to_bytes()
            } else {
                varlena_bytes(datum, memory)
            })
        })
    }
}

impl<'a> FromSql<'a> for &'a [u8] {
    const NAME: &'static str = "bytea";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::BYTEAOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: a varlena; the caller's for the rest.
        Ok(unsafe { varlena_bytes(datum, memory) })
    }
}

impl<'a> FromSql<'a> for Jsonb<'a> {
    const NAME: &'static str = "jsonb";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::JSONBOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: a varlena; the caller's for the rest.
        Ok(Jsonb(unsafe { varlena_bytes(datum, memory) }))
    }
}

macro_rules! owned {
    ($($type:ty, $borrowed:ty;)*) => {$(
        impl FromSql<'_> for $type {
            const NAME: &'static str = <$borrowed as FromSql>::NAME;

            fn accepts(oid: Oid) -> bool {
                <$borrowed as FromSql>::accepts(oid)
            }

            unsafe fn from_datum(
                datum: pg_sys::Datum,
                oid: Oid,
                memory: pg_sys::MemoryContext,
            ) -> Result<Self, String> {
                // SAFETY: the caller's; copied at once.
                unsafe { <$borrowed as FromSql>::from_datum(datum, oid, memory) }.map(ToOwned::to_owned)
            }
        }
    )*};
}

owned! {
    String, &str;
    Vec<u8>, &[u8];
}

/// Types that can be the elements of an array.
pub trait Element<'a>: FromSql<'a> {
    /// The array's type as an error message names it.
    const ARRAY_NAME: &'static str;
    /// The arrays' types, each with its elements' type.
    const ARRAYS: &'static [(Oid, Oid)];
}

macro_rules! elements {
    ($($lifetime:lifetime $type:ty, $name:literal, $arrays:expr;)*) => {$(
        impl<$lifetime> Element<$lifetime> for $type {
            const ARRAY_NAME: &'static str = $name;
            const ARRAYS: &'static [(Oid, Oid)] = &$arrays;
        }
    )*};
}

const TEXT_ARRAYS: [(Oid, Oid); 2] =
    [(pg_sys::TEXTARRAYOID, pg_sys::TEXTOID), (pg_sys::VARCHARARRAYOID, pg_sys::VARCHAROID)];

elements! {
    'a &'a str, "text[]", TEXT_ARRAYS;
    'a String, "text[]", TEXT_ARRAYS;
    'a f32, "real[]", [(pg_sys::FLOAT4ARRAYOID, pg_sys::FLOAT4OID)];
    'a f64, "double precision[]", [(pg_sys::FLOAT8ARRAYOID, pg_sys::FLOAT8OID)];
    'a i64, "bigint[]", [(pg_sys::INT8ARRAYOID, pg_sys::INT8OID)];
    'a Uuid, "uuid[]", [(pg_sys::UUIDARRAYOID, pg_sys::UUIDOID)];
    'a Vec<u8>, "bytea[]", [(pg_sys::BYTEAARRAYOID, pg_sys::BYTEAOID)];
}

/// An array with NULLs.
impl<'a, T: Element<'a>> FromSql<'a> for Vec<Option<T>> {
    const NAME: &'static str = T::ARRAY_NAME;

    fn accepts(oid: Oid) -> bool {
        T::ARRAYS.iter().any(|(array, _)| *array == oid)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: an array of the elements' type; what is copied lies in `memory`, the caller's for the rest.
        unsafe {
            let element = T::ARRAYS.iter().find(|(array, _)| *array == oid).map_or(pg_sys::InvalidOid, |(_, e)| *e);
            let layout = Layout::of(element);
            super::memory::probe(raw_size(datum)).or_raise();
            in_memory(memory, || {
                let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
                let (mut items, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
                pg_sys::deconstruct_array(
                    array,
                    element,
                    layout.length.into(),
                    layout.by_value,
                    layout.align as _,
                    &mut items,
                    &mut nulls,
                    &mut count,
                );
                (0..count as usize)
                    .map(|i| (!*nulls.add(i)).then(|| <T as FromSql>::from_datum(*items.add(i), element, memory)))
                    .map(Option::transpose)
                    .collect()
            })
        }
    }
}

/// An array in which NULL is an error.
impl<'a, T: Element<'a>> FromSql<'a> for Vec<T> {
    const NAME: &'static str = T::ARRAY_NAME;

    fn accepts(oid: Oid) -> bool {
        <Vec<Option<T>> as FromSql>::accepts(oid)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        let items = unsafe { <Vec<Option<T>> as FromSql>::from_datum(datum, oid, memory) }?;
        items.into_iter().collect::<Option<_>>().ok_or_else(|| "has an element that is NULL".to_owned())
    }
}
