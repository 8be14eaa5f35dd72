//! Sealing: committed records become leaves of the tree.
//!
//! What is new is the difference of two snapshots: records of transactions that the last one did not see and this one
//! does. So nobody waits for anybody, no record is lost that commits late, and none is taken twice.

use std::time::Duration;

use const_format::concatcp;
use serde_json::json;
use skill_core::ledger::snapshot::Snapshot;
use skill_core::tree::{Appender, EMPTY_ROOT, TILE_WIDTH};
use skill_core::{Code, Fault};
use skill_pg::lock;
use skill_pg::spi::{self, As, Once, See};
use skill_pg::{Answer, Arg, Call, Interval, Oid, Timestamptz, Uuid, arg, fault_point, pg_function, sys};

use super::growth;
use super::state::{self, State, Tail};
use super::tiles::{self, HASH, ID, LeafFinder, StoredTiles};
use crate::audit::bypass::{self, Bypass};
use crate::audit::{self, LEAF_HASH, protection};
use crate::locks;

/// An idle log is sealed this often all the same, in microseconds: a stretch without any leaf could hide a removal.
const HEARTBEAT: i64 = 60_000_000;

/// How long those that are to leave nothing unsealed wait for a seal under way; a smaller lock_timeout counts.
pub fn busy_wait() -> Duration {
    lock::wait_of(Duration::from_secs(5))
}

/// What one step of sealing did.
#[derive(Debug)]
pub enum Step {
    /// Another session seals now: which.
    Busy(String),
    /// Nothing has been recorded yet.
    Empty,
    /// How many records were sealed, and the state then.
    Sealed {
        /// Leaves added.
        sealed: u64,
        /// After it.
        state: Box<State>,
        /// The transactions that had not ended.
        snapshot: Snapshot,
    },
}

/// Seals in the current transaction, at most `max_rows` records, once no other session does or `wait` is over.
pub fn seal_step(max_rows: Option<i64>, wait: Duration) -> Result<Step, Fault> {
    sys::prevent_if_read_only(c"seal_audit()");
    if !try_lock(wait) {
        return Ok(Step::Busy(sealing_session()));
    }
    // From here on nobody else changes the state, so a snapshot taken now sees its last version.
    spi::with_latest_snapshot(|| {
        let Some(log_id) = spi::as_owner(identity)? else {
            return Ok(Step::Empty);
        };
        let mut run = Run::begin(log_id, max_rows)?;
        if spi::as_owner(|| bypass::with(Bypass::Sealing, || run.seal()))? {
            // Not before: the end of `as_owner` takes back what was set in it.
            spi::commit_synchronously();
        }
        run.record()?;
        fault_point::reached("seal_recorded");
        Ok(Step::Sealed { sealed: run.state.size - run.before, state: Box::new(run.state), snapshot: run.snapshot })
    })
}

/// Keeps others from changing the state of the seal; false when another session still does after `wait`.
pub fn try_lock(wait: Duration) -> bool {
    sys::hold_extension();
    locks::try_acquire(c"audit_seal_state", &[], wait, "the sealing of the audit log")
}

fn sealing_session() -> String {
    locks::holder(c"audit_seal_state", &[]).map_or_else(
        || "another session is sealing".to_owned(),
        |holder| format!("another session is sealing: {holder}"),
    )
}

/// The log's identity; `None` before the first record.
fn identity() -> Result<Option<Uuid>, Fault> {
    let id = state::log_id();
    const RECORDS: &str = "SELECT EXISTS (SELECT FROM skill_system.audit_logs)";
    if id.is_none() && spi::one(RECORDS, As::Caller, See::Statement, &[]) {
        return Err(state::identity_lost());
    }
    Ok(id)
}

/// One step of sealing.
struct Run {
    log_id: Uuid,
    state: State,
    /// Leaves before the step.
    before: u64,
    /// The transactions that have not ended now.
    snapshot: Snapshot,
    /// How many records may still be sealed.
    left: Option<i64>,
    is_first: bool,
    /// The protection, where it is not as last recorded.
    changed_protection: Option<serde_json::Value>,
}

impl Run {
    fn begin(log_id: Uuid, max_rows: Option<i64>) -> Result<Self, Fault> {
        let (is_first, found) = spi::as_owner(|| {
            let found = State::read()?;
            Ok::<_, Fault>((found.is_none(), if found.is_some() { found } else { State::first()? }))
        })?;
        let mut state = found.ok_or_else(state::identity_lost)?;
        state.check_place()?;
        fault_point::reached("seal_begun");
        let snapshot = state::active_snapshot()?;
        let (protection, fingerprint) = spi::as_owner(protection::fingerprint);
        let changed = state.fingerprint.as_deref() != Some(&fingerprint);
        let changed_protection = changed.then(|| json!({"sha256": hex::encode(fingerprint), "state": protection}));
        state.fingerprint = Some(fingerprint.to_vec());
        Ok(Run { log_id, before: state.size, state, snapshot, left: max_rows, is_first, changed_protection })
    }

