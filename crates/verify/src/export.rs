//! An export: every leaf recomputed from the values, up to the root that was signed.

use std::io::{BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use skill_core::audit::keyring::Keyring;
use skill_core::ledger::checkpoint::VerifierKey;
use skill_core::tree::{Hash, RangeHasher};

use crate::entry::{self, Entry};
use crate::manifest::{Manifest, Members, malformed};
use crate::pieces;
use crate::ranges::{retired_ranges, uncovered};
use crate::record::{self, Line};
use crate::report::{Finding, Outcome, Progress, Report, Unusable, key_line, lacking};
use crate::rows::VALUE_MISSING;
use crate::time::{Span, utc};

/// Separate runs of retired leaves, or ranges named by retirement records, that are kept in mind.
const MAX_RANGES: usize = 100_000;
const TOO_LARGE: &str =
    "the record was larger than skill_system.max_record_size when it was exported, and is not checked";
/// Tenant and kind of the record that announces a retirement.
const RETIREMENT: (&str, &str) = ("default", "audit.partition_retired");

/// What lies side by side in a piece of the file.
enum Part {
    Leaves { first: u64, count: u64, cover: Vec<Hash> },
    Retired { first: u64, count: u64, cover: Vec<Hash> },
    End(Members),
}

/// A record that announces that leaves are gone.
struct Retirement {
    leaf: u64,
    id: [u8; 16],
    session_user: String,
    ranges: Vec<(u64, u64)>,
}

/// What a thread makes of a piece.
#[derive(Default)]
struct Piece {
    lines: u64,
    records: u64,
    missing: u64,
    retired: u64,
    span: Option<Span>,
    parts: Vec<Part>,
    findings: Vec<Finding>,
    retirements: Vec<Retirement>,
    ids: Vec<u128>,
    failed: Option<String>,
}

struct Worker<'a> {
    log_id: &'a [u8; 16],
    keyring: Option<&'a Keyring>,
    piece: Piece,
    open: Option<(u64, RangeHasher)>,
    buffer: Vec<u8>,
}

impl Worker<'_> {
    fn close(&mut self) {
        if let Some((first, hasher)) = self.open.take() {
            self.piece.parts.push(Part::Leaves { first, count: hasher.at() - first, cover: hasher.cover() });
        }
    }

    fn leaf(&mut self, leaf: u64, id: [u8; 16], hash: &Hash) -> Result<(), String> {
        self.piece.ids.push(u128::from_be_bytes(id));
        if self.open.as_ref().is_none_or(|(_, hasher)| hasher.at() != leaf) {
            self.close();
            self.open = Some((leaf, RangeHasher::part(leaf).map_err(|fault| fault.message)?));
        }
        let Some((_, hasher)) = &mut self.open else { return Ok(()) };
        hasher.push(hash).map_err(|fault| fault.message)
    }

    fn finding(&mut self, code: &'static str, leaf: u64, id: [u8; 16], detail: &str) {
        let line = Some(self.piece.lines);
        self.piece.findings.push(Finding { code, line, leaf: Some(leaf), id: Some(id), detail: detail.into() });
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        match entry::read(line, self.log_id, &mut self.buffer)? {
            Entry::Record(record) => self.record(record),
            Entry::Gone { leaf, id, hash, missing } => {
                if missing {
                    self.piece.missing += 1;
                    self.finding("record_missing", leaf, id, "the record was sealed and is gone");
                } else {
                    self.finding("record_too_large", leaf, id, TOO_LARGE);
                }
                self.leaf(leaf, id, &hash)
            }
            Entry::Retired { first, count, cover } => {
                self.close();
                self.piece.retired = self.piece.retired.saturating_add(count);
                self.piece.parts.push(Part::Retired { first, count, cover });
                Ok(())
            }
            Entry::End(members) => {
                self.close();
                self.piece.parts.push(Part::End(members));
                Ok(())
            }
        }
    }

    /// A line of which only the beginning was read. Without the record's hash, the root cannot be computed.
    fn too_long(&mut self, head: &[u8]) {
        let (leaf, id) = record::leaf_and_id(head);
        let line = Some(self.piece.lines);
        self.piece.findings.push(Finding { code: "record_too_large", line, leaf, id, detail: pieces::TOO_LONG.into() });
    }

    fn record(&mut self, record: Line<'_>) -> Result<(), String> {
        let leaf = record.leaf.ok_or("leaf is missing")?;
        self.piece.records += 1;
        match &record.whole {
            None => self.finding("value_missing", leaf, record.id, VALUE_MISSING),
            Some(whole) => {
                self.piece.span = Span::join(self.piece.span, Some(Span::of(whole.created_at)));
                if let Some(Err((code, detail))) = self.keyring.map(|ring| whole.verify(ring, &self.buffer)) {
                    self.finding(code, leaf, record.id, detail);
                }
                if (whole.tenant_id.as_ref(), whole.event_type.as_ref()) == RETIREMENT {
                    // What cannot be read announces nothing; the leaves it was about are then a problem.
                    let ranges = retired_ranges(whole.event_data).unwrap_or_default();
                    let session_user = whole.session_user.clone().into_owned();
                    self.piece.retirements.push(Retirement { leaf, id: record.id, session_user, ranges });
                }
            }
        }
        let hash = record.leaf_hash(self.log_id, &self.buffer);
        self.leaf(leaf, record.id, &hash)
    }
}

