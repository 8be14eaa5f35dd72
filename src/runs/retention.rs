//! Deletion of old runs, by `skill_system.run_retention`.

use skill_core::Fault;
use skill_pg::arg;
use skill_pg::spi::{self, As, See};

use super::otlp::lenient_json;
use crate::audit::bypass::{self, Bypass};
use crate::module::{Batch, Task};
use crate::{audit, settings};

/// Deletes finished runs older than the setting allows, with their events, oldest first.
pub fn delete_old_runs(batch: &Batch) -> Result<Task, Fault> {
    let task = |affected, detail: &str| Ok(Task { name: "run_retention", affected, detail: detail.into() });
    let Some(minutes) = settings::run_retention_minutes() else {
        return task(0, "skill_system.run_retention is -1: runs are kept forever");
    };
    let deleted = bypass::with(Bypass::Retention, || {
        spi::collect::<(String, i64, String)>(
            "WITH old AS (SELECT tenant_id, id, coalesce(ended_at, created_at) AS at FROM skill_system.runs \
                 WHERE status IN ('succeeded', 'failed', 'cancelled') \
                   AND coalesce(ended_at, created_at) < now() - make_interval(mins => $1) \
                 ORDER BY 3 LIMIT $2 FOR UPDATE SKIP LOCKED), \
             gone AS (DELETE FROM skill_system.runs r USING old WHERE r.tenant_id = old.tenant_id AND r.id = old.id \
                 RETURNING r.tenant_id, old.at) \
             SELECT tenant_id, count(*), jsonb_build_object('count', count(*), 'oldest', min(at), 'newest', max(at))::text \
             FROM gone GROUP BY tenant_id ORDER BY tenant_id",
            As::Owner,
            See::OwnWrites,
            &[arg(minutes), arg(batch.rows)],
        )
    });
    let more = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM skill_system.runs WHERE status IN ('succeeded', 'failed', 'cancelled') \
             AND coalesce(ended_at, created_at) < now() - make_interval(mins => $1))",
        As::Owner,
        See::OwnWrites,
        &[arg(minutes)],
    );
    let count = deleted.iter().map(|(_, count, _)| count).sum();
    // As the caller, so that the record names who did it.
    for (tenant, _, data) in deleted {
        let mut data = lenient_json(data);
        data["retention_minutes"] = minutes.into();
        audit::append_for(&tenant, "runs.deleted", arg(data), None, Some("system"))?;
    }
    task(count, if more == Some(true) { "more remain: call maintain() again" } else { "nothing older remains" })
}
