//! What is run, part by part.

mod calls;
mod clocks;
mod events;
mod holds;
mod in_flight;
mod shared;
mod sparse;
mod turns;

use core::ptr::NonNull;

use crate::{
    block::{Next, Turn, TurnQueue, Whose},
    counters::Counters,
    sync::UnsafeCell,
};

/// A value that one thread at a time owns.
struct Owned(UnsafeCell<usize>);

// SAFETY: that one thread at a time reaches it is what the tests show.
unsafe impl Sync for Owned {}
// SAFETY: a number is any thread's.
unsafe impl Send for Owned {}

impl Owned {
    fn new(value: usize) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Changes it, and returns what it was.
    #[track_caller]
    fn replace(&self, value: impl FnOnce(usize) -> usize) -> usize {
        let place = self.0.get();
        // SAFETY: the watch has found no other owner.
        unsafe {
            let before = *place;
            *place = value(before);
            before
        }
    }

    /// What it is. Others may look at the same time.
    #[track_caller]
    fn look(&self) -> usize {
        // SAFETY: the watch has found nobody who changes it.
        unsafe { *self.0.look() }
    }
}

/// A thread's stay under the lock of a queue where threads alone wait.
fn under_lock<R>(queue: &TurnQueue, turn: &Turn, stay: impl FnOnce() -> R) -> R {
    // SAFETY: callers have a turn for each thread, used once at a time, which lives until the end.
    let taken = unsafe {
        turn.prepare(None);
        queue.acquire_or_queue(NonNull::from(turn))
    };
    if !taken {
        turn.wait();
    }
    let result = stay();
    // SAFETY: the lock was taken, or handed over.
    let next = unsafe { queue.pass_on(Whose::Thread, &Counters::default(), |_| unreachable!()) };
    assert!(!matches!(next, Next::Fault(..)), "no fault is parked");
    result
}