fn work(bytes: pieces::Piece<'_>, log_id: &[u8; 16], keyring: Option<&Keyring>) -> Piece {
    let mut worker = Worker { log_id, keyring, piece: Piece::default(), open: None, buffer: Vec::with_capacity(4096) };
    let bytes = match bytes {
        pieces::Piece::Lines(bytes) => bytes,
        pieces::Piece::TooLong(head) => {
            worker.piece.lines = 1;
            worker.too_long(head);
            return worker.piece;
        }
    };
    let (valid, cut) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(), true),
    };
    let mut rest = valid;
    while !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest.as_bytes());
        worker.piece.lines += 1;
        if end.is_none() && cut {
            break;
        }
        let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = after;
        if let Err(error) = worker.line(line) {
            worker.piece.failed = Some(error);
            break;
        }
    }
    if cut && worker.piece.failed.is_none() {
        worker.piece.lines += u64::from(rest.is_empty());
        worker.piece.failed = Some("no UTF-8".into());
    }
    worker.close();
    worker.piece.ids.sort_unstable();
    worker.piece
}

/// Puts the pieces together.
struct Merger<'a, W> {
    report: &'a mut Report<W>,
    manifest: &'a Manifest,
    /// Nothing, once a gap makes the root impossible to compute.
    hasher: Option<RangeHasher>,
    next: u64,
    lines: u64,
    counts: [u64; 3],
    span: Option<Span>,
    last_ids: Vec<u128>,
    runs: Vec<(u64, u64)>,
    retirements: Vec<Retirement>,
    end: Option<Members>,
}

