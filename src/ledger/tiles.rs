//! The tree and the map as they lie in `audit_tiles` and `audit_map`; the last leaves lie in `audit_seal_state`. One
//! statement reads both, so that they fit each other.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use skill_core::tree::{Hash, TILE_WIDTH, Tiles};
use skill_core::{Code, Fault};
use skill_pg::spi::{self, As, See};
use skill_pg::{Answer, Call, Row, Uuid, arg, pg_function};

use super::growth;

/// Bytes of an id in `audit_map`.
pub const ID: usize = 16;
pub const HASH: usize = size_of::<Hash>();

/// The tiles read so far, by level and number.
type Read = HashMap<(u8, u64), Rc<[u8]>>;

/// Reads tiles under the active snapshot, each once.
#[derive(Default)]
pub struct StoredTiles {
    read: RefCell<Read>,
}

/// A proof needs one tile a level, a rebuild reads each once: no more are kept than that.
const KEPT: usize = 64;

impl Tiles for StoredTiles {
    fn tile(&self, level: u8, n: u64) -> Result<Rc<[u8]>, Fault> {
        if let Some(tile) = self.read.borrow().get(&(level, n)) {
            return Ok(tile.clone());
        }
        let tile = read_tile(level, n)?.ok_or_else(|| {
            Fault::new(Code::DataCorrupted, format!("tile {n} of level {level} is missing from audit_tiles"))
                .hint("SELECT * FROM skill_system.verify_audit(); shows what else is wrong.")
        })?;
        let mut read = self.read.borrow_mut();
        if read.len() >= KEPT {
            read.clear();
        }
        read.insert((level, n), tile.clone());
        Ok(tile)
    }
}

impl StoredTiles {
    pub fn leaf(&self, leaf: u64) -> Result<Hash, Fault> {
        let tile = self.tile(0, leaf / TILE_WIDTH as u64)?;
        let hash = hash_in(&tile, leaf).and_then(|hash| hash.try_into().ok());
        hash.ok_or_else(|| Fault::new(Code::DataCorrupted, format!("leaf {leaf} is missing from its tile")))
    }
}

/// One tile; `None` when it does not exist.
pub fn read_tile(level: u8, n: u64) -> Result<Option<Rc<[u8]>>, Fault> {
    const SQL: &str = "SELECT string_agg(hashes, '' ORDER BY part) FROM ( \
             SELECT 1 AS part, hashes FROM skill_system.audit_tiles WHERE level = $1 AND n = $2 \
             UNION ALL SELECT 2, tail_hashes FROM skill_system.audit_seal_state \
             WHERE $1 = 0 AND tree_size / 256 = $2 AND tail_hashes <> '') AS parts";
    match spi::one::<Option<Vec<u8>>>(SQL, As::Caller, See::Statement, &[arg(i16::from(level)), arg(n as i64)]) {
        Some(tile) if tile.is_empty() || tile.len() % HASH != 0 || tile.len() > HASH * TILE_WIDTH => {
            Err(Fault::new(Code::DataCorrupted, format!("tile {n} of level {level} has {} bytes", tile.len())))
        }
        found => Ok(found.map(Rc::from)),
    }
}

/// The hash of a leaf in the level-0 tile that holds it.
pub fn hash_in(tile: &[u8], leaf: u64) -> Option<&[u8]> {
    let at = leaf as usize % TILE_WIDTH * HASH;
    tile.get(at..at + HASH)
}

/// A hash from a column.
pub fn as_hash(bytes: &[u8]) -> Result<&Hash, Fault> {
    bytes.try_into().map_err(|_| Fault::new(Code::DataCorrupted, format!("a hash has {} bytes", bytes.len())))
}

/// Writes a tile, or extends the last one of its level.
pub fn write_tile(level: u8, n: u64, hashes: &[u8]) {
    spi::execute(
        "INSERT INTO skill_system.audit_tiles (level, n, hashes) VALUES ($1, $2, $3) \
         ON CONFLICT (level, n) DO UPDATE SET hashes = EXCLUDED.hashes",
        As::Caller,
        See::OwnWrites,
        &[arg(i16::from(level)), arg(n as i64), arg(hashes)],
    );
}

/// The ids of level-0 tile `n`, 16 bytes each; empty when none exist.
pub fn read_ids(n: u64) -> Vec<u8> {
    const SQL: &str = "SELECT string_agg(ids, '' ORDER BY part) FROM ( \
             SELECT 1 AS part, ids FROM skill_system.audit_map WHERE n = $1 \
             UNION ALL SELECT 2, tail_ids FROM skill_system.audit_seal_state WHERE tree_size / 256 = $1) AS parts";
    spi::one::<Option<_>>(SQL, As::Caller, See::Statement, &[arg(n as i64)]).unwrap_or_default()
}

