//! How the modules' functions read arguments and values.

use serde_json::Value;
use skill_core::input::{optional, parse_json};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Arg, Call, Uuid, sys};

/// The error for a required argument that is NULL.
pub fn missing(what: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{what} must not be NULL"))
}

/// A required uuid argument.
pub fn uuid(call: &Call, n: usize, what: &str) -> Result<Uuid, Fault> {
    call.get::<Option<Uuid>>(n).ok_or_else(|| missing(what))
}

/// A jsonb argument.
pub fn json(call: &Call, n: usize, what: &str) -> Result<Option<Value>, Fault> {
    read_json(call.arg(n), what)
}

/// A jsonb value, read as text: a number beyond a double gets the error of `parse_json`.
pub fn read_json(value: Arg, what: &str) -> Result<Option<Value>, Fault> {
    if value.is_null() {
        return Ok(None);
    }
    let text = spi::one::<String>("SELECT $1::text", As::Caller, See::Statement, &[value]);
    text.map(|text| parse_json(what, &text)).transpose()
}

/// Who acts: the name in argument `n`, or else the role that logged in.
pub fn actor(call: &Call, n: usize, what: &str) -> Result<String, Fault> {
    Ok(match optional(what, call.text(n), 255)? {
        Some(name) => name.to_owned(),
        None => sys::role_name(sys::session_user()),
    })
}
