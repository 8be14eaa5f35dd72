//! Checkpoints and proofs: small texts that show a large log was not rewritten.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skill_core::ledger::checkpoint::{self, Checkpoint, CheckpointError, MAX_TEXT, Proof, VerifierKey};
use skill_core::tree::{Hash, verify_consistency, verify_inclusion};

use crate::manifest::log_id;
use crate::record;
use crate::report::{Finding, Outcome, Report, Table, Unusable, key_line, lacking};
use crate::time::utc;

/// A small file that was read, with the name that the caller gave it.
pub struct Text {
    pub name: String,
    pub text: String,
}

impl Text {
    /// `path` is - for standard input.
    pub fn read(path: &str, limit: usize) -> Result<Text, Unusable> {
        let input: Box<dyn Read> = match path {
            "-" => Box::new(std::io::stdin()),
            path => Box::new(File::open(path).map_err(|e| Unusable(e.to_string()).of(path))?),
        };
        let mut text = String::new();
        input.take(limit as u64 + 1).read_to_string(&mut text).map_err(|e| Unusable(e.to_string()).of(path))?;
        if text.len() > limit {
            return Err(Unusable(format!("larger than {limit} bytes")).of(path));
        }
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Text { name: path.to_owned(), text })
    }

    /// It is not what the command takes; says what it seems to be instead.
    fn refused(&self, why: impl std::fmt::Display) -> Unusable {
        let seen = match self.text.trim_start() {
            "" => "; it is empty",
            text if text.starts_with("{\"skill_system_export\"") || text.contains("\"skill_system_export\"") => {
                "; it looks like an export"
            }
            text if text.starts_with("c2sp.org/tlog-proof") => "; it looks like a proof of one record",
            text if text.starts_with("{\"") => "; it looks like a record",
            text if VerifierKey::parse(text).is_ok() => "; it looks like a key",
            text if Checkpoint::read(text).is_ok() => "; it looks like a checkpoint",
            text if checkpoint::consistency(text).is_some() => "; it looks like a consistency proof",
            _ => "",
        };
        Unusable(format!("{why}{seen}")).of(&self.name)
    }
}

