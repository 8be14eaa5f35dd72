//! What changed since a token.

use std::collections::HashMap;

use skill_core::Fault;
use skill_core::error::shorten;
use skill_core::input::invalid;
use skill_core::skills::changes::Token;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, pg_function};

/// Revisions of one namespace or of all, as the calling query sees them.
fn revisions(namespace: Option<&str>) -> Vec<(String, i64)> {
    spi::collect(
        "SELECT namespace, revision FROM skill_system.skill_namespaces \
         WHERE tenant_id = skill_system.current_tenant() AND ($1 IS NULL OR namespace = $1) AND revision > 0 \
         ORDER BY namespace",
        As::Caller,
        See::Statement,
        &[arg(namespace)],
    )
}

pg_function!(skills_token);
/// `skills_token(namespace)`
fn skills_token(call: &Call) -> Answer {
    let mut token = Token::default();
    for (namespace, revision) in revisions(call.text(0)) {
        token.read(&namespace, revision);
    }
    token.bounded()?;
    Ok(call.answer(token.to_string()))
}

/// A token of another database, or of a primary that this standby has not reached, is refused.
fn check_not_ahead(token: &Token, namespace: Option<&str>, now: &[(String, i64)]) -> Result<(), Fault> {
    let now: HashMap<&str, i64> = now.iter().map(|(namespace, revision)| (namespace.as_str(), *revision)).collect();
    let now = |namespace: &str| now.get(namespace).copied().unwrap_or(0);
    let mut wanted = token.namespaces().filter(|other| namespace.is_none_or(|namespace| namespace == *other));
    let Some(ahead) = wanted.find(|namespace| token.revision(namespace) > now(namespace)) else {
        return Ok(());
    };
    Err(invalid(format!("the token is ahead of this database in the namespace \"{}\"", shorten(ahead)))
        .detail(format!("The token has revision {}, the last change here is {}.", token.revision(ahead), now(ahead)))
        .hint(
            "A standby may be behind: ask again later. A database that was restored has another history: begin with NULL.",
        ))
}

pg_function!(skill_changes);
/// `skill_changes(since_token, namespace, max_rows)`
///
/// A revision is given out under the lock of its namespace, which is held to the end of the transaction: any query that sees
/// revision n sees all before it, so a token never passes over what is not committed yet.
fn skill_changes(call: &Call) -> Answer {
    let mut token = Token::parse(call.text(0))?;
    let namespace = call.text(1);
    let mut left = match call.get::<Option<i32>>(2) {
        Some(given) if (1..=10_000).contains(&given) => u64::from(given.unsigned_abs()),
        _ => return Err(invalid("max_rows must be between 1 and 10000")),
    };
    let now = revisions(namespace);
    check_not_ahead(&token, namespace, &now)?;
    let mut rows = call.row_set();
    for (namespace, revision) in &now {
        let since = token.revision(namespace);
        if left == 0 || since >= *revision {
            continue;
        }
        left -= spi::each(
            "SELECT namespace, revision, action, skill_id, skill_name, version_id, version, previous_status, status, channel, \
                 changed_at, changed_by, reason \
             FROM skill_system.skill_history \
             WHERE tenant_id = skill_system.current_tenant() AND namespace = $1 AND revision > $2 ORDER BY revision LIMIT $3",
            As::Caller,
            See::Statement,
            &[arg(namespace), arg(since), arg(left as i64)],
            |row| {
                token.read(namespace, row.get(2));
                token.bounded()?;
                let mut columns = row.args(13);
                columns.push(arg(token.to_string()));
                rows.push(&columns);
                Ok(())
            },
        )?;
    }
    Ok(rows.finish())
}
