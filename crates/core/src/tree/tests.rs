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
        assert!(verify_consistency(&consistency_proof(65_000, size, &tiles).unwrap(), 65_000, &old, size, &expected));
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
