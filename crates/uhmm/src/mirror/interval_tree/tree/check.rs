//! What always holds of a tree, looked at as a whole.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::fmt::Debug;

use super::{Link, Tree};
use crate::mirror::interval_tree::{node::Node, overlap::Bound};

/// What a look at all of a tree has found.
#[derive(Debug)]
pub(in super::super) struct Seen<K> {
    /// The first page, the last page and the id of each entry, in the tree's order.
    pub(in super::super) entries: Vec<(K, K, u64)>,
    pub(in super::super) leaves: usize,
    pub(in super::super) inner: usize,
    pub(in super::super) height: usize,
}

/// The key of the first entry, and the last page of all.
type Bounds<K> = ((K, u64), K);

impl<K: Bound + Debug, T, const INNER: usize, const LEAF: usize> Tree<K, T, INNER, LEAF> {
    /// Checks the invariants.
    pub(in super::super) fn check(&self) -> Seen<K> {
        let mut seen = Seen { entries: Vec::new(), leaves: 0, inner: 0, height: self.height };
        match self.root {
            Some(root) => {
                self.check_below(root, self.height, &mut seen);
            }
            None => assert_eq!(self.height, 0),
        }
        let keys = seen.entries.iter().map(|&(start, _, id)| (start, id));
        assert!(keys.is_sorted_by(|a, b| a < b), "entries are in order");
        // Half full, at each level.
        let fewest = 2 * (INNER / 2).pow(seen.height.saturating_sub(1).try_into().unwrap());
        assert!(seen.height == 0 || seen.leaves >= fewest, "{} leaves", seen.leaves);
        seen
    }

    fn check_below(&self, link: Link, level: usize, seen: &mut Seen<K>) -> Bounds<K> {
        if level == 0 {
            // SAFETY: by the tree's invariant; `self` is borrowed.
            let leaf = unsafe { link.node::<K, T, LEAF>() };
            let least = if self.height == 0 { 1 } else { LEAF / 2 };
            assert!((least..=LEAF).contains(&leaf.len()), "a leaf with {} entries", leaf.len());
            seen.leaves += 1;
            for at in 0..leaf.len() {
                let (start, last) = leaf.bounds(at);
                assert!(start <= last);
                seen.entries.push((start, last, leaf.key(at).1));
            }
            return bounds(leaf);
        }
        // SAFETY: as above.
        let inner = unsafe { link.node::<K, Link, INNER>() };
        let least = if self.height == level { 2 } else { INNER / 2 };
        assert!((least..=INNER).contains(&inner.len()), "a node with {} children", inner.len());
        seen.inner += 1;
        for at in 0..inner.len() {
            let below = self.check_below(*inner.payload(at), level - 1, seen);
            assert_eq!((inner.key(at), inner.bounds(at).1), below, "what is said of a child");
        }
        bounds(inner)
    }

    /// How many nodes a search for what has a page from `start` to `last` looks at.
    pub(in super::super) fn looked_at(&self, start: K, last: K) -> usize {
        self.root.map_or(0, |root| Self::looked_at_below(root, self.height, start, last))
    }

    fn looked_at_below(link: Link, level: usize, start: K, last: K) -> usize {
        if level == 0 {
            return 1;
        }
        // SAFETY: by the tree's invariant; the caller has borrowed the tree.
        let inner = unsafe { link.node::<K, Link, INNER>() };
        let wanted = inner.overlapping(start, last);
        let children = (0..inner.len()).filter(|at| wanted & (1 << at) != 0);
        let below = |at| Self::looked_at_below(*inner.payload(at), level - 1, start, last);
        1 + children.map(below).sum::<usize>()
    }
}

fn bounds<K: Bound, P, const N: usize>(node: &Node<K, P, N>) -> Bounds<K> {
    let last = (0..node.len()).map(|at| node.bounds(at).1).max().unwrap();
    (node.key(0), last)
}
