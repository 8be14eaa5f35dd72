//! The beginning of a log in a background worker's transaction: that of the first record may stay open for long, and others need
//! the log's identity to write.

use std::time::{Duration, Instant};

use skill_pg::background::{self, Argument};
use skill_pg::turn::Turn;
use skill_pg::xact::attempt;
use skill_pg::{one_off, pg_worker, sys};

use super::{identity, partitions};

/// How long the first records wait for each other, and then for a free background worker.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The worker's name in ps and pg_stat_activity.
const WORKER: &str = "skill_system beginning";

/// Has a worker commit the identity of the log, and the months that have no partition yet. Where none can, because it is not free or
/// does not see the extension, which this transaction created, the log has no identity afterwards.
pub fn begin_elsewhere() {
    let database = sys::database().to_u32();
    let turn = Turn::acquire((WORKER, database), 1, Instant::now() + TIMEOUT);
    if turn.is_some() && !identity::has_identity() {
        _ = one_off::request(WORKER, "skill_system_beginning", &database.to_ne_bytes(), TIMEOUT);
    }
}

pg_worker!(skill_system_beginning, begin);
fn begin(argument: Argument) {
    one_off::answer_request(argument, |request| {
        let database = u32::from_ne_bytes(request.try_into().ok()?);
        background::connect(Some(database.into()), WORKER);
        background::set(c"lock_timeout", c"1s");
        background::set(c"synchronous_commit", c"on");
        let begun = background::transaction(c"beginning the audit log", || {
            if sys::hold_extension() {
                identity::log_id_or_begin()?;
                // Without a partition, its records go to the default one, which maintain() empties.
                _ = attempt(partitions::create_at_once);
            }
            Ok(())
        });
        // The session tries itself, and raises what keeps it from it.
        begun.is_ok().then(|| vec![1])
    });
}
