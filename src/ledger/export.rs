//! The sealed records as JSON Lines, with all that proves them.

use skill_pg::{Answer, Call, Row, Uuid, arg, pg_function, pg_sys, sys};
use skill_pg::spi::{self, As, See};
use skill_pg::error::{check_for_interrupts};
use crate::{compat};
use std::collections::HashMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use skill_core::ledger::checkpoint::Checkpoint;
use skill_core::ledger::tree::{self, Hash, TILE_WIDTH, Tiles};
use skill_core::{Code, Fault};

use super::proof::{self, Stored};
use super::retention;
use super::state::{self, State};
use super::tiles::{ID, LeafFinder, StoredTiles, hash_in, read_ids};

pg_function!(audit_export);
/// `audit_export(since, until)`: manifest, one line a leaf, manifest.
fn audit_export(call: &Call) -> Answer {
    let (Some(since), Some(until)) = (call.datum(0), call.datum(1)) else {
        return Err(Fault::new(Code::InvalidParameterValue, "since and until must not be NULL")
            .hint("Leave them out to export everything."));
    };
    let stored = if sys::may_write() { Some(proof::sign_checkpoint()?) } else { None };
    let mut lines = call.value_set();
    spi::with_latest_snapshot(|| {
        let state = spi::as_owner(State::read)?.ok_or_else(proof::nothing_sealed)?;
        let stored = match stored {
            Some(stored) => stored,
            None => proof::newest(&state)?.ok_or_else(|| {
                Fault::new(Code::NotInPrerequisiteState, "no checkpoint has been signed yet")
                    .hint("SELECT skill_system.audit_checkpoint(); on the primary server.")
            })?,
        };
        let Stored { checkpoint: Checkpoint { origin, size, root }, note } = stored;
        let log_id = spi::as_owner(state::log_id);
        let tiles = StoredTiles::default();
        let range = spi::as_owner(|| leaves_of(since, until, size))?;
        let edges = spi::as_owner(|| {
            Ok::<_, Fault>((tree::left_edge(range.start, &tiles)?, tree::right_edge(range.end, size, &tiles)?))
        })?;
        let mut manifest = json!({
            "skill_system_export": 1, "origin": origin, "log_id": log_id.map(|id| id.to_string()), "start": range.start, "end": range.end, "size": size,
            "root": STANDARD.encode(root), "since": moment(since), "until": moment(until), "left": base64(&edges.0), "right": base64(&edges.1),
            "checkpoint": note,
        });
        lines.push(&[arg(&manifest.to_string())]);
        let gone = retention::retired_leaves()?;
        let mut writer = Writer { tiles, gone, records: 0, missing: 0, retired: 0, line: Vec::new() };
        spi::as_owner(|| writer.leaves(range, &mut |line| lines.push(&[arg(line)])))?;
        if let Some(members) = manifest.as_object_mut() {
            members.remove("skill_system_export");
            members.insert("skill_system_export_end".into(), json!(1));
            members.insert("records".into(), json!(writer.records));
            members.insert("missing".into(), json!(writer.missing));
            members.insert("retired".into(), json!(writer.retired));
        }
        lines.push(&[arg(&manifest.to_string())]);
        Ok(call.null())
    })
}

