//! The signed document of one filing.

use std::io::Write;

use serde_json::{Value, json};
use skill_core::compliance::snapshot::{Statement, VERSION_MEMBER, digest};
use skill_core::input::{canonical, sha256};
use skill_core::ledger::checkpoint::{Checkpoint, CheckpointError, Proof, VerifierKey};
use skill_core::tree::verify_inclusion;

use crate::json::{JsonError, Parser, members};
use crate::manifest::log_id;
use crate::record;
use crate::report::{Finding, Outcome, Report, Unusable, count, lacking};

pub const MAX_DOCUMENT: usize = 256 << 20;

fn unusable(error: JsonError) -> Unusable {
    Unusable(format!("the document is malformed: {error:?}"))
}

/// The members of the object in `text` that have these names, each as it is written.
fn parts<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[Option<&'a str>; N], Unusable> {
    let mut found = [None; N];
    members(text, |key, value| {
        if let Some(i) = names.iter().position(|name| *name == key) {
            found[i] = Some(value);
        }
        Ok(())
    })
    .map_err(unusable)?;
    Ok(found)
}

/// The elements of the array in `text`, each as it is written.
fn elements(text: &str) -> Result<Vec<Box<serde_json::value::RawValue>>, Unusable> {
    serde_json::from_str(text).map_err(|e| Unusable(format!("the document is malformed: {e}")))
}

fn no_snapshot() -> Unusable {
    Unusable(format!("not a compliance snapshot: {VERSION_MEMBER}, payload or note is missing"))
}

fn json_value(text: Option<&str>) -> Result<Value, Unusable> {
    serde_json::from_str(text.unwrap_or("null")).map_err(|e| Unusable(format!("the document is malformed: {e}")))
}

/// The filing that the log's key signed.
struct Filing<'a> {
    id: String,
    origin: &'a str,
    log_id: [u8; 16],
    keys: &'a [VerifierKey],
}

impl Filing<'_> {
    /// True when the record is proven to be in the log.
    fn check_record(&self, entry: &str, report: &mut Report<impl Write>) -> Result<bool, Unusable> {
        let [row, proof] = parts(entry, ["record", "proof"])?;
        let row = row.ok_or_else(no_snapshot)?;
        let proof: Option<String> = serde_json::from_str(proof.unwrap_or("null")).map_err(|_| no_snapshot())?;
        let mut encoded = Vec::new();
        let line =
            record::from_row(row, &self.log_id, &mut encoded).map_err(|what| Unusable(format!("a record: {what}")))?;
        let mut problem =
            |code, detail: &str| report.problem(&Finding { id: Some(line.id), ..Finding::new(code, detail) });
        if json_value(Some(row))?["event_data"]["checklist_id"] != self.id.as_str() {
            problem("other_filing", "the record is about another filing")?;
        }
        let Some(proof) = proof else {
            return Ok(false);
        };
        let proof = Proof::parse(&proof).map_err(|e| Unusable(e.to_string()))?;
        let checkpoint = if self.keys.is_empty() {
            Checkpoint::read(&proof.checkpoint)
        } else {
            Checkpoint::verify(&proof.checkpoint, self.keys)
        };
        let checkpoint = match checkpoint {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                problem("checkpoint_not_signed", &error.to_string())?;
                return Ok(false);
            }
        };
        if checkpoint.origin != self.origin {
            problem("other_log", "the proof is of another log")?;
            return Ok(false);
        }
        let leaf = line.leaf_hash(&self.log_id, &encoded);
        let included = verify_inclusion(&proof.hashes, proof.index, checkpoint.size, &leaf, &checkpoint.root);
        if !included {
            problem(
                "not_in_log",
                "the record does not lead to the root: a value was changed, or the proof is of another record",
            )?;
        }
        Ok(included)
    }
}

fn check_rule(rule: &Value, filed: bool, report: &mut Report<impl Write>) -> Result<(), Unusable> {
    let name = format!("{} version {}", rule["rule_identifier"].as_str().unwrap_or("?"), rule["version"]);
    if rule["content_sha256"] != sha256(canonical(&rule["rule_data_at_snapshot"]).as_bytes()).as_str() {
        report.problem(&Finding::new(
            "rule_differs",
            format!("the frozen rule {name} has not the content its digest says"),
        ))?;
    }
    let settled = rule["is_current"] == true || rule["acknowledged"] == true || !rule["replaced_by"].is_null();
    if filed && !settled {
        report.problem(&Finding::new(
            "filed_stale",
            format!("filed although {name} had changed and nobody had acknowledged it"),
        ))?;
    }
    Ok(())
}