    /// Appends the leaves and writes the state, where it changed; tells whether it did.
    fn seal(&mut self) -> Result<bool, Fault> {
        let was_under_way = self.state.target.is_some();
        let mut leaves = Leaves::resume(self.state.size)?;
        if self.is_first {
            leaves.push_restored(&mut self.state, &self.snapshot)?;
        }
        if was_under_way {
            self.seal_batch(&mut leaves)?;
        }
        if self.state.target.is_none() && self.left != Some(0) {
            self.seal_batch(&mut leaves)?;
        }
        fault_point::reached("leaves_read");
        let has_grown = leaves.size > self.before;
        let is_changed = has_grown || self.is_first || self.changed_protection.is_some() || was_under_way;
        if is_changed {
            if has_grown {
                self.state.sealed_at = sys::clock_timestamp();
            }
            leaves.finish(&mut self.state)?;
            fault_point::reached("tiles_written");
            self.state.write();
            growth::tree_grew();
            fault_point::reached("state_written");
            summarize_index();
        }
        Ok(is_changed)
    }

    /// Seals the records between the state's snapshot and its target (or now), and moves the state on.
    fn seal_batch(&mut self, leaves: &mut Leaves) -> Result<(), Fault> {
        let before = leaves.size;
        let (target, position) = match self.state.target.take() {
            Some((target, transaction, id)) => (target, Some((transaction, id))),
            None => (self.snapshot.clone(), None),
        };
        let cut = Cut { from: &self.state.snapshot, to: &target, position, foreign_below: self.state.foreign_below };
        let mut last = None;
        // Kept off: a plan that reads the whole table where the index on transactions would do.
        spi::with_settings(&[(c"enable_seqscan", c"off"), (c"work_mem", c"64MB"), (c"jit", c"off")], || {
            spi::stream(Once(&cut.query(self.left)), &cut.args(self.log_id), |row| {
                // Only a table that was tampered with has NULLs; verification reports them.
                if let (Some(transaction), Some(id), Some(hash)) =
                    row.read::<(Option<i64>, Option<Uuid>, Option<&[u8]>)>()
                {
                    leaves.push(id.as_bytes(), tiles::as_hash(hash)?)?;
                    last = Some((transaction, *id.as_bytes()));
                }
                Ok(())
            })
        })?;
        let added = leaves.size - before;
        if let Some(left) = &mut self.left {
            *left -= added as i64;
            if let Some((transaction, id)) = last.filter(|_| *left == 0) {
                self.state.target = Some((target, transaction, id));
                return Ok(());
            }
        }
        // Without a new leaf the snapshot may stay, which saves a write a second in an idle database.
        if added > 0 || position.is_some() {
            self.state.snapshot = target;
        }
        Ok(())
    }

    /// Writes records of the log about itself. They are sealed with the next step, as everything that this transaction
    /// writes.
    fn record(&mut self) -> Result<(), Fault> {
        if let Some(data) = self.changed_protection.take() {
            audit::append_system("audit.fingerprint", data)?;
        }
        let state = &self.state;
        let idle = sys::clock_timestamp().0 - state.sealed_at.0;
        if state.size == self.before && state.size > 0 && idle >= HEARTBEAT {
            let data = json!({"tree_size": state.size, "root_hash": hex::encode(state.root)});
            audit::append_system("audit.heartbeat", data)?;
        }
        Ok(())
    }
}

/// Lets the index on transactions know the newest pages, or the next seal would read them all again.
fn summarize_index() {
    let indexes: Vec<(Oid, Oid)> = spi::collect(
        "SELECT i.indexrelid, i.indrelid FROM pg_inherits h JOIN pg_index i ON i.indrelid = h.inhrelid \
             JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
         WHERE h.inhparent = 'skill_system.audit_logs'::regclass AND m.amname = 'brin'",
        As::Caller,
        See::Statement,
        &[],
    );
    for (index, partition) in indexes {
        // Never waiting for a VACUUM, which would be cancelled for it.
        if sys::try_lock(partition) {
            const SQL: &str = "SELECT brin_summarize_new_values($1::regclass)";
            spi::execute(SQL, As::Caller, See::OwnWrites, &[arg(index)]);
        }
    }
}

