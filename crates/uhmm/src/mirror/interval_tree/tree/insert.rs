//! Adding an entry.
//!
//! A node that overflows gives entries to a neighbour that has room, and is split only where neither
//! has. That keeps nodes six sevenths full where ranges come in no order, and full where they come in
//! order. All memory is had before anything is changed, so that there is nothing to be undone.

use core::array;

use super::{Link, MOST_LEVELS, Path, Step, Tree};
use crate::{
    engine_memory::{EngineBox, EngineMemoryError},
    mirror::interval_tree::{
        node::{Entry, Node},
        overlap::Bound,
    },
};

/// Who has room for one more entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Itself,
    Left,
    Right,
    Nobody,
}

/// Nodes that an insertion will need: had before anything is changed.
struct Spares<K, T, const INNER: usize, const LEAF: usize> {
    leaf: Option<EngineBox<Node<K, T, LEAF>>>,
    /// By level, from the lowest on.
    inner: [Option<EngineBox<Node<K, Link, INNER>>>; MOST_LEVELS],
}

impl<K: Bound, T, const INNER: usize, const LEAF: usize> Tree<K, T, INNER, LEAF> {
    /// Adds `entry`, the key of which no other has.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the entry is dropped then, and the tree
    /// is as it was.
    pub(in super::super) fn try_insert(
        &mut self,
        entry: Entry<K, T>,
    ) -> Result<(), EngineMemoryError> {
        let Some(root) = self.root else {
            let mut leaf = Node::<K, T, LEAF>::try_new(&self.memory)?;
            leaf.insert(0, entry);
            self.root = Some(Link::new(leaf));
            return Ok(());
        };
        let path = self.path_to(root, entry.key());
        let mut spares = self.spares(&path)?;
        let (key, last) = (entry.key(), entry.last);
        // SAFETY: by the tree's invariant; `self` is borrowed mutably.
        let found = unsafe { path.leaf.node::<K, T, LEAF>() }.position(key);
        debug_assert!(found.is_err(), "an id of an interval tree is in use twice");
        let place = found.unwrap_or_else(|place| place);
        let parent = path.parent(0);
        // SAFETY: the path has the nodes at their levels; `self` is borrowed mutably.
        let mut split = unsafe { Self::put(path.leaf, parent, place, entry, spares.leaf) };
        let mut level = 0;
        while let Some(right) = split {
            let spare = spares.inner[level].take();
            let Some(step) = path.parent(level) else {
                self.grow(root, right, spare);
                return Ok(());
            };
            level += 1;
            let parent = path.parent(level);
            // SAFETY: as above.
            split = unsafe { Self::put(step.node, parent, step.at + 1, right, spare) };
        }
        // What lies above the highest node that has changed has one entry more below it.
        for step in path.steps[..self.height].iter().skip(level + 1) {
            // SAFETY: the path has inner nodes above the leaf; `self` is borrowed mutably.
            let inner = unsafe { step.node.node_mut::<K, Link, INNER>() };
            let (first, end) = (inner.key(step.at), inner.bounds(step.at).1);
            if !inner.set_bounds(step.at, first.min(key), end.max(last)) {
                break;
            }
        }
        Ok(())
    }

    /// Who has room for one more entry of `node`.
    ///
    /// # Safety
    /// `node` is a node of this type of a tree, at `parent` or the root, and the tree does not change
    /// meanwhile.
    unsafe fn room<P, const N: usize>(node: Link, parent: Option<Step>) -> Room {
        // SAFETY: by the contract; siblings are of one type.
        let has_room = |node: Link| unsafe { node.node::<K, P, N>() }.len() < N;
        if has_room(node) {
            return Room::Itself;
        }
        let Some(Step { node: parent, at }) = parent else { return Room::Nobody };
        // SAFETY: by the contract.
        let parent = unsafe { parent.node::<K, Link, INNER>() };
        if at > 0 && has_room(*parent.payload(at - 1)) {
            Room::Left
        } else if at + 1 < parent.len() && has_room(*parent.payload(at + 1)) {
            Room::Right
        } else {
            Room::Nobody
        }
    }

    /// The nodes that one more entry on the path's leaf will take.
    fn spares(&self, path: &Path) -> Result<Spares<K, T, INNER, LEAF>, EngineMemoryError> {
        let mut spares = Spares { leaf: None, inner: array::from_fn(|_| None) };
        // SAFETY: the path has the nodes at their levels; `self` is borrowed.
        if unsafe { Self::room::<T, LEAF>(path.leaf, path.parent(0)) } != Room::Nobody {
            return Ok(spares);
        }
        spares.leaf = Some(Node::try_new(&self.memory)?);
        for (level, spare) in spares.inner.iter_mut().enumerate() {
            if let Some(step) = path.parent(level) {
                let parent = path.parent(level + 1);
                // SAFETY: as above.
                if unsafe { Self::room::<Link, INNER>(step.node, parent) } != Room::Nobody {
                    break;
                }
            }
            *spare = Some(Node::try_new(&self.memory)?);
            if level == path.height {
                break;
            }
        }
        Ok(spares)
    }

