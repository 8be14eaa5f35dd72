//! What changed since a token.

use skill_core::input::invalid;
use skill_core::skills::changes::Token;
use skill_pg::{Answer, Call, arg, pg_function};

use crate::skills::model::{HistoryRow, NAMESPACES};

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
    let max_rows = u64::from(max_rows.unsigned_abs());
    NAMESPACES.changes_since(
        token,
        namespace,
        max_rows,
        |change: &HistoryRow| change.revision,
        |change, token| {
            rows.push(&[
                arg(&change.namespace),
                arg(change.revision),
                arg(&change.action),
                arg(change.skill_id),
                arg(&change.skill_name),
                arg(change.version_id),
                arg(change.version.as_deref()),
                arg(change.previous_status.as_deref()),
                arg(change.status.as_deref()),
                arg(change.channel.as_deref()),
                arg(change.changed_at),
                arg(&change.changed_by),
                arg(change.reason.as_deref()),
                arg(token),
            ]);
        },
    )?;
    Ok(rows.finish())
}
