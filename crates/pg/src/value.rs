//! Conversion of values: which Rust type reads which type of the server, and which type it becomes there.
//!
//! A value for the server stays a Rust value until the server's copy is needed, and that copy is allocated in the memory
//! context where it is used: nothing here outlives its memory.

use std::borrow::Cow;
use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

use super::error::raise;
use super::sys;
use skill_core::{Code, Fault};

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

    /// Microseconds since 1970 UTC; `None` for the infinities.
    pub fn unix_micros(self) -> Option<i64> {
        if self.is_finite() { self.0.checked_add(EPOCH_MICROS) } else { None }
    }
}

/// A date: days since 2000-01-01; the infinities are the smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i32);

impl Date {
    pub fn is_finite(self) -> bool {
        self.0 != i32::MIN && self.0 != i32::MAX
    }
}

/// A span of time without months and days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Microseconds.
    pub micros: i64,
}

/// The text of a json.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(pub String);

/// A numeric, by its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numeric(pub String);

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

    /// Reads a datum.
    ///
    /// # Safety
    /// `datum` is not NULL, is of type `oid`, which is accepted, and lives as long as `'a`; so does `memory`, where copies
    /// are made of what is compressed or stored elsewhere.
    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self;
}

/// What can stand in a column, an argument or an attribute: a type that rejects NULL, or an `Option` of one.
pub trait Field<'a>: Sized {
    /// The type as an error message names it.
    const NAME: &'static str;

    /// Datums of this type can be read.
    fn accepts(oid: Oid) -> bool;

    /// NULL; `None` where it is an error.
    fn null() -> Option<Self>;

    /// Reads a datum that is not NULL.
    ///
    /// # Safety
    /// As [`FromSql::from_datum`].
    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self;
}

impl<'a, T: FromSql<'a>> Field<'a> for T {
    const NAME: &'static str = T::NAME;

    fn accepts(oid: Oid) -> bool {
        T::accepts(oid)
    }

    fn null() -> Option<Self> {
        None
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: the caller's.
        unsafe { <T as FromSql>::from_datum(datum, oid, memory) }
    }
}

impl<'a, T: FromSql<'a>> Field<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn accepts(oid: Oid) -> bool {
        T::accepts(oid)
    }

    fn null() -> Option<Self> {
        Some(None)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: the caller's.
        Some(unsafe { <T as FromSql>::from_datum(datum, oid, memory) })
    }
}

/// Where a value was read, for the message of an error.
pub(crate) enum Place<'a> {
    Argument(usize),
    Column(i32),
    Attribute(&'a CStr),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Argument(n) => write!(f, "argument {}", n + 1),
            Place::Column(n) => write!(f, "result column {n}"),
            Place::Attribute(name) => write!(f, "column \"{}\"", name.to_string_lossy()),
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
        Some(datum) => unsafe { T::from_datum(datum, base, memory) },
        None => T::null().unwrap_or_else(|| unexpected_null(place)),
    }
}

#[cold]
pub(crate) fn wrong_type(wanted: &str, oid: Oid, place: Place) -> ! {
    raise(
        Fault::new(
            Code::DataCorrupted,
            format!("function {}: {place} has type {}, not {wanted}", super::call::current(), sys::type_name(oid)),
        )
        .hint("The installed objects do not fit the library: compare SELECT * FROM skill_system.version_info();"),
    )
}

#[cold]
fn unexpected_null(place: Place) -> ! {
    raise(Fault::new(Code::DataCorrupted, format!("function {}: {place} is NULL", super::call::current())))
}

