//! `verify_audit()`: records against signatures and leaves, leaves against tiles, tiles against checkpoints.
//!
//! A full verification does not look each leaf up. It adds up one secret, random number for each record and for each
//! leaf: the sums are equal only if records and leaves are the same set. Only when they differ does it go through the
//! leaves one by one to say which.

use std::ops::Range;

use const_format::concatcp;
use skill_core::ledger::checkpoint::Checkpoint;
use skill_core::ledger::snapshot::Snapshot;
use skill_core::tree::{self, Appender, Hash, TILE_WIDTH};
use skill_core::{Code, Fault};
use skill_pg::error::{check_for_interrupts, info};
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Oid, Row, RowSet, Timestamptz, Uuid, arg, pg_function, progress, sys};

use super::proof;
use super::retention::retired_leaves;
use super::rotation::unannounced_keys;
use super::state::{self, State, Tail};
use super::tiles::{HASH, ID, LeafFinder, StoredTiles, read_ids, read_tile};
use crate::audit::{LEAF_HASH, PROBLEM, RECORD_DIGEST, TOO_LARGE, explain_problem, leaf_digest, protection};

/// The phases, in order, as `progress` counts them.
const PHASES: [&str; 4] = ["records", "leaves", "tree", "indexes"];

pg_function!(verify_audit);
/// `verify_audit(since, until, since_checkpoint)`: one row per problem.
fn verify_audit(call: &Call) -> Answer {
    let (since, until, from_leaf): (Option<Timestamptz>, Option<Timestamptz>, Option<i64>) = call.arguments();
    let (Some(since), Some(until)) = (since, until) else {
        return Err(Fault::new(Code::InvalidParameterValue, "since and until must not be NULL")
            .hint("Leave them out to verify everything."));
    };
    let always = since == Timestamptz::NEG_INFINITY && until == Timestamptz::INFINITY;
    let state = State::read()?;
    let size = state.as_ref().map_or(0, |state| state.size);
    if from_leaf.is_some_and(|leaf| leaf < 0 || leaf as u64 > size || !always) {
        return Err(Fault::new(
            Code::InvalidParameterValue,
            "since_checkpoint must be the size of a checkpoint, without since and until",
        )
        .detail(format!("The sealed tree has {size} leaves.")));
    }
    let mut verification =
        Verification { rows: call.row_set(), log_id: state::log_id(), state, covered: 0, too_large: Vec::new() };
    match from_leaf {
        Some(leaf) => verification.since_leaf(leaf as u64)?,
        None if always => verification.everything()?,
        None => verification.between(since, until)?,
    }
    verification.protection()?;
    progress::finish();
    info(format!("verify_audit covered {} records", verification.covered));
    Ok(verification.rows.finish())
}

struct Verification<'c> {
    rows: RowSet<'c>,
    log_id: Option<Uuid>,
    state: Option<State>,
    covered: i64,
    /// Records that were too large to be read.
    too_large: Vec<Option<Uuid>>,
}

/// Sums over records.
#[derive(Default)]
struct Sums {
    records: i64,
    true_records: i64,
    digest: i128,
    keys: Vec<String>,
}

/// Rows that are not sealed yet and will be: of transactions that the last seal did not see, without those that a seal
/// in several steps has taken already.
const UNSEALED: &str = "(a.transaction_id >= $2 OR a.transaction_id = ANY ($3)) \
     AND (a.transaction_id >= $4 OR skill_system.audit_leaf_index(a.id) IS NULL) \
     AND ($5::bigint IS NULL OR a.transaction_id >= $5 OR a.transaction_id = ANY ($6) OR (a.transaction_id, a.id) > ($7, $8))";

const NOT_SEALED: &str =
    "the record should have been sealed: it was added behind the server's back, or its transaction_id is not true";

