//! The sealed records as JSON Lines, with all that proves them.

use std::collections::HashMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use const_format::concatcp;
use serde_json::json;
use skill_core::input::sentence;
use skill_core::jsonb::{self, JsonbError};
use skill_core::ledger::checkpoint::Checkpoint;
use skill_core::tree::{self, Hash, TILE_WIDTH};
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, FromRow, Row, Timestamptz, UnreadJsonb, Uuid, arg, columns, pg_function, sys};

use super::proof::{self, StoredCheckpoint};
use super::retention;
use super::state::{self, State};
use super::tiles::{ID, LeafFinder, StoredTiles, read_ids};
use crate::audit;

pg_function!(audit_export);
/// `audit_export(since, until)`: manifest, one line a leaf, manifest.
fn audit_export(call: &Call) -> Answer {
    let (since, until): (Option<Timestamptz>, Option<Timestamptz>) = call.arguments();
    let (Some(since), Some(until)) = (since, until) else {
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
        let StoredCheckpoint { checkpoint: Checkpoint { origin, size, root }, note } = stored;
        let log_id = spi::as_owner(state::log_id);
        let tiles = StoredTiles::default();
        let range = spi::as_owner(|| leaves_of(since, until, size))?;
        let edges = spi::as_owner(|| {
            Ok::<_, Fault>((tree::left_edge(range.start, &tiles)?, tree::right_edge(range.end, size, &tiles)?))
        })?;
        let mut manifest = json!({
            "skill_system_export": 1, "origin": origin, "log_id": log_id.map(|id| id.to_string()), "start": range.start,
            "end": range.end, "size": size, "root": STANDARD.encode(root), "since": moment(since), "until": moment(until),
            "left": base64(&edges.0), "right": base64(&edges.1), "checkpoint": note,
        });
        lines.push(&[arg(manifest.to_string())]);
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
        lines.push(&[arg(manifest.to_string())]);
        Ok(lines.finish())
    })
}

fn base64(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

/// A time for the manifest; NULL for the infinities.
fn moment(time: Timestamptz) -> Option<String> {
    const SQL: &str = "SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') WHERE isfinite($1)";
    spi::first(SQL, As::Caller, See::Statement, &[arg(time)])
}

/// The smallest range of leaves with every sealed record of a time range, below `size`.
fn leaves_of(since: Timestamptz, until: Timestamptz, size: u64) -> Result<Range<u64>, Fault> {
    if since == Timestamptz::NEG_INFINITY && until == Timestamptz::INFINITY {
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
            let leaf = row.get::<Option<Uuid>>(1).and_then(|id| finder.find(id.as_bytes()));
            if let Some(leaf) = leaf.filter(|leaf| *leaf < size) {
                (first, end) = (first.min(leaf), end.max(leaf + 1));
            }
            Ok(())
        },
    )?;
    Ok(if first < end { first..end } else { 0..0 })
}

/// 0001-01-01 00:00 UTC
const FIRST_OF_OUR_ERA: Timestamptz = Timestamptz(-63_082_281_600_000_000);

