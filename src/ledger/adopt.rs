//! Going on in another server, or in this one at another time.

use skill_core::ledger::checkpoint::Checkpoint;
use skill_core::tree::{self, Appender, TILE_WIDTH, Tiles};
use skill_core::{Code, Fault};
use skill_pg::error::check_for_interrupts;
use skill_pg::lock;
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, arg, fault_point, pg_function, sys};

use super::proof::{nothing_sealed, origin, verifier_keys};
use super::seal::{Leaves, busy_wait, try_lock};
use super::state::{self, Place, State};
use super::tiles::{HASH, StoredTiles};
use super::{growth, sealer};
use crate::audit;
use crate::audit::bypass::{self, Bypass};

/// A number that a checkpoint claims is not believed beyond this.
const MAX_INCARNATION: i32 = 1_000_000;

fn not_now(message: impl Into<String>) -> Fault {
    Fault::new(Code::NotInPrerequisiteState, message)
}

pg_function!(adopt_log);
fn adopt_log(call: &Call) -> Answer {
    let (reason, last_checkpoint): (Option<&str>, _) = call.arguments();
    let Some(reason) = reason.map(str::trim).filter(|reason| !reason.is_empty()) else {
        return Err(Fault::new(Code::InvalidParameterValue, "reason must not be NULL or empty")
            .hint("It goes into the audit trail, for example 'restored from the backup of 1 May'."));
    };
    lock::prevent_in_transaction_block("adopt_log()");
    sys::prevent_if_read_only(c"adopt_log()");
    if !try_lock(busy_wait()) {
        return Err(not_now("another session is sealing").hint("Try again."));
    }
    let row = spi::with_latest_snapshot(|| adopt(reason, last_checkpoint))?;
    sealer::retry_at_commit();
    let mut rows = call.row_set();
    rows.push(&[
        arg(row.incarnation),
        arg(row.continued),
        arg(row.size as i64),
        arg(row.sealed as i64),
        arg(&row.detail),
    ]);
    Ok(rows.finish())
}

struct Adopted {
    incarnation: i32,
    continued: bool,
    size: u64,
    sealed: u64,
    detail: String,
}

fn adopt(reason: &str, outside: Option<&str>) -> Result<Adopted, Fault> {
    let mut state = spi::as_owner(State::read_or_first)?.ok_or_else(nothing_sealed)?;
    let moved = state.place_change();
    if state.lost {
        spi::as_owner(|| recover(&mut state, outside))?;
    } else {
        spi::as_owner(|| rebuild(&state))?;
    }
    let outside = outside.map(|note| verified(note, &state)).transpose()?;
    let mut judged = spi::as_owner(|| judge(&state, outside.as_ref()))?;
    if state.lost {
        judged.loss = judged.loss.or_else(|| Some("the state of the seal was lost.".to_owned()));
    }
    let Some(found) = moved.or_else(|| judged.loss.clone()) else {
        return Err(not_now("nothing to adopt: this server sealed the log, and it contains the checkpoint"));
    };
    fault_point::reached("adoption_judged");
    let continued = judged.loss.is_none();
    if !continued {
        state.incarnation += 1;
    }
    let snapshot = state::active_snapshot()?;
    let before = state.size;
    spi::as_owner(|| {
        bypass::with(Bypass::Sealing, || {
            let mut leaves = Leaves::resume(state.size)?;
            leaves.push_unmapped("true", &[])?;
            leaves.finish(&mut state)?;
            state.expect_foreign();
            (state.snapshot, state.target) = (snapshot, None);
            (state.place, state.sealed_at) = (Place::here_for_writing()?, sys::clock_timestamp());
            state.write();
            Ok::<_, Fault>(())
        })
    })?;
    fault_point::reached("adoption_written");
    spi::commit_synchronously();
    growth::tree_grew();
    let (incarnation, size, sealed) = (state.incarnation, state.size, state.size - before);
    audit::append_system(
        "audit.log_adopted",
        serde_json::json!({
            "reason": reason, "found": found, "continued": continued, "incarnation": incarnation, "loss": judged.loss,
            "checkpoint": outside.map(|checkpoint| serde_json::json!({
                "origin": checkpoint.origin, "tree_size": checkpoint.size, "root_hash": hex::encode(checkpoint.root),
            })),
            "tree_size_before": before, "tree_size": size, "root_hash": hex::encode(state.root), "sealed_now": sealed,
        }),
    )?;
    fault_point::reached("adoption_recorded");
    let detail = format!("{found} {}", judged.compared_with);
    Ok(Adopted { incarnation, continued, size, sealed, detail })
}

/// A checkpoint that this log once signed.
fn verified(note: &str, state: &State) -> Result<Checkpoint, Fault> {
    let claimed = Checkpoint::read(note)?;
    let known = (1..=state.incarnation).map(origin).collect::<Result<Vec<_>, _>>()?;
    if !known.contains(&claimed.origin) {
        return Err(Fault::new(Code::InvalidParameterValue, "the checkpoint is of another log").detail(format!(
            "Its origin is \"{}\", this log is \"{}\".",
            claimed.origin,
            known.last().map_or("", String::as_str)
        )));
    }
    Ok(Checkpoint::verify(note, &verifier_keys(&claimed.origin)?)?)
}

