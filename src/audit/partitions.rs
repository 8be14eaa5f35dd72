//! The months of `audit_logs`, created ahead.

use skill_core::limits::check_day;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Call, Date, Oid, arg, pg_function, sys};

use super::bypass::{self, Bypass};
use crate::module::{Batch, Check, Task};

/// Locks what a new partition changes; false when others use it.
fn lock_partitions() -> bool {
    sys::try_lock_access_exclusive(&[sys::relation(c"audit_logs"), sys::relation(c"audit_logs_default")])
}

pg_function!(create_audit_partition);
/// `create_audit_partition(month)` → the partition.
fn create_audit_partition(call: &Call) -> Answer {
    let month: Option<Date> = call.get(0);
    sys::prevent_if_read_only(c"create_audit_partition()");
    month.map_or(Ok(()), |month| check_day("month", month.unix_days()))?;
    // Months are months of UTC, so that the bounds do not depend on the caller's time zone.
    let found: Option<(String, String, String, Option<Oid>)> = spi::first(
        "WITH month AS (SELECT date_trunc('month', coalesce($1::timestamp, (now() AT TIME ZONE 'UTC') + interval '1 month')) \
                            AS start), \
              bounds AS (SELECT start AT TIME ZONE 'UTC' AS lower, (start + interval '1 month') AT TIME ZONE 'UTC' AS upper, \
                                'audit_logs_' || to_char(start, 'YYYY_MM') AS name FROM month) \
         SELECT name, to_char(lower AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', \
                to_char(upper AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', \
                to_regclass('skill_system.' || quote_ident(name))::oid FROM bounds",
        As::Caller,
        See::OwnWrites,
        &[arg(month)],
    );
    let Some((name, lower, upper, existing)) = found else { return Ok(call.null()) };
    if let Some(existing) = existing {
        return Ok(call.answer(existing));
    }
    let is_held = spi::one::<bool>(
        "SELECT EXISTS (SELECT FROM skill_system.audit_logs_default \
                        WHERE created_at >= $1::timestamptz AND created_at < $2::timestamptz)",
        As::Caller,
        See::OwnWrites,
        &[arg(&lower), arg(&upper)],
    );
    if is_held == Some(true) {
        return Err(Fault::new(
            Code::NotInPrerequisiteState,
            format!("audit_logs_default already holds records of the month of {name}"),
        )
        .detail("Records never move, so this month stays in the default partition.")
        .hint("Create later months ahead of time; maintain() does."));
    }
    if !lock_partitions() {
        return Err(Fault::new(
            Code::LockNotAvailable,
            format!("could not create {name} while other transactions use the audit trail"),
        )
        .detail("Waiting for them would hold up all writers.")
        .hint("Try again when long and prepared transactions have ended; maintain() does."));
    }
    Ok(call.answer(create(&name, &lower, &upper)))
}

/// Creates the partition `name`; the bounds are written by the server.
fn create(name: &str, lower: &str, upper: &str) -> Option<Oid> {
    let table = format!("skill_system.{name}");
    let statements = [
        format!("CREATE TABLE {table} PARTITION OF skill_system.audit_logs FOR VALUES FROM ('{lower}') TO ('{upper}')"),
        format!("ALTER TABLE {table} ADD PRIMARY KEY (id, tenant_id)"),
        format!("CREATE INDEX {name}_brin_idx ON {table} USING brin (created_at, transaction_id)"),
        format!(
            "CREATE TRIGGER audit_logs_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT \
             EXECUTE FUNCTION skill_system.refuse_change()"
        ),
        format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_logs_no_truncate"),
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
        format!("CREATE POLICY auditor ON {table} FOR SELECT TO skill_system_auditor USING (true)"),
        format!("GRANT SELECT ON {table} TO skill_system_auditor"),
        format!(
            "COMMENT ON TABLE {table} IS \
             'Partition of audit_logs for one month of UTC. Created by create_audit_partition().'"
        ),
    ];
    bypass::with(Bypass::Definition, || {
        for sql in &statements {
            spi::execute(Once(sql), As::Caller, See::OwnWrites, &[]);
        }
    });
    spi::one(Once(&format!("SELECT '{table}'::regclass::oid")), As::Caller, See::OwnWrites, &[])
}

/// The next month has its partition.
pub fn check() -> Check {
    let exists = spi::one::<bool>(
        "SELECT to_regclass('skill_system.audit_logs_' \
             || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')) IS NOT NULL",
        As::Caller,
        See::Statement,
        &[],
    );
    if exists == Some(true) {
        Check::ok("audit_partitions", "next month has its partition")
    } else {
        Check::warning(
            "audit_partitions",
            "next month has no partition, so its records would go to audit_logs_default",
            "Call SELECT * FROM skill_system.maintain() once a day, for example with pg_cron.",
        )
    }
}

/// Creates the partitions of this month, where it is not too late, and of the next two.
pub fn create_ahead(_batch: &Batch) -> Result<Task, Fault> {
    let (mut created, mut notes) = (0, Vec::new());
    for ahead in 0..3i32 {
        let found: Option<(String, bool, bool)> = spi::first(
            "WITH month AS (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1) AS start) \
             SELECT 'audit_logs_' || to_char(start, 'YYYY_MM'), \
                 to_regclass('skill_system.audit_logs_' || to_char(start, 'YYYY_MM')) IS NOT NULL, \
                 EXISTS (SELECT FROM skill_system.audit_logs_default d WHERE d.created_at >= start AT TIME ZONE 'UTC' \
                     AND d.created_at < (start + interval '1 month') AT TIME ZONE 'UTC') FROM month",
            As::Owner,
            See::OwnWrites,
            &[arg(ahead)],
        );
        let Some((name, exists, is_late)) = found else { break };
        if exists {
            continue;
        }
        if is_late {
            notes.push(format!("{name} stays in audit_logs_default, which holds records of it"));
            continue;
        }
        if !lock_partitions() {
            notes.push(format!("{name} has to wait for transactions that use the audit trail: call maintain() again"));
            break;
        }
        spi::execute(
            "SELECT skill_system.create_audit_partition( \
                 (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1))::date)",
            As::Owner,
            See::OwnWrites,
            &[arg(ahead)],
        );
        created += 1;
        notes.push(format!("{name} created"));
    }
    let detail = if notes.is_empty() { "all partitions exist".to_owned() } else { notes.join("; ") };
    Ok(Task { name: "audit_partitions", affected: created, detail })
}
