//! Which descriptors are of nodes.
//!
//! Behind each is a file in memory, so that its number is the process's own, `mmap` of it maps pages of
//! zeros, and whoever does not know of nodes finds an ordinary file.

use core::{
    ffi::c_int,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire},
    },
};

use crate::nodes::Node;

/// Numbers beyond are not given to nodes.
const MOST: usize = 4096;

/// For each number nothing, or which node it is of, in the lowest byte, and the process that opened it.
static NODES: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// Whose a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// No node's.
    Other,
    /// A node's, which this process opened.
    Node(Node),
    /// A node's, which a process opened that this one was forked from. The node mirrors that one's memory,
    /// which cannot be reached from here.
    Inherited(Node),
}

/// The descriptor's place, if it can have one.
fn place(descriptor: c_int) -> Option<&'static AtomicU64> {
    NODES.get(usize::try_from(descriptor).ok()?)
}

/// This process, for the upper bytes.
fn this_process() -> u64 {
    u64::from(std::process::id()) << 8
}

/// Whose it is.
pub(crate) fn whose(descriptor: c_int) -> Whose {
    let noted = place(descriptor).map_or(0, |place| place.load(Acquire));
    let Some(node) = Node::of_number(noted & 0xff) else { return Whose::Other };
    if noted & !0xff == this_process() { Whose::Node(node) } else { Whose::Inherited(node) }
}

/// Notes that a descriptor is of a node. Answers whether it can be.
pub(crate) fn note(descriptor: c_int, node: Node) -> bool {
    let Some(place) = place(descriptor) else { return false };
    place.store(node.number() | this_process(), core::sync::atomic::Ordering::Release);
    true
}

/// Notes that a descriptor is closed. Answers whose it was.
pub(crate) fn forget(descriptor: c_int) -> Whose {
    let was = whose(descriptor);
    if was != Whose::Other
        && let Some(place) = place(descriptor)
    {
        place.swap(0, AcqRel);
    }
    was
}
