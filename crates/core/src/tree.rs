//! The Merkle tree of the audit trail: RFC 6962 hashes, stored as tiles of 256.
//!
//! Tile `n` of level `l` holds the hashes of the complete subtrees of 256^l leaves that start at leaf
//! `(n * 256 + i) * 256^l` (c2sp.org/tlog-tiles). Reading and checking proofs is `tlog_tiles`'; appending and ranges are here.

use std::cell::Cell;
use std::rc::Rc;

use sha2::{Digest, Sha256};
use tlog_tiles::tile::Tile;
use tlog_tiles::tlog;

use crate::error::{Code, Fault};

/// The hash of a leaf or of two subtrees.
pub type Hash = [u8; 32];
/// Hashes of a full tile.
pub const TILE_WIDTH: usize = 256;
/// Longest proof that is read (c2sp.org/tlog-witness).
pub const MAX_PROOF: usize = 63;
/// Largest tree: what a `bigint` counts, with headroom for the arithmetic.
pub const MAX_SIZE: u64 = 1 << 62;
/// Root of the tree without leaves.
pub const EMPTY_ROOT: Hash = tlog::EMPTY_HASH.0;

const TILE_HEIGHT: u8 = 8;
/// Levels of tiles that a tree of [`MAX_SIZE`] leaves has.
const LEVELS: usize = 8;

/// Where tiles are read from.
pub trait Tiles {
    /// The hashes that the tile has now, 32 bytes each; an error when none exists.
    fn tile(&self, level: u8, n: u64) -> Result<Rc<[u8]>, Fault>;
}

fn damaged(what: impl Into<String>) -> Fault {
    Fault::new(Code::DataCorrupted, "the tiles of the audit trail are damaged").detail(what)
}

fn invalid(what: impl Into<String>) -> Fault {
    Fault::new(Code::InvalidParameterValue, what)
}

/// RFC 6962: SHA-256 of 0x00 and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    leaf_hash_of(&[entry])
}

/// The same for an entry that lies in parts.
pub fn leaf_hash_of(parts: &[&[u8]]) -> Hash {
    let mut state = Sha256::new_with_prefix([0]);
    parts.iter().for_each(|part| state.update(part));
    state.finalize().into()
}

/// RFC 6962: SHA-256 of 0x01 and both children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0; 65];
    bytes[0] = 1;
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// Lets `tlog_tiles` read single hashes; keeps our error, which its own error type cannot hold.
struct Reader<'t> {
    tiles: &'t dyn Tiles,
    fault: Cell<Option<Fault>>,
}

impl tlog::HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        // Neighbours in a proof often lie in the same tile.
        let mut last: Option<(u8, u64, Rc<[u8]>)> = None;
        indexes
            .iter()
            .map(|&index| {
                let tile = Tile::from_index(TILE_HEIGHT, index);
                let (level, n) = (tile.level(), tile.level_index());
                let stop = |fault| {
                    self.fault.set(Some(fault));
                    tlog::Error::InvalidTile
                };
                let data = match &last {
                    Some((l, m, data)) if (*l, *m) == (level, n) => data.clone(),
                    _ => self.tiles.tile(level, n).map_err(stop)?,
                };
                let hash = tile
                    .hash_at_index(&data, index)
                    .map_err(|_| stop(damaged(format!("Tile {n} of level {level} is too short."))))?;
                last = Some((level, n, data));
                Ok(hash)
            })
            .collect()
    }
}

fn with_reader<T>(tiles: &dyn Tiles, read: impl FnOnce(&Reader<'_>) -> Result<T, tlog::Error>) -> Result<T, Fault> {
    let reader = Reader { tiles, fault: Cell::new(None) };
    read(&reader).map_err(|error| reader.fault.take().unwrap_or_else(|| damaged(format!("{error}."))))
}

fn check_size(size: u64) -> Result<(), Fault> {
    if size > MAX_SIZE { Err(invalid(format!("a tree cannot have {size} leaves"))) } else { Ok(()) }
}

fn plain(hashes: Vec<tlog::Hash>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| hash.0).collect()
}

/// The root of the first `size` leaves.
pub fn root(size: u64, tiles: &dyn Tiles) -> Result<Hash, Fault> {
    check_size(size)?;
    with_reader(tiles, |reader| tlog::tree_hash(size, reader)).map(|hash| hash.0)
}

