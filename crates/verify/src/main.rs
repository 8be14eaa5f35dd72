//! `skill-verify`: checks audit records without a database. `--help` says how.

mod arguments;
mod checkpoints;
mod entry;
mod export;
mod json;
mod manifest;
mod page;
mod pieces;
mod psql;
mod ranges;
mod record;
mod report;
mod rows;
mod snapshot;
mod time;
mod watcher;

use std::io::{BufReader, BufWriter, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use skill_core::ledger::checkpoint::MAX_TEXT;

use crate::arguments::Options;
use crate::checkpoints::Text;
use crate::report::{Outcome, Progress, Report, Unusable};
use crate::watcher::Watcher;

/// Seconds between two rounds of `watch`.
const EVERY: u64 = 300;

fn main() -> ExitCode {
    match arguments::read(lexopt::Parser::from_env()).and_then(|options| options.map_or(Ok(Outcome::Valid), start)) {
        Ok(outcome) => ExitCode::from(outcome.status()),
        Err(Unusable(what)) => {
            eprintln!("skill-verify: {}", report::harmless(&what));
            ExitCode::from(2)
        }
    }
}

fn start(options: Options) -> Result<Outcome, Unusable> {
    let mut report = Report::new(BufWriter::new(std::io::stdout().lock()), options.json);
    let outcome = run(&options, &mut report).or_else(|error| report.stopped(error))?;
    if let (Some(page), Some(found), Some(file)) = (&options.html, report.finished(), options.files.first()) {
        match page::write(file, page, found, &options.keys) {
            Err(Unusable(what)) if outcome == Outcome::Problems => {
                eprintln!("skill-verify: {}", report::harmless(&what));
            }
            written => written?,
        }
    }
    Ok(outcome)
}

fn run(options: &Options, report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let keys = &options.keys[..];
    let note = |path: &str| Text::read(path, MAX_TEXT);
    let proof =
        options.proof.as_deref().map(|path| note(path).and_then(|text| checkpoints::hashes(&text))).transpose()?;
    let files: Vec<&str> = options.files.iter().map(String::as_str).collect();
    match (options.command.as_str(), &files[..]) {
        ("export", &[file]) => {
            let (input, length) = open(file)?;
            let (input, progress) = (BufReader::with_capacity(64 * 1024, input), Progress::new(length));
            export::check(input, threads, keys, options.keyring.as_ref(), progress, report).map_err(|e| e.of(file))
        }
        ("rows", &[file]) => {
            let (Some(keyring), Some(log_id)) = (&options.keyring, &options.log_id) else { return no_command() };
            let (input, length) = open(file)?;
            rows::check(input, threads, log_id, keyring, Progress::new(length), report).map_err(|e| e.of(file))
        }
        ("checkpoint", &[file]) => checkpoints::check(&note(file)?, keys, report),
        ("proof", &[file]) => {
            let record = options.record.as_deref().unwrap_or("-");
            checkpoints::proof(&note(file)?, &Text::read(record, pieces::MAX_LINE)?, keys, report)
        }
        ("snapshot", &[file]) => {
            let document = Text::read(file, snapshot::MAX_DOCUMENT)?;
            snapshot::check(&document.text, keys, report).map_err(|e| e.of(file))
        }
        ("compare", &[old, new]) => checkpoints::compare(&note(old)?, &note(new)?, proof.as_deref(), keys, report),
        ("watch", files) => watch(options, files.first().copied(), proof, report),
        _ => no_command(),
    }
}

fn watch(
    options: &Options,
    file: Option<&str>,
    proof: Option<Vec<skill_core::tree::Hash>>,
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let state = options.state.as_deref().unwrap_or_default();
    match (&options.psql, file) {
        (Some(connection), None) => {
            let pause = Duration::from_secs(options.every.unwrap_or(EVERY));
            Watcher::new(connection, state, &options.keys)?.run((!options.once).then_some(pause), report)
        }
        (None, Some(file)) => {
            let note = Text::read(file, MAX_TEXT)?;
            checkpoints::watch(state, &note, |_, _| Ok(proof), &options.keys, report)
        }
        _ => no_command(),
    }
}

/// Not reached: the arguments were judged before.
fn no_command() -> Result<Outcome, Unusable> {
    Err(Unusable("not a command".into()))
}

/// The file and its length; standard input has none.
fn open(path: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Unusable> {
    if path == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = std::fs::File::open(path).map_err(|e| Unusable(e.to_string()).of(path))?;
    let length = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok((Box::new(file), length))
}
