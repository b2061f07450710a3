//! A 32-bit word that threads can wait on.

#[cfg(any(shuttle, miri))]
use std::sync::PoisonError;

use super::atomic::{AtomicU32, Ordering};

/// A word with a queue of threads that wait for it to change.
#[derive(Debug, Default)]
pub struct WaitWord {
    word: AtomicU32,
    #[cfg(shuttle)]
    queue: (shuttle::sync::Mutex<()>, shuttle::sync::Condvar),
    #[cfg(miri)]
    queue: (std::sync::Mutex<()>, std::sync::Condvar),
}

impl WaitWord {
    /// A word that holds `value`.
    #[cfg(not(any(shuttle, miri)))]
    pub const fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value) }
    }

    /// A word that holds `value`.
    #[cfg(any(shuttle, miri))]
    pub fn new(value: u32) -> Self {
        Self { word: AtomicU32::new(value), queue: Default::default() }
    }

    /// The word itself.
    pub const fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// Sleeps while the word holds `expected`. May return early: look at the word again.
    #[cfg(not(any(shuttle, miri)))]
    pub fn wait(&self, expected: u32) {
        use rustix::thread::futex;
        // An interrupted or refused wait is an early return, which the caller handles anyway.
        let _ = futex::wait(&self.word, futex::Flags::PRIVATE, expected, None);
    }

    /// Sleeps while the word holds `expected`, `timeout` at most. May return early.
    #[cfg(not(any(shuttle, miri)))]
    pub fn wait_at_most(&self, expected: u32, timeout: core::time::Duration) {
        use rustix::thread::{Timespec, futex};
        let timeout = Timespec::try_from(timeout).ok();
        let _ = futex::wait(&self.word, futex::Flags::PRIVATE, expected, timeout.as_ref());
    }

    /// Wakes one thread that waits.
    #[cfg(not(any(shuttle, miri)))]
    pub fn wake_one(&self) {
        use rustix::thread::futex;
        let _ = futex::wake(&self.word, futex::Flags::PRIVATE, 1);
    }

    /// Wakes all threads that wait.
    #[cfg(not(any(shuttle, miri)))]
    pub fn wake_all(&self) {
        use rustix::thread::futex;
        let _ = futex::wake(&self.word, futex::Flags::PRIVATE, i32::MAX.unsigned_abs());
    }

    /// Sleeps while the word holds `expected`. May return early: look at the word again.
    #[cfg(any(shuttle, miri))]
    pub fn wait(&self, expected: u32) {
        let held = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.word.load(Ordering::SeqCst) == expected {
            drop(self.queue.1.wait(held).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Sleeps while the word holds `expected`; time does not pass in this world, so it ends as
    /// [`wait`](Self::wait) does, or at once where nothing else would end it.
    #[cfg(any(shuttle, miri))]
    pub fn wait_at_most(&self, expected: u32, _timeout: core::time::Duration) {
        let _ = expected;
        #[cfg(shuttle)]
        shuttle::thread::yield_now();
        #[cfg(miri)]
        std::thread::yield_now();
    }

    /// Wakes one thread that waits.
    #[cfg(any(shuttle, miri))]
    pub fn wake_one(&self) {
        let held = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.queue.1.notify_one();
        drop(held);
    }

    /// Wakes all threads that wait.
    #[cfg(any(shuttle, miri))]
    pub fn wake_all(&self) {
        let held = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.queue.1.notify_all();
        drop(held);
    }

    /// Stores `value` and wakes all threads that wait.
    pub fn set(&self, value: u32) {
        self.word.store(value, Ordering::Release);
        self.wake_all();
    }

    /// Sleeps until the word no longer holds `value`, and returns what it holds.
    pub fn wait_while(&self, value: u32) -> u32 {
        loop {
            let now = self.word.load(Ordering::Acquire);
            if now != value {
                return now;
            }
            self.wait(value);
        }
    }
}
