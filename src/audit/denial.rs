//! Denied actions: their records survive the rollback of what was denied.

use skill_core::audit::check_claims;
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Arg, Call, Jsonb, Uuid, arg, pg_function, sys};

use super::record::missing;
use super::recorder::{Denial, commit_elsewhere};
use crate::module::check_event_type;
use crate::settings;

/// The most that the data of one denial may have, in bytes of JSON.
const MAX_DATA: usize = 1 << 20;

/// Records a denial in a separate transaction, and returns when that is committed. `event_data` is a jsonb object.
pub fn record(
    event_type: &str,
    event_data: Arg,
    actor_id: Option<&str>,
    actor_type: Option<&str>,
) -> Result<Uuid, Fault> {
    sys::prevent_on_standby(c"log_denial()");
    check_claims(event_type, actor_id, actor_type)?;
    // What the recording process cannot know about the one it records for.
    let event_data = spi::first::<String>(
        "SELECT ($1 || jsonb_build_object('denied_in', jsonb_build_object('pid', pg_backend_pid(), \
             'transaction_id', pg_current_xact_id_if_assigned()::text::numeric)))::text WHERE jsonb_typeof($1) = 'object'",
        As::Caller,
        See::Statement,
        &[event_data],
    );
    let Some(event_data) = event_data else {
        return Err(Fault::new(Code::InvalidParameterValue, "event_data of a denial must be a JSON object"));
    };
    if event_data.len() > MAX_DATA {
        return Err(Fault::new(
            Code::ProgramLimitExceeded,
            format!("event_data of a denial has more than {MAX_DATA} bytes"),
        ));
    }
    commit_elsewhere(&Denial {
        database: sys::database().to_u32(),
        session_user: sys::authenticated_user().to_u32(),
        current_user: sys::current_user().to_u32(),
        tenant: settings::tenant()?,
        event_type: event_type.to_owned(),
        event_data,
        actor_id: actor_id.map(str::to_owned),
        actor_type: actor_type.map(str::to_owned),
    })
}

pg_function!(log_denial);
/// `log_denial(event_type, event_data, actor_id, actor_type)` → id of the record.
fn log_denial(call: &Call) -> Answer {
    let (event_type, event_data, actor_id, actor_type): (Option<&str>, Option<Jsonb>, _, _) = call.arguments();
    let event_type = event_type.ok_or_else(|| missing("event_type"))?;
    let event_data = event_data.ok_or_else(|| missing("event_data"))?;
    check_event_type(event_type)?;
    Ok(call.answer(record(event_type, arg(event_data), actor_id, actor_type)?))
}