macro_rules! by_value {
    ($($type:ty, $name:literal, $oid:pat, $datum:ident => $read:expr;)*) => {$(
        impl FromSql<'_> for $type {
            const NAME: &'static str = $name;

            fn accepts(oid: Oid) -> bool {
                matches!(oid, $oid)
            }

            unsafe fn from_datum($datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Self {
                $read
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

impl FromSql<'_> for Uuid {
    const NAME: &'static str = "uuid";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::UUIDOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Self {
        // SAFETY: a uuid is 16 bytes.
        Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }
}

impl FromSql<'_> for EnumLabel {
    const NAME: &'static str = "an enum";

    fn accepts(oid: Oid) -> bool {
        // SAFETY: a catalogue look-up inside a transaction.
        unsafe { pg_sys::type_is_enum(oid) }
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, _: pg_sys::MemoryContext) -> Self {
        EnumLabel(pgrx::enum_helper::lookup_enum_by_oid(Oid::from(datum.value() as u32)).0)
    }
}

fn is_text(oid: Oid) -> bool {
    matches!(oid, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID)
}

impl<'a> FromSql<'a> for &'a str {
    const NAME: &'static str = "text";

    fn accepts(oid: Oid) -> bool {
        is_text(oid) || oid == pg_sys::NAMEOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: a name is 64 bytes that end with NUL, the others are varlenas; the caller's for the rest. The bytes are
        // UTF-8: the install script refuses databases of another encoding, and the server checks what comes in.
        unsafe {
            std::str::from_utf8_unchecked(if oid == pg_sys::NAMEOID {
                CStr::from_ptr(datum.cast_mut_ptr()).to_bytes()
            } else {
                varlena_bytes(datum, memory)
            })
        }
    }
}

impl<'a> FromSql<'a> for &'a [u8] {
    const NAME: &'static str = "bytea";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::BYTEAOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: a varlena; the caller's for the rest.
        unsafe { varlena_bytes(datum, memory) }
    }
}

impl<'a> FromSql<'a> for Jsonb<'a> {
    const NAME: &'static str = "jsonb";

    fn accepts(oid: Oid) -> bool {
        oid == pg_sys::JSONBOID
    }

    unsafe fn from_datum(datum: pg_sys::Datum, _: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: a varlena; the caller's for the rest.
        Jsonb(unsafe { varlena_bytes(datum, memory) })
    }
}

macro_rules! owned {
    ($($type:ty, $borrowed:ty;)*) => {$(
        impl FromSql<'_> for $type {
            const NAME: &'static str = <$borrowed as FromSql>::NAME;

            fn accepts(oid: Oid) -> bool {
                <$borrowed as FromSql>::accepts(oid)
            }

            unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
                // SAFETY: the caller's; copied at once.
                unsafe { <$borrowed as FromSql>::from_datum(datum, oid, memory).to_owned() }
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

impl<'a, T: Element<'a>> FromSql<'a> for Vec<Option<T>> {
    const NAME: &'static str = T::ARRAY_NAME;

    fn accepts(oid: Oid) -> bool {
        T::ARRAYS.iter().any(|(array, _)| *array == oid)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: an array of the elements' type; what is copied lies in `memory`, the caller's for the rest.
        unsafe {
            let element = T::ARRAYS.iter().find(|(array, _)| *array == oid).map_or(pg_sys::InvalidOid, |(_, e)| *e);
            let layout = Layout::of(element);
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
                    .collect()
            })
        }
    }
}

/// The elements of an array without its NULLs.
#[derive(Debug, Clone, PartialEq)]
pub struct NonNull<T>(pub Vec<T>);

impl<'a, T: Element<'a>> FromSql<'a> for NonNull<T> {
    const NAME: &'static str = T::ARRAY_NAME;

    fn accepts(oid: Oid) -> bool {
        <Vec<Option<T>> as FromSql>::accepts(oid)
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: the caller's.
        let items = unsafe { <Vec<Option<T>> as FromSql>::from_datum(datum, oid, memory) };
        NonNull(items.into_iter().flatten().collect())
    }
}

/// How the server stores values of a type.
struct Layout {
    length: i16,
    by_value: bool,
    align: u8,
}

impl Layout {
    fn of(oid: Oid) -> Layout {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: a catalogue look-up inside a transaction; raises for an unknown type.
        unsafe { pg_sys::get_typlenbyvalalign(oid, &mut length, &mut by_value, &mut align) };
        Layout { length, by_value, align: align as u8 }
    }
}

/// Runs `body` with `memory` as the current memory context.
///
/// # Safety
/// `memory` is a valid memory context.
pub(crate) unsafe fn in_memory<T>(memory: pg_sys::MemoryContext, body: impl FnOnce() -> T) -> T {
    // SAFETY: the caller's. An error leaves by unwinding, and the server sets the context where it catches it.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let result = body();
        pg_sys::MemoryContextSwitchTo(before);
        result
    }
}

/// The bytes of a varlena behind its header; a copy in `memory` where it is compressed or stored elsewhere.
///
/// # Safety
/// `datum` is a varlena, not NULL, and lives, as `memory` does, as long as `'a`.
pub(crate) unsafe fn varlena_bytes<'a>(datum: pg_sys::Datum, memory: pg_sys::MemoryContext) -> &'a [u8] {
    // SAFETY: the caller's.
    unsafe {
        let varlena = in_memory(memory, || pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()));
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast::<u8>(), pgrx::varsize_any_exhdr(varlena))
    }
}

