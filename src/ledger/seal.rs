//! Sealing: committed records become leaves of the tree.
//!
//! What is new is the difference of two snapshots: records of transactions that the last one did not see and this one
//! does. So nobody waits for anybody, no record is lost that commits late, and none is taken twice.

use pgrx::datum::{Interval, IntoDatum};
use pgrx::pg_sys;
use skill_core::ledger::tree::{Appender, TILE_WIDTH};
use skill_core::{Code, Fault};

use super::state::{self, Snapshot, State};
use super::tiles::{self, ID, LeafFinder, StoredTiles};
use crate::audit::protection;
use crate::audit::{self, LEAF_HASH};
use crate::pg::cache::{self, Opened};
use crate::pg::call::{Answer, Call, bytea_datum};
use crate::pg::error::OrRaise;
use crate::pg::fault_point;
use crate::pg::spi::{self, Access, Arg, arg};
use crate::pg::sys;
use crate::pg_function;

/// An idle log is sealed this often all the same, in microseconds: a stretch without any leaf could hide a removal.
const HEARTBEAT: i64 = 60_000_000;

/// What one step of sealing did.
#[derive(Debug)]
pub enum Step {
    /// Another session seals now.
    Busy,
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

/// Seals in the current transaction, at most `max_rows` records.
pub fn seal_step(max_rows: Option<i64>) -> Result<Step, Fault> {
    sys::prevent_if_read_only(c"seal_audit()");
    sys::hold_extension();
    if !sys::try_lock(sys::relation(c"audit_seal_state")) {
        return Ok(Step::Busy);
    }
    // From here on nobody else changes the state, so a snapshot taken now sees its last version.
    spi::with_latest_snapshot(|| {
        let Some(log_id) = spi::as_owner(state::log_id) else {
            return Ok(Step::Empty);
        };
        let found = spi::as_owner(State::read)?;
        let first = found.is_none();
        let mut state = found.unwrap_or_else(State::first);
        state.check_place()?;
        fault_point::reached("seal_begun");
        let snapshot = state::active_snapshot()?;
        let before = state.size;
        let under_way = state.target.is_some();
        let mut left = max_rows;
        let (protection, fingerprint) = spi::as_owner(protection::fingerprint);
        let changed = state.fingerprint.as_deref() != Some(&fingerprint);
        state.fingerprint = Some(fingerprint.to_vec());
        spi::as_owner(|| {
            cache::opening(Opened::Sealing, || {
                let mut leaves = Leaves::resume(state.size)?;
                if first {
                    leaves.push_restored(&mut state, &snapshot)?;
                }
                if state.target.is_some() {
                    seal_batch(&mut state, &mut leaves, log_id, &snapshot, &mut left)?;
                }
                if state.target.is_none() && left != Some(0) {
                    seal_batch(&mut state, &mut leaves, log_id, &snapshot, &mut left)?;
                }
                fault_point::reached("leaves_read");
                if leaves.size > before || first || changed || under_way {
                    if leaves.size > before {
                        state.sealed_at = sys::clock_timestamp();
                    }
                    (state.size, state.root) = leaves.finish()?;
                    fault_point::reached("tiles_written");
                    state.write();
                    spi::commit_synchronously();
                    cache::tree_grew();
                    fault_point::reached("state_written");
                    summarize_index();
                }
                Ok::<_, Fault>(())
            })
        })?;
        // Sealed with the next step, as everything that this transaction writes.
        if changed {
            let data = serde_json::json!({"sha256": hex::encode(fingerprint), "state": protection});
            audit::append_system("audit.fingerprint", data);
        }
        if state.size == before && state.size > 0 && sys::clock_timestamp() - state.sealed_at >= HEARTBEAT {
            let data = serde_json::json!({"tree_size": state.size, "root_hash": hex::encode(state.root)});
            audit::append_system("audit.heartbeat", data);
        }
        fault_point::reached("seal_recorded");
        Ok(Step::Sealed { sealed: state.size - before, state: Box::new(state), snapshot })
    })
}

/// Seals the records between the state's snapshot and its target (or `now`), and moves the state on.
fn seal_batch(
    state: &mut State,
    leaves: &mut Leaves,
    log_id: pgrx::Uuid,
    now: &Snapshot,
    left: &mut Option<i64>,
) -> Result<(), Fault> {
    let before = leaves.size;
    let (target, position) = match state.target.take() {
        Some((target, transaction, id)) => (target, Some((transaction, id))),
        None => (now.clone(), None),
    };
    let cut = Cut { from: &state.snapshot, to: &target, position, foreign_below: state.foreign_below };
    let mut sql = format!(
        "SELECT a.transaction_id, a.id, {LEAF_HASH} FROM skill_system.audit_logs a WHERE {CUT} ORDER BY a.transaction_id, a.id"
    );
    if let Some(left) = *left {
        sql.push_str(&format!(" LIMIT {left}"));
    }
    let mut last = None;
    // Kept off: a plan that reads the whole table where the index on transactions would do.
    spi::with_settings(&[(c"enable_seqscan", c"off"), (c"work_mem", c"64MB"), (c"jit", c"off")], || {
        spi::stream(&sql, &cut.args(log_id), |row| {
            let id: Option<pgrx::Uuid> = row.get(2);
            let (Some(transaction), Some(id), Some(hash)) =
                (row.get::<i64>(1), id, row.bytes(3).and_then(|hash| hash.try_into().ok()))
            else {
                return;
            };
            leaves.push(id.as_bytes(), hash).or_raise();
            last = Some((transaction, *id.as_bytes()));
        });
    });
    let added = leaves.size - before;
    if let Some(left) = left {
        *left -= added as i64;
        if let Some((transaction, id)) = last.filter(|_| *left == 0) {
            state.target = Some((target, transaction, id));
            return Ok(());
        }
    }
    // Without a new leaf the snapshot may stay, which saves a write a second in an idle database.
    if added > 0 || position.is_some() {
        state.snapshot = target;
    }
    Ok(())
}

/// Lets the index on transactions know the newest pages, or the next seal would read them all again.
fn summarize_index() {
    let mut indexes = Vec::new();
    spi::run(
        "SELECT i.indexrelid, i.indrelid FROM pg_inherits h JOIN pg_index i ON i.indrelid = h.inhrelid JOIN pg_class c ON c.oid = i.indexrelid \
             JOIN pg_am m ON m.oid = c.relam WHERE h.inhparent = 'skill_system.audit_logs'::regclass AND m.amname = 'brin'",
        Access::Read,
        &[],
        |row| indexes.extend(row.get::<pg_sys::Oid>(1).zip(row.get::<pg_sys::Oid>(2))),
    );
    for (index, partition) in indexes {
        // Never waiting for a VACUUM, which would be cancelled for it.
        if sys::try_lock(partition) {
            spi::run("SELECT brin_summarize_new_values($1::regclass)", Access::Write, &[arg(index)], |_| ());
        }
    }
}

/// Seals the records that no seal would take, because their transaction id is not the server's: put there behind the
/// signing trigger's back, or restored after the log was adopted. Looks into the whole table, or into the newest
/// partition only. Returns how many there were; each such find is recorded as audit.sealed_late.
pub fn sweep(newest_only: bool) -> Result<u64, Fault> {
    sys::prevent_if_read_only(c"sealing");
    sys::hold_extension();
    if !sys::try_lock(sys::relation(c"audit_seal_state")) {
        return Ok(0);
    }
    spi::with_latest_snapshot(|| {
        let Some(mut state) = spi::as_owner(State::read)?.filter(|state| state.target.is_none()) else {
            return Ok(0);
        };
        state.check_place()?;
        let late = Late { before: state.snapshot.clone(), now: state::active_snapshot()? };
        if !spi::as_owner(|| late.any(newest_only)) {
            return Ok(0);
        }
        let before = state.size;
        let ids = spi::as_owner(|| {
            cache::opening(Opened::Sealing, || {
                let mut leaves = Leaves::resume(state.size)?;
                let ids = leaves.push_unmapped(LATE, &late.args())?;
                (state.size, state.root) = leaves.finish()?;
                state.expect_foreign();
                state.sealed_at = sys::clock_timestamp();
                state.write();
                Ok::<_, Fault>(ids)
            })
        })?;
        fault_point::reached("late_written");
        spi::commit_synchronously();
        cache::tree_grew();
        let count = state.size - before;
        audit::append_system(
            "audit.sealed_late",
            serde_json::json!({"count": count, "first_leaf": before, "first_ids": ids}),
        );
        Ok(count)
    })
}

/// Visible rows whose transaction id says that they were sealed, or that they do not exist yet.
const LATE: &str = "((a.transaction_id < $2 AND a.transaction_id <> ALL ($3)) OR a.transaction_id >= $4) AND a.transaction_id IS DISTINCT FROM $5";

struct Late {
    before: Snapshot,
    now: Snapshot,
}

impl Late {
    /// `$2` to `$5` of [`LATE`]; the last is this transaction, whose records the next seal takes.
    fn args(&self) -> Vec<Arg> {
        let own = state::own_transaction();
        vec![arg(self.before.xmax), arg(self.before.in_progress.clone()), arg(self.now.xmax), arg(own)]
    }

