//! A record that outlives the transaction it is about: a background worker commits it, while the session waits.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::PgLogLevel;
use serde::{Deserialize, Serialize};
use skill_core::{Code, Fault};
use skill_pg::background::{self, Argument};
use skill_pg::error::report;
use skill_pg::one_off::{self, Failure};
use skill_pg::turn::Turn;
use skill_pg::{Arg, Uuid, pg_worker};

use super::append::append_for;
use crate::settings;

/// How long a denial waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it then waits for a free background worker.
const WORKER_START_TIMEOUT: Duration = Duration::from_secs(5);
/// Workers that record denials at the same time, in all databases.
const MAX_WORKERS: u16 = 3;
/// And those of one tenant, so that a place is left for another.
const MAX_OF_TENANT: u16 = 2;
/// How long the worker waits for a lock: the denied transaction may hold it, and never ends before the worker does.
const LOCK_TIMEOUT: &CStr = c"5s";
/// Characters of a denial that are logged when it cannot be recorded.
const MAX_LOGGED: usize = 8000;
/// Characters of an error that fit into the answer, however they are escaped.
const MAX_WHY: usize = 500;
/// The worker's name in ps and pg_stat_activity.
const WORKER: &str = "skill_system denial";

/// What the worker has to know, and what it takes for granted: the session has checked it.
#[derive(Serialize, Deserialize)]
pub struct Denial {
    pub database: u32,
    /// The role that logged in.
    pub session_user: u32,
    /// The role whose rights were in force.
    pub current_user: u32,
    pub tenant: String,
    // As in `append_audit()`; the data is the text of a JSON object.
    pub event_type: String,
    pub event_data: String,
    pub actor_id: Option<String>,
    pub actor_type: Option<String>,
}

/// The id of the record, or why it could not be written.
type Answer = Result<[u8; 16], String>;

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::json!(value).to_string().into_bytes()
}

fn not_recorded(why: impl Into<String>) -> Fault {
    Fault::new(Code::ConfigurationLimitExceeded, "could not record the denial").detail(why)
}

/// Has a worker commit the record, and waits until it has. When the wait is cancelled the worker goes on.
pub fn commit_elsewhere(denial: &Denial) -> Result<Uuid, Fault> {
    let answer = request(denial);
    if let Err(fault) = &answer {
        // The client may catch the error; the server's log has it whatever the client does.
        let data: String = denial.event_data.chars().take(MAX_LOGGED).collect();
        let why = fault.detail.as_deref().unwrap_or_default();
        let logged = fault.clone().detail(format!("{why} {}: {data}", denial.event_type));
        report(logged, PgLogLevel::LOG_SERVER_ONLY);
    }
    answer.map(Uuid::from_bytes)
}

fn request(denial: &Denial) -> Result<[u8; 16], Fault> {
    // Few at a time: when one session floods, others get their turn, and workers are left for other work.
    let deadline = Instant::now() + TURN_TIMEOUT;
    let too_many = || {
        not_recorded("Too many denials wait to be recorded.")
            .hint("Try again; find out which sessions are denied most.")
    };
    let _tenant =
        Turn::acquire((WORKER, denial.database, &denial.tenant), MAX_OF_TENANT, deadline).ok_or_else(too_many)?;
    let _worker = Turn::acquire(WORKER, MAX_WORKERS, deadline).ok_or_else(too_many)?;
    let answer = one_off::request(WORKER, "skill_system_denial", &json(denial), WORKER_START_TIMEOUT).map_err(
        |why| match why {
            Failure::NoMemory => not_recorded("The server has no shared memory segment left."),
            Failure::NoWorker => not_recorded("No background worker was free.").hint("Raise max_worker_processes."),
            Failure::ShuttingDown => not_recorded("The server is shutting down."),
            Failure::NoAnswer => not_recorded("The recording process ended early; the server's log has the reason."),
        },
    )?;
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(answer) => answer.map_err(|why| not_recorded(format!("{why}."))),
        Err(error) => Err(not_recorded(format!("The answer of the recording process is damaged: {error}."))),
    }
}

pg_worker!(skill_system_denial, record_denial);
fn record_denial(argument: Argument) {
    one_off::answer_request(argument, |request| {
        let denial: Denial = serde_json::from_slice(request).ok()?;
        // Not as the role that is denied, which could end the worker, or keep it from its work by its settings.
        background::connect(Some(denial.database.into()), WORKER);
        background::set(c"lock_timeout", LOCK_TIMEOUT);
        background::set(c"synchronous_commit", c"on");
        settings::set_tenant(&denial.tenant);
        let answer = background::transaction(c"recording a denial", || append(&denial)).map_err(|error| {
            let why: String = error.message.chars().take(MAX_WHY).collect();
            error.log(WORKER);
            why
        });
        Some(json(&answer))
    });
}

fn append(denial: &Denial) -> Result<[u8; 16], Fault> {
    background::act_for(denial.session_user.into(), denial.current_user.into());
    let id = append_for(
        &denial.tenant,
        &denial.event_type,
        Arg::json_text(denial.event_data.clone()),
        denial.actor_id.as_deref(),
        denial.actor_type.as_deref(),
    )?;
    Ok(*id.as_bytes())
}
