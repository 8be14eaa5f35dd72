//! Logging: `log_run()`, `start_run()` and the events of a run.

use const_format::concatcp;
use skill_core::error::shorten;
use skill_core::input::{request_digest, sentence};
use skill_core::jsonb::Member;
use skill_core::limits::check_past;
use skill_core::runs::{Events, RunError, Status, check_events, duration, is_step, name, optional_name};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Event, Jsonb, Timestamptz, Timing, Trigger, arg, pg_function, sys};

use super::{audit_run, check_metrics, non_empty_object, object, parse_status, required_id, unix_micros, with_locked};
use crate::audit::bypass::{self, Bypass};
use crate::locks;
use crate::policy::{load_valid, policy};
use crate::skills::{LinkedVersion, linked_version};

/// Id and content of the named policy; an unknown policy, or one that does not compile, is an error.
fn policy_in_force(name: Option<&str>, whole: bool) -> Result<(Option<i64>, Option<serde_json::Value>), Fault> {
    let Some(name) = name else {
        return Ok((None, None));
    };
    let compiled = load_valid(name)?;
    let policy = compiled.as_ref().as_ref().map_err(Clone::clone)?;
    let content = if whole {
        policy.to_json()
    } else {
        serde_json::json!({"policy": policy.name, "version": policy.version, "hash": policy.hash})
    };
    let id = spi::first::<i64>(
        "SELECT id FROM skill_system.policy_profiles WHERE tenant_id = skill_system.current_tenant() AND name = $1",
        As::Caller,
        See::Latest,
        &[arg(name)],
    );
    Ok((id, Some(content)))
}

/// ON CONFLICT costs a second WAL record for each row, so it is only there with a key.
const ON_CONFLICT: &str = " ON CONFLICT (tenant_id, idempotency_key, created_by, agent_id) \
     WHERE idempotency_key IS NOT NULL DO NOTHING ";

const INSERT_RUN: &str = "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, \
     started_at, ended_at, effective_policy, metrics, error, idempotency_key, skill_version_id, created_by, request_digest) \
     VALUES ($1, $2, $3, $4::skill_system.run_status, $5, $6, coalesce($7, '{}'), coalesce($8 || $9, $8), $10, $11, $17, \
         $18, $19)";
const INSERT_STEP: &str = " RETURNING id), e AS (INSERT INTO skill_system.run_events (run_id, ts, level, event_type, \
         payload, skill_version_id) \
     SELECT id, $12, $13, $14, coalesce($15 || $16, $16), $17 FROM r) SELECT id FROM r";
/// Run and step in one statement.
const LOG_RUN: &str = concatcp!(INSERT_RUN, INSERT_STEP);
const LOG_RUN_WITH_KEY: &str = concatcp!(INSERT_RUN, ON_CONFLICT, INSERT_STEP);

skill_pg::arguments! {
    /// Arguments of `log_run()`.
    struct LogRunArguments<'c> {
        skill: Option<&'c str>,
        operation: Option<&'c str>,
        status: Option<&'c str>,
        duration_ms: Option<f64>,
        policy_name: Option<&'c str>,
        agent_id: Option<&'c str>,
        goal: Option<&'c str>,
        error: Option<&'c str>,
        metrics: Option<Jsonb<'c>>,
        payload: Option<Jsonb<'c>>,
        idempotency_key: Option<&'c str>,
    }
}

/// The same, checked.
struct LogRun<'c> {
    skill: &'c str,
    operation: &'c str,
    status: Status,
    duration_ms: Option<i64>,
    agent_id: Option<&'c str>,
    goal: Option<&'c str>,
    policy_name: Option<&'c str>,
    error: Option<&'c str>,
    metrics: Option<Jsonb<'c>>,
    payload: Option<Jsonb<'c>>,
    repeatable: Option<Repeatable<'c>>,
}

impl<'c> LogRun<'c> {
    fn check(given: LogRunArguments<'c>) -> Result<Self, Fault> {
        let mut input = LogRun {
            skill: name(given.skill, "skill")?,
            operation: name(given.operation, "operation")?,
            status: parse_status(given.status)?,
            duration_ms: duration(given.duration_ms)?,
            agent_id: optional_name(given.agent_id, "agent_id")?,
            goal: given.goal,
            policy_name: given.policy_name,
            error: given.error,
            metrics: check_metrics(given.metrics)?,
            payload: non_empty_object(given.payload, "payload")?,
            repeatable: None,
        };
        if let Some(key) = optional_name(given.idempotency_key, "idempotency_key")? {
            let duration = input.duration_ms.map(i64::to_be_bytes);
            let digest = request_digest(
                "log_run",
                &[
                    Some(input.skill.as_bytes()),
                    Some(input.operation.as_bytes()),
                    Some(input.status.as_str().as_bytes()),
                    duration.as_ref().map(<[u8; 8]>::as_slice),
                    input.goal.map(str::as_bytes),
                    input.policy_name.map(str::as_bytes),
                    input.error.map(str::as_bytes),
                    input.metrics.map(|metrics| metrics.0),
                    input.payload.map(|payload| payload.0),
                ],
            );
            input.repeatable = Some(Repeatable { key, agent_id: input.agent_id, digest });
        }
        Ok(input)
    }
}

