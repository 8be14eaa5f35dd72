//! The end of a run, and the protection of ended runs.

use skill_core::Fault;
use skill_core::audit::actor_id;
use skill_core::runs::{RunError, Status};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, EnumLabel, Event, Timing, Trigger, arg, pg_function};

use super::{object_arg, parse_status, run_id_arg};
use crate::{audit, settings};

pg_function!(finish_run);
/// `finish_run(run_id, status, error, metrics)`
fn finish_run(call: &Call) -> Answer {
    let run_id = run_id_arg(call)?;
    let status = parse_status(call.text(1))?;
    let error = call.text(2);
    let metrics = object_arg(call, 3, "metrics")?;
    if !status.is_terminal() {
        return Err(RunError::NotTerminal { given: status.as_str() }.into());
    }
    let mut found = None;
    spi::each(
        "SELECT status::text, $2::skill_system.run_status, agent_id FROM skill_system.runs \
         WHERE tenant_id = skill_system.current_tenant() AND id = $1 FOR NO KEY UPDATE",
        As::Caller,
        See::OwnWrites,
        &[arg(run_id), arg(status.as_str())],
        |row| {
            found = Some((row.get::<String>(1), call.answer(row.arg(2)), row.get::<Option<String>>(3)));
            Ok(())
        },
    )?;
    let (before, answer, agent_id) = found.ok_or(RunError::Unknown { run_id })?;
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
    spi::each(
        include_str!("finish_run.sql"),
        As::Caller,
        See::OwnWrites,
        &[arg(run_id), arg(status.as_str()), arg(error), metrics],
        |row| {
            audit::append_for(&settings::tenant(), "run.finished", row.arg(1), actor, Some(actor_type))?;
            Ok(())
        },
    )?;
    Ok(answer)
}

pg_function!(guard_run);
/// Refuses changes of a run that has ended, except that the foreign key clears a deleted policy.
fn guard_run(call: &Call) -> Answer {
    let trigger = Trigger::new(call, &[(Timing::BeforeRow, &[Event::Update])])?;
    let EnumLabel(status) = trigger.old(c"status");
    if !Status::parse(&status)?.is_terminal() {
        return Ok(trigger.proceed());
    }
    let changed = trigger.changed_columns();
    let policy_taken_away =
        changed == ["policy_profile_id"] && trigger.new_value::<Option<i64>>(c"policy_profile_id").is_none();
    if changed.is_empty() || policy_taken_away {
        return Ok(trigger.proceed());
    }
    let action = format!("change {}", changed.join(", "));
    Err(Fault::from(RunError::Final { run_id: trigger.old(c"id"), status, action }))
}
