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
    /// The hashes that the tile has now, 32 bytes each; an error when there is none.
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

/// Grows a tree leaf by leaf and tells which tiles change. Holds one tile a level.
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
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Stored(RefCell<BTreeMap<(u8, u64), Vec<u8>>>);

    impl Stored {
        fn put(&self, level: u8, n: u64, hashes: &[u8]) {
            assert!(!hashes.is_empty() && hashes.len() <= TILE_WIDTH * 32);
            self.0.borrow_mut().insert((level, n), hashes.to_vec());
        }
        /// Appends leaves in chunks; returns the root after the last.
        fn grow(&self, size: u64, leaves: &[Hash]) -> Hash {
            let mut appender = Appender::resume(size, self).unwrap();
            let mut emit = |level, n, hashes: &[u8]| -> Result<(), Fault> {
                self.put(level, n, hashes);
                Ok(())
            };
            leaves.iter().for_each(|leaf| appender.push(leaf, &mut emit).unwrap());
            let (reached, root) = appender.finish(&mut emit).unwrap();
            assert_eq!(reached, size + leaves.len() as u64);
            root
        }
    }

    impl Tiles for Stored {
        fn tile(&self, level: u8, n: u64) -> Result<Rc<[u8]>, Fault> {
            let tiles = self.0.borrow();
            tiles.get(&(level, n)).map(|hashes| hashes[..].into()).ok_or_else(|| damaged("missing"))
        }
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }
    fn stored(leaves: &[Hash]) -> Stored {
        let stored = Stored::default();
        stored.grow(0, leaves);
        stored
    }

    /// RFC 6962, section 2.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
            }
        }
    }
    fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = leaves.len().next_power_of_two() / 2;
        let (mut path, sibling) = if m < k {
            (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
        } else {
            (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
        };
        path.push(sibling);
        path
    }
    fn naive_proof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if m == leaves.len() {
            return if whole { Vec::new() } else { vec![naive_root(leaves)] };
        }
        let k = leaves.len().next_power_of_two() / 2;
        let (mut proof, sibling) = if m <= k {
            (naive_proof(m, &leaves[..k], whole), naive_root(&leaves[k..]))
        } else {
            (naive_proof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
        };
        proof.push(sibling);
        proof
    }

    /// Leaves as another implementation of RFC 6962 takes them.
    fn other(count: u64) -> MemoryBackedTree<Sha256, [u8; 8]> {
        let mut tree = MemoryBackedTree::new();
        (0..count).for_each(|i| tree.push(i.to_be_bytes()));
        tree
    }

    #[test]
    fn the_empty_tree() {
        let none = Stored::default();
        assert_eq!(root(0, &none).unwrap(), naive_root(&[]));
        assert_eq!(none.grow(0, &[]), EMPTY_ROOT);
        assert_eq!(RangeHasher::new(0, &[]).unwrap().finish(0, &[]).unwrap(), EMPTY_ROOT);
        assert!(consistency_proof(0, 0, &none).unwrap().is_empty());
        assert!(verify_consistency(&[], 0, &EMPTY_ROOT, 0, &EMPTY_ROOT));
        assert!(verify_consistency(&[], 0, &EMPTY_ROOT, 5, &[1; 32]));
        assert!(!verify_consistency(&[], 0, &[1; 32], 5, &[1; 32]));
        assert!(!verify_consistency(&[], 0, &EMPTY_ROOT, 0, &[1; 32]));
        assert!(inclusion_proof(0, 0, &none).is_err());
        assert!(!verify_inclusion(&[], 0, 0, &EMPTY_ROOT, &EMPTY_ROOT));
    }

    #[test]
    fn limits() {
        let root = [0; 32];
        assert!(!verify_inclusion(&[[0; 32]; 64], 0, u64::MAX, &root, &root));
        assert!(!verify_inclusion(&[[0; 32]; 64], 0, MAX_SIZE, &root, &root));
        assert!(!verify_consistency(&[[0; 32]; 64], 1, &root, u64::MAX, &root));
        assert!(!verify_consistency(&[], u64::MAX, &root, 1, &root));
        assert!(RangeHasher::new(u64::MAX, &[[0; 32]; 64]).is_err());
        assert!(RangeHasher::new(0, &[]).unwrap().push_cover(u64::MAX, &[]).is_err());
        let full = RangeHasher::new(MAX_SIZE, &[[0; 32]]);
        assert!(full.unwrap().push(&root).is_err());
        assert!(Appender::resume(u64::MAX, &Stored::default()).is_err());
        assert!(cover(0, u64::MAX, &Stored::default()).is_err());
    }

    /// A missing or short tile is an error that names it.
    #[test]
    fn damaged_tiles() {
        let tiles = stored(&leaves(300));
        tiles.put(0, 1, &[0; 32]);
        for result in [
            root(300, &tiles).map(|_| ()),
            inclusion_proof(0, 300, &tiles).map(|_| ()),
            consistency_proof(100, 300, &tiles).map(|_| ()),
            Appender::resume(300, &tiles).map(|_| ()),
        ] {
            let fault = result.unwrap_err();
            assert_eq!(fault.code, Code::DataCorrupted);
            assert_eq!(fault.detail.as_deref(), Some("Tile 1 of level 0 is too short."));
        }
        tiles.0.borrow_mut().clear();
        assert_eq!(root(300, &tiles).unwrap_err().detail.as_deref(), Some("missing"));
    }

    /// Three levels of tiles: beyond what the property tests reach.
    #[test]
    fn many_levels() {
        let all = leaves(70_000);
        let tiles = stored(&all);
        assert_eq!(tiles.0.borrow().keys().filter(|(level, _)| *level == 2).count(), 1);
        for size in [65_535, 65_536, 65_537, 70_000] {
            let expected = naive_root(&all[..size as usize]);
            assert_eq!(root(size, &tiles).unwrap(), expected);
            let proof = inclusion_proof(40_000, size, &tiles).unwrap();
            assert!(verify_inclusion(&proof, 40_000, size, &all[40_000], &expected));
            let old = naive_root(&all[..65_000]);
            assert!(verify_consistency(
                &consistency_proof(65_000, size, &tiles).unwrap(),
                65_000,
                &old,
                size,
                &expected
            ));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn roots_and_proofs_are_those_of_the_rfc(size in 1u64..3000, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let all = leaves(size);
            let tiles = stored(&all);
            let root_now = naive_root(&all);
            prop_assert_eq!(root(size, &tiles).unwrap(), root_now);

            let index = a.index(all.len());
            let proof = inclusion_proof(index as u64, size, &tiles).unwrap();
            prop_assert_eq!(&proof, &naive_path(index, &all));
            prop_assert!(verify_inclusion(&proof, index as u64, size, &all[index], &root_now));

            let old = 1 + b.index(all.len());
            let old_root = naive_root(&all[..old]);
            let chain = consistency_proof(old as u64, size, &tiles).unwrap();
            prop_assert_eq!(&chain, &naive_proof(old, &all, true));
            prop_assert!(verify_consistency(&chain, old as u64, &old_root, size, &root_now));

            // What is not so is refused.
            prop_assert!(!verify_inclusion(&proof, index as u64, size, &[0; 32], &root_now));
            prop_assert!(!verify_inclusion(&proof, index as u64, size, &all[index], &[0; 32]));
            prop_assert!(!verify_inclusion(&proof, index as u64 + 1, size, &all[index], &root_now));
            prop_assert!(!verify_inclusion(&[&proof[..], &[[0; 32]]].concat(), index as u64, size, &all[index], &root_now));
            prop_assert!(!verify_consistency(&chain, old as u64, &[0; 32], size, &root_now));
            prop_assert!(!verify_consistency(&chain, old as u64, &old_root, size, &[0; 32]));
            prop_assert!(!verify_consistency(&[&chain[..], &[[0; 32]]].concat(), old as u64, &old_root, size, &root_now));
            for i in 0..proof.len() {
                let mut wrong = proof.clone();
                wrong[i][b.index(32)] ^= 1;
                prop_assert!(!verify_inclusion(&wrong, index as u64, size, &all[index], &root_now));
            }
            for i in 0..chain.len() {
                let mut wrong = chain.clone();
                wrong[i][a.index(32)] ^= 1;
                prop_assert!(!verify_consistency(&wrong, old as u64, &old_root, size, &root_now));
            }
        }

        #[test]
        fn another_implementation_agrees(size in 1u64..1500, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let tiles = stored(&leaves(size));
            let digests = |proof: &[Hash]| proof.iter().map(|hash| (*hash).into()).collect::<Vec<_>>();
            let reference = other(size);
            let ours = root(size, &tiles).unwrap();
            prop_assert_eq!(reference.root(), RootHash::<Sha256>::new(ours.into(), size));

            let index = a.index(size as usize) as u64;
            let path = digests(&inclusion_proof(index, size, &tiles).unwrap());
            let path = InclusionProof::<Sha256>::from_digests(path.iter());
            prop_assert!(reference.root().verify_inclusion(&index.to_be_bytes(), index, &path).is_ok());
            prop_assert!(reference.root().verify_inclusion(&(index + 1).to_be_bytes(), index, &path).is_err());

            // It does not prove that a tree begins with itself.
            let old = 1 + b.index(size as usize) as u64;
            if old < size {
                let chain = digests(&consistency_proof(old, size, &tiles).unwrap());
                let chain = ConsistencyProof::<Sha256>::from_digests(chain.iter());
                let old_root = RootHash::<Sha256>::new(root(old, &tiles).unwrap().into(), old);
                prop_assert!(reference.root().verify_consistency(&old_root, &chain).is_ok());
                let wrong = RootHash::<Sha256>::new([7; 32].into(), old);
                prop_assert!(reference.root().verify_consistency(&wrong, &chain).is_err());
            }
        }

        #[test]
        fn any_chunks_end_in_the_same_tiles(chunks in prop::collection::vec(0u64..700, 0..8)) {
            let all = leaves(chunks.iter().sum());
            let grown = Stored::default();
            let mut size = 0;
            for chunk in chunks {
                let before = grown.0.borrow().clone();
                let end = size + chunk;
                let reached = grown.grow(size, &all[size as usize..end as usize]);
                prop_assert_eq!(reached, naive_root(&all[..end as usize]));
                // Nothing full was ever rewritten.
                for (name, hashes) in before.iter().filter(|(_, hashes)| hashes.len() == TILE_WIDTH * 32) {
                    prop_assert_eq!(&grown.0.borrow()[name], hashes);
                }
                size = end;
            }
            prop_assert_eq!(grown.0.into_inner(), stored(&all).0.into_inner());
        }

        #[test]
        fn a_range_with_its_edges_gives_the_root(size in 0u64..3000, cuts in prop::array::uniform4(any::<prop::sample::Index>())) {
            let all = leaves(size);
            let tiles = stored(&all);
            let mut cuts = cuts.map(|cut| cut.index(size as usize + 1) as u64);
            cuts.sort();
            let [start, gone, back, end] = cuts;
            let left = left_edge(start, &tiles).unwrap();
            let right = right_edge(end, size, &tiles).unwrap();
            let retired = cover(gone, back, &tiles).unwrap();
            prop_assert_eq!(retired.len(), cover_length(gone, back));
            let run = |all: &[Hash], left: &[Hash], retired: &[Hash], right: &[Hash]| {
                let mut range = RangeHasher::new(start, left)?;
                for leaf in &all[start as usize..gone as usize] {
                    range.push(leaf)?;
                }
                range.push_cover(back - gone, retired)?;
                for leaf in &all[back as usize..end as usize] {
                    range.push(leaf)?;
                }
                assert_eq!(range.at(), end);
                range.finish(size, right)
            };
            let root = naive_root(&all);
            prop_assert_eq!(run(&all, &left, &retired, &right), Ok(root));
            // A part hashed by itself is the cover.
            let mut part = RangeHasher::part(gone).unwrap();
            all[gone as usize..back as usize].iter().for_each(|leaf| part.push(leaf).unwrap());
            prop_assert_eq!(part.cover(), retired.clone());
            // Anything else does not.
            prop_assert!(run(&all, &[&left[..], &[[0; 32]]].concat(), &retired, &right).is_err());
            prop_assert!(run(&all, &left, &[&retired[..], &[[0; 32]]].concat(), &right).is_err());
            prop_assert!(run(&all, &left, &retired, &[&right[..], &[[0; 32]]].concat()).is_err());
            for i in 0..3 {
                let mut given = [left.clone(), retired.clone(), right.clone()];
                if let Some(hash) = given[i].first_mut() {
                    hash[0] ^= 1;
                    prop_assert_ne!(run(&all, &given[0], &given[1], &given[2]), Ok(root));
                }
            }
            if start < gone {
                let mut changed = all.clone();
                changed[start as usize][31] ^= 1;
                prop_assert_ne!(run(&changed, &left, &retired, &right), Ok(root));
            }
            if size > end {
                prop_assert!(run(&all, &left, &retired, &right[1..]).is_err());
            }
        }
    }
}