/// A call with an idempotency key: for the role and the agent that made it, the key stands for its content.
struct Repeatable<'c> {
    key: &'c str,
    agent_id: Option<&'c str>,
    digest: [u8; 32],
}

pg_function!(log_run);
fn log_run(call: &Call) -> Answer {
    let input = LogRun::check(call.arguments())?;
    let (policy_id, effective) = policy_in_force(input.policy_name, false)?;
    let ran = version_used(input.skill, input.payload)?;
    let version = ran.as_ref().map(|ran| Member::Text(&ran.version));
    let now = sys::clock_timestamp();
    let created_by = sys::role_name(sys::current_user());
    let queued = input.status == Status::Queued;
    let mut started = now;
    started.0 -= input.duration_ms.unwrap_or(0) * 1000;
    let duration = input.duration_ms.map(Member::Integer);
    let counted = object(&[("steps", Some(Member::Integer(1))), ("duration_ms", duration)])?;
    let step = object(&[
        ("skill", Some(Member::Text(input.skill))),
        ("operation", Some(Member::Text(input.operation))),
        ("status", Some(Member::Text(input.status.step_word()))),
        ("duration_ms", duration),
        ("metrics", input.metrics.map(|Jsonb(metrics)| Member::Jsonb(metrics))),
        ("skill_version", version),
    ])?;
    let args = [
        arg(input.goal),
        arg(input.agent_id),
        arg(policy_id),
        arg(input.status.as_str()),
        arg((!queued).then_some(started)),
        arg(input.status.is_terminal().then_some(now)),
        arg(effective),
        counted,
        arg(input.metrics),
        arg(input.error),
        arg(input.repeatable.as_ref().map(|call| call.key)),
        arg(now),
        arg(input.status.level()),
        arg(input.status.event_type()),
        arg(input.payload),
        step,
        arg(ran.as_ref().map(|ran| ran.version_id)),
        arg(&created_by),
        arg(input.repeatable.as_ref().map(|call| &call.digest)),
    ];
    let sql = if input.repeatable.is_some() { LOG_RUN_WITH_KEY } else { LOG_RUN };
    let (id, new) = insert_run(sql, &args, &created_by, input.repeatable.as_ref())?;
    if new {
        let record = object(&[
            ("run_id", Some(Member::Integer(id))),
            ("skill", Some(Member::Text(input.skill))),
            ("operation", Some(Member::Text(input.operation))),
            ("status", Some(Member::Text(input.status.as_str()))),
            ("duration_ms", duration),
            ("skill_version", version),
        ])?;
        audit_run("run.logged", record, input.agent_id)?;
    }
    Ok(call.answer(id))
}

/// The version of a registered skill that a step used; its payload may name it.
fn version_used(skill: &str, payload: Option<Jsonb>) -> Result<Option<LinkedVersion>, Fault> {
    const MEMBER: &[u8] = b"skill_version";
    let named = payload.is_some_and(|Jsonb(bytes)| bytes.windows(MEMBER.len()).any(|bytes| bytes == MEMBER));
    let claimed = if named {
        spi::one::<Option<String>>("SELECT $1->>'skill_version'", As::Caller, See::Statement, &[arg(payload)])
    } else {
        None
    };
    linked_version(skill, claimed.as_deref())
}

/// Runs a statement that inserts a run; returns the run's id and whether it is new, which it is not when the call was made
/// before. As the owner: the statement is fixed and the tenant is the session's, so row security has nothing to add, and
/// its two checks per run would cost a tenth of the time.
fn insert_run(
    sql: &'static str,
    args: &[Arg],
    created_by: &str,
    repeatable: Option<&Repeatable>,
) -> Result<(i64, bool), Fault> {
    // The run with the key may be deleted between the two statements; then the next attempt inserts one.
    for _ in 0..3 {
        let insert = || bypass::with(Bypass::RunLog, || spi::first::<i64>(sql, As::Owner, See::OwnWrites, args));
        let inserted = match repeatable {
            Some(_) => locks::within_limit("a run with the same idempotency_key", insert)?,
            None => insert(),
        };
        if let Some(id) = inserted {
            return Ok((id, true));
        }
        let Some(Repeatable { key, agent_id, digest }) = repeatable else { break };
        let found = spi::first::<(i64, bool)>(
            "SELECT id, coalesce(request_digest = $4, false) FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() \
                 AND idempotency_key = $1 AND created_by = $2 AND agent_id IS NOT DISTINCT FROM $3",
            As::Caller,
            See::Latest,
            &[arg(*key), arg(created_by), arg(*agent_id), arg(digest)],
        );
        if let Some((run_id, is_same)) = found {
            if is_same {
                return Ok((run_id, false));
            }
            return Err(RunError::OtherContent { key: shorten(key), run_id }.into());
        }
    }
    Err(Fault::new(Code::Internal, "run was neither inserted nor found"))
}

