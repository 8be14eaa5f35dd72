//! The run log: what ran, how long, at what cost, with which outcome.

use pgrx::datum::IntoDatum;
use pgrx::prelude::*;
use skill_core::audit::MAX_ACTOR_ID;
use skill_core::runs::{RunError, Status, check_events, duration, name, optional_name};
use skill_core::{Code, Fault};

use crate::pg::call::{Answer, Call};
use crate::pg::spi::{self, Access, Arg, arg, given};
use crate::pg::trigger::Trigger;
use crate::pg::{guc, sys};
use crate::policy::policy;
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
            concat!($before, " ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING ", $after),
        ]
    };
}

/// Run, step and what the audit record says, in one statement; `[1]` with a key.
const LOG_RUN: [&str; 2] = with_conflict!(
    "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, started_at, ended_at, \
         effective_policy, metrics, error, idempotency_key) \
     VALUES ($1, $2, $3, $4::skill_system.run_status, $5, $6, coalesce($7, '{}'), \
         CASE WHEN $8 IS NULL THEN CASE WHEN $9 IS NULL THEN '{\"steps\": 1}' ELSE jsonb_build_object('steps', 1, 'duration_ms', $9) END \
              ELSE CASE WHEN $9 IS NULL THEN '{\"steps\": 1}' ELSE jsonb_build_object('steps', 1, 'duration_ms', $9) END || $8 END, \
         $10, $11)",
    "RETURNING id), e AS (INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
     SELECT id, $12, $13, $14, \
         CASE WHEN $15 IS NULL THEN '{}' ELSE $15 END \
         || CASE WHEN $9 IS NULL THEN jsonb_build_object('skill', $16, 'operation', $17, 'status', $18) \
                 ELSE jsonb_build_object('skill', $16, 'operation', $17, 'status', $18, 'duration_ms', $9) END \
         || CASE WHEN $8 IS NULL THEN '{}' ELSE jsonb_build_object('metrics', $8) END FROM r) \
     SELECT id, CASE WHEN $9 IS NULL THEN jsonb_build_object('run_id', id, 'skill', $16, 'operation', $17, 'status', $4) \
                ELSE jsonb_build_object('run_id', id, 'skill', $16, 'operation', $17, 'status', $4, 'duration_ms', $9) END FROM r"
);

pg_function!(pg_finfo_skill_log_run, skill_log_run, log_run);
/// `log_run(skill_id, operation, status, duration_ms, agent_id, goal, policy_name, error, metrics, payload, idempotency_key)`
fn log_run(call: &Call) -> Answer {
    let skill_id = name(call.text(0), "skill_id")?;
    let operation = name(call.text(1), "operation")?;
    let status = status(call.text(2))?;
    let duration = duration(call.get(3))?;
    let agent_id = optional_name(call.text(4), "agent_id")?;
    let metrics = object(call, 8, "metrics")?;
    let payload = object(call, 9, "payload")?;
    let key = optional_name(call.text(10), "idempotency_key")?;
    let (policy_id, effective) = policy_in_force(call.text(6), false)?;
    let now = sys::clock_timestamp();
    let started = (status != Status::Queued).then(|| now - duration.unwrap_or(0) * 1000);
    let args = [
        arg(call.text(5)),
        arg(agent_id),
        arg(policy_id),
        arg(status.as_str()),
        timestamp(started),
        timestamp(status.is_terminal().then_some(now)),
        jsonb(effective),
        jsonb(metrics),
        arg(duration),
        arg(call.text(7)),
        arg(key),
        timestamp(Some(now)),
        arg(status.level()),
        arg(status.event_type()),
        jsonb(payload),
        arg(skill_id),
        arg(operation),
        arg(status.step_word()),
    ];
    once(LOG_RUN[usize::from(key.is_some())], &args, key, "run.logged", agent_id)
}

/// Runs a statement that makes a run and returns its number and an audit record;
/// where the key is taken, returns the run that has it.
fn once(sql: &'static str, args: &[Arg], key: Option<&str>, event_type: &str, agent_id: Option<&str>) -> Answer {
    // The run that held the key may be deleted between the two statements; then the next turn makes one.
    for _ in 0..3 {
        let mut id: Option<i64> = None;
        spi::run(sql, Access::Write, args, |row| {
            id = row.get(1);
            let actor = actor(agent_id);
            audit::append_for(&guc::tenant(), event_type, row.datum(2), actor, Some(if actor.is_some() { "agent" } else { "system" }));
        });
        let id = id.or_else(|| {
            spi::one(
                "SELECT id FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND idempotency_key = $1",
                Access::ReadLatest,
                &[arg(key)],
            )
        });
        if let Some(id) = id {
            return Ok(id_datum(id));
        }
    }
    Err(Fault::new(Code::Internal, "the run was neither made nor found"))
}

const START_RUN: [&str; 2] = with_conflict!(
    "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, started_at, effective_policy, metrics, idempotency_key) \
     VALUES ($1, $2, $3, 'running', $4, coalesce($5, '{}'), coalesce($6, '{}'), $7)",
    "RETURNING id) SELECT id, jsonb_strip_nulls(jsonb_build_object('run_id', id, 'agent_id', $2, 'policy', $5->'policy', \
     'policy_version', $5->'version', 'policy_hash', $5->'hash')) FROM r"
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
    once(START_RUN[usize::from(key.is_some())], &args, key, "run.started", agent_id)
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
/// `log_step(run_id, skill_id, operation, status, duration_ms, metrics, payload)`
fn log_step(call: &Call) -> Answer {
    let run_id = run_id(call)?;
    let skill_id = name(call.text(1), "skill_id")?;
    let operation = name(call.text(2), "operation")?;
    let status = status(call.text(3))?;
    let duration = duration(call.get(4))?;
    let metrics = object(call, 5, "metrics")?;
    let payload = object(call, 6, "payload")?;
    let (mut found, mut id) = (None::<String>, None::<i64>);
    // The lock makes finish_run() wait, so that it adds up every step.
    spi::run(
        "WITH r AS (SELECT id, status FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR SHARE), \
         e AS (INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
             SELECT id, $2, $3, $4, coalesce($5, '{}') \
                 || CASE WHEN $6 IS NULL THEN jsonb_build_object('skill', $7, 'operation', $8, 'status', $9) \
                         ELSE jsonb_build_object('skill', $7, 'operation', $8, 'status', $9, 'duration_ms', $6) END \
                 || CASE WHEN $10 IS NULL THEN '{}' ELSE jsonb_build_object('metrics', $10) END \
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
            arg(skill_id),
            arg(operation),
            arg(status.step_word()),
            jsonb(metrics),
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
    let events = call.get::<pgrx::JsonB>(1).ok_or(RunError::Missing { what: "events" })?;
    let count = check_events(&events.0)?;
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
        return Err(RunError::Final { run_id, status: label, refused: format!("finishing it as {}", wanted.as_str()) }.into());
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
         RETURNING jsonb_strip_nulls(jsonb_build_object('run_id', r.id, 'status', $2, 'steps', sums.steps, 'error', r.error))",
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
    let policy_taken_away = changed == ["policy_profile_id"] && trigger.new_value::<i64>(c"policy_profile_id").is_none();
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
