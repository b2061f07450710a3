//! Those who wait for something to be given back: frames of a device, or pages on the way to one.

use core::time::Duration;

use crate::sync::{
    WaitWord,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, SeqCst},
    },
};

/// Counts the times that something was given back, and has threads wait for the next.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    times: WaitWord,
    /// Threads that wait.
    waiting: AtomicUsize,
}

impl GivenBack {
    /// How often it happened so far.
    pub(super) fn times(&self) -> u32 {
        self.times.word().load(Acquire)
    }

    /// It happened: those who wait look again.
    #[inline]
    pub(super) fn tell(&self) {
        self.times.word().fetch_add(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.times.wake_all();
        }
    }

    /// Waits, for a moment at most, where it has not happened since `times` were counted.
    pub(super) fn wait(&self, times: u32) {
        self.waiting.fetch_add(1, SeqCst);
        if self.times() == times {
            self.times.wait_at_most(times, Duration::from_millis(1));
        }
        self.waiting.fetch_sub(1, SeqCst);
    }
}