/// What is left of a log whose state is lost: the tree that the tiles give, and its last incarnation. It goes on under the
/// next one, because nobody can know whether the tree is whole.
fn recover(state: &mut State, outside: Option<&str>) -> Result<(), Fault> {
    const SIZE: &str = "SELECT n * 256 + octet_length(ids) / 16 FROM skill_system.audit_map ORDER BY n DESC LIMIT 1";
    // Without rows nothing is left.
    state.size = spi::first::<i64>(SIZE, As::Caller, See::Statement, &[]).unwrap_or(0) as u64;
    state.root = root_of_leaves(state.size)?;
    const LAST: &str = "SELECT greatest(1, (SELECT max(incarnation) FROM skill_system.audit_checkpoints), \
         (SELECT max((event_data ->> 'incarnation')::int) FROM skill_system.audit_logs \
          WHERE event_type = 'audit.log_adopted'))";
    let last: i32 = spi::one(LAST, As::Caller, See::Statement, &[]);
    let claimed = outside.map(Checkpoint::read).transpose()?;
    let claimed = claimed.and_then(|checkpoint| checkpoint.origin.rsplit('/').next()?.parse::<i32>().ok());
    state.incarnation = last.max(claimed.unwrap_or(1).min(MAX_INCARNATION));
    Ok(())
}

/// Hashes the tree again from its leaves: a damaged one is not continued.
pub fn rebuild(state: &State) -> Result<(), Fault> {
    if root_of_leaves(state.size)? == state.root {
        return Ok(());
    }
    Err(Fault::new(
        Code::DataCorrupted,
        "the leaves do not give the root of the sealed tree, so the log cannot be adopted",
    )
    .hint("Restore audit_tiles from a backup; SELECT * FROM skill_system.verify_audit(); shows what is wrong."))
}

fn root_of_leaves(size: u64) -> Result<tree::Hash, Fault> {
    let tiles = StoredTiles::default();
    let mut appender = Appender::resume(0, &tiles)?;
    for n in 0..size.div_ceil(TILE_WIDTH as u64) {
        check_for_interrupts();
        let tile = tiles.tile(0, n)?;
        let width = (size - n * TILE_WIDTH as u64).min(TILE_WIDTH as u64) as usize;
        for hash in tile.chunks_exact(HASH).take(width).filter_map(|hash| hash.try_into().ok()) {
            appender.push(hash, &mut |_, _, _| Ok(()))?;
        }
    }
    let (found, root) = appender.finish(&mut |_, _, _| Ok(()))?;
    if found == size {
        return Ok(root);
    }
    Err(Fault::new(Code::DataCorrupted, format!("audit_tiles has {found} leaves instead of {size}"))
        .hint("Restore audit_tiles from a backup; SELECT * FROM skill_system.verify_audit(); shows what is wrong."))
}

pub struct Judged {
    /// What is not in this log; `None` when it contains all that it was compared with.
    pub loss: Option<String>,
    compared_with: String,
}

/// Compares the tree with the checkpoint held outside, or with the stored ones when none is given.
pub fn judge(state: &State, outside: Option<&Checkpoint>) -> Result<Judged, Fault> {
    let tiles = StoredTiles::default();
    let lost = |size: u64, root: &tree::Hash| {
        if size > state.size {
            return Ok(Some(format!(
                "a checkpoint of {size} leaves was signed, and this log has {}: {} are lost.",
                state.size,
                size - state.size
            )));
        }
        let same = tree::root(size, &tiles)? == *root;
        Ok::<_, Fault>((!same).then(|| format!("the tree of the checkpoint of {size} leaves was another one.")))
    };
    if let Some(checkpoint) = outside {
        return Ok(Judged {
            loss: lost(checkpoint.size, &checkpoint.root)?,
            compared_with: format!("Compared with the given checkpoint of {} leaves.", checkpoint.size),
        });
    }
    let stored: Vec<(i64, Vec<u8>)> = spi::collect(
        "SELECT tree_size, root_hash FROM skill_system.audit_checkpoints WHERE incarnation = $1",
        As::Caller,
        See::Statement,
        &[arg(state.incarnation)],
    );
    let mut loss = None;
    for (size, root) in &stored {
        let root = root
            .as_slice()
            .try_into()
            .map_err(|_| Fault::new(Code::DataCorrupted, "audit_checkpoints.root_hash is not a SHA-256 hash"))?;
        loss = loss.or(lost(*size as u64, root)?);
    }
    Ok(Judged {
        loss,
        compared_with: format!("Compared with the {} stored checkpoint(s); none held outside was given.", stored.len()),
    })
}