/// Two values of one type have the same bytes. `length` is the type's: -1 for a varlena, -2 for a C string.
///
/// # Safety
/// Both datums must be non-null and of a type with this length.
pub(crate) unsafe fn same_bytes(a: pg_sys::Datum, b: pg_sys::Datum, by_value: bool, length: i16) -> bool {
    // SAFETY: the caller's.
    let plain = |datum: pg_sys::Datum, n: usize| unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n) };
    // SAFETY: the caller's; copies are made in the current memory context and compared at once.
    unsafe {
        let memory = pg_sys::CurrentMemoryContext;
        match length {
            _ if by_value => a.value() == b.value(),
            -1 => varlena_bytes(a, memory) == varlena_bytes(b, memory),
            -2 => CStr::from_ptr(a.cast_mut_ptr()) == CStr::from_ptr(b.cast_mut_ptr()),
            n => plain(a, n as usize) == plain(b, n as usize),
        }
    }
}

/// A value for the server, with its type: a parameter of a statement, a column of a row, an answer.
#[derive(Debug, Clone)]
pub struct Arg<'a> {
    oid: Oid,
    content: Content<'a>,
}

#[derive(Debug, Clone)]
enum Content<'a> {
    Null,
    /// Passed by value.
    Word(usize),
    Fixed([u8; 16]),
    Varlena(Cow<'a, [u8]>),
    /// The text of a jsonb.
    Json(String),
    /// The text of a numeric.
    Numeric(String),
    Array(Oid, Vec<Arg<'a>>),
    /// A value that the server passed, in memory that lives as long as `'a`.
    Given(pg_sys::Datum, PhantomData<&'a [u8]>),
}

impl<'a> Arg<'a> {
    /// NULL of a type.
    pub fn null(oid: Oid) -> Self {
        Arg { oid, content: Content::Null }
    }

    /// A datum that the server passed, or NULL.
    ///
    /// # Safety
    /// It is of type `oid` and lives as long as `'a`.
    pub(crate) unsafe fn given(datum: Option<pg_sys::Datum>, oid: Oid) -> Self {
        Arg { oid, content: datum.map_or(Content::Null, |datum| Content::Given(datum, PhantomData)) }
    }

    /// Its type.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// It is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Null)
    }

    /// A jsonb from its text, which raises where the value is used when it is not JSON.
    pub fn json_text(text: String) -> Self {
        Arg { oid: pg_sys::JSONBOID, content: Content::Json(text) }
    }

    /// A binary jsonb, written by `core`.
    pub fn jsonb(root: impl Into<Cow<'a, [u8]>>) -> Result<Self, Fault> {
        /// The largest jsonb that the server itself would create.
        const MAX_JSONB_BYTES: usize = 0x0FFF_FFFF;
        let root = root.into();
        if root.len() + pg_sys::VARHDRSZ > MAX_JSONB_BYTES {
            return Err(Fault::new(Code::ProgramLimitExceeded, "jsonb value is too large"));
        }
        Ok(Arg { oid: pg_sys::JSONBOID, content: Content::Varlena(root) })
    }

    /// The value as the server has it, in the current memory context; `None` is NULL.
    pub(crate) fn datum(&self) -> Option<pg_sys::Datum> {
        Some(match &self.content {
            Content::Null => return None,
            Content::Word(word) => pg_sys::Datum::from(*word),
            Content::Given(datum, _) => *datum,
            Content::Fixed(bytes) => new_fixed(bytes),
            Content::Varlena(bytes) => new_varlena(bytes),
            Content::Json(text) => from_text(pg_sys::jsonb_in, text),
            Content::Numeric(text) => from_text(pg_sys::numeric_in, text),
            Content::Array(element, items) => new_array(*element, items),
        })
    }

    /// As [`Arg::datum`], with a copy of what the server passed: that may end before the current memory context.
    pub(crate) fn copied_datum(&self) -> Option<pg_sys::Datum> {
        let datum = self.datum()?;
        if !matches!(self.content, Content::Given(..)) {
            return Some(datum);
        }
        let layout = Layout::of(self.oid);
        // SAFETY: not NULL, and of a type with this layout, which is not cstring: a function with arguments of
        // pseudo-types is not entered.
        Some(unsafe {
            match layout.length {
                _ if layout.by_value => datum,
                -1 => pg_sys::Datum::from(pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr())),
                n => new_fixed(std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n as usize)),
            }
        })
    }

    /// A value of this type can be put where `oid` is declared.
    pub(crate) fn fits(&self, oid: Oid) -> bool {
        // SAFETY: a catalogue look-up inside a transaction.
        same_kind(self.oid, oid) || same_kind(self.oid, unsafe { pg_sys::getBaseType(oid) })
    }
}

