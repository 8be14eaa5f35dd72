//! How the modules' functions read arguments and values.

use serde_json::Value;
use skill_core::input::{optional, parse_json};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Jsonb, arg, sys};

/// The error for a required argument that is NULL.
pub fn missing(what: &str) -> Fault {
    Fault::new(Code::InvalidParameterValue, format!("{what} must not be NULL"))
}

/// A required argument.
pub fn given<T>(argument: Option<T>, what: &str) -> Result<T, Fault> {
    argument.ok_or_else(|| missing(what))
}

/// A jsonb, read as text: a number beyond a double gets the error of `parse_json`.
pub fn json(value: Option<Jsonb>, what: &str) -> Result<Option<Value>, Fault> {
    let Some(value) = value else { return Ok(None) };
    let text: String = spi::one("SELECT $1::text", As::Caller, See::Statement, &[arg(value)]);
    parse_json(what, &text).map(Some)
}

/// Who acts: the argument `actor_id`, or else the role that logged in.
pub fn actor(actor_id: Option<&str>) -> Result<String, Fault> {
    Ok(match optional("actor_id", actor_id, 255)? {
        Some(name) => name.to_owned(),
        None => sys::role_name(sys::session_user()),
    })
}
