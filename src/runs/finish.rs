//! The end of a run, and the protection of ended runs.

use serde_json::json;
use skill_core::audit::actor_id;
use skill_core::jsonb::Found;
use skill_core::limits::check_past;
use skill_core::runs::{RunError, Status};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, EnumLabel, Event, Jsonb, Timestamptz, Timing, Trigger, arg, pg_function, sys};

use super::{audit_run_of, check_metrics, parse_status, required_id, unix_micros, with_locked};
use crate::audit::bypass::{self, Bypass};
use crate::{audit, settings};

/// Characters of a text that go into the record of a plain INSERT or UPDATE.
const MAX_RECORDED: usize = 200;

pg_function!(finish_run);
fn finish_run(call: &Call) -> Answer {
    let (run_id, status, error, metrics): (_, _, Option<&str>, _) = call.arguments();
    let run_id = required_id(run_id)?;
    let status = parse_status(status)?;
    let metrics = check_metrics(metrics)?;
    if !status.is_terminal() {
        return Err(RunError::NotTerminal { given: status.as_str() }.into());
    }
    let (before, answer, agent_id) = with_locked(run_id, "FOR NO KEY UPDATE", || {
        let mut found = None;
        spi::each(
            "SELECT status::text, $2::skill_system.run_status, agent_id FROM skill_system.runs \
             WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE SKIP LOCKED",
            As::Caller,
            See::OwnWrites,
            &[arg(run_id), arg(status.as_str())],
            |row| {
                let (before, after, agent_id): (String, Arg, Option<String>) = row.read();
                found = Some((before, call.answer(after), agent_id));
                Ok(())
            },
        )?;
        Ok(found)
    })?;
    let parsed = Status::parse(&before)?;
    if parsed == status {
        return Ok(answer);
    }
    if parsed.is_terminal() {
        let action = format!("finish as {}", status.as_str());
        return Err(RunError::Final { run_id, status: before, action }.into());
    }
    let actor = agent_id.as_deref().and_then(actor_id);
    let actor_type = if actor.is_some() { "agent" } else { "system" };
    // Agents write any number into a payload; only plausible ones are added up.
    let args = [arg(run_id), arg(status.as_str()), arg(error), arg(metrics)];
    bypass::with(Bypass::RunLog, || {
        spi::each(include_str!("finish_run.sql"), As::Caller, See::OwnWrites, &args, |row| {
            audit::append_for(&settings::tenant()?, "run.finished", row.get(1), actor, Some(actor_type)).map(drop)
        })
    })?;
    Ok(answer)
}

pg_function!(guard_run);
/// BEFORE UPDATE on `runs`, and BEFORE INSERT for times that are not of today. Refuses changes of a run that has ended, and times that
/// cannot be; sets `closed_at`.
fn guard_run(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Insert, Event::Update])])?;
    let changed = match trigger.event() {
        Event::Update => {
            let EnumLabel(status) = trigger.old(c"status");
            let changed = trigger.changed_columns();
            if Status::parse(&status)?.is_terminal() {
                return check_final(&trigger, status, &changed).map(|()| trigger.proceed());
            }
            changed
        }
        _ => vec!["started_at".to_owned(), "ended_at".to_owned()],
    };
    // What the owner writes may be restored or imported, from a server whose clock was ahead.
    let of_owner = sys::has_rights_of(sys::owner());
    let now = sys::clock_timestamp();
    for (column, name) in [(c"started_at", "started_at"), (c"ended_at", "ended_at")] {
        let value: Option<Timestamptz> = trigger.new_value(column);
        let is_new = !of_owner && changed.iter().any(|changed| changed == name);
        value.filter(|_| is_new).map(|value| check_past(name, value.unix_micros(), unix_micros(now))).transpose()?;
    }
    // NULL is for the table's NOT NULL to refuse.
    let Some(EnumLabel(status)) = trigger.new_value::<Option<EnumLabel>>(c"status") else {
        return Ok(trigger.proceed());
    };
    if !Status::parse(&status)?.is_terminal() || trigger.new_value::<Option<Timestamptz>>(c"closed_at").is_some() {
        return Ok(trigger.proceed());
    }
    let ended_at = trigger.new_value::<Option<Timestamptz>>(c"ended_at").filter(|_| of_owner);
    Ok(trigger.proceed_with(&[(c"closed_at", arg(ended_at.unwrap_or(now)))]))
}

fn check_final(trigger: &Trigger, status: String, changed: &[String]) -> Result<(), Fault> {
    if changed.is_empty() {
        return Ok(());
    }
    let action = format!("change {}", changed.join(", "));
    Err(Fault::from(RunError::Final { run_id: trigger.old(c"id"), status, action }))
}

pg_function!(record_run);
/// AFTER INSERT, UPDATE on `runs`: what no function of the run log did is recorded here.
fn record_run(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::AfterRow, &[Event::Insert, Event::Update])])?;
    if bypass::is_active(Bypass::RunLog) {
        return Ok(trigger.done());
    }
    if trigger.event() == Event::Insert {
        check_policy_exists(&trigger)?;
    }
    let text = |column| {
        let value: Option<&str> = trigger.new_value(column);
        value.map(|value| value.chars().take(MAX_RECORDED).collect::<String>())
    };
    let EnumLabel(status) = trigger.new_value(c"status");
    let mut record = json!({
        "run_id": trigger.new_value::<i64>(c"id"), "status": status, "goal": text(c"goal"), "error": text(c"error"),
        "policy": policy_name(&trigger),
    });
    let event_type = match trigger.event() {
        Event::Insert => "run.inserted",
        _ => {
            let EnumLabel(from) = trigger.old(c"status");
            record["from"] = from.into();
            record["changed"] = trigger.changed_columns().into();
            "run.updated"
        }
    };
    let agent_id: Option<&str> = trigger.new_value(c"agent_id");
    audit_run_of(trigger.new_value(c"tenant_id"), event_type, arg(record), agent_id)?;
    Ok(trigger.done())
}

/// The policy that a run is under is one of its tenant. Without a lock: it may be deleted at any time.
fn check_policy_exists(trigger: &Trigger) -> Result<(), Fault> {
    let Some(id) = trigger.new_value::<Option<i64>>(c"policy_profile_id") else {
        return Ok(());
    };
    let tenant: &str = trigger.new_value(c"tenant_id");
    const SQL: &str = "SELECT EXISTS (SELECT FROM skill_system.policy_profiles WHERE tenant_id = $1 AND id = $2)";
    if spi::one::<bool>(SQL, As::Owner, See::Latest, &[arg(tenant), arg(id)]) {
        return Ok(());
    }
    Err(Fault::new(Code::UndefinedObject, format!("policy {id} does not exist"))
        .hint("SELECT id, name FROM skill_system.policy_profiles;"))
}

/// Name of the policy that a run claims to be under.
fn policy_name(trigger: &Trigger) -> Option<String> {
    let Jsonb(policy) = trigger.new_value(c"effective_policy");
    match skill_core::jsonb::find(policy, ["policy"]) {
        [Some(Found::Text(name))] => Some(name.chars().take(MAX_RECORDED).collect()),
        _ => None,
    }
}