/// Seals the records that no seal would take, because their transaction id is not the server's: put there behind the
/// signing trigger's back, or restored after the log was adopted. Looks into the whole table, or into the newest
/// partition only. Returns how many were found; each such find is recorded as audit.sealed_late.
pub fn sweep(newest_only: bool) -> Result<u64, Fault> {
    sys::prevent_if_read_only(c"sealing");
    if !try_lock(Duration::ZERO) {
        return Ok(0);
    }
    spi::with_latest_snapshot(|| {
        let Some(mut state) = spi::as_owner(State::read)?.filter(|state| state.target.is_none()) else {
            return Ok(0);
        };
        state.check_place()?;
        let late = Late { before: state.snapshot.clone(), now: state::active_snapshot()? };
        if !spi::as_owner(|| late.any(newest_only))? {
            return Ok(0);
        }
        let before = state.size;
        let ids = spi::as_owner(|| {
            bypass::with(Bypass::Sealing, || {
                let mut leaves = Leaves::resume(state.size)?;
                let ids = leaves.push_unmapped(LATE, &late.args())?;
                leaves.finish(&mut state)?;
                state.expect_foreign();
                state.sealed_at = sys::clock_timestamp();
                state.write();
                Ok::<_, Fault>(ids)
            })
        })?;
        fault_point::reached("late_written");
        spi::commit_synchronously();
        growth::tree_grew();
        let count = state.size - before;
        audit::append_system("audit.sealed_late", json!({"count": count, "first_leaf": before, "first_ids": ids}))?;
        Ok(count)
    })
}

/// Visible rows that were sealed, or do not exist yet, by their transaction id.
const LATE: &str = "((a.transaction_id < $2 AND a.transaction_id <> ALL ($3)) OR a.transaction_id >= $4) \
     AND a.transaction_id IS DISTINCT FROM $5";

struct Late {
    before: Snapshot,
    now: Snapshot,
}

impl Late {
    /// `$2` to `$5` of [`LATE`]; the last is this transaction, whose records the next seal takes.
    fn args(&self) -> Vec<Arg<'static>> {
        let own = state::own_transaction();
        vec![arg(self.before.xmax), arg(self.before.in_progress.clone()), arg(self.now.xmax), arg(own)]
    }

    /// Some of them have no leaf.
    fn any(&self, newest_only: bool) -> Result<bool, Fault> {
        const NEWEST: &str =
            "a.tableoid = (SELECT tableoid FROM skill_system.audit_logs ORDER BY created_at DESC LIMIT 1) AND ";
        const SELECT: &str = "SELECT a.id FROM skill_system.audit_logs a WHERE ";
        const IN_NEWEST: &str = concatcp!(SELECT, NEWEST, "$1 IS NULL AND ", LATE);
        const IN_ALL: &str = concatcp!(SELECT, "$1 IS NULL AND ", LATE);
        let mut finder = LeafFinder::default();
        let mut found = false;
        let mut args = vec![arg(None::<i32>)];
        args.extend(self.args());
        spi::stream(if newest_only { IN_NEWEST } else { IN_ALL }, &args, |row| {
            found = found || row.get::<Option<Uuid>>(1).is_some_and(|id| finder.find(id.as_bytes()).is_none());
            Ok(())
        })?;
        Ok(found)
    }
}

/// Rows that a seal takes: of transactions that had not ended in one snapshot and have in another. All of them are
/// visible, because the other snapshot is not younger than the one that reads.
const CUT: &str = "(a.transaction_id >= $2 OR a.transaction_id = ANY ($3)) \
     AND a.transaction_id < $4 AND a.transaction_id <> ALL ($5) \
     AND (a.transaction_id >= $6 OR skill_system.audit_leaf_index(a.id) IS NULL) \
     AND ($7::bigint IS NULL OR (a.transaction_id, a.id) > ($7, $8))";

struct Cut<'s> {
    from: &'s Snapshot,
    to: &'s Snapshot,
    position: Option<(i64, [u8; ID])>,
    foreign_below: i64,
}

impl Cut<'_> {
    /// The query for the next records to seal.
    fn query(&self, limit: Option<i64>) -> String {
        const SQL: &str = concatcp!(
            "SELECT a.transaction_id, a.id, ",
            LEAF_HASH,
            " FROM skill_system.audit_logs a WHERE ",
            CUT,
            " ORDER BY a.transaction_id, a.id"
        );
        limit.map_or(SQL.to_owned(), |limit| format!("{SQL} LIMIT {limit}"))
    }

    fn args(&self, log_id: Uuid) -> Vec<Arg<'static>> {
        vec![
            arg(log_id),
            arg(self.from.xmax),
            arg(self.from.in_progress.clone()),
            arg(self.to.xmax),
            arg(self.to.in_progress.clone()),
            arg(self.foreign_below),
            arg(self.position.map(|(transaction, _)| transaction)),
            arg(self.position.map(|(_, id)| Uuid::from_bytes(id))),
        ]
    }
}