/// Proof that leaf `index` is one of the first `size`.
pub fn inclusion_proof(index: u64, size: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, Fault> {
    check_size(size)?;
    if index >= size {
        return Err(invalid(format!("leaf {index} is not in a tree of {size}")));
    }
    with_reader(tiles, |reader| tlog::prove_record(size, index, reader)).map(plain)
}

/// Proof that the tree of `new` leaves begins with the tree of `old` leaves.
pub fn consistency_proof(old: u64, new: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, Fault> {
    check_size(new)?;
    if old > new {
        return Err(invalid(format!("a tree of {old} leaves is not the beginning of one of {new}")));
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    with_reader(tiles, |reader| tlog::prove_tree(new, old, reader)).map(plain)
}

fn wrapped(proof: &[Hash]) -> Vec<tlog::Hash> {
    proof.iter().map(|hash| tlog::Hash(*hash)).collect()
}

/// The proof shows that `leaf` is leaf `index` of the tree with this size and root.
pub fn verify_inclusion(proof: &[Hash], index: u64, size: u64, leaf: &Hash, root: &Hash) -> bool {
    proof.len() <= MAX_PROOF
        && size <= MAX_SIZE
        && tlog::check_record(&wrapped(proof), size, tlog::Hash(*root), index, tlog::Hash(*leaf)).is_ok()
}

/// The proof shows that the new tree begins with the old one. Every tree begins with the empty one.
pub fn verify_consistency(proof: &[Hash], old: u64, old_root: &Hash, new: u64, new_root: &Hash) -> bool {
    if proof.len() > MAX_PROOF || new > MAX_SIZE {
        return false;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == EMPTY_ROOT && (new > 0 || *new_root == EMPTY_ROOT);
    }
    tlog::check_tree(&wrapped(proof), new, tlog::Hash(*new_root), old, tlog::Hash(*old_root)).is_ok()
}

/// Leaves of the largest complete subtree that starts at `start` and does not pass `end`.
fn aligned(start: u64, end: u64) -> u64 {
    let fits = 1 << (end - start).ilog2();
    if start == 0 { fits } else { fits.min(1 << start.trailing_zeros()) }
}

/// How many maximal aligned subtrees cover the leaves `[start, end)`.
pub fn cover_length(mut start: u64, end: u64) -> usize {
    let mut length = 0;
    while start < end {
        start += aligned(start, end);
        length += 1;
    }
    length
}

/// The maximal aligned subtrees that cover the leaves `[start, end)`, left to right.
pub fn cover(start: u64, end: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, Fault> {
    check_size(end)?;
    let mut indexes = Vec::new();
    let mut at = start;
    while at < end {
        let leaves = aligned(at, end);
        let level = leaves.trailing_zeros() as u8;
        indexes.push(tlog::stored_hash_index(level, at >> level));
        at += leaves;
    }
    with_reader(tiles, |reader| tlog::HashReader::read_hashes(reader, &indexes)).map(plain)
}

/// What lies before leaf `start`: the cover of `[0, start)`.
pub fn left_edge(start: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, Fault> {
    cover(0, start, tiles)
}

/// What lies from leaf `end` on: the cover of `[end, size)`.
pub fn right_edge(end: u64, size: u64, tiles: &dyn Tiles) -> Result<Vec<Hash>, Fault> {
    if end > size {
        return Err(invalid(format!("leaf {end} is not in a tree of {size}")));
    }
    cover(end, size, tiles)
}

/// Hashes of 32 bytes each, halved until one is left. `hashes` holds a power of two of them.
fn subtree(hashes: &[u8]) -> Hash {
    Tile::subtree_hash(hashes).0
}

/// Joins complete subtrees, from the smallest on the right to the largest on the left.
fn join(subtrees: &[Hash]) -> Hash {
    let Some((last, rest)) = subtrees.split_last() else { return EMPTY_ROOT };
    rest.iter().rfold(*last, |right, left| node_hash(left, &right))
}

/// Appends leaves to a tree and emits the tiles that change. Holds one tile per level.
pub struct Appender {
    size: u64,
    levels: [Vec<u8>; LEVELS],
    /// Which levels have a last tile that is not as it was.
    changed: [bool; LEVELS],
}

impl Appender {
    /// Goes on from a tree of `size` leaves.
    pub fn resume(size: u64, tiles: &dyn Tiles) -> Result<Appender, Fault> {
        check_size(size)?;
        let mut levels: [Vec<u8>; LEVELS] = Default::default();
        for (level, hashes) in levels.iter_mut().enumerate() {
            let count = size >> (level * usize::from(TILE_HEIGHT));
            let (n, width) = (count / TILE_WIDTH as u64, (count % TILE_WIDTH as u64) as usize);
            if width > 0 {
                let tile = tiles.tile(level as u8, n)?;
                let kept = tile.get(..width * 32);
                hashes.extend_from_slice(
                    kept.ok_or_else(|| damaged(format!("Tile {n} of level {level} is too short.")))?,
                );
            }
        }
        Ok(Appender { size, levels, changed: [false; LEVELS] })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. `emit(level, n, hashes)` gets each tile that is full now.
    pub fn push(
        &mut self,
        leaf: &Hash,
        emit: &mut impl FnMut(u8, u64, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        check_size(self.size + 1)?;
        self.size += 1;
        let mut hash = *leaf;
        for (level, hashes) in self.levels.iter_mut().enumerate() {
            hashes.extend_from_slice(&hash);
            self.changed[level] = true;
            if hashes.len() < TILE_WIDTH * 32 {
                break;
            }
            emit(level as u8, (self.size - 1) >> ((level + 1) * usize::from(TILE_HEIGHT)), hashes)?;
            hash = subtree(hashes);
            hashes.clear();
            self.changed[level] = false;
        }
        Ok(())
    }

    /// Emits the last tile of each level where it is partial and changed. Returns size and root.
    pub fn finish(self, emit: &mut impl FnMut(u8, u64, &[u8]) -> Result<(), Fault>) -> Result<(u64, Hash), Fault> {
        let mut subtrees = Vec::new();
        for (level, hashes) in self.levels.iter().enumerate() {
            if self.changed[level] {
                emit(level as u8, self.size >> ((level + 1) * usize::from(TILE_HEIGHT)), hashes)?;
            }
            // The smallest complete subtrees lie on the right.
            let mut end = hashes.len();
            while end > 0 {
                let length = 32 << (end / 32).trailing_zeros();
                subtrees.push(subtree(&hashes[end - length..end]));
                end -= length;
            }
        }
        subtrees.reverse();
        Ok((self.size, join(&subtrees)))
    }
}

/// The root of a tree of which only a range of leaves is at hand. Holds one or two hashes a level.
pub struct RangeHasher {
    /// What lies before is not at hand, not even as a cover.
    first: u64,
    at: u64,
    /// The cover of `[first, at)`.
    stack: Vec<Hash>,
}

impl RangeHasher {
    /// Begins at leaf `start`, with the cover of all before it.
    pub fn new(start: u64, left: &[Hash]) -> Result<RangeHasher, Fault> {
        check_size(start)?;
        if left.len() != start.count_ones() as usize {
            return Err(invalid(format!("{} hashes cannot cover the {start} leaves before the range", left.len())));
        }
        Ok(RangeHasher { first: 0, at: start, stack: left.to_vec() })
    }

    /// For the [`RangeHasher::cover`] of a part of a range, which can be hashed concurrently with the other parts.
    pub fn part(start: u64) -> Result<RangeHasher, Fault> {
        check_size(start)?;
        Ok(RangeHasher { first: start, at: start, stack: Vec::new() })
    }

    /// The cover of the part.
    pub fn cover(self) -> Vec<Hash> {
        self.stack
    }

    /// The next leaf's index.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Adds the next leaf.
    pub fn push(&mut self, leaf: &Hash) -> Result<(), Fault> {
        check_size(self.at + 1)?;
        self.add(0, *leaf);
        Ok(())
    }

    /// Adds a complete subtree of `2^level` leaves; `at` is a multiple of that.
    fn add(&mut self, level: u32, mut hash: Hash) {
        let mut above = level;
        // An odd neighbour completes the subtree above, where all of that is at hand.
        while (self.at >> above) & 1 == 1 && (self.at >> (above + 1)) << (above + 1) >= self.first {
            let Some(left) = self.stack.pop() else { break };
            hash = node_hash(&left, &hash);
            above += 1;
        }
        self.stack.push(hash);
        self.at += 1 << level;
    }

    /// Adds the next `count` leaves, of which only the cover is known.
    pub fn push_cover(&mut self, count: u64, cover: &[Hash]) -> Result<(), Fault> {
        let end = self.at.checked_add(count).filter(|end| *end <= MAX_SIZE);
        let end = end.ok_or_else(|| invalid(format!("a tree cannot have {count} more leaves than {}", self.at)))?;
        if cover.len() != cover_length(self.at, end) {
            return Err(invalid(format!("{} hashes cannot cover the leaves [{},{end})", cover.len(), self.at)));
        }
        for hash in cover {
            self.add(aligned(self.at, end).trailing_zeros(), *hash);
        }
        Ok(())
    }

    /// The root, given the cover of the leaves from here to `size`.
    pub fn finish(mut self, size: u64, right: &[Hash]) -> Result<Hash, Fault> {
        let rest = size.checked_sub(self.at);
        self.push_cover(
            rest.ok_or_else(|| invalid(format!("the range ends after the {size} leaves of the tree")))?,
            right,
        )?;
        Ok(join(&self.stack))
    }
}

#[cfg(test)]
mod tests;
