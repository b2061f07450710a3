//! One turn: a place in a block's queue.

use core::ptr;

use crate::{
    clock::Began,
    mm::Access,
    sync::{UnsafeCell, WaitWord, atomic::Ordering::Relaxed},
    units::PageNumber,
};

/// A thread of the program that waits on a trapped hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The page it touched.
    pub(crate) page: PageNumber,
    /// How.
    pub(crate) access: Access,
    /// The system's number of the thread, or 0 where it tells none.
    pub(crate) thread: u32,
    /// Where the fault stands in the order in which all were read. It goes round: of two faults of one
    /// thread it tells which is the newer.
    pub(crate) read: u32,
    /// When it was read of, if that is recorded.
    pub(crate) began: Began,
}

impl Fault {
    /// Whether this was read after `other`.
    pub(super) const fn is_newer_than(&self, other: &Self) -> bool {
        self.read.wrapping_sub(other.read).cast_signed() > 0
    }
}

/// Whose a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A thread's that works in the engine.
    Thread,
    /// A fault's.
    Fault,
}

/// How many turns have passed. What counts are differences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    pub(super) all: u32,
    pub(super) of_threads: u32,
}

impl Passed {
    pub(super) fn and(self, whose: Whose) -> Self {
        let of_threads = self.of_threads.wrapping_add((whose == Whose::Thread).into());
        Self { all: self.all.wrapping_add(1), of_threads }
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            all: self.all.wrapping_sub(before.all),
            of_threads: self.of_threads.wrapping_sub(before.of_threads),
        }
    }
}

/// A place in a block's queue: a thread's, or a fault's.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The turn behind, of the last the first, or, among the arrivals, the one before.
    pub(super) next: UnsafeCell<*mut Turn>,
    /// What had passed as this one got in line.
    pub(super) since: UnsafeCell<Passed>,
    /// Of the last in line: what passed since anybody stands there.
    pub(super) passed: UnsafeCell<Passed>,
    /// The fault to serve, or nothing for a thread.
    pub(super) fault: UnsafeCell<Option<Fault>>,
    /// Holds 1 once a thread's turn has come.
    pub(super) come: WaitWord,
}

// SAFETY: the cells have one owner at a time: who has the turn, until it is queued; the holder of
// the lock, until the turn has come or its place was given up.
unsafe impl Sync for Turn {}
// SAFETY: a turn holds no state of the thread that made it.
unsafe impl Send for Turn {}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            next: UnsafeCell::new(ptr::null_mut()),
            since: UnsafeCell::new(Passed::default()),
            passed: UnsafeCell::new(Passed::default()),
            fault: UnsafeCell::new(None),
            come: WaitWord::new(0),
        }
    }

    /// Makes a used turn ready for another use: for `fault`, or for a thread.
    ///
    /// # Safety
    /// The caller owns the turn and it is in no queue.
    pub(crate) unsafe fn prepare(&self, fault: Option<Fault>) {
        // SAFETY: the caller owns the turn.
        unsafe { *self.fault.get() = fault };
        self.come.word().store(0, Relaxed);
    }

    /// Sleeps until the turn of this thread has come.
    pub(crate) fn wait(&self) {
        self.come.wait_while(0);
    }
}
