//! Checkpoints and proofs: small texts that show a large log was not rewritten.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skill_core::ledger::checkpoint::{self, Checkpoint, CheckpointError, MAX_TEXT, Proof, VerifierKey};
use skill_core::tree::{Hash, verify_consistency, verify_inclusion};

use crate::export::log_id;
use crate::record;
use crate::report::{Finding, Outcome, Report, Unusable};

/// Reads a small file.
pub fn text(path: &str, limit: usize) -> Result<String, Unusable> {
    let input: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(|e| Unusable(format!("{path}: {e}")))?),
    };
    let mut text = String::new();
    input.take(limit as u64 + 1).read_to_string(&mut text).map_err(|e| Unusable(format!("{path}: {e}")))?;
    if text.len() > limit {
        return Err(Unusable(format!("{path} is larger than {limit} bytes")));
    }
    // Some editors begin a file with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A checkpoint, believed as far as the keys go: with none, only read. Nothing when it is not what a key signed.
fn believed(note: &str, keys: &[VerifierKey], report: &mut Report<impl Write>) -> Result<Option<Checkpoint>, Unusable> {
    match if keys.is_empty() { Checkpoint::read(note) } else { Checkpoint::verify(note, keys) } {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(error @ CheckpointError::Malformed) => Err(Unusable(error.to_string())),
        Err(error) => {
            report.problem(&Finding::new("checkpoint_not_signed", error.to_string()))?;
            Ok(None)
        }
    }
}

fn outcome(report: &Report<impl Write>, keys: &[VerifierKey]) -> Outcome {
    match (report.problems, keys) {
        (1.., _) => Outcome::Problems,
        (0, []) => Outcome::Unauthenticated,
        _ => Outcome::Valid,
    }
}

/// The last line, by what was found and whether a key authenticates it.
pub fn end(
    report: &mut Report<impl Write>,
    keys: &[VerifierKey],
    sentence: String,
    facts: Value,
) -> Result<Outcome, Unusable> {
    let outcome = outcome(report, keys);
    let sentence = match outcome {
        Outcome::Valid => sentence,
        Outcome::Problems => format!("{} problems", report.problems),
        Outcome::Unauthenticated => format!("{sentence}; but no --key was given, so it is not authenticated"),
    };
    report.result(outcome, &sentence, facts)
}

fn facts(checkpoint: &Checkpoint) -> Value {
    json!({ "origin": checkpoint.origin, "size": checkpoint.size, "root": BASE64.encode(checkpoint.root) })
}

/// Is the checkpoint signed?
pub fn check(note: &str, keys: &[VerifierKey], report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
    let Some(checkpoint) = believed(note, keys, report)? else {
        return end(report, keys, String::new(), Value::Null);
    };
    let sentence =
        format!("{} has {} leaves and root {}", checkpoint.origin, checkpoint.size, BASE64.encode(checkpoint.root));
    end(report, keys, sentence, facts(&checkpoint))
}

/// Is the record in the log?
pub fn proof(
    text: &str,
    row: &str,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let proof = Proof::parse(text).map_err(|e| Unusable(e.to_string()))?;
    let Some(checkpoint) = believed(&proof.checkpoint, keys, report)? else {
        return end(report, keys, String::new(), Value::Null);
    };
    let Some(log) = log_id(&checkpoint.origin) else {
        return Err(Unusable(format!("\"{}\" is not a log of skill_system", checkpoint.origin)));
    };
    let mut encoded = Vec::new();
    let line = record::from_row(row, &log, &mut encoded).map_err(|what| Unusable(format!("the record: {what}")))?;
    let finding =
        |code, detail: &str| Finding { id: Some(line.id), leaf: Some(proof.index), ..Finding::new(code, detail) };
    if line.whole.is_none() {
        report.problem(&finding("value_missing", crate::rows::VALUE_MISSING))?;
    }
    if line.leaf.is_some_and(|leaf| leaf != proof.index) {
        report.problem(&finding("leaf_differs", "the record says it is another leaf than the proof is about"))?;
    }
    let leaf = line.leaf_hash(&log, &encoded);
    if !verify_inclusion(&proof.hashes, proof.index, checkpoint.size, &leaf, &checkpoint.root) {
        let what = "the record does not lead to the root: a value was changed, or the proof is of another record";
        report.problem(&finding("not_in_log", what))?;
    }
    let id = uuid::Uuid::from_bytes(line.id);
    let sentence =
        format!("record {id} is leaf {} of the {} leaves of {}", proof.index, checkpoint.size, checkpoint.origin);
    let mut told = facts(&checkpoint);
    told["leaf"] = proof.index.into();
    told["id"] = id.to_string().into();
    end(report, keys, sentence, told)
}

