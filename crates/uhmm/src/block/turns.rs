//! The lock of a block: a queue of turns, first come, first served.
//!
//! Threads and parked faults stand in one queue. A thread's turn makes it the holder; a fault's
//! turn is served by whoever holds the lock when the turn comes, so no thread that serves faults
//! ever waits for a block, and nobody can be overtaken.
//!
//! Arrivals are pushed onto a stack with one compare-exchange. The holder, as it leaves, turns the
//! stack over into its own list, oldest first, and hands the lock to the first of it. While anybody
//! waits the lock never becomes free, so there is no moment to barge in.

use core::ptr;

use crate::{
    mm::Access,
    sync::{
        UnsafeCell, WaitWord,
        atomic::{
            AtomicPtr,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    units::PageNumber,
};

/// A thread of the program that waits on a trapped hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The page it touched.
    pub(crate) page: PageNumber,
    /// How.
    pub(crate) access: Access,
}

/// A place in a block's queue: a thread's, or a fault's.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The turn behind or, among the arrivals, the one before.
    next: UnsafeCell<*mut Turn>,
    /// The fault to serve, or nothing for a thread.
    fault: UnsafeCell<Option<Fault>>,
    /// Holds 1 once a thread's turn has come.
    come: WaitWord,
}

// SAFETY: the cells have one owner at a time: who has the turn, until it is queued; the holder of
// the lock, until the turn has come.
unsafe impl Sync for Turn {}
// SAFETY: a turn holds no state of the thread that made it.
unsafe impl Send for Turn {}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            next: UnsafeCell::new(ptr::null_mut()),
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

/// What comes after the holder of a lock.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nobody waits: the lock is free now.
    Nobody,
    /// A thread holds the lock now.
    Thread,
    /// A fault's turn has come: the caller holds the lock still, serves it and asks again.
    Fault(ptr::NonNull<Turn>, Fault),
}

/// A queue of turns and the lock that goes through it.
///
/// # Invariants
/// - `arrivals` is null while the lock is free; else its lowest bit is set and the rest points to
///   the newest turn that arrived since the holder last looked, or is null.
/// - `order` is touched only by the holder.
/// - A turn in the queue is valid until it is handed the lock or served.
#[derive(Debug)]
pub(crate) struct TurnQueue {
    arrivals: AtomicPtr<Turn>,
    order: UnsafeCell<*mut Turn>,
}

// SAFETY: by the invariants `order` is the holder's alone, and the lock passes between threads with
// acquire and release.
unsafe impl Sync for TurnQueue {}
// SAFETY: as above.
unsafe impl Send for TurnQueue {}

const HELD: *mut Turn = ptr::without_provenance_mut(1);

impl TurnQueue {
    pub(crate) fn new() -> Self {
        Self { arrivals: AtomicPtr::new(ptr::null_mut()), order: UnsafeCell::new(ptr::null_mut()) }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        self.arrivals.compare_exchange(ptr::null_mut(), HELD, Acquire, Relaxed).is_ok()
    }

    /// Takes the lock if it is free, else puts `turn` at the end of the queue. Returns whether the
    /// lock was taken.
    ///
    /// # Safety
    /// `turn` is valid, in no queue, and stays valid until its turn has come.
    pub(crate) unsafe fn acquire_or_queue(&self, turn: ptr::NonNull<Turn>) -> bool {
        let mut seen = self.arrivals.load(Relaxed);
        loop {
            let (new, success) = if seen.is_null() {
                (HELD, Acquire)
            } else {
                // SAFETY: the turn is the caller's until it is pushed.
                unsafe { *turn.as_ref().next.get() = seen.map_addr(|a| a & !1) };
                (turn.as_ptr().map_addr(|a| a | 1), Release)
            };
            match self.arrivals.compare_exchange_weak(seen, new, success, Relaxed) {
                Ok(_) => return seen.is_null(),
                Err(now) => seen = now,
            }
        }
    }

    /// Lets the lock go where nobody waits. Returns whether nobody did.
    ///
    /// # Safety
    /// The caller holds the lock, and has let it go where the answer is true.
    #[inline]
    pub(crate) unsafe fn try_release(&self) -> bool {
        // SAFETY: the caller is the holder, who owns `order`.
        unsafe { *self.order.get() }.is_null()
            && self.arrivals.compare_exchange(HELD, ptr::null_mut(), Release, Relaxed).is_ok()
    }

    /// Passes the lock on.
    ///
    /// # Safety
    /// The caller holds the lock; it does no more where the answer is not a fault.
    pub(crate) unsafe fn pass_on(&self) -> Next {
        // SAFETY: the caller is the holder.
        if unsafe { self.try_release() } {
            return Next::Nobody;
        }
        // SAFETY: the caller is the holder, who owns `order`.
        let order = unsafe { &mut *self.order.get() };
        if order.is_null() {
            // Nobody else replaces the stack as a whole, so it is not empty now.
            let mut newest = self.arrivals.swap(HELD, Acquire).map_addr(|a| a & !1);
            while let Some(turn) = ptr::NonNull::new(newest) {
                // SAFETY: a pushed turn is valid and its `next` is the holder's.
                let next = unsafe { &mut *turn.as_ref().next.get() };
                newest = *next;
                *next = *order;
                *order = turn.as_ptr();
            }
        }
        // The list has a turn in it: either it had, or the stack had.
        let Some(first) = ptr::NonNull::new(*order) else {
            crate::abort::abort(b"a block's queue lost a turn");
        };
        // SAFETY: a queued turn is valid and its `next` is the holder's.
        *order = unsafe { *first.as_ref().next.get() };
        // SAFETY: a queued turn is valid and its `fault` is the holder's.
        if let Some(fault) = unsafe { *first.as_ref().fault.get() } {
            return Next::Fault(first, fault);
        }
        // SAFETY: a turn's memory goes only with the engine, so it is there even when the sleeper
        // has gone on between the store and the wake-up.
        unsafe { first.as_ref() }.come.set(1);
        Next::Thread
    }
}

#[cfg(all(test, not(loom)))]
#[path = "turns/tests.rs"]
mod tests;