/// Appends leaves to the stored tree and map.
pub struct Leaves {
    appender: Appender,
    ids: Vec<u8>,
    /// Leaves so far.
    pub size: u64,
    resumed_at: u64,
}

impl Leaves {
    /// Goes on after leaf `size - 1`.
    pub fn resume(size: u64) -> Result<Self, Fault> {
        let appender = Appender::resume(size, &StoredTiles::default())?;
        let partial = size as usize % TILE_WIDTH;
        let mut ids = if partial == 0 { Vec::new() } else { tiles::read_ids(size / TILE_WIDTH as u64) };
        if ids.len() != partial * ID {
            return Err(Fault::new(Code::DataCorrupted, "the last row of audit_map does not fit the size of the tree")
                .detail(format!("It has {} ids instead of {partial}.", ids.len() / ID)));
        }
        ids.reserve(TILE_WIDTH * ID - ids.len());
        Ok(Leaves { appender, ids, size, resumed_at: size })
    }

    /// The next leaf.
    pub fn push(&mut self, id: &[u8; ID], hash: &[u8; tiles::HASH]) -> Result<(), Fault> {
        self.appender.push(hash, &mut write)?;
        self.ids.extend_from_slice(id);
        self.size += 1;
        if self.ids.len() == TILE_WIDTH * ID {
            tiles::write_ids(self.size / TILE_WIDTH as u64 - 1, &self.ids);
            self.ids.clear();
        }
        Ok(())
    }

    /// Every visible row, aliased `a`, that is not a leaf yet and fulfils a condition on `$2` and further. Returns the first ids.
    pub fn push_unmapped(&mut self, condition: &str, args: &[Arg]) -> Result<Vec<String>, Fault> {
        let sql = format!(
            "SELECT a.id, {LEAF_HASH} FROM skill_system.audit_logs a WHERE {condition} \
                 AND NOT EXISTS (SELECT FROM skill_system.audit_leaves() l WHERE l.record_id = a.id) \
             ORDER BY a.transaction_id, a.id"
        );
        let mut all = vec![arg(state::log_id())];
        all.extend_from_slice(args);
        let mut first = Vec::new();
        spi::with_settings(&[(c"work_mem", c"64MB"), (c"jit", c"off")], || {
            spi::stream(Once(&sql), &all, |row| {
                if let (Some(id), Some(hash)) = row.read::<(Option<Uuid>, Option<&[u8]>)>() {
                    self.push(id.as_bytes(), tiles::as_hash(hash)?)?;
                    if first.len() < 100 {
                        first.push(id.to_string());
                    }
                }
                Ok(())
            })
        })?;
        Ok(first)
    }

    /// Records from another server, whose transaction ids are still to come in this one, when nothing was sealed before.
    fn push_restored(&mut self, state: &mut State, now: &Snapshot) -> Result<(), Fault> {
        let own = state::own_transaction();
        self.push_unmapped(
            "a.transaction_id >= $2 AND a.transaction_id IS DISTINCT FROM $3",
            &[arg(now.xmax), arg(own)],
        )?;
        if self.size > self.resumed_at {
            state.expect_foreign();
        }
        Ok(())
    }

    /// Writes what is not written yet, and what the state has of the tree: size, root and tail.
    pub fn finish(self, state: &mut State) -> Result<(), Fault> {
        let (ids, n) = (self.ids, self.size / TILE_WIDTH as u64);
        let kept = ids.len() / ID / Tail::LEAVES * Tail::LEAVES;
        let has_grown = Tail::start(self.size) > Tail::start(self.resumed_at);
        if has_grown && kept > 0 {
            tiles::write_ids(n, &ids[..kept * ID]);
        }
        fault_point::reached("map_written");
        let mut tail = (self.size > self.resumed_at).then(Tail::default);
        (state.size, state.root) = self.appender.finish(&mut |level, n, hashes| {
            if level > 0 {
                return write(level, n, hashes);
            }
            tail = Some(Tail::of(&ids, hashes));
            if has_grown && kept > 0 {
                tiles::write_tile(level, n, &hashes[..kept * HASH]);
            }
            Ok(())
        })?;
        if let Some(tail) = tail {
            state.tail = tail;
        }
        Ok(())
    }
}

