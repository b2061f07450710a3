//! When a device's memory is to be given up ahead of need, by a thread of its own.
//!
//! That is worth it where a page leaves by a copy: else a fault that finds no frame waits for two
//! transfers. A fault that had to evict says that memory is short. From then on the thread is asked for
//! more whenever few frames are left, a number of times; then a fault has to find none free again. So
//! what fits is not given up for long, and nobody looks where nothing is wanted.

use crate::sync::{
    WaitWord,
    atomic::{
        AtomicBool, AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

/// How often the thread is asked after a fault that found no frame.
const TIMES: u32 = 16;

/// What a device's thread is to do.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Counts the times that it was asked.
    calls: WaitWord,
    /// Whether it was asked and has not begun yet.
    is_asked: AtomicBool,
    /// How often it may be asked.
    times: AtomicU32,
    /// Whether there is a thread, which is to go on.
    is_running: AtomicBool,
}

impl Ahead {
    /// A thread begins.
    pub(crate) fn start(&self) {
        self.is_running.store(true, Release);
    }

    /// Its thread is to end.
    pub(crate) fn stop(&self) {
        self.is_running.store(false, Release);
        self.call();
    }

    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Acquire)
    }

    /// A fault found no frame free.
    pub(crate) fn note_shortage(&self) {
        if self.is_running() {
            self.times.store(TIMES, Relaxed);
        }
    }

    /// Few frames are left.
    #[inline]
    pub(super) fn note_few(&self) {
        if self.times.load(Relaxed) > 0 {
            self.ask();
        }
    }

    #[cold]
    fn ask(&self) {
        if !self.is_asked.swap(true, AcqRel) {
            // Two who ask at a time may count one less.
            let times = self.times.load(Relaxed);
            self.times.store(times.saturating_sub(1), Relaxed);
            self.call();
        }
    }

    fn call(&self) {
        self.calls.word().fetch_add(1, Release);
        self.calls.wake_one();
    }

    /// Waits until it is asked. Answers whether it is to go on.
    pub(crate) fn wait(&self) -> bool {
        loop {
            let calls = self.calls.word().load(Acquire);
            if !self.is_running() {
                return false;
            }
            if self.is_asked.swap(false, AcqRel) {
                return true;
            }
            self.calls.wait(calls);
        }
    }
}
