//! A run as OpenTelemetry traces.

use serde_json::Value;
use skill_core::runs::{RunError, otlp};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, FromRow, Row, Timestamptz, arg, pg_function};

use super::required_id;

/// Bytes of a payload beyond which only what tells what the step was is kept.
const MAX_PAYLOAD: i64 = 256 << 10;
/// What all events of a trace come to at most, which is half of what a jsonb holds.
const MAX_TRACE: usize = 128 << 20;
/// What an event takes while the trace is built, next to its text; what a member or element of its payload does, each of which
/// follows a comma or is the first of an object or array; and what an object or array does, with its first one.
const EVENT_SIZE: usize = 2048;
const MEMBER_SIZE: usize = 1536;
const CONTAINER_SIZE: usize = 4096;

/// What an event with this payload takes at most. Commas and brackets in texts are counted, too.
fn size_of(payload: &str) -> usize {
    let sizes = payload.bytes().map(|byte| match byte {
        b',' => MEMBER_SIZE,
        b'{' | b'[' => CONTAINER_SIZE,
        _ => 0,
    });
    EVENT_SIZE + payload.len() + sizes.sum::<usize>()
}

/// JSON as agents wrote it. Where it is nested too deeply for a reader, or has a number beyond a double, which is refused
/// today, only the part that has it becomes a string: the rest tells what the step was.
pub fn lenient_json(text: String) -> Value {
    readable(text, 3)
}

fn readable(text: String, levels: u8) -> Value {
    match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) if levels > 0 && text.starts_with('{') => {
            let members = spi::collect::<(String, String)>(
                "SELECT key, value::text FROM jsonb_each($1)",
                As::Caller,
                See::Statement,
                &[Arg::json_text(text)],
            );
            members.into_iter().map(|(key, value)| (key, readable(value, levels - 1))).collect()
        }
        Err(_) => Value::String(text),
    }
}

/// A time as the export has it, which knows no infinity.
fn unix_micros(time: Option<Timestamptz>) -> Option<i64> {
    time.and_then(Timestamptz::unix_micros)
}

struct RunRow(otlp::Run);

impl FromRow<'_> for RunRow {
    fn from_row(row: &Row<'_>) -> Self {
        let (tenant, id, goal, agent_id, status, error, started_at, ended_at, metrics, policy) = row.read();
        RunRow(otlp::Run {
            tenant,
            id,
            goal,
            agent_id,
            status,
            error,
            started_at: unix_micros(started_at).unwrap_or(0),
            ended_at: unix_micros(ended_at),
            metrics: lenient_json(metrics),
            effective_policy: lenient_json(policy),
            events_left_out: 0,
        })
    }
}

pg_function!(run_otlp);
fn run_otlp(call: &Call) -> Answer {
    let run_id = required_id(call.arguments())?;
    let RunRow(mut run) = spi::first(
        "SELECT tenant_id, id, goal, agent_id, status::text, error, coalesce(started_at, created_at), ended_at, \
             metrics::text, effective_policy::text \
         FROM skill_system.runs WHERE tenant_id = skill_system.current_tenant() AND id = $1",
        As::Caller,
        See::Statement,
        &[arg(run_id)],
    )
    .ok_or(RunError::Unknown { run_id })?;
    // A run has as many events of any size as an agent wrote; a trace is one value.
    let (mut events, mut left) = (Vec::new(), MAX_TRACE);
    spi::stream(
        include_str!("otlp_events.sql"),
        &[arg(run_id), arg(MAX_PAYLOAD), arg(otlp::STEP_MEMBERS.to_vec())],
        |row| {
            let (id, ts, level, event_type, payload, dropped_members): (_, _, _, _, String, _) = row.read();
            let size = size_of(&payload);
            if size > left {
                (left, run.events_left_out) = (0, run.events_left_out + 1);
                return Ok(());
            }
            left -= size;
            let ts = unix_micros(ts).unwrap_or(run.started_at);
            events.push(otlp::Event { id, ts, level, event_type, payload: lenient_json(payload), dropped_members });
            Ok(())
        },
    )?;
    Ok(call.answer(otlp::export(&run, &events, env!("CARGO_PKG_VERSION"))))
}
