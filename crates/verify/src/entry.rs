//! One line of an export between the first and the last.

use serde::Deserialize;
use skill_core::tree::Hash;

use crate::json::members;
use crate::manifest::{Members, hash, hashes, object};
use crate::record::{self, Line};

pub enum Entry<'a> {
    /// Its signed bytes are in the buffer.
    Record(Line<'a>),
    /// A leaf without its record, which is missing or too large.
    Gone {
        leaf: u64,
        id: [u8; 16],
        hash: Hash,
        missing: bool,
    },
    Retired {
        first: u64,
        count: u64,
        cover: Vec<Hash>,
    },
    /// The last line.
    End(Members),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gone {
    leaf: u64,
    id: String,
    /// The record is gone.
    #[serde(default)]
    missing: bool,
    /// The record is there, and larger than the server reads.
    #[serde(default)]
    too_large: bool,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    leaf: u64,
    count: u64,
    retired: bool,
    hashes: Vec<String>,
}

/// Reads a line. `buffer` gets the signed bytes of a record.
pub fn read<'a>(line: &'a str, log_id: &[u8; 16], buffer: &mut Vec<u8>) -> Result<Entry<'a>, String> {
    if let Some(record) = record::in_order(line, log_id, buffer) {
        return Ok(Entry::Record(record));
    }
    let mut kind = "";
    members(line, |key, _| {
        kind = ["missing", "too_large", "retired", "skill_system_export_end"]
            .into_iter()
            .find(|kind| *kind == key)
            .unwrap_or(kind);
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    let wrong = |e: serde_json::Error| e.to_string();
    match kind {
        "missing" | "too_large" => {
            let gone: Gone = serde_json::from_str(line).map_err(wrong)?;
            let id = uuid::Uuid::parse_str(&gone.id).map_err(|e| format!("id: {e}"))?.into_bytes();
            let (true, Some(hash)) = (gone.missing != gone.too_large, hash(&gone.hash)) else {
                return Err("missing or too_large is not true, or hash is not a hash".into());
            };
            Ok(Entry::Gone { leaf: gone.leaf, id, hash, missing: gone.missing })
        }
        "retired" => {
            let run: Run = serde_json::from_str(line).map_err(wrong)?;
            let (true, true, Some(cover)) = (run.retired, run.count > 0, hashes(&run.hashes)) else {
                return Err("retired is not true, count is 0, or hashes has a member that is not a hash".into());
            };
            Ok(Entry::Retired { first: run.leaf, count: run.count, cover })
        }
        "" => record::in_any_order(line, log_id, buffer, true).map(Entry::Record),
        _ => Ok(Entry::End(object(line)?)),
    }
}
