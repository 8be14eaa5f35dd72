//! `skill-verify`: checks audit records without a database. `--help` says how.

mod checkpoints;
mod export;
mod json;
mod pieces;
mod ranges;
mod record;
mod report;
mod rows;
mod snapshot;

use std::io::{BufReader, BufWriter, Read};
use std::process::ExitCode;

use lexopt::prelude::*;
use skill_core::audit::keyring::{Keyring, MAX_KEYRING_BYTES};
use skill_core::ledger::checkpoint::{MAX_TEXT, VerifierKey};

use crate::checkpoints::text;
use crate::report::{Outcome, Progress, Report, Unusable};

const HELP: &str = "\
skill-verify checks what skill_system recorded, without a database.

  skill-verify export FILE --key KEY... [--keyring KEYRING]
      An export of the audit trail. Every leaf is recomputed from the values of its record, up to
      the root of the signed checkpoint. With --keyring also the signature of every record.
  skill-verify proof FILE --record RECORD --key KEY...
      A tlog-proof. RECORD is a file with the record as JSON: a line of an export, or to_jsonb(row).
  skill-verify checkpoint FILE --key KEY...
      The signature of a checkpoint.
  skill-verify compare OLD NEW --key KEY... [--proof PROOF]
      Two checkpoints of one log: the new one has all leaves of the old one, in the same order.
      PROOF is the consistency proof, one base64 hash a line; for equal sizes none is needed.
  skill-verify watch CHECKPOINT --state STATE --key KEY... [--proof PROOF]
      The same against the checkpoint in STATE, which is then replaced by the new one; after a
      problem it stays as it is. The first checkpoint makes STATE.
  skill-verify snapshot FILE --key KEY...
      The document of one filing from compliance_snapshot(): its signature, the digests of its frozen
      rules, and each audit record that brings its proof.
  skill-verify rows FILE --keyring KEYRING --log-id UUID
      The signature of every row, one a line, as SELECT to_jsonb(a) FROM skill_system.audit_logs a
      prints them. The holder of the keyring could also forge: this finds changes made by others.

