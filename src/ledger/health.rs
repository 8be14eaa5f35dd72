//! The ledger's rows of `health()` and `maintain()`.

use skill_core::Fault;
use skill_pg::per_database::{self, Status};
use skill_pg::spi::{self, As, See};
use skill_pg::sys;

use super::rotation;
use super::seal::{self, Step};
use crate::audit::{self, keys};
use crate::module::{Batch, Check, Task};
use crate::settings;

pub fn keyring() -> Check {
    if !keys::exists() && !audit::has_identity() {
        return Check::ok("none yet: it is created with the first record");
    }
    match keys::keyring() {
        Ok(ring) => match rotation::key_warning(&ring) {
            Some(warning) => Check::warning(
                warning,
                "SELECT skill_system.rotate_audit_key(); announces it, unless it was put there without permission.",
            ),
            None => Check::ok(format!(
                "{} key(s), {} signs; readable by the server's user only",
                ring.len(),
                ring.active().id
            )),
        },
        // The detail may name the file, which is for those who may see the setting anyway.
        Err(fault) => Check::error(
            fault.message,
            "Until it is fixed nothing can be signed: see the settings keyring_file and keyring_command.",
        ),
    }
}

pub fn audit_seal() -> Check {
    match seal::backlog() {
        Ok(None) => Check::ok("no record has been waiting for long"),
        Ok(Some(why)) => Check::warning(
            why,
            "SELECT * FROM skill_system.seal_audit(); shows more. Preload the library, or call maintain() often.",
        ),
        Err(fault) => Check::error(
            fault.message,
            "SELECT * FROM skill_system.verify_audit(); shows more, and as a superuser SELECT * FROM skill_system.repair(); \
             brings back what it can.",
        ),
    }
}

pub fn sealer() -> Check {
    match per_database::status() {
        Status::NotPreloaded => Check::ok("not preloaded: seal_audit() and maintain() seal when they are called"),
        Status::Running(pid, None) => {
            Check::ok(format!("process {pid} seals this database every {} ms", settings::seal_interval_millis()))
        }
        Status::Running(pid, Some(error)) => Check::error(
            format!("process {pid} cannot seal: {error}"),
            "The server's log has the details; it goes on trying, at most a minute apart.",
        ),
        Status::Missing if sys::in_recovery() => Check::ok("a standby verifies; the sealer starts after promotion"),
        Status::Missing if !audit::has_identity() => Check::ok("starts with the first record"),
        Status::Missing => Check::error(
            "no process seals this database",
            "It starts within seconds, unless this is a template database or no background worker is free: see \
             max_worker_processes and the server's log.",
        ),
    }
}

/// Somebody outside may hold a checkpoint: without one, nobody can show that the past was changed.
pub fn checkpoints() -> Check {
    const SQL: &str = "SELECT tree_size > 0 AND NOT EXISTS (SELECT FROM skill_system.audit_checkpoints c \
         WHERE c.incarnation = s.incarnation) FROM skill_system.audit_seal_state s";
    match spi::first::<bool>(SQL, As::Owner, See::Statement, &[]) {
        Some(true) => Check::warning(
            "no checkpoint was ever handed out, so nobody can show later that the log was changed",
            "Give SELECT skill_system.audit_checkpoint(); to somebody outside, and do so every day.",
        ),
        _ => Check::ok("a checkpoint was signed, or nothing is sealed yet"),
    }
}

/// Seals what is not sealed yet.
pub fn seal(_batch: &Batch) -> Result<Task, Fault> {
    let (affected, detail) = match seal::seal_step(None, seal::busy_wait()) {
        Ok(Step::Sealed { sealed, state, .. }) => (sealed as i64, format!("the tree has {} leaves", state.size)),
        Ok(Step::Empty) => (0, "nothing has been recorded yet".into()),
        Ok(Step::Busy(who)) => (0, who),
        Err(fault) => (0, fault.to_string()),
    };
    Ok(Task { affected, detail })
}

/// Seals what no seal would take.
pub fn sweep(_batch: &Batch) -> Result<Task, Fault> {
    let (affected, detail) = match seal::sweep(false) {
        Ok(0) => (0, "every record that could be sealed is".into()),
        Ok(late) => {
            (late as i64, "records with a transaction id that is not the server's: see audit.sealed_late".into())
        }
        Err(fault) => (0, fault.message),
    };
    Ok(Task { affected, detail })
}
