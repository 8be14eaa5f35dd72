//! The months of `audit_logs`, created ahead.

use std::time::{Duration, Instant};

use const_format::concatcp;
use serde_json::json;
use skill_core::limits::check_day;
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::sys::AttachLocks;
use skill_pg::xact::attempt;
use skill_pg::{Answer, Call, Date, Oid, arg, columns, pg_function, sys};

use super::append::append_system;
use super::bypass::{self, Bypass};
use crate::module::{Check, Task};

/// How long those who use the default partition may hold up a new partition, and how long others then wait behind that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Locks what a new partition changes; false when others use it. Records of a month that has begun go to the default
/// partition just now, so their writers are kept out.
fn lock_partitions(begun: bool) -> bool {
    let locks = attach_locks(begun);
    let started = Instant::now();
    while !locks.try_acquire() {
        if started.elapsed() >= PATIENCE {
            return !is_used_for_long(locks) && queue(locks);
        }
        std::thread::sleep(Duration::from_millis(20));
        check_for_interrupts();
    }
    true
}

fn attach_locks(begun: bool) -> AttachLocks {
    AttachLocks {
        parent: sys::relation(c"audit_logs"),
        default: sys::relation(c"audit_logs_default"),
        writers_wait: begun,
    }
}

/// A transaction that is older uses them: a queued lock would make all others wait for it.
fn is_used_for_long(locks: AttachLocks) -> bool {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND (l.relation = $1 OR l.relation = $2 AND $3 AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')) \
             AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => $4), true))";
    let args = [arg(locks.default), arg(locks.parent), arg(locks.writers_wait), arg(PATIENCE.as_secs_f64())];
    spi::one(SQL, As::Owner, See::Latest, &args)
}

/// Short transactions that overlap never leave the locks free at one moment; behind a queued lock they do.
fn queue(locks: AttachLocks) -> bool {
    let acquire = || {
        locks.acquire();
        Ok(())
    };
    spi::with_settings(&[(c"lock_timeout", c"1s")], || attempt(acquire)).is_ok()
}

pg_function!(create_audit_partition);
/// `create_audit_partition(month)` → the partition.
fn create_audit_partition(call: &Call) -> Answer {
    let month: Option<Date> = call.arguments();
    sys::prevent_if_read_only(c"create_audit_partition()");
    month.map_or(Ok(()), |month| check_day("month", month.unix_days()))?;
    // Months are months of UTC, so that the bounds do not depend on the caller's time zone.
    let (name, lower, upper, begun): (String, String, String, bool) = spi::one(
        "WITH month AS (SELECT date_trunc('month', coalesce($1::timestamp, (now() AT TIME ZONE 'UTC') + interval '1 month')) \
                            AS start), \
              bounds AS (SELECT start AT TIME ZONE 'UTC' AS lower, (start + interval '1 month') AT TIME ZONE 'UTC' AS upper, \
                                'audit_logs_' || to_char(start, 'YYYY_MM') AS name FROM month) \
         SELECT name, to_char(lower AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', \
                to_char(upper AT TIME ZONE 'UTC', 'YYYY-MM-DD') || ' 00:00:00+00', lower <= clock_timestamp() FROM bounds",
        As::Caller,
        See::OwnWrites,
        &[arg(month)],
    );
    if let Some(existing) = existing(&name) {
        return Ok(call.answer(existing));
    }
    if !lock_partitions(begun) {
        return Err(in_use("create", &name));
    }
    // Another session may have created it meanwhile.
    Ok(call.answer(existing(&name).map_or_else(|| create(&name, &lower, &upper), Ok)?))
}

fn existing(name: &str) -> Option<Oid> {
    const SQL: &str = "SELECT to_regclass('skill_system.' || quote_ident($1))::oid";
    spi::one(SQL, As::Caller, See::Latest, &[arg(name)])
}

fn in_use(verb: &str, name: &str) -> Fault {
    Fault::new(
        Code::LockNotAvailable,
        format!("could not {verb} {name} while other transactions use audit_logs_default"),
    )
    .detail("Waiting for them would hold up all others who use it.")
    .hint("Try again when long and prepared transactions have ended; maintain() does.")
}

fn execute(bypass: Bypass, sql: &str) -> u64 {
    bypass::with(bypass, || spi::execute(Once(sql), As::Caller, See::OwnWrites, &[]))
}

/// Who has rights on a table, apart from its owner.
const GRANTEES: &str = "SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END \
     FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE c.oid = to_regclass($1) AND a.grantee <> c.relowner";

/// Creates the partition `name`; the bounds are written by the server. Records of the month in the default partition go
/// there: each keeps its signature and its leaf.
fn create(name: &str, lower: &str, upper: &str) -> Result<Oid, Fault> {
    let table = format!("skill_system.{name}");
    let definition =
        format!("CREATE TABLE {table} (LIKE skill_system.audit_logs INCLUDING DEFAULTS INCLUDING STORAGE)");
    execute(Bypass::Definition, &definition);
    // What default privileges of the owner grant on every new table.
    for grantee in spi::collect::<String>(GRANTEES, As::Caller, See::OwnWrites, &[arg(table.as_str())]) {
        execute(Bypass::Definition, &format!("REVOKE ALL ON {table} FROM {grantee}"));
    }
    let statements = [
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
    for sql in &statements {
        execute(Bypass::Definition, sql);
    }
    // Last, so that the lock on the default partition is the only one that others may notice.
    fill_and_attach(name, lower, upper)?;
    Ok(spi::one(Once(&format!("SELECT '{table}'::regclass::oid")), As::Caller, See::OwnWrites, &[]))
}

/// Records of the month in the default partition go to the month's, which is then attached.
fn fill_and_attach(name: &str, lower: &str, upper: &str) -> Result<(), Fault> {
    let of_month = format!("WHERE created_at >= '{lower}' AND created_at < '{upper}'");
    let copy = format!("INSERT INTO skill_system.{name} SELECT * FROM skill_system.audit_logs_default {of_month}");
    let delete = format!("DELETE FROM skill_system.audit_logs_default {of_month}");
    let attach = format!(
        "ALTER TABLE skill_system.audit_logs ATTACH PARTITION skill_system.{name} FOR VALUES FROM ('{lower}') TO ('{upper}')"
    );
    execute(Bypass::Definition, &copy);
    let moved = execute(Bypass::Moving, &delete);
    execute(Bypass::Definition, &attach);
    if moved > 0 {
        append_system("audit.records_moved", json!({"partition": name, "records": moved}))?;
    }
    Ok(())
}

columns! {
    /// A partition that was detached or has the bounds of another month: a month with its bounds, or the default partition.
    pub struct Displaced {
        pub name: String = "relname::text",
        lower: Option<String> = "start || ' 00:00:00+00'",
        upper: Option<String> = "(start + interval '1 month')::date || ' 00:00:00+00'",
        /// How it is detached first; an interrupted DETACH ... CONCURRENTLY has to be ended.
        detach: Option<String> = "CASE WHEN i.inhdetachpending THEN 'FINALIZE' WHEN bound IS NOT NULL THEN '' END",
    }
}

/// The default partition first: what belongs to a month may be in it.
pub fn displaced() -> Vec<Displaced> {
    const SQL: &str = concatcp!("SELECT ", Displaced::COLUMNS, include_str!("displaced.sql"));
    spi::collect(SQL, As::Caller, See::Latest, &[])
}

/// Attaches it again, with the records of its month that went to the default partition meanwhile.
pub fn attach_again(partition: &Displaced) -> Result<(), Fault> {
    let name = &partition.name;
    if let Some(how) = &partition.detach {
        let detach = format!("ALTER TABLE skill_system.audit_logs DETACH PARTITION skill_system.{name} {how}");
        execute(Bypass::Definition, &detach);
    }
    let (Some(lower), Some(upper)) = (&partition.lower, &partition.upper) else {
        const DEFAULT: &str =
            "ALTER TABLE skill_system.audit_logs ATTACH PARTITION skill_system.audit_logs_default DEFAULT";
        execute(Bypass::Definition, DEFAULT);
        return Ok(());
    };
    if !lock_partitions(true) {
        return Err(in_use("attach", name));
    }
    fill_and_attach(name, lower, upper)
}

/// The next month has its partition, and no month is in the default one.
pub fn check() -> Check {
    const NEXT: &str = "SELECT to_regclass('skill_system.audit_logs_' \
         || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')) IS NOT NULL";
    if !spi::one::<bool>(NEXT, As::Caller, See::Statement, &[]) {
        return Check::warning(
            "next month has no partition, so its records would go to audit_logs_default",
            "Call SELECT * FROM skill_system.maintain() once a day, for example with pg_cron.",
        );
    }
    const MONTHS: &str = "SELECT string_agg(month, ', ' ORDER BY month) FROM ( \
         SELECT DISTINCT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month FROM skill_system.audit_logs_default) m";
    match spi::one::<Option<String>>(MONTHS, As::Owner, See::Statement, &[]) {
        None => Check::ok("next month has its partition, and audit_logs_default is empty"),
        Some(months) => Check::warning(
            format!("audit_logs_default holds records of {months}, which cannot be retired there"),
            "SELECT skill_system.create_audit_partition('YYYY-MM-01'); moves a month while nobody uses the default partition; \
             maintain() tries it for this month.",
        ),
    }
}

/// Records that `maintain()` moves at once: writers wait meanwhile.
const MAX_MOVED: i64 = 100_000;

/// Creates the partitions of this month and of the next two.
pub fn create_ahead() -> Result<Task, Fault> {
    create_missing(lock_partitions)
}

/// As [`create_ahead`], but only what nobody is in the way of at this moment.
pub fn create_at_once() -> Result<Task, Fault> {
    create_missing(|begun| attach_locks(begun).try_acquire())
}

/// Creates them after `lock` of what this changes.
fn create_missing(lock: impl Fn(bool) -> bool) -> Result<Task, Fault> {
    let (mut created, mut notes) = (0, Vec::new());
    for ahead in 0..3i32 {
        let (name, exists, held): (String, bool, i64) = spi::one(
            "WITH month AS (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1) AS start) \
             SELECT 'audit_logs_' || to_char(start, 'YYYY_MM'), \
                 to_regclass('skill_system.audit_logs_' || to_char(start, 'YYYY_MM')) IS NOT NULL, \
                 (SELECT count(*) FROM (SELECT FROM skill_system.audit_logs_default d WHERE d.created_at >= start AT TIME ZONE 'UTC' \
                     AND d.created_at < (start + interval '1 month') AT TIME ZONE 'UTC' LIMIT $2 + 1) d) FROM month",
            As::Owner,
            See::OwnWrites,
            &[arg(ahead), arg(MAX_MOVED)],
        );
        if exists {
            continue;
        }
        if held > MAX_MOVED {
            notes.push(format!("{name} stays in audit_logs_default, which holds many records of it: see health()"));
            continue;
        }
        if !lock(ahead == 0) {
            notes.push(format!(
                "{name} has to wait for transactions that use audit_logs_default: call maintain() again"
            ));
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
        let moved = if held > 0 { format!(" with {held} records of audit_logs_default") } else { String::new() };
        notes.push(format!("{name} created{moved}"));
    }
    let detail = if notes.is_empty() { "all partitions exist".to_owned() } else { notes.join("; ") };
    Ok(Task { affected: created, detail })
}