const INSERT_STARTED: &str = "WITH r AS (INSERT INTO skill_system.runs (goal, agent_id, policy_profile_id, status, \
     started_at, effective_policy, metrics, idempotency_key, created_by, request_digest) \
     VALUES ($1, $2, $3, 'running', $4, coalesce($5, '{}'), coalesce($6, '{}'), $7, $8, $9)";
const RETURN_STARTED: &str = " RETURNING id) SELECT id FROM r";
const START_RUN: &str = concatcp!(INSERT_STARTED, RETURN_STARTED);
const START_RUN_WITH_KEY: &str = concatcp!(INSERT_STARTED, ON_CONFLICT, RETURN_STARTED);

pg_function!(start_run);
fn start_run(call: &Call) -> Answer {
    let (goal, policy_name, agent_id, metrics, key): (Option<&str>, Option<&str>, _, _, _) = call.arguments();
    let goal = goal.ok_or(RunError::Missing { what: "goal" })?;
    let agent_id = optional_name(agent_id, "agent_id")?;
    let metrics = non_empty_object(metrics, "metrics")?;
    let repeatable = optional_name(key, "idempotency_key")?.map(|key| {
        let content = [Some(goal.as_bytes()), policy_name.map(str::as_bytes), metrics.map(|metrics| metrics.0)];
        Repeatable { key, agent_id, digest: request_digest("start_run", &content) }
    });
    let (policy_id, effective) = policy_in_force(policy_name, true)?;
    let created_by = sys::role_name(sys::current_user());
    let args = [
        arg(goal),
        arg(agent_id),
        arg(policy_id),
        arg(sys::clock_timestamp()),
        arg(effective),
        arg(metrics),
        arg(repeatable.as_ref().map(|call| call.key)),
        arg(&created_by),
        arg(repeatable.as_ref().map(|call| &call.digest)),
    ];
    let sql = if repeatable.is_some() { START_RUN_WITH_KEY } else { START_RUN };
    let (id, new) = insert_run(sql, &args, &created_by, repeatable.as_ref())?;
    if new {
        let compiled = policy_name.map(policy).transpose()?;
        let compiled = compiled.as_ref().and_then(|compiled| compiled.as_ref().as_ref().ok());
        let record = object(&[
            ("run_id", Some(Member::Integer(id))),
            ("agent_id", agent_id.map(Member::Text)),
            ("policy", compiled.map(|policy| Member::Text(&policy.name))),
            ("policy_version", compiled.map(|policy| Member::Integer(policy.version.into()))),
            ("policy_hash", compiled.map(|policy| Member::Text(&policy.hash))),
        ])?;
        audit_run("run.started", record, agent_id)?;
    }
    Ok(call.answer(id))
}

pg_function!(log_event);
fn log_event(call: &Call) -> Answer {
    let (run_id, event_type, payload, level) = call.arguments();
    let run_id = required_id(run_id)?;
    let event_type = name(event_type, "event_type")?;
    let payload = non_empty_object(payload, "payload")?;
    let level = name(level, "level")?;
    if is_step(event_type) {
        require_open(run_id)?;
    }
    let args = [arg(run_id), arg(sys::clock_timestamp()), arg(level), arg(event_type), arg(payload)];
    let id = with_locked(run_id, "FOR KEY SHARE", || {
        Ok(spi::first::<i64>(
            "WITH r AS (SELECT id FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1 \
                 FOR KEY SHARE SKIP LOCKED) \
             INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
             SELECT id, $2, $3, $4, coalesce($5, '{}') FROM r RETURNING id",
            As::Caller,
            See::OwnWrites,
            &args,
        ))
    })?;
    Ok(call.answer(id))
}

