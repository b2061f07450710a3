//! Which descriptors are of nodes.
//!
//! Behind each is a file in memory, so that its number is the process's own, `mmap` of it maps pages of
//! zeros, and whoever does not know of nodes finds an ordinary file. A program can have a descriptor closed
//! without our knowledge, by a bare system call, and its number used anew. So that a number is a node's is
//! believed where the file behind it is the one that was noted.

use core::{
    ffi::c_int,
    mem::MaybeUninit,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use crate::nodes::{self, Node};

/// Numbers beyond are not given to nodes.
const MOST: usize = 4096;

/// What is noted of a number.
struct Noted {
    /// Nothing, or which node it is of, in the lowest byte, and the process that opened it.
    node: AtomicU64,
    /// The number of the file behind it.
    file: AtomicU64,
}

static NODES: [Noted; MOST] =
    [const { Noted { node: AtomicU64::new(0), file: AtomicU64::new(0) } }; MOST];

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
fn place(descriptor: c_int) -> Option<&'static Noted> {
    NODES.get(usize::try_from(descriptor).ok()?)
}

/// This process, for the upper bytes.
fn this_process() -> u64 {
    u64::from(std::process::id()) << 8
}

/// The number of the file behind a descriptor, which no other file in memory has while it is open; 0 where there
/// is none.
fn file_of(descriptor: c_int) -> u64 {
    let mut told = MaybeUninit::<libc::stat64>::uninit();
    // SAFETY: there is room for what is told.
    if unsafe { libc::fstat64(descriptor, told.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: it was filled in.
    unsafe { told.assume_init() }.st_ino
}

/// Whose it was when it was noted.
fn noted(place: &Noted) -> Whose {
    let noted = place.node.load(Acquire);
    let Some(node) = Node::of_number(noted & 0xff) else { return Whose::Other };
    if noted & !0xff == this_process() { Whose::Node(node) } else { Whose::Inherited(node) }
}

/// Whose it is.
pub(crate) fn whose(descriptor: c_int) -> Whose {
    let Some(place) = place(descriptor) else { return Whose::Other };
    let whose = noted(place);
    if whose == Whose::Other || file_of(descriptor) == place.file.load(Acquire) {
        return whose;
    }
    // It was closed unseen.
    forget(descriptor);
    Whose::Other
}

/// Notes that a descriptor is of a node. Answers whether it can be.
pub(crate) fn note(descriptor: c_int, node: Node) -> bool {
    let Some(place) = place(descriptor) else { return false };
    // What was there before was closed unseen.
    forget(descriptor);
    place.file.store(file_of(descriptor), Release);
    place.node.store(node.number() | this_process(), Release);
    true
}

/// Forgets a descriptor that is closed, or about to be, and lets go of its node. One of a process that this one
/// was forked from is not forgotten: the child of `vfork` closes its own, and what is noted is its parent's.
pub(crate) fn forget(descriptor: c_int) {
    let Some(place) = place(descriptor) else { return };
    if let Whose::Node(node) = noted(place)
        && place.node.swap(0, AcqRel) != 0
    {
        nodes::close(node);
    }
}

/// Forgets all from `first` to `last` that are closed.
pub(crate) fn forget_all(first: u32, last: u32) {
    let first = usize::try_from(first).unwrap_or(MOST).min(MOST);
    let end = usize::try_from(last).unwrap_or(MOST).saturating_add(1).clamp(first, MOST);
    for (number, place) in NODES.iter().enumerate().take(end).skip(first) {
        if place.node.load(Acquire) != 0
            && let Ok(number) = c_int::try_from(number)
        {
            forget(number);
        }
    }
}
