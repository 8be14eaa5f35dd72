//! What changed since a token.

use skill_core::input::invalid;
use skill_core::skills::changes::Token;
use skill_pg::{Answer, Call, arg, pg_function};

use crate::skills::model::NAMESPACES;

pg_function!(skills_token);
fn skills_token(call: &Call) -> Answer {
    Ok(call.answer(NAMESPACES.token(call.arguments())?.to_string()))
}

pg_function!(skill_changes);
fn skill_changes(call: &Call) -> Answer {
    let (token, namespace, max_rows): (_, _, Option<i32>) = call.arguments();
    let token = Token::parse(token)?;
    let max_rows = max_rows.filter(|rows| (1..=10_000).contains(rows));
    let max_rows = max_rows.ok_or_else(|| invalid("max_rows must be between 1 and 10000"))?;
    let mut rows = call.row_set();
    NAMESPACES.changes_since(token, namespace, u64::from(max_rows.unsigned_abs()), |row, token| {
        let mut columns = row.args(13);
        columns.push(arg(token));
        rows.push(&columns);
    })?;
    Ok(rows.finish())
}