/// A checkpoint, believed as far as the keys go: with none, only read. Nothing when it is not what a key signed.
fn believed(
    note: &Text,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Option<Checkpoint>, Unusable> {
    match if keys.is_empty() { Checkpoint::read(&note.text) } else { Checkpoint::verify(&note.text, keys) } {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(error @ CheckpointError::Malformed) => Err(note.refused(error)),
        Err(error) => {
            report.problem(&Finding::new("checkpoint_not_signed", error.to_string()))?;
            Ok(None)
        }
    }
}

fn facts(checkpoint: &Checkpoint) -> Value {
    json!({ "origin": checkpoint.origin, "size": checkpoint.size, "root": BASE64.encode(checkpoint.root) })
}

fn table(checkpoint: &Checkpoint, note: &str, keys: &[VerifierKey]) -> Table {
    let what = format!("{} leaves, root {}", checkpoint.size, BASE64.encode(checkpoint.root));
    vec![("log", checkpoint.origin.clone()), ("checkpoint", what), key_line(keys, note)]
}

/// Nothing more can be checked.
fn end_early(report: &mut Report<impl Write>, note: &Text, keys: &[VerifierKey]) -> Result<Outcome, Unusable> {
    let table = Checkpoint::read(&note.text).map(|seen| table(&seen, &note.text, keys)).unwrap_or_default();
    report.finish("", lacking(keys), table, Value::Null)
}

/// Is the checkpoint signed?
pub fn check(note: &Text, keys: &[VerifierKey], report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
    let Some(checkpoint) = believed(note, keys, report)? else { return end_early(report, note, keys) };
    let table = table(&checkpoint, &note.text, keys);
    report.finish("the checkpoint is signed by the key", lacking(keys), table, facts(&checkpoint))
}

/// Is the record in the log?
pub fn proof(
    text: &Text,
    row: &Text,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let proof = Proof::parse(&text.text).map_err(|e| text.refused(e))?;
    let note = Text { name: text.name.clone(), text: proof.checkpoint.clone() };
    let Some(checkpoint) = believed(&note, keys, report)? else { return end_early(report, &note, keys) };
    let Some(log) = log_id(&checkpoint.origin) else {
        return Err(text.refused(format!("\"{}\" is not a log of skill_system", checkpoint.origin)));
    };
    let mut encoded = Vec::new();
    let line = record::from_row(&row.text, &log, &mut encoded)
        .map_err(|what| row.refused(format!("not a record as JSON: {what}")))?;
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
    let id = uuid::Uuid::from_bytes(line.id).to_string();
    let mut rows = vec![("record", id.clone())];
    if let Some(whole) = &line.whole {
        rows.extend([("event type", whole.event_type.to_string()), ("time", utc(whole.created_at))]);
    }
    rows.push(("leaf", proof.index.to_string()));
    rows.extend(table(&checkpoint, &note.text, keys));
    let sentence = format!("record {id} is leaf {} of the {} leaves of the log", proof.index, checkpoint.size);
    let mut told = facts(&checkpoint);
    told["leaf"] = proof.index.into();
    told["id"] = id.into();
    report.finish(&sentence, lacking(keys), rows, told)
}

/// A consistency proof: hashes, one a line.
pub fn hashes(proof: &Text) -> Result<Vec<Hash>, Unusable> {
    checkpoint::consistency(&proof.text).ok_or_else(|| {
        let wrong = |line: &&(usize, &str)| checkpoint::consistency(line.1).is_none();
        let line = proof.text.lines().enumerate().collect::<Vec<_>>().iter().find(wrong).map(|(n, _)| n + 1);
        let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
        proof.refused(format!("{place}the proof is not one base64 hash a line, at most 63"))
    })
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
                "--proof FILE with the consistency proof from {} to {} is needed: SELECT proof FROM \
                 skill_system.audit_consistency_proof({0}, {1})",
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
    old: &Text,
    new: &Text,
    proof: Option<&[Hash]>,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let Some(older) = believed(old, keys, report)? else { return end_early(report, old, keys) };
    let Some(newer) = believed(new, keys, report)? else { return end_early(report, new, keys) };
    if let Some(finding) = follows(&older, &newer, proof)? {
        report.problem(&finding)?;
    }
    grown(Some(&older), &newer, &new.text, keys, report)
}

/// The end of a comparison with what was known before.
fn grown(
    before: Option<&Checkpoint>,
    now: &Checkpoint,
    note: &str,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let mut rows = table(now, note, keys);
    let sentence = match before {
        None => format!("the first checkpoint, of {} leaves", now.size),
        Some(before) if before.size == now.size => format!("the log still has the same {} leaves", now.size),
        Some(before) => format!("the log grew from {} to {} leaves and kept the old ones", before.size, now.size),
    };
    if let Some(before) = before {
        let what = format!("{} leaves, root {}", before.size, BASE64.encode(before.root));
        rows.insert(1, ("before", what));
    }
    let mut told = facts(now);
    told["old_size"] = before.map(|before| before.size).into();
    report.finish(&sentence, lacking(keys), rows, told)
}

/// The checkpoint in the file `state`, if it exists.
pub fn held(state: &str, keys: &[VerifierKey]) -> Result<Option<Checkpoint>, Unusable> {
    if !Path::new(state).try_exists().map_err(|e| Unusable(e.to_string()).of(state))? {
        return Ok(None);
    }
    let note = Text::read(state, MAX_TEXT)?;
    let checkpoint = if keys.is_empty() { Checkpoint::read(&note.text) } else { Checkpoint::verify(&note.text, keys) };
    checkpoint.map(Some).map_err(|e| note.refused(e))
}

/// The same against the last checkpoint that was seen, which is in a file. `proof` gives the proof between two sizes.
pub fn watch(
    state: &str,
    new: &Text,
    proof: impl FnOnce(&Checkpoint, &Checkpoint) -> Result<Option<Vec<Hash>>, Unusable>,
    keys: &[VerifierKey],
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let Some(seen) = believed(new, keys, report)? else { return end_early(report, new, keys) };
    let known = held(state, keys)?;
    if let Some(known) = &known {
        let proof = if known.origin == seen.origin && known.size < seen.size { proof(known, &seen)? } else { None };
        if let Some(finding) = follows(known, &seen, proof.as_deref())? {
            report.problem(&finding)?;
        }
    }
    // Without a key nobody knows whose checkpoint it is.
    if report.problems == 0 && !keys.is_empty() && known.as_ref().map(|known| known.size) != Some(seen.size) {
        replace(Path::new(state), &checkpoint::tidy(&new.text)).map_err(|e| Unusable(e.to_string()).of(state))?;
    }
    grown(known.as_ref(), &seen, &new.text, keys, report)
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