fn same_kind(a: Oid, b: Oid) -> bool {
    a == b || is_text(a) && is_text(b) || <Oid as FromSql>::accepts(a) && <Oid as FromSql>::accepts(b)
}

fn new_fixed(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: freshly allocated, large enough for the bytes.
    unsafe {
        let copy = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        pg_sys::Datum::from(copy)
    }
}

fn new_varlena(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: freshly allocated, large enough for the header and the bytes; an allocation too large raises.
    unsafe {
        let varlena = pg_sys::palloc(bytes.len() + pg_sys::VARHDRSZ).cast::<u8>();
        pgrx::set_varsize_4b(varlena.cast(), (bytes.len() + pg_sys::VARHDRSZ) as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), varlena.add(pg_sys::VARHDRSZ), bytes.len());
        pg_sys::Datum::from(varlena)
    }
}

/// Calls the server's input function of a type, which raises when the text is not a value of it.
fn from_text(input: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, text: &str) -> pg_sys::Datum {
    let text = sys::c_string(text);
    let no_type_modifier = pg_sys::Datum::from(-1i32);
    // SAFETY: an input function takes the text, a type for elements and a type modifier, and never returns NULL.
    unsafe {
        let arguments =
            [Some(pg_sys::Datum::from(text.as_ptr())), Some(pg_sys::Datum::from(0)), Some(no_type_modifier)];
        pgrx::direct_function_call_as_datum(input, &arguments).unwrap_or(pg_sys::Datum::from(0))
    }
}

fn new_array(element: Oid, items: &[Arg]) -> pg_sys::Datum {
    let layout = Layout::of(element);
    let mut nulls: Vec<bool> = items.iter().map(Arg::is_null).collect();
    let mut datums: Vec<_> = items.iter().map(|item| item.datum().unwrap_or(pg_sys::Datum::from(0))).collect();
    let (mut dimensions, mut lower) = ([items.len() as i32], [1]);
    // SAFETY: values of the elements' type and their layout; the server copies them.
    let array = unsafe {
        if items.is_empty() {
            pg_sys::construct_empty_array(element)
        } else {
            pg_sys::construct_md_array(
                datums.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                dimensions.as_mut_ptr(),
                lower.as_mut_ptr(),
                element,
                layout.length.into(),
                layout.by_value,
                layout.align as _,
            )
        }
    };
    pg_sys::Datum::from(array)
}

/// A Rust type that becomes a value of the server.
pub trait ToSql<'a> {
    /// The type that it becomes.
    const OID: Oid;

    /// The value.
    fn to_arg(self) -> Arg<'a>;
}

/// A value as a parameter, a column or an answer.
pub fn arg<'a, T: ToSql<'a>>(value: T) -> Arg<'a> {
    value.to_arg()
}

impl<'a, T: ToSql<'a>> ToSql<'a> for Option<T> {
    const OID: Oid = T::OID;

    fn to_arg(self) -> Arg<'a> {
        self.map_or(Arg::null(T::OID), T::to_arg)
    }
}

macro_rules! to_sql {
    ($($lifetime:lifetime $type:ty, $oid:expr, $value:ident => $content:expr;)*) => {$(
        impl<$lifetime> ToSql<$lifetime> for $type {
            const OID: Oid = $oid;

            fn to_arg(self) -> Arg<$lifetime> {
                let $value = self;
                Arg { oid: Self::OID, content: $content }
            }
        }
    )*};
}

