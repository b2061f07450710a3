//! The core's primitives, of what loom has.

pub(crate) use loom::sync::atomic;

use atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

pub(crate) fn yield_now() {
    loom::thread::yield_now();
}

pub(crate) fn spin() {
    yield_now();
}

/// A cell that fails the test where two reach it and nothing orders the one before the other.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T> {
    watched: loom::cell::UnsafeCell<()>,
    value: core::cell::UnsafeCell<T>,
}

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { watched: loom::cell::UnsafeCell::new(()), value: core::cell::UnsafeCell::new(value) }
    }

    /// The value's place. To ask is to be the owner.
    #[track_caller]
    pub(crate) fn get(&self) -> *mut T {
        self.watched.with_mut(|_| ());
        self.value.get()
    }

    /// The value's place, to look only. Others may look at the same time.
    #[track_caller]
    pub(crate) fn look(&self) -> *const T {
        self.watched.with(|_| ());
        self.value.get()
    }
}

/// As in the core. Who waits sleeps until woken, so that a wake-up that is lost ends in a deadlock, which loom tells.
#[derive(Debug)]
pub(crate) struct WaitWord {
    word: AtomicU32,
    queue: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

impl WaitWord {
    pub(crate) fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            queue: (loom::sync::Mutex::new(()), loom::sync::Condvar::new()),
        }
    }

    pub(crate) const fn word(&self) -> &AtomicU32 {
        &self.word
    }

    pub(crate) fn wait(&self, expected: u32) {
        let held = self.queue.0.lock().unwrap();
        if self.word.load(Relaxed) == expected {
            drop(self.queue.1.wait(held).unwrap());
        }
    }

    pub(crate) fn wake_all(&self) {
        let held = self.queue.0.lock().unwrap();
        self.queue.1.notify_all();
        drop(held);
    }

    pub(crate) fn set(&self, value: u32) {
        self.word.store(value, Release);
        self.wake_all();
    }

    pub(crate) fn wait_while(&self, value: u32) -> u32 {
        loop {
            let now = self.word.load(Acquire);
            if now != value {
                return now;
            }
            self.wait(value);
        }
    }
}
