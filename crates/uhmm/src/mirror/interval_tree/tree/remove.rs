//! Taking an entry out.
//!
//! A node that falls below half takes entries from a neighbour, or joins it where the two fit one.

use super::{Link, Step, Tree};
use crate::mirror::interval_tree::{node::Node, overlap::Bound};

impl<K: Bound, T, const INNER: usize, const LEAF: usize> Tree<K, T, INNER, LEAF> {
    /// Takes the entry out that has exactly these bounds and this id; `None` where there is none.
    /// Takes no memory.
    pub(in super::super) fn remove(&mut self, start: K, last: K, id: u64) -> Option<T> {
        let path = self.path_to(self.root?, (start, id));
        // SAFETY: the path ends at a leaf; `self` is borrowed mutably.
        let leaf = unsafe { path.leaf.node_mut::<K, T, LEAF>() };
        let at = leaf.position((start, id)).ok()?;
        if leaf.bounds(at).1 != last {
            return None;
        }
        let value = leaf.remove(at).payload;
        // SAFETY: the path has the nodes at their levels; `self` is borrowed mutably.
        let mut changed = unsafe { self.settle::<T, LEAF>(path.leaf, path.parent(0)) };
        for (level, step) in (1..).zip(&path.steps[..path.height]) {
            if !changed {
                break;
            }
            // SAFETY: as above.
            changed = unsafe { self.settle::<Link, INNER>(step.node, path.parent(level)) };
        }
        self.lower();
        Some(value)
    }

    /// After an entry of `node` went: where too few are left, takes some from a neighbour, or joins
    /// it. Says whether its parent has changed.
    ///
    /// # Safety
    /// `node` is a node of this type of this tree, at `parent` or the root.
    unsafe fn settle<P, const N: usize>(&mut self, node: Link, parent: Option<Step>) -> bool {
        let Some(Step { node: parent, at }) = parent else { return false };
        // SAFETY: by the contract; `self` is borrowed mutably, and these are different nodes.
        let (node, parent) =
            unsafe { (node.node_mut::<K, P, N>(), parent.node_mut::<K, Link, INNER>()) };
        if node.len() >= Node::<K, P, N>::LEAST {
            return parent.set_bounds(at, node.key(0), node.last());
        }
        // By the tree's invariant the parent has two children or more.
        let at = at.saturating_sub(1);
        // SAFETY: as above; siblings are of one type. `node` is one of the two, and not used again.
        let [left, right] =
            [at, at + 1].map(|at| unsafe { parent.payload(at).node_mut::<K, P, N>() });
        let (before, behind) = (left.len(), right.len());
        if before + behind <= N {
            left.take(before, right, 0..behind);
            let gone = parent.remove(at + 1).payload;
            // SAFETY: it was the only link to the node.
            drop(unsafe { gone.into_box::<K, P, N>(&self.memory) });
        } else {
            if before > behind {
                right.take(0, left, before - (before - behind) / 2..before);
            } else {
                left.take(before, right, 0..(behind - before) / 2);
            }
            parent.set_bounds(at + 1, right.key(0), right.last());
        }
        parent.set_bounds(at, left.key(0), left.last());
        true
    }

    /// Takes a root away that has one child, or no entry.
    fn lower(&mut self) {
        let Some(root) = self.root else { return };
        if self.height == 0 {
            // SAFETY: by the tree's invariant; `self` is borrowed mutably.
            if unsafe { root.node::<K, T, LEAF>() }.len() == 0 {
                self.root = None;
                // SAFETY: it was the only link to the node.
                drop(unsafe { root.into_box::<K, T, LEAF>(&self.memory) });
            }
            return;
        }
        // SAFETY: as above.
        let inner = unsafe { root.node::<K, Link, INNER>() };
        if inner.len() == 1 {
            self.root = Some(*inner.payload(0));
            self.height -= 1;
            // SAFETY: it was the only link to the node.
            drop(unsafe { root.into_box::<K, Link, INNER>(&self.memory) });
        }
    }
}
