//! Rows of a result, read by position with checked types.

use std::marker::PhantomData;

use pgrx::pg_sys;
use skill_core::{Code, Fault};

use super::arg::Arg;
use super::datum::in_memory;
use super::error::{current_function, raise};
use super::sys;
use super::value::{Field, Place, read};

/// One row of a result; lives as long as the result.
pub struct Row<'r> {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
    memory: pg_sys::MemoryContext,
    result: PhantomData<&'r ()>,
}

impl Row<'_> {
    /// # Safety
    /// Tuple and descriptor belong together; both, and the memory, live as long as the row.
    pub(crate) unsafe fn new(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc, memory: pg_sys::MemoryContext) -> Self {
        Row { tuple, desc, memory, result: PhantomData }
    }

    /// Runs `body` with the row; what is read of it, and what the server allocates meanwhile, ends with `body`.
    pub fn scratch<T>(&self, body: impl FnOnce(&Row<'_>) -> T) -> T {
        // SAFETY: a new memory context below that of the row, deleted when nothing refers to it any more. An error leaves by
        // unwinding, and its parent's end deletes it.
        unsafe {
            let scratch = pg_sys::AllocSetContextCreateInternal(
                self.memory,
                c"skill_system row".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let result = in_memory(scratch, || body(&Row::new(self.tuple, self.desc, scratch)));
            pg_sys::MemoryContextDelete(scratch);
            result
        }
    }

    fn column(&self, n: i32) -> (Option<pg_sys::Datum>, pg_sys::Oid) {
        // SAFETY: a row of a result; the number is checked.
        unsafe {
            if n < 1 || n > (*self.desc).natts {
                raise(Fault::new(
                    Code::DataCorrupted,
                    format!("function {}: the result has no column {n}", current_function()),
                ));
            }
            let mut null = false;
            let datum = pg_sys::SPI_getbinval(self.tuple, self.desc, n, &mut null);
            ((!null).then_some(datum), (*sys::attribute(self.desc, n as usize - 1)).atttypid)
        }
    }

    /// Column `n`, counted from 1. Raises XX001 when it has another type, or is NULL and `T` is not an `Option`.
    pub fn get<'s, T: Field<'s>>(&'s self, n: i32) -> T {
        let (datum, oid) = self.column(n);
        // SAFETY: the type is that of the column; tuple and memory live as long as the row.
        unsafe { read(datum, oid, self.memory, Place::Column(n)) }
    }

    /// The first columns as `T` has them; raises as [`Row::get`] does.
    pub fn read<'s, T: FromRow<'s>>(&'s self) -> T {
        T::from_row(self)
    }

    /// Columns 1 to `count`, to be passed on.
    pub fn args(&self, count: i32) -> Vec<Arg<'_>> {
        (1..=count).map(|n| self.get(n)).collect()
    }
}

/// What is read from a row: a value, a tuple, or a struct of [`columns!`](crate::columns). It may borrow from the row.
pub trait FromRow<'r>: Sized {
    fn from_row(row: &'r Row<'_>) -> Self;
}

/// The first column.
impl<'r, T: Field<'r>> FromRow<'r> for T {
    fn from_row(row: &'r Row<'_>) -> Self {
        row.get(1)
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        impl<'r, $($name: Field<'r>),+> FromRow<'r> for ($($name,)+) {
            fn from_row(row: &'r Row<'_>) -> Self {
                let mut n = 0;
                let mut next = || { n += 1; n };
                ($(row.get::<$name>(next()),)+)
            }
        }
    )*};
}

tuples! {
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
    A B C D E F G H I J K L M;
    A B C D E F G H I J K L M N;
    A B C D E F G H I J K L M N O;
    A B C D E F G H I J K L M N O P;
}

/// A struct with the columns that it is read from: `COLUMNS` is the list for SELECT, in the order of the fields.
///
/// ```no_run
/// # use skill_pg::{Timestamptz, columns};
/// columns! {
///     struct Checklist { status: String = "c.status", due_at: Option<Timestamptz> = "c.due_at" }
/// }
/// ```
#[macro_export]
macro_rules! columns {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty = $column:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)+
        }

        impl $name {
            /// The columns of SELECT.
            $vis const COLUMNS: &'static str = {
                const ALL: &str = concat!($(", ", $column),+);
                ALL.split_at(2).1
            };
        }

        impl $crate::FromRow<'_> for $name {
            fn from_row(row: &$crate::Row<'_>) -> Self {
                let mut n = 0;
                let mut next = || { n += 1; n };
                $name { $($field: row.get(next()),)+ }
            }
        }
    };
}
