//! Deletion of old runs, by `skill_system.run_retention`.

use skill_core::Fault;
use skill_pg::spi::{self, As, See};
use skill_pg::{arg, sys};

use super::otlp::lenient_json;
use crate::audit::bypass::{self, Bypass};
use crate::module::{Batch, Task};
use crate::{audit, settings};

/// Deletes finished runs older than the setting allows, with their events, oldest first.
pub fn delete_old_runs(batch: &Batch) -> Result<Task, Fault> {
    let task = |affected, detail: &str| Ok(Task { affected, detail: detail.into() });
    let Some(minutes) = settings::run_retention_minutes() else {
        return task(0, "skill_system.run_retention is -1: runs are kept forever");
    };
    // The owner's call is for all tenants: a record about another tenant would not be the caller's to write.
    let for_all = sys::has_rights_of(sys::owner());
    let args = [arg(minutes), arg(for_all), arg(batch.rows)];
    let deleted = bypass::with(Bypass::Retention, || {
        spi::with_plain_text(|| {
            spi::collect::<(String, i64, String)>(
                "WITH old AS (SELECT tenant_id, id, coalesce(closed_at, created_at) AS at FROM skill_system.runs \
                     WHERE status IN ('succeeded', 'failed', 'cancelled') \
                       AND coalesce(closed_at, created_at) < now() - make_interval(mins => $1) \
                       AND ($2 OR tenant_id = skill_system.current_tenant()) \
                     ORDER BY 3 LIMIT $3 FOR UPDATE SKIP LOCKED), \
                 gone AS (DELETE FROM skill_system.runs r USING old WHERE r.tenant_id = old.tenant_id AND r.id = old.id \
                     RETURNING r.tenant_id, old.at) \
                 SELECT tenant_id, count(*), jsonb_build_object('count', count(*), 'oldest', min(at), 'newest', max(at))::text \
                 FROM gone GROUP BY tenant_id ORDER BY tenant_id",
                As::Owner,
                See::OwnWrites,
                &args,
            )
        })
    });
    let more = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM skill_system.runs WHERE status IN ('succeeded', 'failed', 'cancelled') \
             AND coalesce(closed_at, created_at) < now() - make_interval(mins => $1) \
             AND ($2 OR tenant_id = skill_system.current_tenant()))",
        As::Owner,
        See::OwnWrites,
        &args[..2],
    );
    let count = deleted.iter().map(|(_, count, _)| count).sum();
    // As the caller, so that the record names who did it.
    for (tenant, _, data) in deleted {
        let mut data = lenient_json(data);
        data["retention_minutes"] = minutes.into();
        audit::append_for(&tenant, "runs.deleted", arg(data), None, Some("system"))?;
    }
    let mut detail = if more { "more remain: call maintain() again" } else { "nothing older remains" }.to_owned();
    if !for_all {
        let tenant = settings::tenant()?;
        detail.push_str(&format!("; only for tenant \"{tenant}\": for the others, a superuser calls maintain()"));
    }
    task(count, &detail)
}
