//! The primitives behind which the model keeps its state: the standard library's, or the schedule
//! explorer's.
//!
//! The model plays the kernel, so its lock stands for the kernel's own: it is never held while
//! code outside the model runs, and engine locks may be held while it is taken.

#[cfg(shuttle)]
pub(super) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use core::time::Duration;
use std::sync::PoisonError;

/// Takes the lock. A test that failed while it held the lock has reported so already; the state is
/// whole, as every change to it is.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of the lock until something changes.
pub(super) fn wait<'a, T>(changed: &Condvar, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(held).unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of the lock while `condition` holds, `timeout` at most.
#[cfg(not(any(shuttle, miri)))]
pub(super) fn wait_at_most<'a, T>(
    changed: &Condvar,
    _mutex: &'a Mutex<T>,
    held: MutexGuard<'a, T>,
    timeout: Duration,
    condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    changed.wait_timeout_while(held, timeout, condition).unwrap_or_else(PoisonError::into_inner).0
}

/// Lets others run once where `condition` holds: time does not pass in this world, and waiting
/// without end could be for what only the passing of time brings about.
#[cfg(any(shuttle, miri))]
pub(super) fn wait_at_most<'a, T>(
    _changed: &Condvar,
    mutex: &'a Mutex<T>,
    mut held: MutexGuard<'a, T>,
    _timeout: Duration,
    mut condition: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    if !condition(&mut held) {
        return held;
    }
    drop(held);
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(shuttle))]
    std::thread::yield_now();
    lock(mutex)
}