impl<W: Write> Merger<'_, W> {
    fn add(&mut self, piece: Piece) -> Result<(), Unusable> {
        for mut finding in piece.findings {
            finding.line = finding.line.map(|line| self.lines + line);
            self.report.problem(&finding)?;
        }
        for part in piece.parts {
            if self.end.is_some() {
                return Err(Unusable("something follows the last line of the export".into()));
            }
            match part {
                Part::Leaves { first, count, cover } => self.leaves(first, count, &cover)?,
                Part::Retired { first, count, cover } => {
                    self.leaves(first, count, &cover)?;
                    let end = first.saturating_add(count);
                    match self.runs.last_mut().filter(|(_, last)| *last == first) {
                        Some(run) => run.1 = end,
                        None => self.runs.push((first, end)),
                    }
                }
                Part::End(members) => self.end = Some(members),
            }
        }
        self.duplicates(piece.ids)?;
        self.retirements.extend(piece.retirements);
        if self.runs.len() > MAX_RANGES
            || self.retirements.iter().map(|r| 1 + r.ranges.len()).sum::<usize>() > MAX_RANGES
        {
            return Err(Unusable(format!("more than {MAX_RANGES} ranges of retired leaves")));
        }
        for (sum, more) in self.counts.iter_mut().zip([piece.records, piece.missing, piece.retired]) {
            *sum = sum.saturating_add(more);
        }
        self.span = Span::join(self.span, piece.span);
        self.lines += piece.lines;
        piece.failed.map_or(Ok(()), |what| Err(malformed(self.lines, what)))
    }

    fn leaves(&mut self, first: u64, count: u64, cover: &[Hash]) -> Result<(), Unusable> {
        if first != self.next {
            let what = format!("leaf {} should follow, and leaf {first} does; the root cannot be computed", self.next);
            self.report.problem(&Finding { leaf: Some(self.next), ..Finding::new("leaves_not_in_order", what) })?;
            self.hasher = None;
        }
        if let Some(hasher) = &mut self.hasher
            && let Err(fault) = hasher.push_cover(count, cover)
        {
            self.report.problem(&Finding { leaf: Some(first), ..Finding::new("leaves_malformed", fault.message) })?;
            self.hasher = None;
        }
        self.next = first.saturating_add(count);
        Ok(())
    }

    fn duplicates(&mut self, ids: Vec<u128>) -> Result<(), Unusable> {
        let mut twice: Vec<u128> = ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        let mut before = self.last_ids.iter().peekable();
        for id in &ids {
            while before.next_if(|other| *other < id).is_some() {}
            twice.extend(before.peek().filter(|other| **other == id).map(|id| **id));
        }
        twice.dedup();
        for id in twice {
            let finding = Finding::new("id_twice", "two leaves have this id");
            self.report.problem(&Finding { id: Some(id.to_be_bytes()), ..finding })?;
        }
        self.last_ids = ids;
        Ok(())
    }

    /// Checks that need the whole file. False when its end is missing.
    fn finish(&mut self) -> Result<bool, Unusable> {
        let manifest = self.manifest;
        let Some(mut end) = self.end.take() else { return Ok(false) };
        let marked = end.remove("skill_system_export_end") == Some(json!(1));
        let said = ["records", "missing", "retired"].map(|name| end.remove(name));
        end.insert("skill_system_export".into(), json!(1));
        if !marked || said.iter().any(Option::is_none) {
            return Err(malformed(self.lines, "the last line has no records, missing or retired"));
        }
        if end != manifest.members {
            self.report
                .problem(&Finding::new("last_line_differs", "the last line is not of the same export as the first"))?;
        }
        for (name, (said, found)) in ["records", "missing", "retired"].iter().zip(said.iter().zip(self.counts)) {
            if *said != Some(json!(found)) {
                let what = format!(
                    "{name}: the last line says {}, the export has {found}",
                    said.as_ref().unwrap_or(&Value::Null)
                );
                self.report.problem(&Finding::new("counts_differ", what))?;
            }
        }
        if self.next != manifest.end {
            let what = format!("the leaves end at {}, the export says {}", self.next, manifest.end);
            self.report.problem(&Finding::new("leaves_not_in_order", what))?;
            self.hasher = None;
        }
        if let Some(hasher) = self.hasher.take() {
            let root = hasher.finish(manifest.size, &manifest.right).map_err(|fault| malformed(1, fault.message))?;
            if root != manifest.root {
                let what = "the records do not give the root: something was changed, removed, added or moved";
                self.report.problem(&Finding::new("root_differs", what))?;
            }
        }
        self.retired()?;
        Ok(true)
    }

    fn retired(&mut self) -> Result<(), Unusable> {
        let manifest = self.manifest;
        // A record can only tell of leaves before it.
        let before = |r: &Retirement| -> Vec<(u64, u64)> {
            r.ranges.iter().map(|(from, to)| (*from, (*to).min(r.leaf))).filter(|(from, to)| from < to).collect()
        };
        for retirement in &self.retirements {
            let ranges = before(retirement);
            let touches = |&(from, to): &(u64, u64)| {
                let run = self.runs.partition_point(|(_, end)| *end <= from);
                self.runs.get(run).is_some_and(|(start, _)| *start < to)
            };
            if ranges.iter().any(touches) {
                let what = format!(
                    "session user \"{}\" retired leaves {}",
                    retirement.session_user,
                    ranges.iter().take(20).map(|(from, to)| format!("[{from},{to})")).collect::<Vec<_>>().join(" ")
                );
                let finding =
                    Finding { leaf: Some(retirement.leaf), id: Some(retirement.id), ..Finding::new("retired", what) };
                self.report.record_finding(&finding)?;
            }
        }
        let mut all: Vec<_> = self.retirements.iter().flat_map(before).collect();
        all.sort_unstable();
        for (from, to) in uncovered(&self.runs, &all) {
            let leaf = Some(from);
            if manifest.end < manifest.size {
                let what = format!(
                    "leaves [{from},{to}) are reported as retired; look whether a record {} among the leaves [{},{}) names them",
                    RETIREMENT.1, manifest.end, manifest.size
                );
                self.report.record_finding(&Finding { leaf, ..Finding::new("retirement_not_in_export", what) })?;
            } else {
                let what = format!(
                    "leaves [{from},{to}) are reported as retired, and no record {} behind them names them",
                    RETIREMENT.1
                );
                self.report.problem(&Finding { leaf, ..Finding::new("retired_without_record", what) })?;
            }
        }
        Ok(())
    }
}

