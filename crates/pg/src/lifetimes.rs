//! ## What a row lends stays with the row
//!
//! Each example that must not compile follows one that differs from it only in that it copies.
//!
//! ```no_run
//! # use skill_pg::spi::{self, As, See};
//! let mut kept = Vec::<String>::new();
//! spi::each("SELECT 'a'", As::Caller, See::Statement, &[], |row| {
//!     kept.push(row.get::<&str>(1).to_owned());
//!     Ok(())
//! });
//! ```
//! ```compile_fail,E0521
//! # use skill_pg::spi::{self, As, See};
//! let mut kept = Vec::<&str>::new();
//! spi::each("SELECT 'a'", As::Caller, See::Statement, &[], |row| {
//!     kept.push(row.get::<&str>(1));
//!     Ok(())
//! });
//! ```
//! A row of a stream is overwritten by the next batch:
//! ```no_run
//! # use skill_pg::{Jsonb, spi};
//! let mut kept = Vec::<Vec<u8>>::new();
//! spi::stream("SELECT '{}'::jsonb", &[], |row| {
//!     kept.push(row.get::<Jsonb>(1).0.to_owned());
//!     Ok(())
//! });
//! ```
//! ```compile_fail,E0521
//! # use skill_pg::{Jsonb, spi};
//! let mut kept = Vec::<&[u8]>::new();
//! spi::stream("SELECT '{}'::jsonb", &[], |row| {
//!     kept.push(row.get::<Jsonb>(1).0);
//!     Ok(())
//! });
//! ```
//! An [`Arg`] is lent too, as are all of a row:
//! ```no_run
//! # use skill_pg::{Arg, arg, spi};
//! let mut kept = Vec::<Arg>::new();
//! spi::stream("SELECT 'a'", &[], |row| {
//!     kept.push(arg(row.get::<String>(1)));
//!     Ok(())
//! });
//! ```
//! ```compile_fail,E0521
//! # use skill_pg::{Arg, arg, spi};
//! let mut kept = Vec::<Arg>::new();
//! spi::stream("SELECT 'a'", &[], |row| {
//!     kept.push(row.get(1));
//!     Ok(())
//! });
//! ```
//! ```no_run
//! # use skill_pg::{Row, spi::{self, As, See}};
//! let count = spi::with_rows("SELECT 'a'", As::Caller, See::Statement, &[], |rows: &[Row<'_>]| rows.len());
//! ```
//! ```compile_fail
//! # use skill_pg::{Row, spi::{self, As, See}};
//! let text = spi::with_rows("SELECT 'a'", As::Caller, See::Statement, &[], |rows: &[Row<'_>]| rows[0].get::<&str>(1));
//! ```
//! What is read into a value that outlives the result is owned:
//! ```no_run
//! # use skill_pg::spi::{self, As, See};
//! let text = spi::one::<String>("SELECT 'a'", As::Caller, See::Statement, &[]);
//! let row = spi::first::<(String, i32)>("SELECT 'a', 1", As::Caller, See::Statement, &[]);
//! ```
//! ```compile_fail
//! # use skill_pg::spi::{self, As, See};
//! let text = spi::one::<&str>("SELECT 'a'", As::Caller, See::Statement, &[]);
//! ```
//! ```compile_fail
//! # use skill_pg::spi::{self, As, See};
//! let row = spi::first::<(&str, i32)>("SELECT 'a', 1", As::Caller, See::Statement, &[]);
//! ```
//! ```compile_fail
//! # use skill_pg::spi::{self, As, See};
//! let row = spi::collect::<(&str, i32)>("SELECT 'a', 1", As::Caller, See::Statement, &[]);
//! ```
//! ```no_run
//! skill_pg::columns! { struct Named { name: String = "name" } }
//! ```
//! ```compile_fail,E0521
//! skill_pg::columns! { struct Named { name: &'static str = "name" } }
//! ```
//! Nor does a call lend more than for its duration, and an answer set belongs to it:
//! ```no_run
//! # use skill_pg::{Answer, Call};
//! # use std::cell::RefCell;
//! fn body(call: &Call) -> Answer {
//!     call.with_statement_state(|| call.arguments::<String>(), |state| ());
//!     Ok(call.void())
//! }
//! ```
//! ```compile_fail
//! # use skill_pg::{Answer, Call};
//! fn body(call: &Call) -> Answer {
//!     call.with_statement_state(|| call.arguments::<&str>(), |state| ());
//!     Ok(call.void())
//! }
//! ```
//! ```no_run
//! # use skill_pg::{Call, RowSet};
//! fn body(call: &Call) -> RowSet<'_> {
//!     call.row_set()
//! }
//! ```
//! ```compile_fail
//! # use skill_pg::{Call, RowSet};
//! fn body(call: &Call) -> RowSet<'static> {
//!     call.row_set()
//! }
//! ```
