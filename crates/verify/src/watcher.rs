//! Watches a log over psql: fetches a checkpoint and the proof that it continues the last one.

use std::cell::RefCell;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use skill_core::ledger::checkpoint::VerifierKey;

use crate::checkpoints::{self, Text, held};
use crate::psql::{self, NoAnswer};
use crate::report::{Finding, NO_KEY, Outcome, Report, Table, Unusable};
use crate::time::utc;

/// A standby only verifies.
const SEAL: &str = "SELECT FROM skill_system.seal_audit() WHERE NOT pg_catalog.pg_is_in_recovery()";
const CHECKPOINT: &str = "SELECT skill_system.audit_checkpoint()";

pub struct Watcher<'a> {
    connection: &'a str,
    keys: &'a [VerifierKey],
    /// The last checkpoint that was accepted.
    state: String,
    /// The first one that was not, which is evidence.
    rejected: PathBuf,
    _lock: File,
}

impl<'a> Watcher<'a> {
    /// `directory` is made when it does not exist, and is one watcher's at a time.
    pub fn new(connection: &'a str, directory: &str, keys: &'a [VerifierKey]) -> Result<Watcher<'a>, Unusable> {
        let failed = |e: std::io::Error| Unusable(e.to_string()).of(directory);
        let home = Path::new(directory);
        std::fs::create_dir_all(home).map_err(failed)?;
        let lock = File::create(home.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Unusable("another skill-verify watch uses this directory".into()).of(directory));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let state = home.join("checkpoint").to_str().map(str::to_owned);
        let state = state.ok_or_else(|| Unusable("the name is not UTF-8".into()).of(directory))?;
        Ok(Watcher { connection, keys, state, rejected: home.join("rejected"), _lock: lock })
    }

    /// Until something other than OK or INCOMPLETE is found; with no pause, one round.
    pub fn run(&self, pause: Option<Duration>, report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
        loop {
            let outcome = self.round(report)?;
            let Some(pause) = pause.filter(|_| outcome != Outcome::Problems) else { return Ok(outcome) };
            std::thread::sleep(pause);
            report.again();
        }
    }

    fn round(&self, report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
        let text = match psql::ask(self.connection, &[SEAL, CHECKPOINT])? {
            Ok(text) => text,
            Err(no_answer) => return self.incomplete("the checkpoint", &no_answer, report),
        };
        let note = Text { name: "the checkpoint that psql printed".into(), text };
        let failed = RefCell::new(None);
        let outcome = checkpoints::watch(
            &self.state,
            &note,
            |old, new| {
                let statement =
                    format!("SELECT proof FROM skill_system.audit_consistency_proof({}, {})", old.size, new.size);
                match psql::ask(self.connection, &[&statement])? {
                    Ok(text) => {
                        checkpoints::hashes(&Text { name: "the proof that psql printed".into(), text }).map(Some)
                    }
                    Err(no_answer) => {
                        let why = Unusable(no_answer.why.clone());
                        *failed.borrow_mut() = Some(no_answer);
                        Err(why)
                    }
                }
            },
            self.keys,
            report,
        );
        if let Some(no_answer) = failed.take() {
            return self.incomplete("the proof", &no_answer, report);
        }
        let outcome = outcome?;
        if outcome == Outcome::Problems && !self.rejected.exists() {
            let kept = std::fs::write(&self.rejected, &note.text);
            kept.map_err(|e| Unusable(e.to_string()).of(&self.rejected.to_string_lossy()))?;
        }
        Ok(outcome)
    }

    /// Nothing was learned; what is known stays.
    fn incomplete(
        &self,
        what: &str,
        no_answer: &NoAnswer,
        report: &mut Report<impl Write>,
    ) -> Result<Outcome, Unusable> {
        for line in no_answer.messages.lines().take(40) {
            report.record_finding(&Finding::new("psql", line))?;
        }
        let mut table = Table::new();
        if let Some(known) = held(&self.state, self.keys)? {
            let since = std::fs::metadata(&self.state).and_then(|meta| meta.modified()).ok();
            let since = since.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let since = since.map(|time| format!(", of {}", utc(time.as_micros() as i64))).unwrap_or_default();
            table.extend([("log", known.origin), ("last checkpoint", format!("{} leaves{since}", known.size))]);
        }
        let why = format!("could not fetch {what}: {}", no_answer.why);
        let mut lacking = vec![why.as_str()];
        lacking.extend(self.keys.is_empty().then_some(NO_KEY));
        report.finish("", &lacking, table, json!({ "size": Value::Null }))
    }
}
