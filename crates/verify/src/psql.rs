//! What is fetched from the server, by its own client: psql knows services, passwords, TLS and Kerberos.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skill_core::ledger::checkpoint::MAX_TEXT;

use crate::report::Unusable;

/// Longer than psql's connect_timeout and a seal that waits for another.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_ERRORS: usize = 8 * 1024;

/// psql was called, and has no answer; its messages.
#[derive(Debug)]
pub struct NoAnswer {
    pub why: String,
    pub messages: String,
}

/// Runs statements, each in its own transaction, and returns what they print. The connection is given to psql as one
/// argument; no shell, start-up file, option of the environment or prompt comes in between.
pub fn ask(connection: &str, statements: &[&str]) -> Result<Result<String, NoAnswer>, Unusable> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password"]);
    command.args(["--set", "ON_ERROR_STOP=1", &format!("--dbname={connection}")]);
    statements.iter().for_each(|statement| {
        command.args(["--command", statement]);
    });
    command.env_remove("PGOPTIONS").env("PGCLIENTENCODING", "UTF8").env("PGAPPNAME", "skill-verify");
    if std::env::var_os("PGCONNECT_TIMEOUT").is_none() {
        command.env("PGCONNECT_TIMEOUT", "10");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        ErrorKind::NotFound => Unusable("--psql: the program psql is not in the path".into()),
        _ => Unusable(format!("--psql: could not start psql: {e}")),
    })?;
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Unusable("--psql: no pipe to psql".into()));
    };
    let (out, err) = (thread::spawn(move || head(out, MAX_TEXT)), thread::spawn(move || head(err, MAX_ERRORS)));
    let status = wait(&mut child).map_err(|e| Unusable(format!("--psql: {e}")))?;
    let (Ok(out), Ok(err)) = (out.join(), err.join()) else { return Err(Unusable("a thread failed".into())) };
    let messages = String::from_utf8_lossy(&err.0).into_owned();
    let no_answer = |why: String| Ok(Err(NoAnswer { why, messages: messages.clone() }));
    match status.map(|status| (status.success(), status.code())) {
        None => no_answer(format!("psql did not end within {} s", PATIENCE.as_secs())),
        Some((true, _)) if out.1 => no_answer(format!("psql printed more than {MAX_TEXT} bytes")),
        Some((true, _)) => match String::from_utf8(out.0) {
            Ok(text) => Ok(Ok(text)),
            Err(_) => no_answer("psql printed no UTF-8".into()),
        },
        Some((false, Some(code))) => no_answer(format!("psql ended with status {code}")),
        Some((false, None)) => no_answer("psql was killed".into()),
    }
}

/// The first bytes, and whether more followed; the rest is read as well, so that the writer ends.
fn head(mut pipe: impl Read, most: usize) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let _ = pipe.by_ref().take(most as u64).read_to_end(&mut kept);
    let more = std::io::copy(&mut pipe, &mut std::io::sink()).is_ok_and(|more| more > 0);
    (kept, more)
}

/// Nothing when it had to be ended.
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