fn write(level: u8, n: u64, hashes: &[u8]) -> Result<(), Fault> {
    tiles::write_tile(level, n, hashes);
    Ok(())
}

pg_function!(seal_audit);
/// `seal_audit(max_rows)` → what was sealed and what is left.
fn seal_audit(call: &Call) -> Answer {
    let max_rows: Option<i32> = call.arguments();
    lock::prevent_in_transaction_block("seal_audit()");
    if max_rows.is_some_and(|rows| rows < 1) {
        return Err(Fault::new(Code::InvalidParameterValue, "max_rows must be at least 1")
            .hint("Leave it out to seal everything."));
    }
    let (mut sealed, mut left, mut blocked_by) = (0, (Some(0), None), None);
    let wait = if max_rows.is_none() { busy_wait() } else { Duration::ZERO };
    let (size, root) = match seal_step(max_rows.map(i64::from), wait)? {
        Step::Sealed { sealed: added, state, snapshot } => {
            sealed = added;
            let (count, age) = unsealed(&state, &snapshot);
            left = (Some(count), age);
            blocked_by = oldest_open(&snapshot);
            (state.size, state.root)
        }
        Step::Empty => (0, EMPTY_ROOT),
        Step::Busy(who) => {
            // What it leaves is not known yet.
            left = (None, None);
            blocked_by = Some(who);
            let state = spi::with_latest_snapshot(|| spi::as_owner(State::read))?;
            state.map_or((0, EMPTY_ROOT), |state| (state.size, state.root))
        }
    };
    let (unsealed, age) = left;
    let mut rows = call.row_set();
    rows.push(&[arg(sealed as i64), arg(size as i64), arg(&root), arg(unsealed), arg(age), arg(blocked_by)]);
    Ok(rows.finish())
}

/// How many committed records a seal in several steps has still before it, and how old the oldest is.
fn unsealed(state: &State, now: &Snapshot) -> (i64, Option<Interval>) {
    let Some((target, transaction, id)) = &state.target else {
        return (0, None);
    };
    let cuts = [
        Cut {
            from: &state.snapshot,
            to: target,
            position: Some((*transaction, *id)),
            foreign_below: state.foreign_below,
        },
        Cut { from: target, to: now, position: None, foreign_below: state.foreign_below },
    ];
    // Every cut has the same parameters, the first of which only the leaf hash needs.
    const SQL: &str =
        concatcp!("SELECT count(*), min(a.recorded_at) FROM skill_system.audit_logs a WHERE $1 IS NOT NULL AND ", CUT);
    let (mut count, mut oldest) = (0, None::<Timestamptz>);
    for cut in cuts {
        let args = cut.args(Uuid::from_bytes([0; 16]));
        let (records, first): (i64, Option<Timestamptz>) =
            spi::with_settings(&[(c"enable_seqscan", c"off"), (c"jit", c"off")], || {
                spi::one(SQL, As::Owner, See::Statement, &args)
            });
        count += records;
        oldest = oldest.into_iter().chain(first).min();
    }
    (count, oldest.map(|oldest| Interval { micros: sys::clock_timestamp().0 - oldest.0 }))
}

/// Why the log may not be sealed as it should be, for `health()`.
pub fn backlog() -> Result<Option<String>, Fault> {
    let state = spi::as_owner(|| {
        identity()?;
        State::read_or_first()
    })?;
    if let Some(how) = state.as_ref().and_then(State::place_change) {
        return Ok(Some(format!("nothing is sealed before adopt_log(): {how}")));
    }
    let from = state.map_or_else(Snapshot::empty, |state| state.snapshot);
    const SQL: &str = "SELECT EXISTS (SELECT FROM skill_system.audit_logs \
         WHERE (transaction_id >= $1 OR transaction_id = ANY ($2)) AND recorded_at < now() - interval '5 minutes')";
    let waiting = spi::with_settings(&[(c"enable_seqscan", c"off")], || {
        spi::one::<bool>(SQL, As::Owner, See::Statement, &[arg(from.xmax), arg(from.in_progress)])
    });
    Ok(waiting.then(|| "records older than five minutes are not sealed yet".to_owned()))
}

/// The open transaction that began first: its records cannot be sealed before it ends.
fn oldest_open(snapshot: &Snapshot) -> Option<String> {
    let own = state::own_transaction();
    let oldest = snapshot.in_progress.iter().copied().find(|id| Some(*id) != own)?;
    Some(spi::one(include_str!("describe_transaction.sql"), As::Owner, See::Statement, &[arg(oldest)]))
}
