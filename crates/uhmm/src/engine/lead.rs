//! Which of the threads that read messages and serve faults leads.

use crate::sync::{
    WaitWord,
    atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// How many threads serve.
pub(crate) const HANDLERS: usize = if cfg!(any(shuttle, miri)) { 1 } else { 2 };

/// Who leads, and how the others are called.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) leading: AtomicBool,
    pub(crate) calls: WaitWord,
    pub(crate) stopping: AtomicBool,
    /// How many faults were read. Who leads counts.
    pub(crate) faults_read: AtomicU32,
    pub(crate) threads: [AtomicU32; HANDLERS],
}

impl Lead {
    pub(crate) fn new() -> Self {
        Self {
            leading: AtomicBool::new(false),
            calls: WaitWord::new(0),
            stopping: AtomicBool::new(false),
            faults_read: AtomicU32::new(0),
            threads: core::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    pub(crate) fn try_lead(&self) -> bool {
        !self.leading.load(Relaxed)
            && self.leading.compare_exchange(false, true, Acquire, Relaxed).is_ok()
    }

    pub(crate) fn call_another(&self) {
        self.calls.word().fetch_add(1, Release);
        self.calls.wake_one();
    }
}
