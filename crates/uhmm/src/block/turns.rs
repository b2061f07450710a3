//! The lock of a block: a queue of turns, first come, first served.
//!
//! Threads and parked faults stand in one queue. A thread's turn makes it the holder; a fault's
//! turn is served by whoever holds the lock when the turn comes, so no thread that serves faults
//! ever waits for a block, and nobody can be overtaken.
//!
//! Arrivals are pushed onto a stack with one compare-exchange. The holder, as its turn ends, has them
//! stand in line, oldest first, and hands the lock to the first of the line. While anybody waits the
//! lock never becomes free, so there is no moment to barge in.
//!
//! As that is done at the end of each turn, it is known of each who stands in line in whose turn it
//! arrived, and so how many turns of others it waited for as its own comes: that one, of which it may
//! have met the end only, and those between.

use core::ptr::{self, NonNull};

use super::{
    line::{Left, Line},
    turn::{Fault, Turn, Whose},
};
use crate::{
    counters::Counters,
    sync::{
        UnsafeCell,
        atomic::{
            AtomicPtr,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// What comes after the holder of a lock.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nobody waits: the lock is free now.
    Nobody,
    /// A thread holds the lock now.
    Thread,
    /// A fault's turn has come: the caller holds the lock still, serves it and asks again.
    Fault(NonNull<Turn>, Fault),
}

/// A queue of turns and the lock that goes through it.
///
/// # Invariants
/// - `arrivals` is null while the lock is free; else its lowest bit is set and the rest points to
///   the newest turn that arrived since the holder last looked, or is null.
/// - `line` is touched only by the holder.
/// - A turn in the queue is valid until it is handed the lock, served, or told to have got no place.
#[derive(Debug)]
pub(crate) struct TurnQueue {
    arrivals: AtomicPtr<Turn>,
    line: UnsafeCell<Line>,
}

// SAFETY: by the invariants `line` is the holder's alone, and the lock passes between threads with
// acquire and release.
unsafe impl Sync for TurnQueue {}
// SAFETY: as above.
unsafe impl Send for TurnQueue {}

const HELD: *mut Turn = ptr::without_provenance_mut(1);

impl TurnQueue {
    pub(crate) fn new() -> Self {
        Self { arrivals: AtomicPtr::new(ptr::null_mut()), line: UnsafeCell::new(Line::new()) }
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
    pub(crate) unsafe fn acquire_or_queue(&self, turn: NonNull<Turn>) -> bool {
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
        // SAFETY: the caller is the holder, who owns `line`.
        unsafe { &*self.line.get() }.is_empty()
            && self.arrivals.compare_exchange(HELD, ptr::null_mut(), Release, Relaxed).is_ok()
    }

    /// Passes the lock on, as a turn of `whose` ends, and notes for how many turns of others the next
    /// waited. Tells of turns that get no place, as their threads have one.
    ///
    /// # Safety
    /// The caller holds the lock; it does no more where the answer is not a fault.
    pub(crate) unsafe fn pass_on(
        &self,
        whose: Whose,
        counters: &Counters,
        left: impl FnMut(Left),
    ) -> Next {
        // SAFETY: the caller is the holder.
        if unsafe { self.try_release() } {
            return Next::Nobody;
        }
        // SAFETY: the caller is the holder, who owns `line`.
        let line = unsafe { &mut *self.line.get() };
        if self.arrivals.load(Relaxed) != HELD {
            // Nobody else replaces the stack as a whole, so it is not empty now.
            let newest = self.arrivals.swap(HELD, Acquire).map_addr(|a| a & !1);
            // SAFETY: a pushed turn is valid and its cells are the holder's.
            unsafe { line.join(newest, left) };
        }
        // SAFETY: the caller is the holder. Somebody stands in line: either did before, or arrived, and
        // who gets no place has one.
        let Some((first, waited)) = (unsafe { line.take_first(whose) }) else {
            crate::abort::abort(b"a block's queue lost a turn");
        };
        counters.most_turns_waited.note(waited.all);
        counters.most_thread_turns_waited.note(waited.of_threads);
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
