//! Arguments and values as the rooms' functions take and give them.

use skill_pg::{Arg, Call, Uuid, arg, pg_sys, sys};
use skill_pg::spi::{self, As, See};
use serde_json::Value;
use skill_core::input::{optional, parse_json};
use skill_core::{Code, Fault};


/// A required argument that is not there.
pub fn missing(what: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{what} must not be NULL"))
}

pub fn uuid(call: &Call, n: usize, what: &str) -> Result<Uuid, Fault> {
    call.get::<Option<_>>(n).ok_or_else(|| missing(what))
}

pub fn uuid_datum(id: Uuid) -> Option<pg_sys::Datum> {
    arg(id)
}

/// A jsonb argument, read as text: a number beyond a double would make the other way raise something else.
pub fn json(call: &Call, n: usize, what: &str) -> Result<Option<Value>, Fault> {
    read_json(call.datum(n), what)
}

pub fn read_json(datum: Option<pg_sys::Datum>, what: &str) -> Result<Option<Value>, Fault> {
    let Some(datum) = datum else {
        return Ok(None);
    };
    let text = spi::one::<String>("SELECT $1::text", As::Caller, See::Statement, &[given(Some(datum), pg_sys::JSONBOID)]);
    parse_json(what, &text.unwrap_or_default()).map(Some)
}

/// JSON that the tables hold; what was let in can be read again.
pub fn stored(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

pub fn jsonb_datum(value: Value) -> Option<pg_sys::Datum> {
    pgrx::JsonB(arg(value))
}

pub fn jsonb(value: Value) -> Arg {
    given(jsonb_datum(value), pg_sys::JSONBOID)
}

/// Who does it: the name in argument `n`, or else the role that logged in.
pub fn who(call: &Call, n: usize, what: &str) -> Result<String, Fault> {
    Ok(optional(what, call.text(n), 255)?.unwrap_or_else(|| sys::role_name(sys::session_user())).to_owned())
}
