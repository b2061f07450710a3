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

use core::ptr;

use crate::{
    counters::Counters,
    events::Began,
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
    /// When it was read of, if that is recorded.
    pub(crate) began: Began,
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
struct Passed {
    all: u32,
    of_threads: u32,
}

impl Passed {
    fn and(self, whose: Whose) -> Self {
        let of_threads = self.of_threads.wrapping_add((whose == Whose::Thread).into());
        Self { all: self.all.wrapping_add(1), of_threads }
    }

    fn since(self, before: Self) -> Self {
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
    next: UnsafeCell<*mut Turn>,
    /// What had passed as this one got in line.
    since: UnsafeCell<Passed>,
    /// Of the last in line: what passed since anybody stands there.
    passed: UnsafeCell<Passed>,
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
/// - `line` is touched only by the holder. It points to the last who stands in line, or is null.
/// - A turn in the queue is valid until it is handed the lock or served.
#[derive(Debug)]
pub(crate) struct TurnQueue {
    arrivals: AtomicPtr<Turn>,
    line: UnsafeCell<*mut Turn>,
}

// SAFETY: by the invariants `line` is the holder's alone, and the lock passes between threads with
// acquire and release.
unsafe impl Sync for TurnQueue {}
// SAFETY: as above.
unsafe impl Send for TurnQueue {}

const HELD: *mut Turn = ptr::without_provenance_mut(1);

impl TurnQueue {
    pub(crate) fn new() -> Self {
        Self { arrivals: AtomicPtr::new(ptr::null_mut()), line: UnsafeCell::new(ptr::null_mut()) }
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
        // SAFETY: the caller is the holder, who owns `line`.
        unsafe { *self.line.get() }.is_null()
            && self.arrivals.compare_exchange(HELD, ptr::null_mut(), Release, Relaxed).is_ok()
    }

    /// Has all who arrived stand in line.
    ///
    /// # Safety
    /// The caller holds the lock.
    unsafe fn line_up(&self) {
        if self.arrivals.load(Relaxed) == HELD {
            return;
        }
        // SAFETY: the caller is the holder, who owns `line`.
        let line = unsafe { &mut *self.line.get() };
        // SAFETY: who stands in line is valid, and its cells are the holder's.
        let last = unsafe { line.as_ref() };
        // SAFETY: as above.
        let passed = last.map_or(Passed::default(), |last| unsafe { *last.passed.get() });
        // Nobody else replaces the stack as a whole, so it is not empty now.
        let newest = self.arrivals.swap(HELD, Acquire).map_addr(|a| a & !1);
        let (mut oldest, mut rest) = (ptr::null_mut(), newest);
        while let Some(turn) = ptr::NonNull::new(rest) {
            // SAFETY: a pushed turn is valid and its cells are the holder's.
            unsafe {
                *turn.as_ref().since.get() = passed;
                rest = turn.as_ref().next.get().replace(oldest);
            }
            oldest = turn.as_ptr();
        }
        // SAFETY: as above, of those who stood in line and those who arrived.
        unsafe {
            let first = last.map_or(oldest, |last| last.next.get().replace(oldest));
            *(*newest).next.get() = first;
            *(*newest).passed.get() = passed;
        }
        *line = newest;
    }

    /// Passes the lock on, as a turn of `whose` ends, and notes for how many turns of others the next
    /// waited.
    ///
    /// # Safety
    /// The caller holds the lock; it does no more where the answer is not a fault.
    pub(crate) unsafe fn pass_on(&self, whose: Whose, counters: &Counters) -> Next {
        // SAFETY: the caller is the holder.
        if unsafe { self.try_release() } {
            return Next::Nobody;
        }
        // SAFETY: the caller is the holder.
        unsafe { self.line_up() };
        // SAFETY: the caller is the holder, who owns `line`.
        let line = unsafe { &mut *self.line.get() };
        // Somebody stands in line: either did before, or arrived.
        let Some(last) = ptr::NonNull::new(*line) else {
            crate::abort::abort(b"a block's queue lost a turn");
        };
        // SAFETY: who stands in line is valid, and its cells are the holder's; the next of the last is
        // the first.
        let first = unsafe {
            let last = last.as_ref();
            let first = ptr::NonNull::new_unchecked(*last.next.get());
            *last.next.get() = *first.as_ref().next.get();
            let passed = (*last.passed.get()).and(whose);
            *last.passed.get() = passed;
            let waited = passed.since(*first.as_ref().since.get());
            counters.most_turns_waited.note(waited.all);
            counters.most_thread_turns_waited.note(waited.of_threads);
            first
        };
        if first == last {
            *line = ptr::null_mut();
        }
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