pg_function!(log_step);
fn log_step(call: &Call) -> Answer {
    let (run_id, skill, operation, status, duration_ms, metrics, payload) = call.arguments();
    let run_id = required_id(run_id)?;
    let skill = name(skill, "skill")?;
    let operation = name(operation, "operation")?;
    let status = parse_status(status)?;
    let duration = duration(duration_ms)?;
    let metrics = check_metrics(metrics)?;
    let payload = non_empty_object(payload, "payload")?;
    let ran = version_used(skill, payload)?;
    // The lock makes finish_run() wait, so that it adds up every step.
    let args = [
        arg(run_id),
        arg(sys::clock_timestamp()),
        arg(status.level()),
        arg(status.event_type()),
        arg(payload),
        arg(duration),
        arg(skill),
        arg(operation),
        arg(status.step_word()),
        arg(metrics),
        arg(ran.as_ref().map(|ran| ran.version.as_str())),
        arg(ran.as_ref().map(|ran| ran.version_id)),
    ];
    let (status, step_id) = with_locked(run_id, "FOR SHARE", || {
        Ok(bypass::with(Bypass::RunLog, || {
            spi::first::<(String, Option<i64>)>(include_str!("log_step.sql"), As::Caller, See::OwnWrites, &args)
        }))
    })?;
    match step_id {
        Some(id) => Ok(call.answer(id)),
        None => Err(RunError::Final { run_id, status, action: "log another step".into() }.into()),
    }
}

pg_function!(log_events);
fn log_events(call: &Call) -> Answer {
    let (run_id, events): (_, Option<Jsonb>) = call.arguments();
    let run_id = required_id(run_id)?;
    let events = arg(events.ok_or(RunError::Missing { what: "events" })?);
    // As text: a number beyond a double would make the parser raise.
    let text: String = spi::one("SELECT $1::text", As::Caller, See::OwnWrites, std::slice::from_ref(&events));
    let parsed = serde_json::from_str(&text).map_err(|error| {
        Fault::new(Code::InvalidParameterValue, "could not parse events").detail(sentence(&error.to_string()))
    })?;
    let Events { count, has_step, has_time } = check_events(&parsed)?;
    if has_step {
        require_open(run_id)?;
    } else {
        // What the foreign key of the events locks.
        lock_run(run_id, "FOR KEY SHARE")?;
    }
    if has_time {
        check_event_times(&events)?;
    }
    spi::execute(
        "INSERT INTO skill_system.run_events (run_id, ts, level, event_type, payload) \
         SELECT $1, coalesce((e->>'ts')::timestamptz, clock_timestamp()), coalesce(e->>'level', 'info'), \
             e->>'event_type', coalesce(e->'payload', '{}') \
         FROM jsonb_array_elements($2) WITH ORDINALITY AS given(e, n) ORDER BY n",
        As::Caller,
        See::OwnWrites,
        &[arg(run_id), events],
    );
    Ok(call.answer(count as i64))
}

/// Locks a run until the transaction ends; returns its status.
fn lock_run(run_id: i64, strength: &str) -> Result<String, Fault> {
    with_locked(run_id, strength, || {
        let sql = format!(
            "SELECT status::text FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1 \
             {strength} SKIP LOCKED"
        );
        Ok(spi::first::<String>(Once(&sql), As::Caller, See::OwnWrites, &[arg(run_id)]))
    })
}

/// The run has not ended, and will not before the transaction does.
fn require_open(run_id: i64) -> Result<(), Fault> {
    let status = lock_run(run_id, "FOR SHARE")?;
    if Status::parse(&status)?.is_terminal() {
        return Err(RunError::Final { run_id, status, action: "log another step".into() }.into());
    }
    Ok(())
}

/// The times of the events are such as can have been.
fn check_event_times(events: &Arg) -> Result<(), Fault> {
    let now = unix_micros(sys::clock_timestamp());
    spi::each(
        "SELECT n, (e->>'ts')::timestamptz FROM jsonb_array_elements($1) WITH ORDINALITY AS given(e, n) \
         WHERE e ? 'ts' ORDER BY n",
        As::Caller,
        See::OwnWrites,
        std::slice::from_ref(events),
        |row| {
            let (number, ts): (i64, Timestamptz) = row.read();
            check_past("ts", ts.unix_micros(), now).map(drop).map_err(|fault| {
                RunError::BadEvent { number: number as usize, why: format!("{}.", fault.message) }.into()
            })
        },
    )
    .map(drop)
}

pg_function!(guard_run_event);
/// BEFORE INSERT on `run_events`, for steps and for times that are not of today.
fn guard_run_event(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert])])?;
    // The owner restores events of runs that have ended.
    if bypass::is_active(Bypass::RunLog) || sys::has_rights_of(sys::owner()) {
        return Ok(trigger.proceed());
    }
    // NULL is for the table's NOT NULL to refuse.
    if let Some(ts) = trigger.new_value::<Option<Timestamptz>>(c"ts") {
        check_past("ts", ts.unix_micros(), unix_micros(sys::clock_timestamp()))?;
    }
    let event_type: Option<&str> = trigger.new_value(c"event_type");
    if let (true, Some(run_id)) = (event_type.is_some_and(is_step), trigger.new_value(c"run_id")) {
        require_open(run_id)?;
    }
    Ok(trigger.proceed())
}
