//! What the system tells about faults and changes.

use super::Child;
use crate::units::{PageNumber, PageRange};

/// How a CPU thread touched a page that was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load, or a fetch of instructions.
    Read,
    /// A store, or an atomic operation.
    Write,
}

/// What the system tells: a thread waits on a trapped hole, or watched areas change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A thread waits on a hole.
    Fault {
        /// The page it touched.
        page: PageNumber,
        /// How.
        access: Access,
        /// The system's number of the thread.
        thread: u32,
    },
    /// The range was unmapped, or mapped over. The addresses may already be in use again.
    Unmapped(PageRange),
    /// Pages moved to other addresses; those that were trapped or watched still are, there.
    Remapped {
        /// Where they were.
        from: PageRange,
        /// The first page of where they are, as many on.
        to: PageNumber,
    },
    /// The content of the range is about to be dropped by the thread that waits for this to be
    /// read; the range stays mapped. Of shared memory and files the view alone may go, or the
    /// content too; and it can come to nothing, as the system tells of it before it looks whether
    /// the area allows it.
    Discarded(PageRange),
    /// The process is being forked; the child has what was there, and holes where pages are away. It
    /// does not run, and the fork does not return, until the child is [ended](super::Mm::end_child); where this
    /// process ends before there is no child. Only where [`Mm::tells_forks`](super::Mm::tells_forks) says so.
    Forked(Child),
}
