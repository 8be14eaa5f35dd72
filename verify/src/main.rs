//! `skill-verify`: checks audit records without a database.
//!
//! ```text
//! skill-verify rows FILE --keyring KEYRING --log-id UUID
//! ```
//!
//! FILE (`-` is standard input) has one record a line, as
//! `SELECT to_jsonb(a) FROM skill_system.audit_logs a` prints them; the log's id is
//! `SELECT log_id FROM skill_system.audit_state`. Every signature is computed anew
//! from the values. Whoever has the keyring could also forge: this finds changes
//! made by others. Exit status: 0 all true, 1 problems found, 2 not usable.

mod record;

use std::io::{BufRead, BufReader, Read};
use std::process::ExitCode;

use skill_core::keyring::{Keyring, MAX_KEYRING_BYTES};

/// Longest line: the server signs no larger record.
const MAX_LINE_BYTES: u64 = 256 * 1024 * 1024;
const USAGE: &str = "usage: skill-verify rows FILE --keyring KEYRING --log-id UUID";

struct Arguments {
    file: String,
    keyring: Keyring,
    log_id: [u8; 16],
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)).and_then(|arguments| rows(&arguments)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(message) => {
            eprintln!("skill-verify: {message}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    if given.next().as_deref() != Some("rows") {
        return Err(USAGE.into());
    }
    let (mut file, mut keyring, mut log_id) = (None, None, None);
    while let Some(word) = given.next() {
        let mut value = || given.next().ok_or(format!("{word} needs a value; {USAGE}"));
        match word.as_str() {
            "--keyring" => {
                let path = value()?;
                let mut text = String::new();
                std::fs::File::open(&path)
                    .and_then(|file| file.take(MAX_KEYRING_BYTES as u64 + 1).read_to_string(&mut text))
                    .map_err(|e| format!("{path}: {e}"))?;
                keyring = Some(Keyring::parse(&text).map_err(|e| format!("{path}: {e}"))?);
            }
            "--log-id" => {
                let text = value()?;
                log_id = Some(uuid::Uuid::parse_str(&text).map_err(|e| format!("--log-id: {e}"))?.into_bytes());
            }
            _ if file.is_none() && (word == "-" || !word.starts_with('-')) => file = Some(word),
            _ => return Err(format!("\"{word}\" is not understood; {USAGE}")),
        }
    }
    match (file, keyring, log_id) {
        (Some(file), Some(keyring), Some(log_id)) => Ok(Arguments { file, keyring, log_id }),
        _ => Err(USAGE.into()),
    }
}

/// Checks line by line; returns the number of problems.
fn rows(arguments: &Arguments) -> Result<u64, String> {
    let input: Box<dyn Read> = match arguments.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(|e| format!("{path}: {e}"))?),
    };
    let mut input = BufReader::with_capacity(1 << 20, input);
    let (mut line, mut number, mut checked, mut problems) = (Vec::new(), 0u64, 0u64, 0u64);
    let mut buffer = Vec::new();
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        if read == 0 {
            break;
        }
        number += 1;
        if read as u64 > MAX_LINE_BYTES {
            return Err(format!("line {number} is longer than {MAX_LINE_BYTES} bytes"));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        checked += 1;
        if let Err(problem) = record::check(&line, &arguments.keyring, &arguments.log_id, &mut buffer) {
            problems += 1;
            println!("line {number}: {problem}");
        }
    }
    println!("{checked} records, {problems} problems");
    Ok(problems)
}