/// Writes the ids of level-0 tile `n`, or extends the last ones.
pub fn write_ids(n: u64, ids: &[u8]) {
    let keys = || ids.chunks_exact(ID).map(id_key);
    let (Some(low), Some(high)) = (keys().min(), keys().max()) else { return };
    spi::execute(
        "INSERT INTO skill_system.audit_map (n, ids, span) VALUES ($1, $2, int8range($3, $4, '[]')) \
         ON CONFLICT (n) DO UPDATE SET ids = EXCLUDED.ids, span = EXCLUDED.span",
        As::Caller,
        See::OwnWrites,
        &[arg(n as i64), arg(ids), arg(low), arg(high)],
    );
}

/// The first 63 bits of an id: what `span` is made of. One less than the largest bigint, so that the range's end exists.
fn id_key(id: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id[..8]);
    ((u64::from_be_bytes(first) >> 1) as i64).min(i64::MAX - 1)
}

/// The leaf of the record with this id.
pub fn leaf_of(id: &[u8; ID]) -> Option<u64> {
    const SQL: &str = "SELECT n * 256, ids FROM skill_system.audit_map WHERE span @> $1 \
         UNION ALL SELECT tree_size - octet_length(tail_ids) / 16, tail_ids FROM skill_system.audit_seal_state";
    spi::with_rows(SQL, As::Caller, See::Statement, &[arg(id_key(id))], |rows| {
        let find = |row: &Row| {
            let (first, ids): (i64, &[u8]) = row.read();
            let slot = ids.chunks_exact(ID).position(|other| other == id)?;
            Some(first as u64 + slot as u64)
        };
        rows.iter().rev().find_map(find)
    })
}

/// Finds the leaves of many records: neighbours in the table are mostly neighbours in the tree.
#[derive(Default)]
pub struct LeafFinder {
    /// The tiles found last, newest first.
    recent: VecDeque<(u64, HashMap<[u8; ID], u8>)>,
}

impl LeafFinder {
    /// As many tiles as transactions are likely to be open at once.
    const RECENT: usize = 32;

    /// The leaf of the record with this id.
    pub fn find(&mut self, id: &[u8; ID]) -> Option<u64> {
        let place = self.recent.iter().position(|(_, slots)| slots.contains_key(id));
        match place {
            Some(place) => self.recent.swap(0, place),
            None => {
                let n = leaf_of(id)? / TILE_WIDTH as u64;
                let ids = read_ids(n);
                let slots =
                    (0..=u8::MAX).zip(ids.chunks_exact(ID)).filter_map(|(slot, id)| Some((id.try_into().ok()?, slot)));
                self.recent.push_front((n, slots.collect()));
                self.recent.truncate(Self::RECENT);
            }
        }
        let (n, slots) = self.recent.front()?;
        slots.get(id).map(|slot| n * TILE_WIDTH as u64 + u64::from(*slot))
    }
}

thread_local! {
    static FINDER: RefCell<LeafFinder> = RefCell::default();
}

pg_function!(audit_leaf_index);
/// `audit_leaf_index(id)` → the leaf of the record with this id.
fn audit_leaf_index(call: &Call) -> Answer {
    let id: Option<Uuid> = call.arguments();
    let Some(id) = id else {
        return Ok(call.null());
    };
    // A query looks many up, and after a restore a verification every record.
    let leaf = FINDER.with_borrow_mut(|finder| {
        if !growth::leaves_valid() {
            *finder = LeafFinder::default();
        }
        finder.find(id.as_bytes())
    });
    Ok(call.answer(leaf.map(|leaf| leaf as i64)))
}

pg_function!(audit_leaves);
/// `audit_leaves(first_leaf, max_rows)` → leaf, id, leaf hash.
fn audit_leaves(call: &Call) -> Answer {
    let (first, count): (Option<i64>, Option<i64>) = call.arguments();
    let Some(first) = first else {
        return Err(
            Fault::new(Code::InvalidParameterValue, "first must not be NULL").hint("Leaves are counted from 0.")
        );
    };
    if first < 0 || count.is_some_and(|count| count < 0) {
        return Err(Fault::new(Code::InvalidParameterValue, "first_leaf and max_rows must not be negative"));
    }
    let end = count.map_or(i64::MAX, |count| first.saturating_add(count));
    let mut rows = call.row_set();
    let mut push = |row: &Row| {
        let (start, ids, hashes): (i64, &[u8], &[u8]) = row.read();
        let leaves = ids.as_chunks::<ID>().0.iter().zip(hashes.chunks_exact(HASH));
        for (leaf, (id, hash)) in (start..).zip(leaves).filter(|(leaf, _)| (first..end).contains(leaf)) {
            rows.push(&[arg(leaf), arg(*id), arg(hash)]);
        }
        Ok(())
    };
    spi::stream(
        "SELECT m.n * 256, m.ids, t.hashes FROM skill_system.audit_map m \
         JOIN skill_system.audit_tiles t ON t.level = 0 AND t.n = m.n WHERE m.n >= $1 AND m.n <= $2 ORDER BY m.n",
        &[arg(first / TILE_WIDTH as i64), arg(end / TILE_WIDTH as i64)],
        &mut push,
    )?;
    const TAIL: &str =
        "SELECT tree_size - octet_length(tail_ids) / 16, tail_ids, tail_hashes FROM skill_system.audit_seal_state";
    spi::stream(TAIL, &[], &mut push)?;
    Ok(rows.finish())
}
