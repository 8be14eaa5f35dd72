//! The words by which a skill is found.

use skill_pg::arg;
use skill_pg::spi::{self, As, See};

use super::model::Head;

/// Words that are too long, and queries of stop words only, would send a notice to callers that register or search.
pub fn without_notices<T>(body: impl FnOnce() -> T) -> T {
    spi::with_settings(&[(c"client_min_messages", c"warning")], body)
}

/// Keeps the words of a skill as it is served. Only the beginning of the texts: a tsvector holds a megabyte at most, and
/// what a skill is about stands at its beginning.
pub fn update(head: &Head) {
    without_notices(|| spi::execute(include_str!("index_words.sql"), As::Owner, See::OwnWrites, &[arg(head.id)]));
}

/// The skill is not found any more.
pub fn remove(head: &Head) {
    spi::execute(
        "DELETE FROM skill_system.skill_search WHERE tenant_id = skill_system.current_tenant() AND skill_id = $1",
        As::Owner,
        See::OwnWrites,
        &[arg(head.id)],
    );
}