    /// Puts `entry` at `place` of a node, or of a neighbour of it, or splits the node into `spare`.
    /// Where it did that, returns the entry of the new node, which goes behind the node's own in its
    /// parent, if it has one. The parent's bounds of all nodes changed are true again.
    ///
    /// # Safety
    /// `node` is a node of this type of a tree, at `parent` or the root, and nobody else reaches the
    /// tree.
    unsafe fn put<P, const N: usize>(
        node: Link,
        parent: Option<Step>,
        place: usize,
        entry: Entry<K, P>,
        spare: Option<EngineBox<Node<K, P, N>>>,
    ) -> Option<Entry<K, Link>> {
        // SAFETY: by the contract.
        let room = unsafe { Self::room::<P, N>(node, parent) };
        // SAFETY: by the contract; node, parent and siblings are different nodes.
        let node = unsafe { node.node_mut::<K, P, N>() };
        let mut parent = parent.map(|step| {
            // SAFETY: as above.
            (unsafe { step.node.node_mut::<K, Link, INNER>() }, step.at)
        });
        let mut split = None;
        match (room, &mut parent) {
            (Room::Itself, _) => node.insert(place, entry),
            (Room::Left, Some((parent, at))) => {
                // SAFETY: as above; siblings are of one type.
                let left = unsafe { parent.payload(*at - 1).node_mut::<K, P, N>() };
                give_left(left, node, place, entry);
                parent.set_bounds(*at - 1, left.key(0), left.last());
            }
            (Room::Right, Some((parent, at))) => {
                // SAFETY: as above; siblings are of one type.
                let right = unsafe { parent.payload(*at + 1).node_mut::<K, P, N>() };
                give_right(node, right, place, entry);
                parent.set_bounds(*at + 1, right.key(0), right.last());
            }
            _ => {
                let Some(mut right) = spare else {
                    crate::abort::abort(b"a node of an interval tree is split into nothing");
                };
                give_right(node, &mut right, place, entry);
                let ((start, id), last) = (right.key(0), right.last());
                split = Some(Entry { start, last, id, payload: Link::new(right) });
            }
        }
        if let Some((parent, at)) = parent {
            parent.set_bounds(at, node.key(0), node.last());
        }
        split
    }

    /// Makes a root of two nodes: of the root so far, which was split, and of the other half.
    fn grow(
        &mut self,
        left: Link,
        right: Entry<K, Link>,
        spare: Option<EngineBox<Node<K, Link, INNER>>>,
    ) {
        let Some(mut root) = spare else {
            crate::abort::abort(b"an interval tree grows a root of nothing");
        };
        let ((start, id), last) = if self.height == 0 {
            // SAFETY: by the tree's invariant; `self` is borrowed mutably.
            let leaf = unsafe { left.node::<K, T, LEAF>() };
            (leaf.key(0), leaf.last())
        } else {
            // SAFETY: as above.
            let inner = unsafe { left.node::<K, Link, INNER>() };
            (inner.key(0), inner.last())
        };
        root.insert(0, Entry { start, last, id, payload: left });
        root.insert(1, right);
        self.root = Some(Link::new(root));
        self.height += 1;
    }
}

/// Moves entries of `node`, which is full, behind those of `left` until both have as many, one more
/// counted: `entry`, which goes to `place` of the node.
fn give_left<K: Bound, P, const N: usize>(
    left: &mut Node<K, P, N>,
    node: &mut Node<K, P, N>,
    place: usize,
    entry: Entry<K, P>,
) {
    let len = left.len();
    let count = (N - len).div_ceil(2);
    if place < count {
        left.take(len, node, 0..count - 1);
        left.insert(len + place, entry);
    } else {
        left.take(len, node, 0..count);
        node.insert(place - count, entry);
    }
}

/// As [`give_left`], before the entries of `right`.
fn give_right<K: Bound, P, const N: usize>(
    node: &mut Node<K, P, N>,
    right: &mut Node<K, P, N>,
    place: usize,
    entry: Entry<K, P>,
) {
    let kept = N - (N - right.len()).div_ceil(2);
    if place <= kept {
        right.take(0, node, kept..N);
        node.insert(place, entry);
    } else {
        right.take(0, node, kept + 1..N);
        right.insert(place - kept - 1, entry);
    }
}
