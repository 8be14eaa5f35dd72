//! The first line of an export.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skill_core::ledger::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use skill_core::tree::Hash;

use crate::json::members;
use crate::report::{Finding, Unusable};

pub type Members = BTreeMap<String, Value>;

pub fn malformed(line: u64, what: impl std::fmt::Display) -> Unusable {
    Unusable(format!("line {line}: {what}"))
}

/// What the first line says.
pub struct Manifest {
    pub members: Members,
    pub origin: String,
    pub log_id: [u8; 16],
    pub start: u64,
    pub end: u64,
    pub size: u64,
    pub root: Hash,
    pub left: Vec<Hash>,
    pub right: Vec<Hash>,
    pub checkpoint: String,
}

pub fn object(text: &str) -> Result<Members, String> {
    let (mut object, mut twice) = (Members::new(), None);
    members(text, |key, value| {
        let value = serde_json::from_str(value).unwrap_or_default();
        if object.insert(key.to_owned(), value).is_some() {
            twice = Some(format!("\"{key}\" occurs twice"));
        }
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    twice.map_or(Ok(object), Err)
}

pub fn hash(text: &str) -> Option<Hash> {
    BASE64.decode(text).ok()?.try_into().ok()
}

pub fn hashes(texts: &[String]) -> Option<Vec<Hash>> {
    texts.iter().map(|text| hash(text)).collect()
}

impl Manifest {
    pub fn parse(line: &str) -> Result<Manifest, String> {
        const NAMES: [&str; 12] = [
            "checkpoint",
            "end",
            "left",
            "log_id",
            "origin",
            "right",
            "root",
            "since",
            "size",
            "skill_system_export",
            "start",
            "until",
        ];
        let members = object(line)?;
        if members.get("skill_system_export") != Some(&json!(1)) {
            return Err("not an export of skill_system, version 1".into());
        }
        if !members.keys().eq(NAMES.iter()) {
            return Err(format!("the first line of an export has the members {}", NAMES.join(", ")));
        }
        let text = |name: &str| members[name].as_str().map(str::to_owned).ok_or(format!("{name} is not a text"));
        let count = |name: &str| members[name].as_u64().ok_or(format!("{name} is not a count"));
        let edge = |name: &str| {
            let texts = members[name]
                .as_array()
                .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
            texts.and_then(|texts: Vec<_>| hashes(&texts)).ok_or(format!("{name} is not a list of hashes"))
        };
        let manifest = Manifest {
            origin: text("origin")?,
            log_id: uuid::Uuid::parse_str(&text("log_id")?).map_err(|e| format!("log_id: {e}"))?.into_bytes(),
            start: count("start")?,
            end: count("end")?,
            size: count("size")?,
            root: hash(&text("root")?).ok_or("root is not a hash")?,
            left: edge("left")?,
            right: edge("right")?,
            checkpoint: text("checkpoint")?,
            members,
        };
        if manifest.start > manifest.end || manifest.end > manifest.size {
            return Err("start, end and size are not in order".into());
        }
        Ok(manifest)
    }

    /// Where the first line and its checkpoint differ.
    pub fn judge(&self, keys: &[VerifierKey]) -> Result<Vec<Finding>, Unusable> {
        let mut findings = Vec::new();
        let (unsure, checkpoint) = match Checkpoint::verify(&self.checkpoint, keys) {
            Ok(checkpoint) => (None, checkpoint),
            Err(CheckpointError::NotSigned { .. }) if keys.is_empty() => (None, read(&self.checkpoint)?),
            Err(error @ CheckpointError::Malformed) => return Err(malformed(1, error)),
            Err(error) => (Some(error), read(&self.checkpoint)?),
        };
        findings.extend(unsure.map(|error| Finding::new("checkpoint_not_signed", error.to_string())));
        let log = uuid::Uuid::from_bytes(self.log_id);
        for (differs, what) in [
            (
                checkpoint.origin != self.origin,
                format!("the checkpoint is of \"{}\", the export of \"{}\"", checkpoint.origin, self.origin),
            ),
            (
                log_id(&checkpoint.origin) != Some(self.log_id),
                format!("the checkpoint is of \"{}\", the records of log {log}", checkpoint.origin),
            ),
            (
                checkpoint.size != self.size,
                format!("the checkpoint has {} leaves, the export says {}", checkpoint.size, self.size),
            ),
            (checkpoint.root != self.root, "the checkpoint has another root than the export says".into()),
        ] {
            if differs {
                findings.push(Finding::new("checkpoint_differs", what));
            }
        }
        Ok(findings)
    }
}

fn read(note: &str) -> Result<Checkpoint, Unusable> {
    Checkpoint::read(note).map_err(|error| malformed(1, error))
}

/// The log's id in `skill_system/<log id>/<incarnation>`.
pub fn log_id(origin: &str) -> Option<[u8; 16]> {
    let (id, incarnation) = origin.strip_prefix("skill_system/")?.split_once('/')?;
    incarnation.parse::<u32>().ok().filter(|n| *n > 0)?;
    let uuid = uuid::Uuid::try_parse(id).ok().filter(|uuid| uuid.to_string() == id)?;
    Some(uuid.into_bytes())
}