FILE, OLD, NEW, CHECKPOINT and RECORD may be - for standard input.

  --key KEY        Public key of the log as <origin>+<hash>+<base64>, or a file with one a line. May be
                   given several times. Get it from the log's owner, never from what you verify.
  --keyring FILE   The server's keyring, a JSON Web Key set. Secret: keep it where the server keeps it.
  --threads N      Threads for export and rows; by default one per core.
  --json           One JSON object per line: {\"kind\":\"problem\"|\"note\"|\"result\", ...}.
  --help, --version

An id that occurs twice is found when its records lie in neighbouring pieces of the file of 256 KiB:
a constant amount of memory holds no more. That the leaves of an export are all those of its time
range is the server's word; an export of the whole log leaves nothing out.

Exit status: 0 all true; 1 problems found; 2 not usable: a wrong call, or input that cannot be read;
3 the input does not contradict itself, but no --key was given and so it is not authenticated.";

#[derive(Default)]
struct Options {
    words: Vec<String>,
    keys: Vec<VerifierKey>,
    keyring: Option<Keyring>,
    log_id: Option<[u8; 16]>,
    record: Option<String>,
    proof: Option<String>,
    state: Option<String>,
    threads: Option<usize>,
    json: bool,
}

impl From<lexopt::Error> for Unusable {
    fn from(error: lexopt::Error) -> Unusable {
        Unusable(format!("{error}; see skill-verify --help"))
    }
}

fn usage(what: &str) -> Unusable {
    Unusable(format!("{what}; see skill-verify --help"))
}

fn main() -> ExitCode {
    match options(lexopt::Parser::from_env()).and_then(|options| options.map_or(Ok(Outcome::Valid), run)) {
        Ok(outcome) => ExitCode::from(outcome.status()),
        Err(Unusable(what)) => {
            eprintln!("skill-verify: {}", report::harmless(&what));
            ExitCode::from(2)
        }
    }
}

/// Nothing when the call only asked for help.
fn options(mut given: lexopt::Parser) -> Result<Option<Options>, Unusable> {
    let mut options = Options::default();
    let once = |name: &str, slot: &mut Option<String>, value: std::ffi::OsString| match slot.replace(value.string()?) {
        None => Ok(()),
        Some(_) => Err(usage(&format!("{name} is given twice"))),
    };
    while let Some(word) = given.next()? {
        match word {
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Long("version") | Short('V') => {
                println!("skill-verify {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Long("json") => options.json = true,
            Long("key") => keys(&given.value()?.string()?, &mut options.keys)?,
            Long("keyring") => {
                let path = given.value()?.string()?;
                let ring = Keyring::parse(&text(&path, MAX_KEYRING_BYTES)?);
                options.keyring = Some(ring.map_err(|e| Unusable(format!("{path}: {e}")))?);
            }
            Long("log-id") => {
                let uuid = uuid::Uuid::parse_str(&given.value()?.string()?);
                options.log_id = Some(uuid.map_err(|e| usage(&format!("--log-id: {e}")))?.into_bytes());
            }
            Long("threads") => {
                let threads = given.value()?.parse::<usize>()?;
                options.threads = Some(threads).filter(|n| (1..=1024).contains(n));
                options.threads.ok_or_else(|| usage("--threads is 1 to 1024"))?;
            }
            Long("record") => once("--record", &mut options.record, given.value()?)?,
            Long("proof") => once("--proof", &mut options.proof, given.value()?)?,
            Long("state") => once("--state", &mut options.state, given.value()?)?,
            Value(word) => options.words.push(word.string()?),
            _ => return Err(word.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// A key, or a file with one a line.
fn keys(given: &str, keys: &mut Vec<VerifierKey>) -> Result<(), Unusable> {
    if let Ok(key) = VerifierKey::parse(given) {
        keys.push(key);
        return Ok(());
    }
    let text = text(given, MAX_TEXT)
        .map_err(|Unusable(why)| Unusable(format!("--key: neither a key nor a file with keys: {why}")))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let before = keys.len();
    for line in lines {
        keys.push(VerifierKey::parse(line).map_err(|e| Unusable(format!("{given}: {e}")))?);
    }
    if keys.len() == before { Err(Unusable(format!("{given} has no key"))) } else { Ok(()) }
}

fn run(options: Options) -> Result<Outcome, Unusable> {
    let mut report = Report::new(BufWriter::new(std::io::stdout().lock()), options.json);
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let note = |path: &str| text(path, MAX_TEXT);
    let proof =
        options.proof.as_deref().map(|path| note(path).and_then(|text| checkpoints::hashes(&text))).transpose()?;
    let (keys, words) = (&options.keys[..], options.words.iter().map(String::as_str).collect::<Vec<_>>());
    // An option that a command has no use for is a mistake of the caller.
    let only = |allowed: &[&str]| {
        let given = [
            ("--key", !keys.is_empty()),
            ("--keyring", options.keyring.is_some()),
            ("--log-id", options.log_id.is_some()),
            ("--record", options.record.is_some()),
            ("--proof", options.proof.is_some()),
            ("--state", options.state.is_some()),
            ("--threads", options.threads.is_some()),
        ];
        match given.iter().find(|(name, given)| *given && !allowed.contains(name)) {
            Some((name, _)) => Err(usage(&format!("{} has no {name}", words[0]))),
            None => Ok(()),
        }
    };
    match words[..] {
        ["export", file] => {
            only(&["--key", "--keyring", "--threads"])?;
            let (input, length) = open(file)?;
            let keyring = options.keyring.as_ref();
            export::check(
                BufReader::with_capacity(64 * 1024, input),
                threads,
                keys,
                keyring,
                Progress::new(length),
                &mut report,
            )
        }
        ["rows", file] => {
            only(&["--keyring", "--log-id", "--threads"])?;
            let (Some(keyring), Some(log_id)) = (&options.keyring, &options.log_id) else {
                return Err(usage("rows needs --keyring and --log-id"));
            };
            let (input, length) = open(file)?;
            rows::check(input, threads, log_id, keyring, Progress::new(length), &mut report)
        }
        ["checkpoint", file] => {
            only(&["--key"])?;
            checkpoints::check(&note(file)?, keys, &mut report)
        }
        ["proof", file] => {
            only(&["--key", "--record"])?;
            let record = options.record.as_deref().ok_or(usage("proof needs --record"))?;
            checkpoints::proof(&note(file)?, &text(record, pieces::MAX_LINE)?, keys, &mut report)
        }
        ["snapshot", file] => {
            only(&["--key"])?;
            snapshot::check(&text(file, snapshot::MAX_DOCUMENT)?, keys, &mut report)
        }
        ["compare", old, new] => {
            only(&["--key", "--proof"])?;
            checkpoints::compare(&note(old)?, &note(new)?, proof.as_deref(), keys, &mut report)
        }
        ["watch", new] => {
            only(&["--key", "--proof", "--state"])?;
            let state = options.state.as_deref().ok_or(usage("watch needs --state"))?;
            checkpoints::watch(state, &note(new)?, proof.as_deref(), keys, &mut report)
        }
        _ => Err(usage("export, proof, checkpoint, compare, watch, snapshot or rows, with its files")),
    }
}

/// The file and its length; standard input has none.
fn open(path: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Unusable> {
    if path == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = std::fs::File::open(path).map_err(|e| Unusable(format!("{path}: {e}")))?;
    let length = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok((Box::new(file), length))
}