/// Hashes, one a line.
pub fn hashes(text: &str) -> Result<Vec<Hash>, Unusable> {
    checkpoint::consistency(text).ok_or(Unusable("the proof is not one base64 hash a line, at most 63".into()))
}

/// What is wrong with `new` for one who holds `old`.
fn follows(old: &Checkpoint, new: &Checkpoint, proof: Option<&[Hash]>) -> Result<Option<Finding>, Unusable> {
    let wrong = |code, detail: String| Ok(Some(Finding::new(code, detail)));
    if old.origin != new.origin {
        return if log_id(&old.origin).is_some() && log_id(&old.origin) == log_id(&new.origin) {
            let what = format!(
                "\"{}\" is another incarnation of the log than \"{}\": ask who adopted it, and why",
                new.origin, old.origin
            );
            wrong("other_incarnation", what)
        } else {
            wrong("other_origin", format!("\"{}\" is another log than \"{}\"", new.origin, old.origin))
        };
    }
    if new.size < old.size {
        return wrong("older", format!("the log had {} leaves and now has {}", old.size, new.size));
    }
    if new.size == old.size {
        let what = || format!("the log has two roots for {} leaves: it was rewritten", old.size);
        return if new.root == old.root { Ok(None) } else { wrong("other_root", what()) };
    }
    let proof = match proof {
        Some(proof) => proof,
        // Anything follows the empty log.
        None if old.size == 0 => &[],
        None => {
            return Err(Unusable(format!(
                "--proof FILE with the consistency proof from {} to {} is needed",
                old.size, new.size
            )));
        }
    };
    if verify_consistency(proof, old.size, &old.root, new.size, &new.root) {
        return Ok(None);
    }
    let what = format!("the proof does not show that the {} leaves are still the first of the {}", old.size, new.size);
    wrong("not_consistent", what)
}

/// Does the new checkpoint follow the old one?
pub fn compare(
    old: &str,
    new: &str,
    proof: Option<&[Hash]>,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let (Some(old), Some(new)) = (believed(old, keys, report)?, believed(new, keys, report)?) else {
        return end(report, keys, String::new(), Value::Null);
    };
    if let Some(finding) = follows(&old, &new, proof)? {
        report.problem(&finding)?;
    }
    let sentence = format!("{} grew from {} to {} leaves and kept the old ones", new.origin, old.size, new.size);
    let mut told = facts(&new);
    told["old_size"] = old.size.into();
    end(report, keys, sentence, told)
}

/// The same against the last checkpoint that was seen, which is in a file.
pub fn watch(
    state: &str,
    new: &str,
    proof: Option<&[Hash]>,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let path = Path::new(state);
    let Some(seen) = believed(new, keys, report)? else {
        return end(report, keys, String::new(), Value::Null);
    };
    let known = if path.try_exists().map_err(|e| Unusable(format!("{state}: {e}")))? {
        let note = text(state, MAX_TEXT)?;
        let checkpoint = if keys.is_empty() { Checkpoint::read(&note) } else { Checkpoint::verify(&note, keys) };
        Some(checkpoint.map_err(|e| Unusable(format!("{state}: {e}")))?)
    } else {
        None
    };
    if let Some(known) = &known
        && let Some(finding) = follows(known, &seen, proof)?
    {
        report.problem(&finding)?;
    }
    let before = known.as_ref().map(|known| known.size);
    // Without a key nobody knows whose checkpoint it is.
    if outcome(report, keys) == Outcome::Valid && before != Some(seen.size) {
        replace(path, &checkpoint::tidy(new)).map_err(|e| Unusable(format!("{state}: {e}")))?;
    }
    let sentence = match before {
        None => format!("{}: first checkpoint, {} leaves", seen.origin, seen.size),
        Some(before) => format!("{} grew from {before} to {} leaves and kept the old ones", seen.origin, seen.size),
    };
    let mut told = facts(&seen);
    told["old_size"] = before.into();
    end(report, keys, sentence, told)
}

/// The file is the old one or the new one, whatever happens.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let temporary = Path::new(&name);
    let written = File::create_new(temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(temporary);
        return written;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
