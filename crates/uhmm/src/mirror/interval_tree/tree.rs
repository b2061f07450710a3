//! The tree: leaves with the entries, inner nodes with an entry for each child, which has the key of
//! the child's first entry and the last page of all that is below it.

mod insert;
mod remove;

#[cfg(all(test, not(shuttle)))]
mod check;

use core::{marker::PhantomData, ops::ControlFlow, ptr::NonNull};

use super::{node::Node, overlap::Bound};
use crate::{
    engine_memory::{EngineBox, EngineMemory},
    processor::prefetch,
};

/// The most levels of inner nodes. Each has two children or more, in a program 24, so that memory
/// ends long before.
const MOST_LEVELS: usize = 24;

/// From how many levels of inner nodes on a tree is deep: its leaves do not stay in the caches.
pub(super) const DEEP: usize = 3;

/// A pointer to a node: to a leaf or an inner one, which its level tells.
#[derive(Clone, Copy, Debug)]
struct Link(NonNull<()>);

impl Link {
    fn new<K, P, const N: usize>(node: EngineBox<Node<K, P, N>>) -> Self {
        let (node, _) = EngineBox::into_raw(node);
        // SAFETY: a box's pointer is not null.
        Self(unsafe { NonNull::new_unchecked(node) }.cast())
    }

    /// The node.
    ///
    /// # Safety
    /// It is a node of this type that lives, and nobody changes it, as long as the reference does.
    unsafe fn node<'a, K, P, const N: usize>(self) -> &'a Node<K, P, N> {
        // SAFETY: by the contract.
        unsafe { self.0.cast().as_ref() }
    }

    /// The node, to be changed.
    ///
    /// # Safety
    /// It is a node of this type that lives, and nobody else reaches it, as long as the reference
    /// does.
    unsafe fn node_mut<'a, K, P, const N: usize>(self) -> &'a mut Node<K, P, N> {
        // SAFETY: by the contract.
        unsafe { self.0.cast().as_mut() }
    }

    /// Takes the node back.
    ///
    /// # Safety
    /// It is a node of this type in `memory` that lives, and no link to it is used again.
    unsafe fn into_box<K, P, const N: usize>(
        self,
        memory: &EngineMemory,
    ) -> EngineBox<Node<K, P, N>> {
        let node: NonNull<Node<K, P, N>> = self.0.cast();
        // SAFETY: by the contract; links are made of boxes.
        unsafe { EngineBox::from_raw(node.as_ptr(), memory.clone()) }
    }
}

/// An inner node, and which of its children the path goes through.
#[derive(Clone, Copy)]
struct Step {
    node: Link,
    at: usize,
}

/// The way from the root to a leaf.
struct Path {
    leaf: Link,
    steps: [Step; MOST_LEVELS],
    height: usize,
}

impl Path {
    /// The parent of the path's node at `level`; `None` where that is the root.
    fn parent(&self, level: usize) -> Option<Step> {
        self.steps[..self.height].get(level).copied()
    }
}

/// Entries by (start, id), with up to `LEAF` of them on a leaf and up to `INNER` children of an inner
/// node.
///
/// # Invariants
/// The leaves, `Node<K, T, LEAF>`, are at level 0, the root is at level `height`, and all above the
/// leaves are `Node<K, Link, INNER>`. The root's link and those in inner nodes were made by
/// [`Link::new`] of nodes in `memory`; each node has one, which is not used after the node was freed.
/// Nodes are reached through the tree alone.
///
/// Each node but the root has half of its places in use, or more; an inner root has two children, a
/// leaf that is the root an entry. The bounds of an inner node's entry are those of the child.
pub(super) struct Tree<K, T, const INNER: usize, const LEAF: usize> {
    memory: EngineMemory,
    root: Option<Link>,
    height: usize,
    owns: PhantomData<(K, T)>,
}

// SAFETY: the tree owns its nodes and what they hold.
unsafe impl<K: Send, T: Send, const INNER: usize, const LEAF: usize> Send
    for Tree<K, T, INNER, LEAF>
{
}
// SAFETY: by a shared reference the tree hands out shared references alone.
unsafe impl<K: Sync, T: Sync, const INNER: usize, const LEAF: usize> Sync
    for Tree<K, T, INNER, LEAF>
{
}