/// Checks a whole export.
pub fn check(
    mut input: impl BufRead + Send,
    threads: usize,
    keys: &[VerifierKey],
    keyring: Option<&Keyring>,
    mut progress: Progress,
    report: &mut Report<impl Write>,
) -> Result<Outcome, Unusable> {
    let first = pieces::first_line(&mut input)?.ok_or(Unusable("the export is empty".into()))?;
    let manifest = Manifest::parse(&first).map_err(|what| malformed(1, what))?;
    for finding in manifest.judge(keys)? {
        report.problem(&finding)?;
    }
    let hasher = RangeHasher::new(manifest.start, &manifest.left).map_err(|fault| malformed(1, fault.message))?;
    let mut merger = Merger {
        report: &mut *report,
        manifest: &manifest,
        hasher: Some(hasher),
        next: manifest.start,
        lines: 1,
        counts: [0; 3],
        span: None,
        last_ids: Vec::new(),
        runs: Vec::new(),
        retirements: Vec::new(),
        end: None,
    };
    pieces::run(
        input,
        threads,
        |bytes| work(bytes, &manifest.log_id, keyring),
        |piece, bytes| {
            progress.add(bytes, piece.records);
            merger.add(piece)
        },
    )?;
    let whole = merger.finish()?;
    let Merger { counts: [records, missing, retired], span, .. } = merger;
    drop(progress);
    let Manifest { start, end, size, origin, root, checkpoint, .. } = &manifest;
    let mut table = vec![
        ("log", origin.clone()),
        ("records", format!("{records}, {missing} missing, {retired} retired")),
        ("leaves", format!("[{start},{end}) of {size}")),
    ];
    table.extend(span.map(Span::line));
    let signatures = if keyring.is_some() { "checked with the keyring" } else { "not checked: no --keyring" };
    table.extend([
        ("checkpoint", format!("{size} leaves, root {}", BASE64.encode(root))),
        key_line(keys, checkpoint),
        ("signatures", signatures.to_owned()),
    ]);
    let facts = json!({
        "origin": origin, "start": start, "end": end, "size": size, "root": BASE64.encode(root),
        "first_at": span.map(|span| utc(span.first)), "last_at": span.map(|span| utc(span.last)),
        "records": records, "missing": missing, "retired": retired, "signatures_checked": keyring.is_some(),
    });
    let mut lacking = lacking(keys).to_vec();
    if !whole {
        lacking.push("the export ends before its last line");
    }
    let sentence = "every leaf was recomputed from its record, and they lead to the root that was signed";
    report.finish(sentence, &lacking, table, facts)
}