/// The payload as it is written, and the text of the signed note.
fn payload_and_note(document: &str) -> Result<(&str, String), Unusable> {
    let [version, payload, note] = parts(document, [VERSION_MEMBER, "payload", "note"])?;
    if version.map(str::trim) != Some("1") {
        return Err(no_snapshot());
    }
    let (payload, note) = payload.zip(note).ok_or_else(no_snapshot)?;
    Ok((payload, serde_json::from_str(note).map_err(|_| no_snapshot())?))
}

/// Is the document what the log's key signed, and does everything in it agree?
pub fn check(document: &str, keys: &[VerifierKey], report: &mut Report<impl Write>) -> Result<Outcome, Unusable> {
    let (payload, note) = payload_and_note(document)?;
    let statement = match Statement::read(&note, keys) {
        Ok(statement) => statement,
        Err(error @ CheckpointError::Malformed) => return Err(Unusable(error.to_string())),
        Err(error) => {
            report.problem(&Finding::new("snapshot_not_signed", error.to_string()))?;
            return report.finish("", lacking(keys), Vec::new(), Value::Null);
        }
    };
    let origin = statement.origin.as_str();
    let log_id = log_id(origin).ok_or_else(|| Unusable(format!("\"{origin}\" is not a log of skill_system")))?;
    let payload_digest =
        digest(&statement.checklist, |writer| Parser::new(payload.trim()).encode_into(writer)).map_err(unusable)?;
    if payload_digest != statement.digest {
        report.problem(&Finding::new("payload_changed", "the payload is not the one that was signed"))?;
    }
    let filing = Filing { id: uuid::Uuid::from_bytes(statement.checklist).to_string(), origin, log_id, keys };
    let [checklist, rules, audit, log] = parts(payload, ["checklist", "rules", "audit", "log"])?;
    let (checklist, rules) = (json_value(checklist)?, json_value(rules)?);
    if checklist["id"] != filing.id.as_str() || json_value(log)? != origin {
        report.problem(&Finding::new(
            "other_filing",
            "the payload is about another filing or log than the one that was signed",
        ))?;
    }
    let rules = rules.as_array().map(Vec::as_slice).unwrap_or_default();
    for rule in rules {
        check_rule(rule, checklist["status"] == "filed", report)?;
    }
    let records = elements(audit.unwrap_or("[]"))?;
    let mut proven = 0;
    for entry in &records {
        proven += usize::from(filing.check_record(entry.get(), report)?);
    }
    if proven < records.len() && report.problems == 0 {
        let what = format!(
            "{} of {} audit records have no proof: no checkpoint covered them when the document was made",
            records.len() - proven,
            records.len()
        );
        report.record_finding(&Finding::new("unproven", what))?;
    }
    let status = checklist["status"].as_str().unwrap_or("?").to_owned();
    let (entity, domain) = (checklist["entity_id"].as_str(), checklist["compliance_domain"].as_str());
    let (entity, domain) = (entity.unwrap_or("?"), domain.unwrap_or("?"));
    let signer = keys.iter().find(|key| Statement::read(&note, std::slice::from_ref(*key)).is_ok());
    let table = vec![
        ("filing", filing.id.clone()),
        ("entity", format!("{entity}, {domain}")),
        ("status", status.clone()),
        ("frozen rules", rules.len().to_string()),
        ("records", format!("{}, {proven} proven to be in the log", records.len())),
        ("log", origin.to_owned()),
        ("key", signer.map_or("none given".to_owned(), VerifierKey::fingerprint)),
    ];
    let sentence = format!(
        "filing {} of {entity} in {domain} is {status}: {}, {}, {proven} proven to be in {origin}",
        filing.id,
        count(rules.len() as u64, "frozen rule"),
        count(records.len() as u64, "audit record"),
    );
    let facts = json!({
        "origin": origin, "checklist_id": filing.id, "status": status, "entity_id": checklist["entity_id"], "rules": rules.len(),
        "records": records.len(), "proven": proven,
    });
    report.finish(&sentence, lacking(keys), table, facts)
}
