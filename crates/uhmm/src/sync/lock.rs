//! A small lock for the leaves of the lock order: allocators and pools.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use super::{
    SignalsBlocked, WaitWord,
    atomic::Ordering::{Acquire, Relaxed, Release},
};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// A lock around `T`, held for a few instructions at a time.
///
/// # Invariants
/// The value is reached only through a guard, and there is one guard while the word is not `FREE`.
#[derive(Debug, Default)]
pub struct Lock<T> {
    word: WaitWord,
    value: UnsafeCell<T>,
}

// SAFETY: by the invariant one thread at a time reaches the value.
unsafe impl<T: Send> Sync for Lock<T> {}
// SAFETY: the lock owns its value.
unsafe impl<T: Send> Send for Lock<T> {}

/// The lock, held.
#[derive(Debug)]
pub struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
    signals: PhantomData<&'a SignalsBlocked>,
}

impl<T> Lock<T> {
    /// A lock around `value`.
    #[cfg(not(any(shuttle, miri)))]
    pub const fn new(value: T) -> Self {
        Self { word: WaitWord::new(FREE), value: UnsafeCell::new(value) }
    }

    /// A lock around `value`.
    #[cfg(any(shuttle, miri))]
    pub fn new(value: T) -> Self {
        Self { word: WaitWord::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock and takes it. The caller shows that no signal handler can run on this
    /// thread meanwhile.
    pub fn lock<'a>(&'a self, _signals: &'a SignalsBlocked) -> LockGuard<'a, T> {
        let word = self.word.word();
        if word.compare_exchange(FREE, HELD, Acquire, Relaxed).is_err() {
            while word.swap(CONTENDED, Acquire) != FREE {
                self.word.wait(CONTENDED);
            }
        }
        LockGuard { lock: self, signals: PhantomData }
    }

    /// The value, which nobody else can reach now.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Drop for LockGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.word.word().swap(FREE, Release) == CONTENDED {
            self.lock.word.wake_one();
        }
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: by the invariant of `Lock` this guard is the only one.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant of `Lock` this guard is the only one.
        unsafe { &mut *self.lock.value.get() }
    }
}
