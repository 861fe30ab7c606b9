//! The Merkle tree of RFC 6962, section 2.1, over hashes of leaves: roots, proofs that a leaf is in a tree (2.1.1), proofs
//! that one tree is the beginning of another (2.1.2), and their checks (RFC 9162 2.1.3.2 and 2.1.4.2).

use super::digest::Digest;

/// Most hashes in a proof: a tree has fewer than 2^64 leaves, and a proof of consistency has one more than its height.
pub(super) const PATH_LEN_MAX: usize = 65;

/// The root over `leaves`. RFC 6962 2.1: MTH.
pub(super) fn root(leaves: &[Digest]) -> Digest {
    let mut growing = Growing::default();
    leaves.iter().for_each(|leaf| growing.push(*leaf));
    growing.root()
}

/// The root over leaves that come one after the other: full trees from the left on, each with its number of leaves.
#[derive(Debug, Default)]
pub(super) struct Growing(Vec<(u64, Digest)>);

impl Growing {
    pub(super) fn push(&mut self, leaf: Digest) {
        let (mut size, mut hash) = (1, leaf);
        while let Some((_, left)) = self.0.pop_if(|(left, _)| *left == size) {
            hash = Digest::of_node(left, hash);
            size *= 2;
        }
        self.0.push((size, hash));
    }

    pub(super) fn root(&self) -> Digest {
        let hashes = self.0.iter().rev().map(|(_, hash)| *hash);
        hashes.reduce(|right, left| Digest::of_node(left, right)).unwrap_or_else(|| Digest::of(&[]))
    }
}

/// The proof that leaf `index` is in the tree over `leaves`, from the leaf up; `None` when there is no such leaf.
pub(super) fn inclusion(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut part, mut index, mut path) = (leaves, index, Vec::new());
    while part.len() > 1 {
        let (left, right) = halves(part);
        if index < left.len() {
            path.push(root(right));
            part = left;
        } else {
            path.push(root(left));
            index -= left.len();
            part = right;
        }
    }
    path.reverse();
    Some(path)
}

/// The proof that the first `older` of `leaves` were a tree which the one over all of them continues; `None` when there are
/// fewer, and for 0, of which there is nothing to prove.
pub(super) fn consistency(leaves: &[Digest], older: usize) -> Option<Vec<Digest>> {
    if older == 0 || older > leaves.len() {
        return None;
    }
    let (mut part, mut older, mut is_whole, mut path) = (leaves, older, true, Vec::new());
    while older < part.len() {
        let (left, right) = halves(part);
        if older <= left.len() {
            path.push(root(right));
            part = left;
        } else {
            path.push(root(left));
            older -= left.len();
            part = right;
            is_whole = false;
        }
    }
    // The older root itself needs no telling: who checks has it.
    if !is_whole {
        path.push(root(part));
    }
    path.reverse();
    Some(path)
}

