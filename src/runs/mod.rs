//! The run log: what ran, how long, at what cost, with which outcome.

use pgrx::datum::IntoDatum;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use serde_json::Value;
use skill_core::audit::MAX_ACTOR_ID;
use skill_core::jsonb::Member;
use skill_core::policy::Profile;
use skill_core::runs::legacy::keep_valid_rules;
use skill_core::runs::otlp;
use skill_core::runs::{RunError, Status, check_events, duration, name, optional_name};
use skill_core::{Code, Fault};

use crate::ledger::{self, Step};
use crate::pg::call::{Answer, Call, jsonb_datum};
use crate::pg::error::{OrRaise, raise};
use crate::pg::spi::{self, Access, Arg, arg, given};
use crate::pg::trigger::Trigger;
use crate::pg::{cache, guc, sys};
use crate::policy::policy;
use crate::skills::{self, Ran};
use crate::{audit, pg_function};

/// A jsonb argument that must be an object; NULL and the empty object are `None`.
fn object(call: &Call, n: usize, what: &'static str) -> Result<Option<pg_sys::Datum>, RunError> {
    let Some(bytes) = call.jsonb(n) else {
        return Ok(None);
    };
    // The header of a jsonb: kind and number of entries.
    let header = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    if header & 0x2000_0000 == 0 {
        return Err(RunError::WrongKind { what, wanted: "object" });
    }
    Ok(if header & 0x0fff_ffff == 0 { None } else { call.datum(n) })
}

fn jsonb(datum: Option<pg_sys::Datum>) -> Arg {
    given(datum, pg_sys::JSONBOID)
}

