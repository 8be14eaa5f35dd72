//! The words by which a skill is found.

use skill_pg::arg;
use skill_pg::spi::{self, As, See};

use super::model::Head;

/// Words that are too long, and queries of stop words only, would send a notice to callers that register or search.
pub fn without_notices<T>(body: impl FnOnce() -> T) -> T {
    spi::with_settings(&[(c"client_min_messages", c"warning")], body)
}

/// Keeps the words of a skill as it is served. Only the beginning of the texts: a tsvector holds a megabyte at most, and
/// what a skill is about stands at its beginning. Not by a join, which would begin with all versions of the tenant in a table
/// without statistics.
pub fn update(head: &Head) {
    without_notices(|| {
        spi::execute(
            "INSERT INTO skill_system.skill_search (skill_id, document) \
             SELECT h.id, setweight(to_tsvector('pg_catalog.english', h.skill_name || ' ' || coalesce(h.name, '')), 'A') \
                 || setweight(to_tsvector('pg_catalog.english', left(array_to_string(h.domain_tags, ' '), 2000)), 'B') \
                 || setweight(to_tsvector('pg_catalog.english', left(h.description, 2000)), 'B') \
                 || setweight(to_tsvector('pg_catalog.english', \
                     (SELECT left(v.body, 3000) FROM skill_system.skill_versions v \
                      WHERE v.tenant_id = h.tenant_id AND v.id = h.current_version_id)), 'D') \
             FROM skill_system.skill_heads h \
             WHERE h.tenant_id = skill_system.current_tenant() AND h.id = $1 \
             ON CONFLICT (tenant_id, skill_id) DO UPDATE SET document = excluded.document",
            As::Owner,
            See::OwnWrites,
            &[arg(head.id)],
        )
    });
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