impl Verification<'_> {
    /// A problem of a record: partition, id and created_at are the first columns of the row.
    fn problem_of(&mut self, row: &Row, problem: &str, detail: &str) {
        self.rows.push(&[row.get(1), row.get(2), row.get(3), arg(problem), arg(detail)]);
    }

    /// What `audit_problem()` found of a record; what was too large to be read is reported once.
    fn problem_code_of(&mut self, row: &Row, problem: &str) {
        let id = row.get::<Option<Uuid>>(2);
        if problem != TOO_LARGE || !self.too_large.contains(&id) {
            self.problem_of(row, problem, explain_problem(problem));
        }
        if problem == TOO_LARGE {
            self.too_large.push(id);
        }
    }

    /// Why a record does not hash to its leaf: it is another one, or cannot be read.
    fn mismatch_of(&mut self, row: &Row, leaf: u64) {
        const SQL: &str = concatcp!("SELECT ", PROBLEM, " FROM skill_system.audit_logs a WHERE a.id = $2");
        let args = [arg(self.log_id), row.get(2)];
        let problem = spi::first::<Option<String>>(SQL, As::Caller, See::Statement, &args);
        if problem.flatten().as_deref() == Some(TOO_LARGE) {
            return self.problem_code_of(row, TOO_LARGE);
        }
        let detail = format!("the record is not the one that was sealed as leaf {leaf}");
        self.problem_of(row, "leaf_mismatch", &detail);
    }

    fn problem(&mut self, problem: &str, detail: &str) {
        self.problem_at(None, None, problem, detail);
    }

    fn problem_at(&mut self, table: Option<Oid>, id: Option<Uuid>, problem: &str, detail: &str) {
        self.rows.push(&[arg(table), arg(id), arg(None::<Timestamptz>), arg(problem), arg(detail)]);
    }

    /// `$1` to `$8` of [`UNSEALED`].
    fn unsealed_args(&self) -> Vec<Arg<'static>> {
        let nothing = Snapshot::empty();
        let state = self.state.as_ref();
        let (sealed, target) =
            (state.map_or(&nothing, |state| &state.snapshot), state.and_then(|state| state.target.as_ref()));
        vec![
            arg(self.log_id),
            arg(sealed.xmax),
            arg(sealed.in_progress.clone()),
            arg(state.map_or(0, |state| state.foreign_below)),
            arg(target.map(|(target, ..)| target.xmax)),
            arg(target.map(|(target, ..)| target.in_progress.clone())),
            arg(target.map(|(_, transaction, _)| *transaction)),
            arg(target.map(|(.., id)| Uuid::from_bytes(*id))),
        ]
    }

    fn size(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.size)
    }

    fn everything(&mut self) -> Result<(), Fault> {
        let mut nonce = [0; 32];
        sys::strong_random(&mut nonce);
        let expected = spi::one::<Option<i64>>(
            "SELECT sum(greatest(reltuples, 0))::bigint FROM pg_class WHERE oid IN \
                 (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'skill_system.audit_logs'::regclass)",
            As::Caller,
            See::Statement,
            &[],
        );
        progress::start(0, expected.unwrap_or(0).max(self.size() as i64));
        let all = self.sums(&nonce, "true")?;
        let unsealed = spi::with_settings(&[(c"enable_seqscan", c"off")], || self.sums(&nonce, UNSEALED))?;
        self.covered = all.records;
        if self.log_id.is_none() && all.records > 0 {
            self.problem("log_identity_missing", "audit_state is empty, so no signature can be recomputed");
        }
        if all.true_records < all.records {
            self.wrong_signatures()?;
        }
        self.not_begun()?;
        for key_id in unannounced_keys(&all.keys)? {
            self.problem(
                "key_unannounced",
                &format!("key {key_id} signed records, but no record that a known key signed announces it"),
            );
        }
        let (leaves, digest) = self.tree(&nonce)?;
        // Before the first seal nothing can be compared.
        if self.state.is_some() && (all.records - unsealed.records, all.digest - unsealed.digest) != (leaves, digest) {
            self.leaves_one_by_one(0..self.size())?;
            self.unsealed_for_ever()?;
        }
        self.indexes();
        Ok(())
    }

    fn sums(&self, nonce: &[u8; 32], condition: &str) -> Result<Sums, Fault> {
        let mut sums = Sums::default();
        let mut args = self.unsealed_args();
        args.push(arg(nonce));
        // The aggregate may run in parallel workers. Every condition has the same parameters.
        let sql = format!(
            "SELECT count(*), count(d), sum(d)::text, key_id FROM \
                 (SELECT {RECORD_DIGEST} AS d, key_id FROM skill_system.audit_logs a WHERE {condition}) q \
             WHERE $2 IS NOT NULL AND $3 IS NOT NULL AND $4 IS NOT NULL AND ($5 IS NULL OR $6 IS NOT NULL) \
                 AND ($7 IS NULL OR $8 IS NOT NULL) \
             GROUP BY key_id"
        );
        let found: Vec<(i64, i64, Option<String>, Option<String>)> =
            spi::collect(Once(&sql), As::Caller, See::Statement, &args);
        for (records, true_records, digest, key_id) in found {
            sums.records += records;
            sums.true_records += true_records;
            // NULL where no record is true.
            if let Some(digest) = digest {
                sums.digest += digest.parse::<i128>().map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
            }
            sums.keys.extend(key_id);
        }
        Ok(sums)
    }

    fn wrong_signatures(&mut self) -> Result<(), Fault> {
        const SQL: &str = concatcp!(
            "SELECT * FROM (SELECT a.tableoid, a.id, a.created_at, ",
            PROBLEM,
            " AS problem FROM skill_system.audit_logs a) q WHERE problem IS NOT NULL"
        );
        let log_id = self.log_id;
        spi::stream(SQL, &[arg(log_id)], |row| {
            self.problem_code_of(row, row.get(4));
            Ok(())
        })
    }

    /// Records of transactions that do not exist yet would never be sealed.
    fn not_begun(&mut self) -> Result<(), Fault> {
        // Before the first seal, and after a move, they may be another server's.
        if self.state.as_ref().is_none_or(|state| state.place_change().is_some()) {
            return Ok(());
        }
        const SQL: &str = "SELECT tableoid, id, created_at FROM skill_system.audit_logs \
             WHERE transaction_id >= $1 AND transaction_id IS DISTINCT FROM $2 \
                 AND skill_system.audit_leaf_index(id) IS NULL";
        let args = [arg(state::active_snapshot()?.xmax), arg(state::own_transaction())];
        spi::with_settings(&[(c"enable_seqscan", c"off")], || {
            spi::stream(SQL, &args, |row| {
                self.problem_of(
                    row,
                    "transaction_unknown",
                    "its transaction has not begun yet: the value is not the server's",
                );
                Ok(())
            })
        })
    }

    /// Hashes the tree again from its leaves. Returns their number and the sum over them, without retired ones.
    fn tree(&mut self, nonce: &[u8; 32]) -> Result<(i64, i128), Fault> {
        let Some(state) = self.state.clone() else {
            self.never_sealed();
            return Ok((0, 0));
        };
        progress::start(1, state.size as i64);
        let mut tree = Rebuilt::new(*nonce)?;
        const SQL: &str = "SELECT m.n, m.ids, t.hashes FROM skill_system.audit_map m \
             FULL JOIN skill_system.audit_tiles t ON t.n = m.n AND t.level = 0 \
             WHERE t.level = 0 OR t.level IS NULL ORDER BY coalesce(m.n, t.n)";
        let stored = Tail::start(state.size);
        spi::stream(SQL, &[], |row| {
            let (found, ids, hashes): (Option<i64>, Option<&[u8]>, Option<&[u8]>) = row.read();
            // One of the rows is missing.
            let (ids, hashes) = (ids.unwrap_or_default(), hashes.unwrap_or_default());
            let n = tree.leaf / TILE_WIDTH as u64;
            let expected = stored.saturating_sub(tree.leaf).min(TILE_WIDTH as u64);
            let is_next = found == Some(n as i64);
            tree.add(&format!("tile or map row {n}"), is_next, expected, ids, hashes)?;
            progress::advance(TILE_WIDTH as i64, |done| format!("verify_audit: {done} of {} leaves", state.size));
            Ok(())
        })?;
        tree.add("the tail of audit_seal_state", true, state.size - stored, &state.tail.ids, &state.tail.hashes)?;
        let Rebuilt { appender, leaves, digest, mut damage, .. } = tree;
        let (size, root) = appender.finish(&mut |level, n, hashes| same_tile(level, n, hashes, &mut damage))?;
        for what in &damage {
            self.problem("tile_damaged", what);
        }
        if (size, root) != (state.size, state.root) {
            let detail = format!(
                "the leaves give a tree of {size} with another root than audit_seal_state has for {}",
                state.size
            );
            self.problem("root_mismatch", &detail);
        }
        self.surplus(&state);
        progress::start(2, 0);
        if damage.is_empty() && size == state.size {
            self.checkpoints(&state)?;
        }
        Ok((leaves, digest))
    }

    /// Without `audit_seal_state` no record would ever count as sealed, so nothing else may say that some were.
    fn never_sealed(&mut self) {
        if state::was_sealed() {
            self.problem(
                "seal_missing",
                "audit_seal_state is empty, but the log was sealed: tiles, checkpoints or records say so",
            );
        }
    }

    /// Tiles beyond the end of the tree.
    fn surplus(&mut self, state: &State) {
        let stored = |level: u32| if level == 0 { Tail::start(state.size) } else { state.size >> (8 * level) };
        let expected: i64 = (0..8).map(|level| stored(level).div_ceil(TILE_WIDTH as u64) as i64).sum();
        const SQL: &str = "SELECT count(*) FROM skill_system.audit_tiles";
        let found: i64 = spi::one(SQL, As::Caller, See::Statement, &[]);
        if found != expected {
            self.problem("tile_damaged", &format!("audit_tiles has {found} rows instead of {expected}"));
        }
    }

    fn checkpoints(&mut self, state: &State) -> Result<(), Fault> {
        let (tiles, known) = (StoredTiles::default(), proof::verifier_keys(&proof::origin(state.incarnation)?)?);
        let mut wrong = Vec::new();
        const SQL: &str = "SELECT tree_size, root_hash, note FROM skill_system.audit_checkpoints \
             WHERE incarnation = $1 ORDER BY tree_size";
        spi::stream(SQL, &[arg(state.incarnation)], |row| {
            check_for_interrupts();
            // What is NULL in a table that was tampered with matches nothing.
            let (size, root, note): (Option<i64>, Option<&[u8]>, Option<&str>) = row.read();
            let (size, root) = (size.unwrap_or(-1) as u64, root.unwrap_or_default());
            let note = Checkpoint::verify(note.unwrap_or_default(), &known);
            if !note.as_ref().is_ok_and(|note| note.size == size && note.root == root) {
                let why = note.err().map_or_else(|| "it does not match its row".to_owned(), |error| error.to_string());
                wrong.push(("checkpoint_signature", format!("checkpoint of {size} leaves: {why}")));
            }
            if size > state.size || tree::root(size, &tiles)? != *root {
                wrong.push((
                    "checkpoint_mismatch",
                    format!("the tree is not the one of the checkpoint of {size} leaves"),
                ));
            }
            Ok(())
        })?;
        for (problem, detail) in wrong {
            self.problem(problem, &detail);
        }
        Ok(())
    }

    /// Each of these leaves: its record is there, once, and hashes to it.
    fn leaves_one_by_one(&mut self, range: Range<u64>) -> Result<(), Fault> {
        progress::start(1, (range.end - range.start) as i64);
        const SQL: &str = concatcp!(
            "SELECT a.tableoid, a.id, a.created_at, ",
            LEAF_HASH,
            " FROM skill_system.audit_logs a WHERE a.id = ANY ($2)"
        );
        let retired = retired_leaves()?;
        let width = TILE_WIDTH as u64;
        let mut at = range.start;
        while at < range.end {
            check_for_interrupts();
            let n = at / width;
            let (ids, tile) = (read_ids(n), read_tile(0, n)?.unwrap_or_else(|| [].into()));
            let leaves: Vec<(u64, &[u8], &[u8])> = (n * width..)
                .zip(ids.chunks_exact(ID).zip(tile.chunks_exact(HASH)))
                .map(|(leaf, (id, hash))| (leaf, id, hash))
                .filter(|(leaf, ..)| {
                    (at..range.end).contains(leaf) && !retired.iter().any(|range| range.contains(leaf))
                })
                .collect();
            let wanted: Vec<Uuid> =
                leaves.iter().filter_map(|(_, id, _)| (*id).try_into().ok()).map(Uuid::from_bytes).collect();
            let mut seen = vec![0u32; leaves.len()];
            let log_id = self.log_id;
            spi::each(SQL, As::Caller, See::Statement, &[arg(log_id), arg(wanted)], |row| {
                let id = *row.get::<Uuid>(2).as_bytes();
                for (place, (leaf, _, hash)) in leaves.iter().enumerate().filter(|(_, (_, other, _))| *other == id) {
                    seen[place] += 1;
                    if row.get::<Option<&[u8]>>(4) != Some(hash) {
                        self.mismatch_of(row, *leaf);
                    }
                    if seen[place] == 2 {
                        self.problem_of(row, "record_twice", &format!("leaf {leaf} has more than one record"));
                    }
                }
                Ok(())
            })?;
            for ((leaf, id, _), _) in leaves.iter().zip(&seen).filter(|(_, seen)| **seen == 0) {
                let id = <[u8; ID]>::try_from(*id).ok().map(Uuid::from_bytes);
                let detail = format!("the record of leaf {leaf} was sealed and is gone");
                self.problem_at(None, id, "record_missing", &detail);
            }
            at = (n + 1) * width;
            let done = at.min(range.end);
            progress::advance(width as i64, |_| {
                format!(
                    "verify_audit: leaf {done} of {}; after an interruption go on with since_checkpoint => {done}",
                    range.end
                )
            });
        }
        Ok(())
    }

    /// Records that have no leaf and that no seal will take.
    fn unsealed_for_ever(&mut self) -> Result<(), Fault> {
        const SQL: &str = concatcp!(
            "SELECT a.tableoid, a.id, a.created_at FROM skill_system.audit_logs a WHERE $1 IS NOT NULL AND NOT (",
            UNSEALED,
            ") AND NOT EXISTS (SELECT FROM skill_system.audit_leaves() l WHERE l.record_id = a.id)"
        );
        spi::stream(SQL, &self.unsealed_args(), |row| {
            self.problem_of(row, "record_not_sealed", NOT_SEALED);
            Ok(())
        })
    }

    /// What was sealed from a leaf on, and what is not sealed yet.
    fn since_leaf(&mut self, leaf: u64) -> Result<(), Fault> {
        self.leaves_one_by_one(leaf..self.size())?;
        if let Some(state) = self.state.clone() {
            self.covered = (state.size - leaf) as i64;
            self.checkpoints(&state)?;
            if tree::root(state.size, &StoredTiles::default())? != state.root {
                self.problem("root_mismatch", "the tiles give another root than audit_seal_state has");
            }
        }
        const SQL: &str = concatcp!(
            "SELECT a.tableoid, a.id, a.created_at, ",
            PROBLEM,
            " FROM skill_system.audit_logs a WHERE ",
            UNSEALED
        );
        let args = self.unsealed_args();
        spi::with_settings(&[(c"enable_seqscan", c"off")], || {
            spi::stream(SQL, &args, |row| {
                self.covered += 1;
                if let Some(problem) = row.get(4) {
                    self.problem_code_of(row, problem);
                }
                Ok(())
            })
        })
    }

    /// The records of a time range, and every leaf between the first and the last of them.
    fn between(&mut self, since: Timestamptz, until: Timestamptz) -> Result<(), Fault> {
        progress::start(0, 0);
        const SQL: &str = concatcp!(
            "SELECT a.tableoid, a.id, a.created_at, ",
            PROBLEM,
            ", ",
            UNSEALED,
            " FROM skill_system.audit_logs a WHERE a.created_at >= $9 AND a.created_at < $10"
        );
        let mut args = self.unsealed_args();
        args.extend([arg(since), arg(until)]);
        let (mut finder, mut first, mut end) = (LeafFinder::default(), u64::MAX, 0);
        spi::stream(SQL, &args, |row| {
            progress::advance(1, |done| format!("verify_audit: {done} records"));
            self.covered += 1;
            if let Some(problem) = row.get(4) {
                self.problem_code_of(row, problem);
            }
            if self.state.is_none() || row.get::<Option<bool>>(5) == Some(true) {
                return Ok(());
            }
            match row.get::<Option<Uuid>>(2).and_then(|id| finder.find(id.as_bytes())) {
                None => self.problem_of(row, "record_not_sealed", NOT_SEALED),
                Some(leaf) => (first, end) = (first.min(leaf), end.max(leaf + 1)),
            }
            Ok(())
        })?;
        if first < end { self.leaves_one_by_one(first..end) } else { Ok(()) }
    }

    /// Each partition's key has the rows of its table: an index that leaves some out would hide them from queries.
    fn indexes(&mut self) {
        let partitions: Vec<(Oid, String, i64)> = spi::collect(
            "SELECT c.oid, c.oid::regclass::text, greatest(c.reltuples, 0)::bigint FROM pg_inherits h \
                 JOIN pg_class c ON c.oid = h.inhrelid \
             WHERE h.inhparent = 'skill_system.audit_logs'::regclass AND c.relkind = 'r'",
            As::Caller,
            See::Statement,
            &[],
        );
        progress::start(3, partitions.iter().map(|(.., rows)| rows).sum());
        let mut seed = [0; 8];
        sys::strong_random(&mut seed);
        let seed = i64::from_be_bytes(seed);
        for (oid, name, rows) in partitions {
            let sql = format!("SELECT count(*), sum(uuid_hash_extended(id, $1))::text FROM {name}");
            let sum = |settings: &[_]| -> (i64, Option<String>) {
                spi::with_settings(settings, || spi::one(Once(&sql), As::Caller, See::Statement, &[arg(seed)]))
            };
            let heap = sum(&[
                (c"enable_indexscan", c"off"),
                (c"enable_indexonlyscan", c"off"),
                (c"enable_bitmapscan", c"off"),
            ]);
            let index = sum(&[(c"enable_seqscan", c"off"), (c"enable_bitmapscan", c"off")]);
            if heap != index {
                let detail = format!(
                    "the index of the primary key finds {} records, the table has {}: REINDEX it",
                    index.0, heap.0
                );
                self.problem_at(Some(oid), None, "index_mismatch", &detail);
            }
            progress::advance(rows, |_| format!("verify_audit: index of {name}"));
        }
    }

    fn protection(&mut self) -> Result<(), Fault> {
        for problem in protection::problems() {
            self.problem_at(problem.table, None, "protection_missing", &problem.detail);
        }
        let moved = match &self.state {
            Some(state) => state.place_change(),
            // What is lost is named elsewhere.
            None => State::first()?.filter(|state| !state.lost).and_then(|state| state.place_change()),
        };
        if let Some(how) = moved {
            self.problem("sealed_elsewhere", &how);
        }
        Ok(())
    }
}