fn object_datum(members: &[(&str, Option<Member<'_>>)]) -> Result<pg_sys::Datum, Fault> {
    jsonb_datum(&skill_core::jsonb::object(members)?)
}

fn timestamp(micros: Option<i64>) -> Arg {
    given(micros.map(pg_sys::Datum::from), pg_sys::TIMESTAMPTZOID)
}

fn id_datum(id: i64) -> pg_sys::Datum {
    pg_sys::Datum::from(id)
}

fn run_id(call: &Call) -> Result<i64, RunError> {
    call.get(0).ok_or(RunError::Missing { what: "run_id" })
}

fn status(word: Option<&str>) -> Result<Status, RunError> {
    Status::parse(word.ok_or(RunError::Missing { what: "status" })?)
}

/// The agent as the actor of an audit record, where its name fits there.
fn actor(agent_id: Option<&str>) -> Option<&str> {
    agent_id.filter(|name| name.len() <= MAX_ACTOR_ID || name.chars().count() <= MAX_ACTOR_ID)
}

/// Number and content of the named policy; an unknown or broken one is an error.
fn policy_in_force(name: Option<&str>, full: bool) -> Result<(Option<i64>, Option<pg_sys::Datum>), Fault> {
    let Some(name) = name else {
        return Ok((None, None));
    };
    let compiled = policy(name);
    let compiled = compiled.as_ref().as_ref().map_err(|error| Fault::from(error.clone()))?;
    let content = if full {
        compiled.to_json()
    } else {
        serde_json::json!({"policy": compiled.name, "version": compiled.version, "hash": compiled.hash})
    };
    let id = spi::one(
        "SELECT id FROM skill_system.policy_profiles WHERE tenant_id = skill_system.current_tenant() AND name = $1",
        Access::ReadLatest,
        &[arg(name)],
    );
    Ok((id, pgrx::JsonB(content).into_datum()))
}

/// ON CONFLICT costs a second WAL record for each row, so it is only there with a key.
macro_rules! with_conflict {
    ($before:expr, $after:expr) => {
        [
            concat!($before, " ", $after),
            concat!(
                $before,
                " ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING ",
                $after
            ),
        ]
    };
}

/// Run and step in one statement; `[1]` with a key.
const LOG_RUN: [&str; 2] = with_conflict!(
    "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, started_at, ended_at, \
         effective_policy, metrics, error, idempotency_key, skill_version_id) \
     VALUES ($1, $2, $3, $4::skill_system.run_status, $5, $6, coalesce($7, '{}'), coalesce($8 || $9, $8), $10, $11, $17)",
    "RETURNING id), e AS (INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload, skill_version_id) \
     SELECT id, $12, $13, $14, coalesce($15 || $16, $16), $17 FROM r) \
     SELECT id FROM r"
);

pg_function!(pg_finfo_skill_log_run, skill_log_run, log_run);
/// `log_run(skill, operation, status, duration_ms, agent_id, goal, policy_name, error, metrics, payload, idempotency_key)`
fn log_run(call: &Call) -> Answer {
    let skill = name(call.text(0), "skill")?;
    let operation = name(call.text(1), "operation")?;
    let status = status(call.text(2))?;
    let duration = duration(call.get(3))?;
    let agent_id = optional_name(call.text(4), "agent_id")?;
    let metrics = object(call, 8, "metrics")?;
    let payload = object(call, 9, "payload")?;
    let key = optional_name(call.text(10), "idempotency_key")?;
    let (policy_id, effective) = policy_in_force(call.text(6), false)?;
    let ran = ran(call, skill, 9);
    let version = ran.as_ref().map(|ran| Member::Text(&ran.version));
    let now = sys::clock_timestamp();
    let started = (status != Status::Queued).then(|| now - duration.unwrap_or(0) * 1000);
    let duration = duration.map(Member::Integer);
    let counted = object_datum(&[("steps", Some(Member::Integer(1))), ("duration_ms", duration)])?;
    let step = object_datum(&[
        ("skill", Some(Member::Text(skill))),
        ("operation", Some(Member::Text(operation))),
        ("status", Some(Member::Text(status.step_word()))),
        ("duration_ms", duration),
        ("metrics", metrics.and(call.jsonb(8)).map(Member::Jsonb)),
        ("skill_version", version),
    ])?;
    let args = [
        arg(call.text(5)),
        arg(agent_id),
        arg(policy_id),
        arg(status.as_str()),
        timestamp(started),
        timestamp(status.is_terminal().then_some(now)),
        jsonb(effective),
        jsonb(Some(counted)),
        jsonb(metrics),
        arg(call.text(7)),
        arg(key),
        timestamp(Some(now)),
        arg(status.level()),
        arg(status.event_type()),
        jsonb(payload),
        jsonb(Some(step)),
        arg(ran.as_ref().map(|ran| ran.version_id)),
    ];
    let (id, new) = once(LOG_RUN[usize::from(key.is_some())], &args, key)?;
    if new {
        let record = object_datum(&[
            ("run_id", Some(Member::Integer(id))),
            ("skill", Some(Member::Text(skill))),
            ("operation", Some(Member::Text(operation))),
            ("status", Some(Member::Text(status.as_str()))),
            ("duration_ms", duration),
            ("skill_version", version),
        ])?;
        audit_run("run.logged", record, agent_id);
    }
    Ok(id_datum(id))
}

/// The version of a registered skill that a step used; argument `n` is the payload, which may name it.
fn ran(call: &Call, skill: &str, n: usize) -> Option<Ran> {
    const MEMBER: &[u8] = b"skill_version";
    let named = call.jsonb(n).is_some_and(|bytes| bytes.windows(MEMBER.len()).any(|bytes| bytes == MEMBER));
    let claimed = if named {
        spi::one::<String>("SELECT $1->>'skill_version'", Access::Read, &[jsonb(call.datum(n))])
    } else {
        None
    };
    skills::ran(skill, claimed.as_deref())
}

/// Writes an audit record about a run on behalf of its agent.
fn audit_run(event_type: &str, record: pg_sys::Datum, agent_id: Option<&str>) {
    let actor = actor(agent_id);
    audit::append_for(
        &guc::tenant(),
        event_type,
        Some(record),
        actor,
        Some(if actor.is_some() { "agent" } else { "system" }),
    );
}

/// Runs a statement that makes a run and returns its number and that it is new;
/// where the key is taken, returns the run that has it. As the owner: the statement
/// is fixed and the tenant is the session's, so row security has nothing to add and
/// its two checks a run would cost a tenth of the time.
fn once(sql: &'static str, args: &[Arg], key: Option<&str>) -> Result<(i64, bool), Fault> {
    // The run that held the key may be deleted between the two statements; then the next turn makes one.
    for _ in 0..3 {
        let mut id: Option<i64> = None;
        spi::run(sql, Access::WriteAsOwner, args, |row| id = row.get(1));
        if let Some(id) = id {
            return Ok((id, true));
        }
        let id = spi::one(
            "SELECT id FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND idempotency_key = $1",
            Access::ReadLatest,
            &[arg(key)],
        );
        if let Some(id) = id {
            return Ok((id, false));
        }
    }
    Err(Fault::new(Code::Internal, "the run was neither made nor found"))
}

const START_RUN: [&str; 2] = with_conflict!(
    "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, started_at, effective_policy, metrics, idempotency_key) \
     VALUES ($1, $2, $3, 'running', $4, coalesce($5, '{}'), coalesce($6, '{}'), $7)",
    "RETURNING id) SELECT id FROM r"
);

pg_function!(pg_finfo_skill_start_run, skill_start_run, start_run);
/// `start_run(goal, agent_id, policy_name, metrics, idempotency_key)`
fn start_run(call: &Call) -> Answer {
    let goal = call.text(0).ok_or(RunError::Missing { what: "goal" })?;
    let agent_id = optional_name(call.text(1), "agent_id")?;
    let metrics = object(call, 3, "metrics")?;
    let key = optional_name(call.text(4), "idempotency_key")?;
    let (policy_id, effective) = policy_in_force(call.text(2), true)?;
    let args = [
        arg(goal),
        arg(agent_id),
        arg(policy_id),
        timestamp(Some(sys::clock_timestamp())),
        jsonb(effective),
        jsonb(metrics),
        arg(key),
    ];
    let (id, new) = once(START_RUN[usize::from(key.is_some())], &args, key)?;
    if new {
        let compiled = call.text(2).map(policy);
        let compiled = compiled.as_ref().and_then(|compiled| compiled.as_ref().as_ref().ok());
        let record = object_datum(&[
            ("run_id", Some(Member::Integer(id))),
            ("agent_id", agent_id.map(Member::Text)),
            ("policy", compiled.map(|policy| Member::Text(&policy.name))),
            ("policy_version", compiled.map(|policy| Member::Integer(policy.version.into()))),
            ("policy_hash", compiled.map(|policy| Member::Text(&policy.hash))),
        ])?;
        audit_run("run.started", record, agent_id);
    }
    Ok(id_datum(id))
}

pg_function!(pg_finfo_skill_log_event, skill_log_event, log_event);
/// `log_event(run_id, event_type, payload, level)`
fn log_event(call: &Call) -> Answer {
    let run_id = run_id(call)?;
    let event_type = name(call.text(1), "event_type")?;
    let payload = object(call, 2, "payload")?;
    let level = name(call.text(3), "level")?;
    let id = spi::one::<i64>(
        "INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
         SELECT r.id, $2, $3, $4, coalesce($5, '{}') FROM skill_system.runs r WHERE r.tenant_id = skill_system.current_tenant() AND r.id = $1 \
         RETURNING id",
        Access::Write,
        &[arg(run_id), timestamp(Some(sys::clock_timestamp())), arg(level), arg(event_type), jsonb(payload)],
    );
    Ok(id_datum(id.ok_or(RunError::Unknown { run_id })?))
}

pg_function!(pg_finfo_skill_log_step, skill_log_step, log_step);
/// `log_step(run_id, skill, operation, status, duration_ms, metrics, payload)`
fn log_step(call: &Call) -> Answer {
    let run_id = run_id(call)?;
    let skill = name(call.text(1), "skill")?;
    let operation = name(call.text(2), "operation")?;
    let status = status(call.text(3))?;
    let duration = duration(call.get(4))?;
    let metrics = object(call, 5, "metrics")?;
    let payload = object(call, 6, "payload")?;
    let ran = ran(call, skill, 6);
    let (mut found, mut id) = (None::<String>, None::<i64>);
    // The lock makes finish_run() wait, so that it adds up every step.
    spi::run(
        "WITH r AS (SELECT id, status FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR SHARE), \
         e AS (INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload, skill_version_id) \
             SELECT id, $2, $3, $4, coalesce($5, '{}') \
                 || CASE WHEN $6 IS NULL THEN jsonb_build_object('skill', $7, 'operation', $8, 'status', $9) \
                         ELSE jsonb_build_object('skill', $7, 'operation', $8, 'status', $9, 'duration_ms', $6) END \
                 || CASE WHEN $10 IS NULL THEN '{}' ELSE jsonb_build_object('metrics', $10) END \
                 || CASE WHEN $11 IS NULL THEN '{}' ELSE jsonb_build_object('skill_version', $11) END, $12 \
             FROM r WHERE status IN ('queued', 'running') RETURNING id) \
         SELECT r.status::text, (SELECT id FROM e) FROM r",
        Access::Write,
        &[
            arg(run_id),
            timestamp(Some(sys::clock_timestamp())),
            arg(status.level()),
            arg(status.event_type()),
            jsonb(payload),
            arg(duration),
            arg(skill),
            arg(operation),
            arg(status.step_word()),
            jsonb(metrics),
            arg(ran.as_ref().map(|ran| ran.version.as_str())),
            arg(ran.as_ref().map(|ran| ran.version_id)),
        ],
        |row| (found, id) = (row.get(1), row.get(2)),
    );
    match (found, id) {
        (_, Some(id)) => Ok(id_datum(id)),
        (Some(status), None) => Err(RunError::Final { run_id, status, refused: "another step".into() }.into()),
        (None, None) => Err(RunError::Unknown { run_id }.into()),
    }
}

pg_function!(pg_finfo_skill_log_events, skill_log_events, log_events);
/// `log_events(run_id, events)`
fn log_events(call: &Call) -> Answer {
    let run_id = run_id(call)?;
    call.datum(1).ok_or(RunError::Missing { what: "events" })?;
    // As text: a number beyond a double would make the parser raise.
    let text = spi::one::<String>("SELECT $1::text", Access::Write, &[jsonb(call.datum(1))]);
    let events = serde_json::from_str(&text.unwrap_or_default()).map_err(|error| {
        Fault::new(Code::InvalidParameterValue, "events cannot be read").detail(format!("{error}."))
    })?;
    let count = check_events(&events)?;
    let known = spi::one::<bool>(
        "SELECT true FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::Write,
        &[arg(run_id)],
    );
    known.ok_or(RunError::Unknown { run_id })?;
    spi::run(
        "INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
         SELECT $1, coalesce((e->>'ts')::timestamptz, clock_timestamp()), coalesce(e->>'level', 'info'), e->>'event_type', coalesce(e->'payload', '{}') \
         FROM jsonb_array_elements($2) WITH ORDINALITY AS given(e, n) ORDER BY n",
        Access::Write,
        &[arg(run_id), jsonb(call.datum(1))],
        |_| (),
    );
    Ok(id_datum(count as i64))
}

pg_function!(pg_finfo_skill_finish_run, skill_finish_run, finish_run);
/// `finish_run(run_id, status, error, metrics)`
fn finish_run(call: &Call) -> Answer {
    let run_id = run_id(call)?;
    let wanted = status(call.text(1))?;
    if !wanted.is_terminal() {
        return Err(RunError::NotTerminal { given: wanted.as_str() }.into());
    }
    let metrics = object(call, 3, "metrics")?;
    let (mut label, mut enum_value, mut agent_id) = (None::<String>, None, None::<String>);
    spi::run(
        "SELECT status::text, $2::skill_system.run_status, agent_id FROM skill_system.runs \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE",
        Access::Write,
        &[arg(run_id), arg(wanted.as_str())],
        |row| (label, enum_value, agent_id) = (row.get(1), row.datum(2), row.get(3)),
    );
    let (Some(label), Some(enum_value)) = (label, enum_value) else {
        return Err(RunError::Unknown { run_id }.into());
    };
    let is = Status::parse(&label)?;
    if is == wanted {
        return Ok(enum_value);
    }
    if is.is_terminal() {
        return Err(
            RunError::Final { run_id, status: label, refused: format!("finishing it as {}", wanted.as_str()) }.into()
        );
    }
    let agent_id = actor(agent_id.as_deref());
    // The numbers in a payload are what agents wrote; only sensible ones are added up.
    spi::run(
        "WITH raw AS (SELECT \
             CASE WHEN jsonb_typeof(payload->'duration_ms') = 'number' THEN (payload->>'duration_ms')::numeric END AS d, \
             CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.input_tokens') = 'number' THEN (payload->'metrics'->>'gen_ai.usage.input_tokens')::numeric END AS i, \
             CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.output_tokens') = 'number' THEN (payload->'metrics'->>'gen_ai.usage.output_tokens')::numeric END AS o, \
             CASE WHEN jsonb_typeof(payload->'metrics'->'gen_ai.usage.cache_read.input_tokens') = 'number' THEN (payload->'metrics'->>'gen_ai.usage.cache_read.input_tokens')::numeric END AS c, \
             CASE WHEN jsonb_typeof(payload->'metrics'->'cost_usd') = 'number' THEN (payload->'metrics'->>'cost_usd')::numeric END AS u \
             FROM skill_system.run_events WHERE tenant_id = skill_system.current_tenant() AND run_id = $1 AND event_type = 'step_completed'), \
         sums AS (SELECT jsonb_strip_nulls(jsonb_build_object('steps', count(*), \
             'duration_ms', sum(d) FILTER (WHERE d BETWEEN 0 AND 1e15), \
             'gen_ai.usage.input_tokens', sum(i) FILTER (WHERE i BETWEEN 0 AND 1e15), \
             'gen_ai.usage.output_tokens', sum(o) FILTER (WHERE o BETWEEN 0 AND 1e15), \
             'gen_ai.usage.cache_read.input_tokens', sum(c) FILTER (WHERE c BETWEEN 0 AND 1e15), \
             'cost_usd', sum(u) FILTER (WHERE u BETWEEN 0 AND 1e15))) AS added, count(*) AS steps FROM raw) \
         UPDATE skill_system.runs r SET status = $2::skill_system.run_status, started_at = coalesce(started_at, created_at), \
             ended_at = clock_timestamp(), error = coalesce($3, error), \
             metrics = CASE WHEN jsonb_typeof(metrics) = 'object' THEN metrics ELSE '{}' END || sums.added || coalesce($4, '{}') \
         FROM sums WHERE r.tenant_id = skill_system.current_tenant() AND r.id = $1 \
         RETURNING jsonb_strip_nulls(jsonb_build_object('run_id', r.id, 'status', $2, 'steps', sums.steps, 'error', left(r.error, 200)))",
        Access::Write,
        &[arg(run_id), arg(wanted.as_str()), arg(call.text(2)), jsonb(metrics)],
        |row| {
            let kind = if agent_id.is_some() { "agent" } else { "system" };
            audit::append_for(&guc::tenant(), "run.finished", row.datum(1), agent_id, Some(kind));
        },
    );
    Ok(enum_value)
}

pg_function!(pg_finfo_skill_guard_run, skill_guard_run, guard_run);
/// BEFORE UPDATE on `runs`: a run that has ended stays as it is, except that the
/// foreign key takes away a deleted policy.
fn guard_run(call: &Call) -> Answer {
    let trigger = Trigger::new(call);
    let Some(value) = trigger.old::<pg_sys::Oid>(c"status") else {
        return Ok(trigger.proceed());
    };
    let (status, ..) = pgrx::enum_helper::lookup_enum_by_oid(value);
    if !Status::parse(&status)?.is_terminal() {
        return Ok(trigger.proceed());
    }
    let changed = trigger.changed_columns();
    let policy_taken_away =
        changed == ["policy_profile_id"] && trigger.new_value::<i64>(c"policy_profile_id").is_none();
    if changed.is_empty() || policy_taken_away {
        return Ok(trigger.proceed());
    }
    let run_id = trigger.old(c"id").unwrap_or_default();
    Err(RunError::Final { run_id, status, refused: format!("changing {}", changed.join(", ")) }.into())
}

#[pg_extern(sql = false)]
fn stuck_after() -> Interval {
    Interval::from_seconds(f64::from(guc::stuck_after_seconds()))
}

/// JSON as agents wrote it; numbers beyond what a double can hold leave it a text.
fn json(text: Option<String>) -> Value {
    let text = text.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

#[pg_extern(sql = false)]
fn run_otlp(run_id: Option<i64>) -> pgrx::JsonB {
    let run_id = run_id.ok_or(RunError::Missing { what: "run_id" }).or_raise();
    let micros = |row: &spi::Row, n: i32| row.datum(n).and_then(|datum| sys::unix_micros(datum.value() as i64));
    let mut found: Option<otlp::Run> = None;
    spi::run(
        "SELECT tenant_id, goal, agent_id, status::text, error, coalesce(started_at, created_at), ended_at, metrics::text, effective_policy::text \
         FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        Access::Read,
        &[arg(run_id)],
        |row| {
            found = Some(otlp::Run {
                tenant: row.get(1).unwrap_or_default(),
                id: run_id,
                goal: row.get(2),
                agent_id: row.get(3),
                status: row.get(4).unwrap_or_default(),
                error: row.get(5),
                started_at: micros(row, 6).unwrap_or(0),
                ended_at: micros(row, 7),
                metrics: json(row.get(8)),
                effective_policy: json(row.get(9)),
            });
        },
    );
    let run = found.ok_or(RunError::Unknown { run_id }).or_raise();
    let mut events = Vec::new();
    spi::run(
        "SELECT id, ts, level, event_type, payload::text FROM skill_system.run_events \
         WHERE tenant_id = skill_system.current_tenant() AND run_id = $1 ORDER BY ts, id",
        Access::Read,
        &[arg(run_id)],
        |row| {
            events.push(otlp::Event {
                id: row.get(1).unwrap_or_default(),
                ts: micros(row, 2).unwrap_or(run.started_at),
                level: row.get(3).unwrap_or_default(),
                event_type: row.get(4).unwrap_or_default(),
                payload: json(row.get(5)),
            });
        },
    );
    pgrx::JsonB(otlp::export(&run, &events, env!("CARGO_PKG_VERSION")))
}

/// One row of `maintain()`.
type Task = (String, i64, String);

#[pg_extern(sql = false)]
fn maintain(
    max_rows: Option<i32>,
) -> TableIterator<'static, (name!(task, String), name!(affected, i64), name!(detail, String))> {
    let max_rows = match max_rows {
        Some(size @ 1..=1_000_000) => size,
        _ => raise(Fault::new(Code::InvalidParameterValue, "max_rows must be between 1 and 1000000")),
    };
    // Two at once would make the same partition twice. The table is one that nobody else may lock; an advisory
    // lock could be held by anybody.
    spi::as_owner(|| {
        spi::run("LOCK TABLE skill_system.audit_state IN SHARE UPDATE EXCLUSIVE MODE", Access::Write, &[], |_| ());
    });
    TableIterator::new([audit_partitions(), run_retention(max_rows), audit_seal(), audit_sweep()])
}

/// The partitions of this month, where it is not too late, and of the next two.
fn audit_partitions() -> Task {
    let (mut made, mut notes) = (0, Vec::new());
    spi::as_owner(|| {
        for ahead in 0..3i32 {
            let (mut name, mut there, mut late) = (String::new(), false, false);
            spi::run(
                "WITH month AS (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1) AS start) \
                 SELECT 'audit_logs_' || to_char(start, 'YYYY_MM'), \
                     to_regclass('skill_system.audit_logs_' || to_char(start, 'YYYY_MM')) IS NOT NULL, \
                     EXISTS (SELECT FROM skill_system.audit_logs_default d WHERE d.created_at >= start AT TIME ZONE 'UTC' \
                         AND d.created_at < (start + interval '1 month') AT TIME ZONE 'UTC') FROM month",
                Access::Write,
                &[arg(ahead)],
                |row| {
                    (name, there, late) =
                        (row.get(1).unwrap_or_default(), row.get(2).unwrap_or(false), row.get(3).unwrap_or(false))
                },
            );
            if there {
                continue;
            }
            if late {
                notes.push(format!("{name} stays in audit_logs_default, which holds records of it"));
                continue;
            }
            if !audit::partitions_lockable() {
                notes.push(format!(
                    "{name} has to wait for transactions that use the audit trail: call maintain() again"
                ));
                break;
            }
            spi::run(
                "SELECT skill_system.create_audit_partition((date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => $1))::date)",
                Access::Write,
                &[arg(ahead)],
                |_| (),
            );
            made += 1;
            notes.push(format!("{name} made"));
        }
    });
    let detail = if notes.is_empty() { "all there".to_owned() } else { notes.join("; ") };
    ("audit_partitions".into(), made, detail)
}

/// Seals what is not sealed yet.
fn audit_seal() -> Task {
    let (affected, detail) = match ledger::seal_step(None) {
        Ok(Step::Sealed { sealed, state, .. }) => (sealed as i64, format!("the tree has {} leaves", state.size)),
        Ok(Step::Empty) => (0, "nothing has been recorded yet".into()),
        Ok(Step::Busy) => (0, "another session seals now".into()),
        Err(fault) => (0, fault.to_string()),
    };
    ("audit_seal".into(), affected, detail)
}

/// Seals what no seal would take.
fn audit_sweep() -> Task {
    let (affected, detail) = match ledger::sweep(false) {
        Ok(0) => (0, "every record that could be sealed is".into()),
        Ok(late) => {
            (late as i64, "records with a transaction id that is not the server's: see audit.sealed_late".into())
        }
        Err(fault) => (0, fault.message),
    };
    ("audit_sweep".into(), affected, detail)
}

/// Deletes finished runs older than the setting says, with their events, oldest first.
fn run_retention(max_rows: i32) -> Task {
    let task = "run_retention".to_owned();
    let Some(minutes) = guc::run_retention_minutes() else {
        return (task, 0, "skill_system.run_retention is -1: runs are kept for ever".into());
    };
    let mut deleted: Vec<(String, i64, Value)> = Vec::new();
    let more = spi::as_owner(|| {
        cache::opening(cache::Opened::Retention, || {
            spi::run(
                "WITH old AS (SELECT tenant_id, id, coalesce(ended_at, created_at) AS at FROM skill_system.runs \
                     WHERE status IN ('succeeded', 'failed', 'cancelled') \
                       AND coalesce(ended_at, created_at) < now() - make_interval(mins => $1) \
                     ORDER BY 3 LIMIT $2 FOR UPDATE SKIP LOCKED), \
                 gone AS (DELETE FROM skill_system.runs r USING old WHERE r.tenant_id = old.tenant_id AND r.id = old.id \
                     RETURNING r.tenant_id, old.at) \
                 SELECT tenant_id, count(*), jsonb_build_object('count', count(*), 'oldest', min(at), 'newest', max(at))::text \
                 FROM gone GROUP BY tenant_id ORDER BY tenant_id",
                Access::Write,
                &[arg(minutes), arg(max_rows)],
                |row| deleted.push((row.get(1).unwrap_or_default(), row.get(2).unwrap_or(0), json(row.get(3)))),
            );
        });
        spi::one::<bool>(
            "SELECT EXISTS (SELECT FROM skill_system.runs WHERE status IN ('succeeded', 'failed', 'cancelled') \
                 AND coalesce(ended_at, created_at) < now() - make_interval(mins => $1))",
            Access::Write,
            &[arg(minutes)],
        )
        .unwrap_or(false)
    });
    let count = deleted.iter().map(|(_, count, _)| count).sum();
    // As the caller, so that the record names who did it.
    for (tenant, _, mut data) in deleted {
        data["retention_minutes"] = minutes.into();
        audit::append_for(&tenant, "runs.deleted", pgrx::JsonB(data).into_datum(), None, Some("system"));
    }
    (task, count, if more { "more remain: call maintain() again".into() } else { "nothing older remains".into() })
}

/// One row of `import_legacy()`.
type Imported = (String, i64, i64, String);

#[pg_extern(sql = false)]
fn import_legacy(
    schema_name: Option<&str>,
) -> TableIterator<'static, (name!(table_name, String), name!(imported, i64), name!(skipped, i64), name!(detail, String))>
{
    let schema = schema_name.ok_or(RunError::Missing { what: "schema_name" }).or_raise();
    if schema == "skill_system" {
        raise(Fault::new(Code::InvalidParameterValue, "skill_system is the schema of the extension itself")
            .hint("ALTER SCHEMA skill_system RENAME TO skill_system_legacy; CREATE EXTENSION skill_system; and give the new name."));
    }
    let mut columns: Vec<(String, String)> = Vec::new();
    spi::run(
        "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relkind IN ('r', 'p') ORDER BY 1, 2",
        Access::Write,
        &[arg(schema)],
        |row| columns.push((row.get(1).unwrap_or_default(), row.get(2).unwrap_or_default())),
    );
    let has = |table: &str, column: &str| columns.iter().any(|(t, c)| t == table && c == column);
    if let Some(missing) = ["policy_profiles", "runs", "run_events"].into_iter().find(|table| !has(table, "id")) {
        raise(
            Fault::new(
                Code::UndefinedObject,
                format!("there is no table {missing} in schema \"{}\"", skill_core::error::shorten(schema)),
            )
            .detail("The schema of a skill system has the tables policy_profiles, runs and run_events.")
            .hint(
                "Rename the old schema with ALTER SCHEMA before CREATE EXTENSION skill_system, and give its new name.",
            ),
        );
    }
    let (specs, artifacts) = (has("task_specs", "id"), has("artifacts", "id"));
    let old = sys::quote_identifier(schema);
    let once = |sql: String, args: &[Arg]| spi::run_once(&sql, Access::Write, args, |_| ()) as i64;
    let number = |sql: String| {
        let mut number = 0;
        spi::run_once(&sql, Access::Write, &[], |row| number = row.get(1).unwrap_or(0i64));
        number
    };
    // Nothing may move while ids are compared and kept, on either side.
    once(format!("LOCK TABLE {old}.policy_profiles, {old}.runs, {old}.run_events IN SHARE MODE"), &[]);
    once("LOCK TABLE skill_system.policy_profiles, skill_system.runs, skill_system.run_events IN SHARE ROW EXCLUSIVE MODE".into(), &[]);

    // An id that is taken by something else is no repetition: nothing is imported then.
    for (table, same) in [
        ("policy_profiles", "n.name = l.name"),
        ("runs", "n.created_at = l.created_at"),
        ("run_events", "n.run_id = l.run_id AND n.ts = l.ts AND n.event_type = l.event_type"),
    ] {
        let taken = number(format!(
            "SELECT min(l.id) FROM {old}.{table} l JOIN skill_system.{table} n ON n.tenant_id = skill_system.current_tenant() AND n.id = l.id WHERE NOT ({same})"
        ));
        if taken != 0 {
            raise(
                Fault::new(Code::NotInPrerequisiteState, format!("id {taken} of {table} is taken by another row"))
                    .detail("Ids are kept, so the import comes before anything else is written.")
                    .hint("Import right after CREATE EXTENSION, or into a tenant of its own (skill_system.tenant)."),
            );
        }
    }

    let mut results: Vec<Imported> = Vec::new();
    let (mut given, mut refused_rules, mut skipped, mut bad_names) = (Vec::new(), 0, 0, Vec::new());
    spi::run_once(
        &format!(
            "SELECT l.id, l.name, l.allowed_effects, l.allowed_exec, l.allowed_write_roots, \
                 EXISTS (SELECT FROM skill_system.policy_profiles n WHERE n.tenant_id = skill_system.current_tenant() AND n.name = l.name) \
             FROM {old}.policy_profiles l ORDER BY l.id"
        ),
        Access::Write,
        &[],
        |row| {
            let (id, name) = (row.get::<i64>(1).unwrap_or(0), row.get::<String>(2).unwrap_or_default());
            if row.get::<bool>(6) == Some(true) {
                skipped += 1;
                return;
            }
            if (Profile { name: name.clone(), ..Profile::default() }).validate().is_err() {
                skipped += 1;
                bad_names.push(skill_core::error::shorten(&name));
                return;
            }
            let list = |n: i32| row.get::<Vec<Option<String>>>(n).unwrap_or_default();
            let mut refused = Vec::new();
            let effects = keep_valid_rules(
                list(3),
                "allowed_effects",
                |allowed_effects| Profile { allowed_effects, ..Profile::default() },
                &mut refused,
            );
            let exec = keep_valid_rules(
                list(4),
                "allowed_exec",
                |allowed_exec| Profile { allowed_exec, ..Profile::default() },
                &mut refused,
            );
            let roots = keep_valid_rules(
                list(5),
                "allowed_write_roots",
                |allowed_write_roots| Profile { allowed_write_roots, ..Profile::default() },
                &mut refused,
            );
            refused_rules += refused.len();
            let note =
                if refused.is_empty() { serde_json::json!({}) } else { serde_json::json!({"import_refused": refused}) };
            given.push(serde_json::json!({"id": id, "effects": effects, "exec": exec, "roots": roots, "note": note}));
        },
    );
    let imported = once(
        format!(
            "INSERT INTO skill_system.policy_profiles (id, name, allowed_effects, allowed_exec, allowed_write_roots, metadata, created_at) \
             SELECT l.id, l.name, ARRAY(SELECT jsonb_array_elements_text(g->'effects')), ARRAY(SELECT jsonb_array_elements_text(g->'exec')), \
                 ARRAY(SELECT jsonb_array_elements_text(g->'roots')), \
                 CASE WHEN jsonb_typeof(l.metadata) = 'object' THEN l.metadata ELSE jsonb_build_object('legacy', l.metadata) END || (g->'note'), l.created_at \
             FROM jsonb_array_elements($1) WITH ORDINALITY AS given(g, n) JOIN {old}.policy_profiles l ON l.id = (g->>'id')::bigint ORDER BY n"
        ),
        &[arg(pgrx::JsonB(Value::Array(given)))],
    );
    let mut detail = Vec::new();
    if refused_rules > 0 {
        detail.push(format!("{refused_rules} rule(s) refused: see metadata->'import_refused'"));
    }
    if !bad_names.is_empty() {
        detail.push(format!("names refused: {}", bad_names.join(", ")));
    }
    results.push(("policy_profiles".into(), imported, skipped, detail.join("; ")));

    // The three catalogues differ in columns; what is missing comes from the task.
    let column = |column: &str, of_spec: bool| match (has("runs", column), of_spec && specs) {
        (true, true) => format!("coalesce(l.{column}, s.{column})"),
        (true, false) => format!("l.{column}"),
        (false, true) => format!("s.{column}"),
        (false, false) => "NULL".into(),
    };
    let join = if specs && has("runs", "task_spec_id") {
        format!("LEFT JOIN {old}.task_specs s ON s.id = l.task_spec_id")
    } else {
        String::new()
    };
    let of_spec = !join.is_empty();
    let (total_runs, total_events) =
        (number(format!("SELECT count(*) FROM {old}.runs")), number(format!("SELECT count(*) FROM {old}.run_events")));
    let imported = once(
        format!(
            "INSERT INTO skill_system.runs (id, goal, agent_id, policy_profile_id, task_spec_id, status, started_at, ended_at, effective_policy, metrics, error, created_at) \
             SELECT l.id, {goal}, {agent}, p.id, {task}, l.status::text::skill_system.run_status, l.started_at, l.ended_at, \
                 l.effective_policy, l.metrics, l.error, l.created_at \
             FROM {old}.runs l {join} LEFT JOIN {old}.policy_profiles o ON o.id = {policy} \
             LEFT JOIN skill_system.policy_profiles p ON p.tenant_id = skill_system.current_tenant() AND p.name = o.name \
             WHERE NOT EXISTS (SELECT FROM skill_system.runs n WHERE n.tenant_id = skill_system.current_tenant() AND n.id = l.id) ORDER BY l.id",
            goal = column("goal", of_spec),
            agent = column("agent_id", false),
            policy = match column("policy_profile_id", of_spec).as_str() {
                "NULL" => "NULL::bigint",
                found => found,
            },
            task = column("task_spec_id", false),
        ),
        &[],
    );
    results.push(("runs".into(), imported, total_runs - imported, String::new()));
    let imported = once(
        format!(
            "INSERT INTO skill_system.run_events (id, run_id, ts, level, event_type, payload) \
             SELECT l.id, l.run_id, l.ts, l.level, l.event_type, l.payload FROM {old}.run_events l \
             WHERE NOT EXISTS (SELECT FROM skill_system.run_events n WHERE n.tenant_id = skill_system.current_tenant() AND n.id = l.id) ORDER BY l.id"
        ),
        &[],
    );
    results.push(("run_events".into(), imported, total_events - imported, String::new()));
    // Also beyond ids that were given out and deleted since; never backwards.
    for table in ["policy_profiles", "runs", "run_events"] {
        once(
            format!(
                "SELECT setval('skill_system.{table}_id_seq', top) FROM (SELECT greatest( \
                     (SELECT max(id) FROM skill_system.{table}), pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass)) AS top) t \
                 WHERE top > coalesce(pg_sequence_last_value('skill_system.{table}_id_seq'), 0)"
            ),
            &[arg(format!("{old}.{table}"))],
        );
    }
    if specs {
        let imported = if of_spec {
            once(
                format!(
                    "INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) \
                     SELECT l.id, l.created_at, 'task_spec', to_jsonb(s) FROM {old}.runs l JOIN {old}.task_specs s ON s.id = l.task_spec_id \
                     WHERE NOT EXISTS (SELECT FROM skill_system.run_events n WHERE n.tenant_id = skill_system.current_tenant() AND n.run_id = l.id \
                         AND n.event_type = 'task_spec') ORDER BY l.id"
                ),
                &[],
            )
        } else {
            0
        };
        let wanted = if of_spec {
            number(format!("SELECT count(*) FROM {old}.runs l JOIN {old}.task_specs s ON s.id = l.task_spec_id"))
        } else {
            0
        };
        let idle = number(if of_spec {
            format!(
                "SELECT count(*) FROM {old}.task_specs s WHERE NOT EXISTS (SELECT FROM {old}.runs l WHERE l.task_spec_id = s.id)"
            )
        } else {
            format!("SELECT count(*) FROM {old}.task_specs")
        });
        let mut detail = "as event task_spec of each of its runs".to_owned();
        if idle > 0 {
            detail.push_str(&format!("; {idle} never ran and stay in the old schema"));
        }
        results.push(("task_specs".into(), imported, wanted - imported + idle, detail));
    }
    if artifacts {
        let imported = once(
            format!(
                "INSERT INTO skill_system.run_events (run_id, ts, event_type, payload) \
                 SELECT a.run_id, a.created_at, 'artifact', to_jsonb(a) - 'run_id' FROM {old}.artifacts a \
                 WHERE NOT EXISTS (SELECT FROM skill_system.run_events n WHERE n.tenant_id = skill_system.current_tenant() AND n.run_id = a.run_id \
                     AND n.event_type = 'artifact' AND n.payload->'id' = to_jsonb(a.id)) ORDER BY a.id"
            ),
            &[],
        );
        let total = number(format!("SELECT count(*) FROM {old}.artifacts"));
        results.push(("artifacts".into(), imported, total - imported, "as event artifact of its run".into()));
    }
    if results.iter().any(|(_, imported, ..)| *imported > 0) {
        let counts: serde_json::Map<String, Value> =
            results.iter().map(|(table, imported, ..)| (table.clone(), (*imported).into())).collect();
        audit::append("legacy.imported", serde_json::json!({"schema": schema, "rows": counts}), None, Some("system"));
    }
    TableIterator::new(results)
}
