//! The run log: what ran, how long it took, what it cost, and how it ended.

mod finish;
mod import;
mod log;
mod otlp;
mod page;
mod retention;

use skill_core::Fault;
use skill_core::audit::actor_id;
use skill_core::jsonb::Member;
use skill_core::runs::metrics::uncounted;
use skill_core::runs::{RunError, Status};
use skill_pg::error::warning_with;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Interval, Jsonb, Timestamptz, arg, pg_function};

use crate::module::{Check, Module};
use crate::{audit, locks, settings};

pub const MODULE: Module = Module {
    event_types: &["run.", "runs.", "legacy."],
    health: &[("stuck_runs", stuck_runs)],
    maintenance: &[("run_retention", retention::delete_old_runs)],
    ..Module::new("runs")
};

/// An argument that must be an object; the empty object counts as NULL.
fn non_empty_object<'c>(given: Option<Jsonb<'c>>, what: &'static str) -> Result<Option<Jsonb<'c>>, RunError> {
    let Some(Jsonb(bytes)) = given else {
        return Ok(None);
    };
    // The header of a jsonb: kind and number of entries.
    let header = bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    if header & 0x2000_0000 == 0 {
        return Err(RunError::WrongKind { what, wanted: "object" });
    }
    Ok(given.filter(|_| header & 0x0fff_ffff != 0))
}

/// The argument `metrics`: warns of those that are not added up, though they look so.
fn check_metrics<'c>(given: Option<Jsonb<'c>>) -> Result<Option<Jsonb<'c>>, RunError> {
    let metrics = non_empty_object(given, "metrics")?;
    let uncounted = metrics.map(|Jsonb(metrics)| uncounted(metrics)).unwrap_or_default();
    if !uncounted.is_empty() {
        warning_with(
            "some metrics are recorded, but not added up".into(),
            format!("{}.", uncounted.join("; ")),
            "Give JSON numbers under the names gen_ai.usage.input_tokens, gen_ai.usage.output_tokens and cost_usd.",
        );
    }
    Ok(metrics)
}

/// A jsonb object with these members.
fn object(members: &[(&str, Option<Member<'_>>)]) -> Result<Arg<'static>, Fault> {
    Arg::jsonb(skill_core::jsonb::object(members)?)
}

/// The argument `run_id`.
fn required_id(run_id: Option<i64>) -> Result<i64, RunError> {
    run_id.ok_or(RunError::Missing { what: "run_id" })
}

fn parse_status(word: Option<&str>) -> Result<Status, RunError> {
    Status::parse(word.ok_or(RunError::Missing { what: "status" })?)
}

/// Runs a statement that locks a run with SKIP LOCKED, once more when others had the run. Every agent of a tenant may lock its
/// runs, with SELECT FOR UPDATE for instance, and leave the transaction open: nobody waits for it longer than for other locks.
fn with_locked<T>(run_id: i64, strength: &str, statement: impl Fn() -> Result<Option<T>, Fault>) -> Result<T, Fault> {
    const RUN: &str = "skill_system.runs t WHERE t.tenant_id = skill_system.current_tenant() AND t.id = $1";
    if let Some(found) = statement()? {
        return Ok(found);
    }
    locks::acquire_rows(RUN, strength, &[arg(run_id)], &format!("run {run_id}"))?;
    statement()?.ok_or_else(|| RunError::Unknown { run_id }.into())
}

/// Writes an audit record about a run on behalf of its agent.
fn audit_run(event_type: &str, record: Arg, agent_id: Option<&str>) -> Result<(), Fault> {
    audit_run_of(&settings::tenant()?, event_type, record, agent_id)
}

/// As [`audit_run`], about a run of this tenant.
fn audit_run_of(tenant: &str, event_type: &str, record: Arg, agent_id: Option<&str>) -> Result<(), Fault> {
    let actor = agent_id.and_then(actor_id);
    let actor_type = if actor.is_some() { "agent" } else { "system" };
    audit::append_for(tenant, event_type, record, actor, Some(actor_type)).map(drop)
}

/// The server's clock is finite.
fn unix_micros(time: Timestamptz) -> i64 {
    time.unix_micros().unwrap_or_default()
}

pg_function!(stuck_after);
/// `skill_system.stuck_after` as an interval, for the view `stuck_runs`.
fn stuck_after(call: &Call) -> Answer {
    Ok(call.answer(Interval { micros: i64::from(settings::stuck_after_seconds()) * 1_000_000 }))
}

fn stuck_runs() -> Check {
    let count = spi::one::<i64>("SELECT count(*) FROM skill_system.stuck_runs", As::Caller, See::Statement, &[]);
    match count {
        0 => Check::ok("no stuck runs"),
        count => Check::warning(
            format!("{count} unfinished run(s) without an event for longer than skill_system.stuck_after"),
            "SELECT * FROM skill_system.stuck_runs; end them with finish_run().",
        ),
    }
}