/// A tree that is hashed again from its leaves.
struct Rebuilt {
    appender: Appender,
    retired: Vec<Range<u64>>,
    nonce: [u8; 32],
    /// Leaves so far.
    leaf: u64,
    /// The same without retired ones, and the sum over them.
    leaves: i64,
    digest: i128,
    damage: Vec<String>,
}

impl Rebuilt {
    fn new(nonce: [u8; 32]) -> Result<Self, Fault> {
        let appender = Appender::resume(0, &StoredTiles::default())?;
        Ok(Rebuilt { appender, retired: retired_leaves()?, nonce, leaf: 0, leaves: 0, digest: 0, damage: Vec::new() })
    }

    /// The next leaves, as they lie in `place`, which should have `expected`.
    fn add(&mut self, place: &str, is_next: bool, expected: u64, ids: &[u8], hashes: &[u8]) -> Result<(), Fault> {
        let found = (ids.len() / ID, hashes.len() / HASH);
        if !is_next || found != (expected as usize, expected as usize) {
            self.damage.push(format!("{place}: {} ids and {} hashes instead of {expected} each", found.0, found.1));
        }
        for (id, hash) in ids.chunks_exact(ID).zip(hashes.chunks_exact(HASH)) {
            let (Ok(id), Ok(hash)) = (<&[u8; ID]>::try_from(id), <&Hash>::try_from(hash)) else { continue };
            if !self.retired.iter().any(|range| range.contains(&self.leaf)) {
                self.leaves += 1;
                self.digest += i128::from(leaf_digest(&self.nonce, id, hash));
            }
            let damage = &mut self.damage;
            self.appender.push(hash, &mut |level, n, hashes| same_tile(level, n, hashes, damage))?;
            self.leaf += 1;
        }
        Ok(())
    }
}

/// Compares a tile with the stored one, which may have grown since.
fn same_tile(level: u8, n: u64, hashes: &[u8], damage: &mut Vec<String>) -> Result<(), Fault> {
    if !read_tile(level, n)?.is_some_and(|stored| stored.starts_with(hashes)) {
        damage.push(format!("tile {n} of level {level} does not fit the leaves below it"));
    }
    Ok(())
}

pg_function!(audit_verify_progress);
/// `audit_verify_progress_entries()`: one row for each process that verifies.
fn audit_verify_progress(call: &Call) -> Answer {
    let mut rows = call.row_set();
    for entry in progress::entries() {
        rows.push(&[arg(entry.pid), arg(PHASES.get(entry.phase).copied()), arg(entry.done), arg(entry.total)]);
    }
    Ok(rows.finish())
}