    /// Some of them have no leaf.
    fn any(&self, newest_only: bool) -> bool {
        let newest =
            "a.tableoid = (SELECT tableoid FROM skill_system.audit_logs ORDER BY created_at DESC LIMIT 1) AND ";
        let condition = format!("{}$1 IS NULL AND {LATE}", if newest_only { newest } else { "" });
        let mut finder = LeafFinder::default();
        let mut found = false;
        let mut args = vec![arg(None::<i32>)];
        args.extend(self.args());
        spi::stream(&format!("SELECT a.id FROM skill_system.audit_logs a WHERE {condition}"), &args, |row| {
            found = found || row.get::<pgrx::Uuid>(1).is_some_and(|id| finder.find(id.as_bytes()).is_none());
        });
        found
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
    fn args(&self, log_id: pgrx::Uuid) -> Vec<Arg> {
        vec![
            arg(log_id),
            arg(self.from.xmax),
            arg(self.from.in_progress.clone()),
            arg(self.to.xmax),
            arg(self.to.in_progress.clone()),
            arg(self.foreign_below),
            arg(self.position.map(|(transaction, _)| transaction)),
            arg(self.position.map(|(_, id)| pgrx::Uuid::from_bytes(id))),
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

    /// Every visible row, aliased `a`, that is no leaf yet and fulfils a condition on `$2` and further. Returns the first ids.
    pub fn push_unmapped(&mut self, condition: &str, args: &[Arg]) -> Result<Vec<String>, Fault> {
        let log_id = state::log_id();
        let sql = format!(
            "SELECT a.id, {LEAF_HASH} FROM skill_system.audit_logs a WHERE {condition} \
                 AND NOT EXISTS (SELECT FROM skill_system.audit_leaves() l WHERE l.record_id = a.id) ORDER BY a.transaction_id, a.id"
        );
        let mut all = vec![arg(log_id)];
        all.extend_from_slice(args);
        let mut first = Vec::new();
        spi::with_settings(&[(c"work_mem", c"64MB"), (c"jit", c"off")], || {
            spi::stream(&sql, &all, |row| {
                if let (Some(id), Some(hash)) =
                    (row.get::<pgrx::Uuid>(1), row.bytes(2).and_then(|hash| hash.try_into().ok()))
                {
                    self.push(id.as_bytes(), hash).or_raise();
                    if first.len() < 100 {
                        first.push(id.to_string());
                    }
                }
            });
        });
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

    /// Writes what is not written yet; the size and the root.
    pub fn finish(self) -> Result<(u64, [u8; tiles::HASH]), Fault> {
        if self.size > self.resumed_at && !self.ids.is_empty() {
            tiles::write_ids(self.size / TILE_WIDTH as u64, &self.ids);
        }
        fault_point::reached("map_written");
        self.appender.finish(&mut write)
    }
}

fn write(level: u8, n: u64, hashes: &[u8]) -> Result<(), Fault> {
    tiles::write_tile(level, n, hashes);
    Ok(())
}

pg_function!(pg_finfo_skill_seal_audit, skill_seal_audit, seal_audit);
/// `seal_audit(max_rows)` → what was sealed and what is left.
fn seal_audit(call: &Call) -> Answer {
    let max_rows = call.get::<i32>(0);
    if max_rows.is_some_and(|rows| rows < 1) {
        return Err(Fault::new(Code::InvalidParameterValue, "max_rows must be at least 1")
            .hint("Leave it out to seal everything."));
    }
    let (mut sealed, mut left, mut blocked_by) = (0, (Some(0), None), None);
    let state = match seal_step(max_rows.map(i64::from))? {
        Step::Sealed { sealed: added, state, snapshot } => {
            sealed = added;
            let (count, age) = unsealed(&state, &snapshot);
            left = (Some(count), age);
            blocked_by = oldest_open(&snapshot);
            *state
        }
        Step::Empty => State::first(),
        Step::Busy => {
            // What it leaves is not known yet.
            left = (None, None);
            blocked_by = Some("another session seals now".to_owned());
            spi::with_latest_snapshot(|| spi::as_owner(State::read))?.unwrap_or_else(State::first)
        }
    };
    let (unsealed, age) = left;
    call.row_set().push(&mut [
        (sealed as i64).into_datum(),
        (state.size as i64).into_datum(),
        Some(bytea_datum(&state.root)),
        unsealed.into_datum(),
        age.into_datum(),
        blocked_by.into_datum(),
    ]);
    Ok(call.null())
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
    let (mut count, mut oldest) = (0, None::<i64>);
    for cut in cuts {
        spi::as_owner(|| {
            spi::with_settings(&[(c"enable_seqscan", c"off"), (c"jit", c"off")], || {
                // Every cut has the same parameters, the first of which only the leaf hash needs.
                spi::run_once(
                    &format!(
                        "SELECT count(*), min(a.recorded_at) FROM skill_system.audit_logs a WHERE $1 IS NOT NULL AND {CUT}"
                    ),
                    Access::Read,
                    &cut.args(pgrx::Uuid::from_bytes([0; 16])),
                    |row| {
                        count += row.get::<i64>(1).unwrap_or_default();
                        let first = row.datum(2).map(|datum| datum.value() as i64);
                        oldest = oldest.into_iter().chain(first).min();
                    },
                );
            });
        });
    }
    let age = oldest.and_then(|oldest| Interval::new(0, 0, sys::clock_timestamp() - oldest).ok());
    (count, age)
}

/// Why the log may not be sealed as it should be, for `health()`.
pub fn backlog() -> Result<Option<String>, Fault> {
    let state = spi::as_owner(State::read)?;
    if let Some(how) = state.as_ref().filter(|_| !sys::in_recovery()).and_then(State::moved) {
        return Ok(Some(format!("the log was sealed elsewhere: {how}")));
    }
    let from = state.map_or_else(Snapshot::empty, |state| state.snapshot);
    let waiting = spi::with_settings(&[(c"enable_seqscan", c"off")], || {
        spi::as_owner(|| {
            spi::one::<bool>(
                "SELECT EXISTS (SELECT FROM skill_system.audit_logs WHERE (transaction_id >= $1 OR transaction_id = ANY ($2)) \
                     AND recorded_at < now() - interval '5 minutes')",
                Access::Read,
                &[arg(from.xmax), arg(from.in_progress)],
            )
        })
    });
    Ok((waiting == Some(true)).then(|| "records older than five minutes are not sealed yet".to_owned()))
}

/// The open transaction that began first: records of its own cannot be sealed before it ends.
fn oldest_open(snapshot: &Snapshot) -> Option<String> {
    let own = state::own_transaction();
    let oldest = snapshot.in_progress.iter().copied().find(|id| Some(*id) != own)?;
    spi::as_owner(|| {
        spi::one(
            "SELECT coalesce( \
                 (SELECT format('transaction %s of process %s in database %s, open since %s', $1, a.pid, a.datname, date_trunc('second', a.xact_start)) \
                  FROM pg_stat_activity a WHERE a.backend_xid::text::bigint = $1 % 4294967296), \
                 (SELECT format('prepared transaction %s (%s) in database %s since %s: COMMIT PREPARED or ROLLBACK PREPARED', $1, p.gid, p.database, \
                                date_trunc('second', p.prepared)) \
                  FROM pg_prepared_xacts p WHERE p.transaction::text::bigint = $1 % 4294967296), \
                 format('transaction %s', $1))",
            Access::Read,
            &[arg(oldest)],
        )
    })
}