fn base64(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// A time for the manifest; NULL for the infinities.
fn moment(timestamp: pg_sys::Datum) -> Option<String> {
    spi::one(
        "SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') WHERE isfinite($1)",
        As::Caller, See::Statement,
        &[arg(timestamp)],
    )
}

/// The smallest range of leaves with every sealed record of a time range, below `size`.
fn leaves_of(since: pg_sys::Datum, until: pg_sys::Datum, size: u64) -> Result<Range<u64>, Fault> {
    if since.value() as i64 == i64::MIN && until.value() as i64 == i64::MAX {
        return Ok(0..size);
    }
    let (mut first, mut end) = (u64::MAX, 0);
    for range in retention::retired_between(since, until)?.into_iter().filter(|range| range.start < size) {
        (first, end) = (first.min(range.start), end.max(range.end.min(size)));
    }
    let mut finder = LeafFinder::default();
    spi::stream(
        "SELECT id FROM skill_system.audit_logs WHERE created_at >= $1 AND created_at < $2",
        &[arg(since), arg(until)],
        |row| {
            let leaf = row.get::<Option<Uuid>>(1).and_then(|id| finder.find(id.as_bytes())).filter(|leaf| *leaf < size);
            if let Some(leaf) = leaf {
                (first, end) = (first.min(leaf), end.max(leaf + 1));
            }
        },
    );
    Ok(if first < end { first..end } else { 0..0 })
}

/// 0001-01-01 00:00 UTC, a server timestamp.
const FIRST_OF_OUR_ERA: i64 = -63_082_281_600_000_000;

struct Writer {
    tiles: StoredTiles,
    /// Retired leaves.
    gone: Vec<Range<u64>>,
    records: u64,
    missing: u64,
    retired: u64,
    line: Vec<u8>,
}

impl Writer {
    /// One line for each leaf, tile by tile, and one for each run of retired ones.
    fn leaves(&mut self, range: Range<u64>, emit: &mut impl FnMut(&str)) -> Result<(), Fault> {
        let width = TILE_WIDTH as u64;
        let mut at = range.start;
        while at < range.end {
            check_for_interrupts();
            let next =
                self.gone.get(self.gone.partition_point(|gone| gone.end <= at)).cloned().unwrap_or(u64::MAX..u64::MAX);
            if next.start <= at {
                let end = range.end.min(next.end);
                self.retired += end - at;
                let hashes = base64(&tree::cover(at, end, &self.tiles)?);
                emit(&json!({"leaf": at, "count": end - at, "retired": true, "hashes": hashes}).to_string());
                at = end;
                continue;
            }
            let (n, end) = (at / width, range.end.min((at / width + 1) * width).min(next.start));
            let ids = read_ids(n);
            let slots = (at - n * width) as usize * ID..(end - n * width) as usize * ID;
            let ids = ids.get(slots).ok_or_else(|| {
                Fault::new(Code::DataCorrupted, format!("row {n} of audit_map is missing or too short"))
            })?;
            let found = self.records(ids);
            let tile = self.tiles.tile(0, n)?;
            for (leaf, id) in (at..end).zip(ids.chunks_exact(ID)) {
                match found.get(id) {
                    Some(record) => {
                        self.records += 1;
                        self.line.clear();
                        self.line.extend_from_slice(format!("{{\"leaf\":{leaf},").as_bytes());
                        self.line.extend_from_slice(record);
                        emit(std::str::from_utf8(&self.line).unwrap_or_default());
                    }
                    None => {
                        self.missing += 1;
                        let hash = STANDARD.encode(hash_in(&tile, leaf).unwrap_or_default());
                        let id = uuid::Uuid::from_slice(id).unwrap_or_default();
                        emit(&json!({"leaf": leaf, "id": id.to_string(), "missing": true, "hash": hash}).to_string());
                    }
                }
            }
            at = end;
        }
        Ok(())
    }

    /// The records with these ids, each as the rest of its line.
    fn records(&mut self, ids: &[u8]) -> HashMap<[u8; ID], Vec<u8>> {
        let wanted: Vec<Uuid> =
            ids.chunks_exact(ID).filter_map(|id| id.try_into().ok()).map(Uuid::from_bytes).collect();
        let mut found = HashMap::with_capacity(wanted.len());
        compat::run(
            "SELECT id, tenant_id, event_type::text, event_data::text, actor_id::text, actor_type::text, \
                 to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || CASE WHEN created_at < $2 THEN ' BC' ELSE '' END, \
                 to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || CASE WHEN recorded_at < $2 THEN ' BC' ELSE '' END, \
                 transaction_id, session_user_name, current_user_name, key_id, signature::text \
             FROM skill_system.audit_logs WHERE id = ANY ($1)",
            As::Caller, See::Statement,
            &[arg(wanted), arg(pg_sys::Datum::from(FIRST_OF_OUR_ERA))],
            |row| {
                if let Some(id) = row.get::<Option<Uuid>>(1) {
                    found.insert(*id.as_bytes(), record_json(&id, row));
                }
            },
        );
        found
    }
}

/// The members of a record in their order, after `"leaf"`.
fn record_json(id: &Uuid, row: &Row) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut member = |name: &str, value: Option<&str>, quoted: bool| {
        out.extend_from_slice(if name == "id" { b"\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        match value {
            None => out.extend_from_slice(b"null"),
            // Cannot fail: the target is memory.
            Some(text) if quoted => drop(serde_json::to_writer(&mut out, text)),
            Some(text) => out.extend_from_slice(text.as_bytes()),
        }
    };
    member("id", Some(&id.to_string()), true);
    member("tenant_id", row.text(2), true);
    member("event_type", row.text(3), true);
    member("event_data", row.text(4), false);
    member("actor_id", row.text(5), true);
    member("actor_type", row.text(6), true);
    member("created_at", row.text(7), true);
    member("recorded_at", row.text(8), true);
    member("transaction_id", row.get::<Option<i64>>(9).map(|id| id.to_string()).as_deref(), false);
    member("session_user_name", row.text(10), true);
    member("current_user_name", row.text(11), true);
    member("key_id", row.text(12), true);
    member("signature", row.text(13), true);
    out.push(b'}');
    out
}
