//! Values for the server: which of its types a Rust type becomes.
//!
//! A value stays a Rust value until the server's copy is needed, and that copy is allocated in the memory context where it
//! is used: nothing here outlives its memory.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::mem::offset_of;

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use skill_core::{Code, Fault};

use super::datum::{Layout, is_text};
use super::error::c_string;
use super::value::{Date, Field, FromSql, Interval, JsonText, Jsonb, Timestamptz, Uuid};

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
    pub(crate) unsafe fn from_datum(datum: Option<pg_sys::Datum>, oid: Oid) -> Self {
        Arg { oid, content: datum.map_or(Content::Null, |datum| Content::Given(datum, PhantomData)) }
    }

    pub fn oid(&self) -> Oid {
        self.oid
    }

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

    /// The values as the server has them, in the current memory context; `None` is NULL.
    pub(crate) fn datums<'v>(
        values: impl Iterator<Item = &'v Self> + Clone,
    ) -> impl Iterator<Item = Option<pg_sys::Datum>>
    where
        'a: 'v,
    {
        let mut block = Block::new(values.clone().map(Arg::size).sum());
        values.map(move |value| {
            Some(match &value.content {
                Content::Null => return None,
                Content::Word(word) => pg_sys::Datum::from(*word),
                Content::Given(datum, _) => *datum,
                Content::Fixed(bytes) => block.put(&[bytes]),
                Content::Varlena(bytes) => block.put(&[&varlena_header(bytes.len()), bytes]),
                Content::Array(element, items) if items.is_empty() => block.put(&[&empty_array(*element)]),
                Content::Json(text) => from_text(pg_sys::jsonb_in, text),
                Content::Array(element, items) => new_array(*element, items),
            })
        })
    }

    /// The bytes in a [`Block`].
    fn size(&self) -> usize {
        match &self.content {
            Content::Fixed(bytes) => Block::aligned(bytes.len()),
            Content::Varlena(bytes) => Block::aligned(pg_sys::VARHDRSZ + bytes.len()),
            Content::Array(_, items) if items.is_empty() => Block::aligned(size_of::<pg_sys::ArrayType>()),
            _ => 0,
        }
    }

    /// As [`Arg::datums`], with a copy of what the server passed: that may end before the current memory context.
    pub(crate) fn copied_datum(&self) -> Option<pg_sys::Datum> {
        let datum = Arg::datums(std::iter::once(self)).next().flatten()?;
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
                n => Block::new(n as usize).put(&[std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), n as usize)]),
            }
        })
    }

    /// A value of this type can be put where `oid` is declared.
    pub(crate) fn fits(&self, oid: Oid) -> bool {
        // SAFETY: a catalogue look-up inside a transaction.
        same_kind(self.oid, oid) || same_kind(self.oid, unsafe { pg_sys::getBaseType(oid) })
    }
}

/// Any value with its type, to be passed on.
impl<'a> Field<'a> for Arg<'a> {
    const NAME: &'static str = "any type";

    fn accepts(_: Oid) -> bool {
        true
    }

    fn null(oid: Oid) -> Option<Self> {
        Some(Arg::null(oid))
    }

    unsafe fn from_datum(datum: pg_sys::Datum, oid: Oid, _: pg_sys::MemoryContext) -> Result<Self, String> {
        // SAFETY: the caller's.
        Ok(unsafe { Arg::from_datum(Some(datum), oid) })
    }
}

fn same_kind(a: Oid, b: Oid) -> bool {
    a == b || is_text(a) && is_text(b) || <Oid as FromSql>::accepts(a) && <Oid as FromSql>::accepts(b)
}

/// Memory for the values of a row: one allocation by the server instead of one for each.
struct Block {
    next: *mut u8,
    end: *mut u8,
}

impl Block {
    /// The strictest alignment of the server's types.
    fn aligned(bytes: usize) -> usize {
        bytes.next_multiple_of(8)
    }

    /// In the current memory context. A size that is too large raises.
    fn new(bytes: usize) -> Self {
        // SAFETY: inside a function; palloc aligns as strictly as any type needs it.
        let next = if bytes == 0 { std::ptr::null_mut() } else { unsafe { pg_sys::palloc(bytes).cast::<u8>() } };
        Block { next, end: next.wrapping_add(bytes) }
    }

    /// A value of these bytes, one part after the other.
    fn put(&mut self, parts: &[&[u8]]) -> pg_sys::Datum {
        let start = self.next;
        for part in parts {
            assert!(part.len() <= self.end as usize - self.next as usize, "a value is larger than it was");
            // SAFETY: so many bytes are left, in memory that nothing else has.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), self.next, part.len());
                self.next = self.next.add(part.len());
            }
        }
        self.next = start.wrapping_add(Block::aligned(self.next as usize - start as usize));
        pg_sys::Datum::from(start)
    }
}

fn varlena_header(bytes: usize) -> [u8; pg_sys::VARHDRSZ] {
    let mut header = 0u32;
    // SAFETY: the header of a varlena is its first four bytes.
    unsafe { pgrx::set_varsize_4b((&raw mut header).cast(), (bytes + pg_sys::VARHDRSZ) as i32) };
    header.to_ne_bytes()
}

/// An array without elements: no dimensions and no NULLs.
fn empty_array(element: Oid) -> [u8; size_of::<pg_sys::ArrayType>()] {
    const SIZE: usize = size_of::<pg_sys::ArrayType>();
    let mut bytes = [0; SIZE];
    bytes[..pg_sys::VARHDRSZ].copy_from_slice(&varlena_header(SIZE - pg_sys::VARHDRSZ));
    bytes[offset_of!(pg_sys::ArrayType, elemtype)..].copy_from_slice(&element.to_u32().to_ne_bytes());
    bytes
}

/// Calls the server's input function of a type, which raises when the text is not a value of it.
fn from_text(input: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, text: &str) -> pg_sys::Datum {
    let text = c_string(text);
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
    let mut datums: Vec<_> = Arg::datums(items.iter()).map(|datum| datum.unwrap_or(pg_sys::Datum::from(0))).collect();
    let (mut dimensions, mut lower) = ([items.len() as i32], [1]);
    // SAFETY: values of the elements' type and their layout; the server copies them.
    let array = unsafe {
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
    };
    pg_sys::Datum::from(array)
}

/// A Rust type that becomes a value of the server.
pub trait ToSql<'a> {
    /// The type that it becomes.
    const OID: Oid;

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