to_sql! {
    'a bool, pg_sys::BOOLOID, value => Content::Word(value.into());
    'a i16, pg_sys::INT2OID, value => Content::Word(value as usize);
    'a i32, pg_sys::INT4OID, value => Content::Word(value as usize);
    'a i64, pg_sys::INT8OID, value => Content::Word(value as usize);
    'a f32, pg_sys::FLOAT4OID, value => Content::Word(value.to_bits() as usize);
    'a f64, pg_sys::FLOAT8OID, value => Content::Word(value.to_bits() as usize);
    'a Oid, pg_sys::OIDOID, value => Content::Word(value.to_u32() as usize);
    'a Timestamptz, pg_sys::TIMESTAMPTZOID, value => Content::Word(value.0 as usize);
    'a Date, pg_sys::DATEOID, value => Content::Word(value.0 as usize);
    'a Uuid, pg_sys::UUIDOID, value => Content::Fixed(*value.as_bytes());
    'a [u8; 16], pg_sys::UUIDOID, value => Content::Fixed(value);
    'a &'a str, pg_sys::TEXTOID, value => Content::Varlena(Cow::Borrowed(value.as_bytes()));
    'a &'a String, pg_sys::TEXTOID, value => Content::Varlena(Cow::Borrowed(value.as_bytes()));
    'a String, pg_sys::TEXTOID, value => Content::Varlena(Cow::Owned(value.into_bytes()));
    'a &'a [u8], pg_sys::BYTEAOID, value => Content::Varlena(Cow::Borrowed(value));
    'a &'a Vec<u8>, pg_sys::BYTEAOID, value => Content::Varlena(Cow::Borrowed(value));
    'a Vec<u8>, pg_sys::BYTEAOID, value => Content::Varlena(Cow::Owned(value));
    'a &'a [u8; 32], pg_sys::BYTEAOID, value => Content::Varlena(Cow::Borrowed(value));
    'a JsonText, pg_sys::JSONOID, value => Content::Varlena(Cow::Owned(value.0.into_bytes()));
    'a Numeric, pg_sys::NUMERICOID, value => Content::Numeric(value.0);
    'a Jsonb<'a>, pg_sys::JSONBOID, value => Content::Varlena(Cow::Borrowed(value.0));
    'a serde_json::Value, pg_sys::JSONBOID, value => Content::Json(value.to_string());
    'a &'a serde_json::Value, pg_sys::JSONBOID, value => Content::Json(value.to_string());
}

macro_rules! to_array {
    ($($lifetime:lifetime $item:ty, $array:expr;)*) => {$(
        impl<$lifetime> ToSql<$lifetime> for Vec<$item> {
            const OID: Oid = $array;

            fn to_arg(self) -> Arg<$lifetime> {
                let items = self.into_iter().map(ToSql::to_arg).collect();
                Arg { oid: Self::OID, content: Content::Array(<$item as ToSql>::OID, items) }
            }
        }
    )*};
}

to_array! {
    'a &'a str, pg_sys::TEXTARRAYOID;
    'a Option<&'a str>, pg_sys::TEXTARRAYOID;
    'a String, pg_sys::TEXTARRAYOID;
    'a Option<String>, pg_sys::TEXTARRAYOID;
    'a f32, pg_sys::FLOAT4ARRAYOID;
    'a f64, pg_sys::FLOAT8ARRAYOID;
    'a i32, pg_sys::INT4ARRAYOID;
    'a i64, pg_sys::INT8ARRAYOID;
    'a Uuid, pg_sys::UUIDARRAYOID;
    'a Oid, pg_sys::OIDARRAYOID;
    'a &'a [u8], pg_sys::BYTEAARRAYOID;
    'a Vec<u8>, pg_sys::BYTEAARRAYOID;
    'a Timestamptz, pg_sys::TIMESTAMPTZARRAYOID;
}

impl<'a> ToSql<'a> for &'a [String] {
    const OID: Oid = pg_sys::TEXTARRAYOID;

    fn to_arg(self) -> Arg<'a> {
        let items = self.iter().map(ToSql::to_arg).collect();
        Arg { oid: Self::OID, content: Content::Array(pg_sys::TEXTOID, items) }
    }
}

impl<'a> ToSql<'a> for &'a [[u8; 32]] {
    const OID: Oid = pg_sys::BYTEAARRAYOID;

    fn to_arg(self) -> Arg<'a> {
        let items = self.iter().map(ToSql::to_arg).collect();
        Arg { oid: Self::OID, content: Content::Array(pg_sys::BYTEAOID, items) }
    }
}

impl<'a> ToSql<'a> for Interval {
    const OID: Oid = pg_sys::INTERVALOID;

    fn to_arg(self) -> Arg<'a> {
        // The server's Interval: microseconds, days, months.
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.micros.to_ne_bytes());
        Arg { oid: Self::OID, content: Content::Fixed(bytes) }
    }
}

impl<'a> ToSql<'a> for Arg<'a> {
    // Not asked for: the value knows its type.
    const OID: Oid = pg_sys::InvalidOid;

    fn to_arg(self) -> Arg<'a> {
        self
    }
}