/// Whether `path` proves that `leaf` is number `index` of the `size` leaves under `root`.
pub(super) fn is_included(leaf: Digest, (index, size): (u64, u64), path: &[Digest], root: Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut index, mut last, mut hash) = (index, size - 1, leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if index & 1 == 1 || index == last {
            hash = Digest::of_node(*step, hash);
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            hash = Digest::of_node(hash, *step);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// A tree, as who checks a proof knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// Number of its leaves.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// Whether `path` proves that the leaves of `older`, which has at least one, are the first ones of `newer`.
pub(super) fn is_continued(older: Tree, newer: Tree, path: &[Digest]) -> bool {
    if older.size == 0 || older.size > newer.size {
        return false;
    }
    if older.size == newer.size {
        return path.is_empty() && older.root == newer.root;
    }
    // A whole tree of a power of two is a node of the newer one: the path begins with it, unsaid.
    let begin = if older.size.is_power_of_two() { Some(older.root) } else { None };
    let mut path = begin.into_iter().chain(path.iter().copied());
    let Some(first) = path.next() else { return false };
    let skipped = (older.size - 1).trailing_ones();
    let mut index = (older.size - 1).checked_shr(skipped).unwrap_or(0);
    let mut last = (newer.size - 1).checked_shr(skipped).unwrap_or(0);
    let (mut old, mut new) = (first, first);
    for step in path {
        if last == 0 {
            return false;
        }
        if index & 1 == 1 || index == last {
            old = Digest::of_node(step, old);
            new = Digest::of_node(step, new);
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            new = Digest::of_node(new, step);
        }
        index >>= 1;
        last >>= 1;
    }
    last == 0 && old == older.root && new == newer.root
}

/// At least two leaves, cut at the greatest power of two that is below their number.
fn halves(leaves: &[Digest]) -> (&[Digest], &[Digest]) {
    let half = leaves.len().next_power_of_two() / 2;
    leaves.split_at(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The leaves of the vectors that the Certificate Transparency projects share.
    fn leaves() -> Vec<Digest> {
        let eighth: Vec<u8> = (0x60..0x70).collect();
        let texts: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            &eighth,
        ];
        texts.map(Digest::of_line).to_vec()
    }

    fn digests(texts: &[&str]) -> Vec<Digest> {
        texts.iter().map(|text| Digest::parse(text).unwrap()).collect()
    }

    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    /// P7. Roots are those that other implementations of RFC 6962 find.
    #[test]
    fn roots_are_those_of_the_known_vectors() {
        let leaves = leaves();
        let found: Vec<Digest> = (0..=8).map(|size| root(&leaves[..size])).collect();
        assert_eq!(found, digests(&ROOTS));
    }

    /// P7. So are proofs of inclusion and of consistency.
    #[test]
    fn proofs_are_those_of_the_known_vectors() {
        let leaves = leaves();
        let (a, b, c) = (
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        );
        let (d, e, f) = (
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        );
        assert_eq!(inclusion(&leaves, 0), Some(digests(&[a, b, c])));
        assert_eq!(inclusion(&leaves, 5), Some(digests(&[d, e, ROOTS[4]])));
        assert_eq!(inclusion(&leaves[..3], 2), Some(digests(&[ROOTS[2]])));
        assert_eq!(inclusion(&leaves[..5], 1), Some(digests(&[ROOTS[1], b, d])));
        assert_eq!(inclusion(&leaves[..1], 0), Some(Vec::new()));
        assert_eq!(inclusion(&leaves, 8), None);
        assert_eq!(consistency(&leaves, 1), Some(digests(&[a, b, c])));
        assert_eq!(consistency(&leaves, 6), Some(digests(&[f, e, ROOTS[4]])));
        assert_eq!(consistency(&leaves[..5], 2), Some(digests(&[b, d])));
        assert_eq!(consistency(&leaves[..5], 5), Some(Vec::new()));
        assert_eq!((consistency(&leaves, 0), consistency(&leaves, 9)), (None, None));
    }

    fn many(count: u64) -> Vec<Digest> {
        (0..count).map(|number| Digest::of_line(&number.to_le_bytes())).collect()
    }

    /// P7. Every proof of every tree up to 33 leaves is taken, and none of its wrong neighbours.
    #[test]
    fn a_proof_of_inclusion_proves_one_leaf_at_one_place() {
        for size in 1..=33_u64 {
            let leaves = many(size);
            let root = root(&leaves);
            for index in 0..size {
                let leaf = leaves[usize::try_from(index).unwrap()];
                let path = inclusion(&leaves, usize::try_from(index).unwrap()).unwrap();
                for place in 0..size + 2 {
                    assert_eq!(is_included(leaf, (place, size), &path, root), place == index, "{index} {place} {size}");
                }
                assert!(!is_included(Digest::NONE, (index, size), &path, root));
                assert!(!is_included(leaf, (index, size), &[&path[..], &[Digest::NONE]].concat(), root));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!is_included(leaf, (index, size), shorter, root));
                }
            }
        }
    }

    /// P7. A tree that lost or changed a leaf of the older one does not continue it.
    #[test]
    fn a_proof_of_consistency_proves_that_nothing_was_changed() {
        for size in 1..=33_u64 {
            let leaves = many(size);
            let newer = Tree { size, root: root(&leaves) };
            for count in 1..=size {
                let first = usize::try_from(count).unwrap();
                let older = Tree { size: count, root: root(&leaves[..first]) };
                let path = consistency(&leaves, first).unwrap();
                assert!(is_continued(older, newer, &path), "{count} {size}");
                let mut changed = leaves.clone();
                changed[first - 1] = Digest::NONE;
                let other = Tree { size, root: root(&changed) };
                assert!(!is_continued(older, other, &consistency(&changed, first).unwrap()), "{count} {size}");
                assert!(!is_continued(older, newer, &[&path[..], &[Digest::NONE]].concat()));
                if let Some((_, shorter)) = path.split_last() {
                    assert!(!is_continued(older, newer, shorter));
                }
            }
            assert!(!is_continued(Tree { size: size + 1, ..newer }, newer, &[]));
        }
    }
}
