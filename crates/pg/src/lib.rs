//! The boundary between safe Rust and the server: the only crate with `unsafe`.
//!
//! Modules see safe functions. Each block has a SAFETY note; the server calls a backend from one thread only, which is
//! the reason for most of them. Nothing here knows a module: what belongs to one is registered when the library is loaded.
#![deny(ffi_unwind_calls)]

#[cfg(panic = "abort")]
compile_error!("errors of the server are unwound through Rust frames: build with panic = \"unwind\"");

mod arg;
mod arguments;
pub mod background;
mod bounds;
pub mod cached;
pub mod call;
mod datum;
pub mod error;
pub mod fault_point;
pub mod function;
pub mod hooks;
pub mod insert;
#[cfg(doctest)]
mod lifetimes;
pub mod lock;
mod memory;
pub mod one_off;
pub mod per_database;
pub mod progress;
pub mod row;
pub mod row_json;
mod schema;
pub mod settings;
pub mod spi;
pub mod sys;
pub mod trigger;
pub mod turn;
mod value;
pub mod xact;

pub use arg::{Arg, ToSql, arg};
pub use arguments::{And, FromArguments};
pub use call::{Answer, Call, Returned, RowSet};
pub use pgrx::pg_sys::Oid;
pub use row::{FromRow, Row};
pub use trigger::{Event, EventTrigger, Timing, Trigger};
pub use value::{Date, EnumLabel, Field, FromSql, Interval, Json, JsonText, Jsonb, Timestamptz, UnreadJsonb, Uuid};

// For the macros.
#[doc(hidden)]
pub use paste;
#[doc(hidden)]
pub use pgrx::{self, pg_sys};

/// Registers what every module relies on; called once, when the library is loaded.
pub fn register() {
    error::register();
    call::register();
    cached::register();
    fault_point::register();
    insert::register();
}