impl<K: Bound, T, const INNER: usize, const LEAF: usize> Tree<K, T, INNER, LEAF> {
    /// A tree with no entry, which takes no memory yet.
    pub(super) const fn new(memory: EngineMemory) -> Self {
        Self { memory, root: None, height: 0, owns: PhantomData }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Calls `visit` with the first page, the last page and the value of each entry that has a page
    /// from `start` to `last`, by (start, id), until it breaks.
    pub(super) fn visit<B>(
        &self,
        start: K,
        last: K,
        visit: &mut impl FnMut(K, K, &T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self.root {
            // SAFETY: the root is at this level.
            Some(root) => unsafe { Self::visit_below(root, self.height, start, last, visit) },
            None => ControlFlow::Continue(()),
        }
    }

    /// As [`visit`](Self::visit), for what is below a node. Only where several children are wanted
    /// it calls itself, and no deeper than the tree is high.
    ///
    /// # Safety
    /// `node` leads to a node of a tree at level `level`, and the tree does not change meanwhile.
    unsafe fn visit_below<B>(
        mut node: Link,
        level: usize,
        start: K,
        last: K,
        visit: &mut impl FnMut(K, K, &T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for below in (0..level).rev() {
            // SAFETY: by the contract, and the tree's invariant.
            let inner = unsafe { node.node::<K, Link, INNER>() };
            let mut wanted = inner.overlapping(start, last);
            if wanted == 0 {
                return ControlFlow::Continue(());
            }
            while wanted & (wanted - 1) != 0 {
                let child = *inner.payload(wanted.trailing_zeros() as usize);
                // SAFETY: by the tree's invariant the child is one level below.
                unsafe { Self::visit_below(child, below, start, last, visit) }?;
                wanted &= wanted - 1;
            }
            node = *inner.payload(wanted.trailing_zeros() as usize);
        }
        // SAFETY: by the contract, and the tree's invariant.
        let leaf = unsafe { node.node::<K, T, LEAF>() };
        leaf.prefetch_payloads();
        let mut wanted = leaf.overlapping(start, last);
        while wanted != 0 {
            let at = wanted.trailing_zeros() as usize;
            let (first, last) = leaf.bounds(at);
            visit(first, last, leaf.payload(at))?;
            wanted &= wanted - 1;
        }
        ControlFlow::Continue(())
    }

    /// Has the processor fetch the last leaf that has an entry with the page `at`, if the tree is deep.
    pub(super) fn prefetch(&self, at: K) {
        let (Some(mut node), DEEP..) = (self.root, self.height) else { return };
        for _ in 0..self.height {
            // SAFETY: by the tree's invariant it is an inner node; `self` is borrowed.
            let inner = unsafe { node.node::<K, Link, INNER>() };
            let Some(place) = inner.overlapping(at, at).checked_ilog2() else { return };
            node = *inner.payload(place as usize);
        }
        prefetch(node.0.as_ptr().cast_const().cast::<Node<K, T, LEAF>>());
    }

    /// The way to the leaf that has the entry with this key, or would have it.
    fn path_to(&self, root: Link, key: (K, u64)) -> Path {
        let steps = [Step { node: root, at: 0 }; MOST_LEVELS];
        let mut path = Path { leaf: root, steps, height: self.height };
        for step in path.steps[..self.height].iter_mut().rev() {
            // SAFETY: by the tree's invariant it is an inner node; `self` is borrowed.
            let inner = unsafe { path.leaf.node::<K, Link, INNER>() };
            let at = inner.position(key).unwrap_or_else(|place| place.saturating_sub(1));
            *step = Step { node: path.leaf, at };
            path.leaf = *inner.payload(at);
        }
        path
    }
}

impl<K, T, const INNER: usize, const LEAF: usize> Tree<K, T, INNER, LEAF> {
    /// Frees a node and all below it, calling itself no deeper than the tree is high.
    ///
    /// # Safety
    /// `node` is a node of a tree in `memory` at level `level`, and no link to it, or to what is
    /// below it, is used again.
    unsafe fn free(memory: &EngineMemory, node: Link, level: usize) {
        if level == 0 {
            // SAFETY: by the contract.
            drop(unsafe { node.into_box::<K, T, LEAF>(memory) });
            return;
        }
        // SAFETY: by the contract.
        let inner = unsafe { node.into_box::<K, Link, INNER>(memory) };
        for at in 0..inner.len() {
            // SAFETY: by the tree's invariant the child is one level below.
            unsafe { Self::free(memory, *inner.payload(at), level - 1) };
        }
    }
}

impl<K, T, const INNER: usize, const LEAF: usize> Drop for Tree<K, T, INNER, LEAF> {
    fn drop(&mut self) {
        if let Some(root) = self.root {
            // SAFETY: by the tree's invariant; the tree is not used again.
            unsafe { Self::free(&self.memory, root, self.height) };
        }
    }
}
