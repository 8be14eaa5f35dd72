//! Arguments and values as the rooms' functions take and give them.

use pgrx::datum::IntoDatum;
use pgrx::pg_sys;
use serde_json::Value;
use skill_core::input::{optional, parse_json};
use skill_core::{Code, Fault};

use crate::pg::call::Call;
use crate::pg::spi::{self, Access, Arg, given};
use crate::pg::sys;

/// A required argument that is not there.
pub fn missing(what: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{what} must not be NULL"))
}

pub fn uuid(call: &Call, n: usize, what: &str) -> Result<pgrx::Uuid, Fault> {
    call.get(n).ok_or_else(|| missing(what))
}

pub fn uuid_datum(id: pgrx::Uuid) -> Option<pg_sys::Datum> {
    id.into_datum()
}

/// A jsonb argument, read as text: a number beyond a double would make the other way raise something else.
pub fn json(call: &Call, n: usize, what: &str) -> Result<Option<Value>, Fault> {
    read_json(call.datum(n), what)
}

pub fn read_json(datum: Option<pg_sys::Datum>, what: &str) -> Result<Option<Value>, Fault> {
    let Some(datum) = datum else {
        return Ok(None);
    };
    let text = spi::one::<String>("SELECT $1::text", Access::Read, &[given(Some(datum), pg_sys::JSONBOID)]);
    parse_json(what, &text.unwrap_or_default()).map(Some)
}

/// JSON that the tables hold; what was let in can be read again.
pub fn stored(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

pub fn jsonb_datum(value: Value) -> Option<pg_sys::Datum> {
    pgrx::JsonB(value).into_datum()
}

pub fn jsonb(value: Value) -> Arg {
    given(jsonb_datum(value), pg_sys::JSONBOID)
}

/// Who does it: the name in argument `n`, or else the role that logged in.
pub fn who(call: &Call, n: usize, what: &str) -> Result<String, Fault> {
    Ok(optional(what, call.text(n), 255)?.unwrap_or_else(|| sys::role_name(sys::session_user())).to_owned())
}