columns! {
    /// A record as the export writes it, without `event_data`; values that are missing from a damaged one are null.
    struct Record {
        id: Uuid = "id",
        tenant_id: Option<String> = "tenant_id",
        event_type: Option<String> = "event_type",
        actor_id: Option<String> = "actor_id",
        actor_type: Option<String> = "actor_type",
        created_at: Option<String> = "to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             || CASE WHEN created_at < $2 THEN ' BC' ELSE '' END",
        recorded_at: Option<String> = "to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             || CASE WHEN recorded_at < $2 THEN ' BC' ELSE '' END",
        transaction_id: Option<i64> = "transaction_id",
        session_user_name: Option<String> = "session_user_name",
        current_user_name: Option<String> = "current_user_name",
        key_id: Option<String> = "key_id",
        signature: Option<String> = "signature",
    }
}

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
            self.tile(at, ids, emit)?;
            at = end;
        }
        Ok(())
    }

    /// The leaves of a tile from `first` on, with these ids. One record at a time is read as text.
    fn tile(&mut self, first: u64, ids: &[u8], emit: &mut impl FnMut(&str)) -> Result<(), Fault> {
        let wanted: Vec<Uuid> = ids.as_chunks::<ID>().0.iter().copied().map(Uuid::from_bytes).collect();
        const SQL: &str =
            concatcp!("SELECT ", Record::COLUMNS, ", event_data FROM skill_system.audit_logs WHERE id = ANY ($1)");
        spi::with_rows(SQL, As::Caller, See::Statement, &[arg(wanted), arg(FIRST_OF_OUR_ERA)], |rows| {
            let found: HashMap<[u8; ID], &Row> = rows.iter().map(|row| (*row.get::<Uuid>(1).as_bytes(), row)).collect();
            for (leaf, id) in (first..).zip(ids.as_chunks::<ID>().0) {
                let row = found.get(id);
                if let Some(row) = row
                    && row.scratch(|row| self.record(leaf, row, emit))?
                {
                    continue;
                }
                let why = if row.is_some() { "too_large" } else { "missing" };
                self.missing += u64::from(row.is_none());
                let hash = STANDARD.encode(self.tiles.leaf(leaf)?);
                let id = Uuid::from_bytes(*id).to_string();
                emit(&json!({"leaf": leaf, "id": id, why: true, "hash": hash}).to_string());
            }
            Ok(())
        })
    }

    /// Writes a record, unless it is too large.
    fn record(&mut self, leaf: u64, row: &Row, emit: &mut impl FnMut(&str)) -> Result<bool, Fault> {
        let bounds = audit::verified();
        let event_data: Option<UnreadJsonb> = row.get(EVENT_DATA);
        if event_data.as_ref().is_some_and(|data| data.size() > 4 * bounds.text) {
            return Ok(false);
        }
        let event_data = event_data.map(|data| data.read().0);
        // A damaged value is written as null, which gives another leaf.
        let event_data = match event_data.map(|root| jsonb::measure(root, bounds)) {
            Some(Err(JsonbError::Encode(_))) => return Ok(false),
            Some(Err(JsonbError::Damaged)) | None => None,
            Some(Ok(_)) => event_data,
        };
        self.records += 1;
        self.line.clear();
        self.line.extend_from_slice(format!("{{\"leaf\":{leaf},").as_bytes());
        Record::from_row(row).write(event_data, &mut self.line);
        emit(std::str::from_utf8(&self.line).map_err(|error| {
            Fault::new(Code::DataCorrupted, format!("the record of leaf {leaf} is not UTF-8"))
                .detail(sentence(&error.to_string()))
        })?);
        if self.line.capacity() > KEPT_LINE {
            self.line = Vec::new();
        }
        Ok(true)
    }
}

/// Position of `event_data`, behind the columns of [`Record`].
const EVENT_DATA: i32 = 13;
/// Memory that is kept for the next line.
const KEPT_LINE: usize = 1 << 20;

impl Record {
    /// The members in their order, after `"leaf"`.
    fn write(&self, event_data: Option<&[u8]>, out: &mut Vec<u8>) {
        let quoted = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            match value {
                None => out.extend_from_slice(b"null"),
                // Cannot fail: the target is memory.
                Some(text) => drop(serde_json::to_writer(out, text)),
            }
        };
        out.extend_from_slice(format!("\"id\":\"{}\"", self.id).as_bytes());
        quoted(out, "tenant_id", self.tenant_id.as_deref());
        quoted(out, "event_type", self.event_type.as_deref());
        out.extend_from_slice(b",\"event_data\":");
        let start = out.len();
        if event_data.is_none_or(|root| jsonb::write_text(root, out).is_err()) {
            out.truncate(start);
            out.extend_from_slice(b"null");
        }
        quoted(out, "actor_id", self.actor_id.as_deref());
        quoted(out, "actor_type", self.actor_type.as_deref());
        quoted(out, "created_at", self.created_at.as_deref());
        quoted(out, "recorded_at", self.recorded_at.as_deref());
        let transaction_id = self.transaction_id.map_or("null".to_owned(), |id| id.to_string());
        out.extend_from_slice(format!(",\"transaction_id\":{transaction_id}").as_bytes());
        quoted(out, "session_user_name", self.session_user_name.as_deref());
        quoted(out, "current_user_name", self.current_user_name.as_deref());
        quoted(out, "key_id", self.key_id.as_deref());
        quoted(out, "signature", self.signature.as_deref());
        out.push(b'}');
    }
}
