//! The way from the engine to the queue of a recording, while there is one.

use core::ptr;

#[cfg(not(shuttle))]
use crate::sync::atomic;
// Nothing of the engine is decided by it, so it is no step to the schedule explorer.
#[cfg(shuttle)]
use core::sync::atomic;

use atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::queue::{Queue, Words};
use crate::sync::yield_now;

/// Leads to a queue, or nowhere.
///
/// # Invariants
/// `queue` is null or points to a queue that lives until somebody has taken it away from here and
/// seen that nobody pushes.
#[derive(Debug)]
pub(crate) struct Outlet {
    queue: AtomicPtr<Queue>,
    /// Threads that may have seen the queue and are not done with it.
    pushing: AtomicUsize,
}

impl Outlet {
    pub(crate) fn new() -> Self {
        Self { queue: AtomicPtr::new(ptr::null_mut()), pushing: AtomicUsize::new(0) }
    }

    /// Whether there is a queue: a load of what changes only as a recording begins or ends.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.queue.load(Relaxed).is_null()
    }

    /// Pushes an event, if there is a queue.
    pub(crate) fn push(&self, words: Words) {
        self.pushing.fetch_add(1, Relaxed);
        // Against `stop`: either that sees this thread counted, or this sees that there is no queue.
        fence(SeqCst);
        // SAFETY: by the invariant, as this thread is counted.
        if let Some(queue) = unsafe { self.queue.load(Acquire).as_ref() } {
            queue.push(words);
        }
        self.pushing.fetch_sub(1, Release);
    }

    /// Leads to a queue from now on. False where it leads to another one.
    ///
    /// # Safety
    /// The queue lives until [`stop`](Self::stop) has returned.
    pub(crate) unsafe fn start(&self, queue: *mut Queue) -> bool {
        self.queue.compare_exchange(ptr::null_mut(), queue, Release, Relaxed).is_ok()
    }

    /// Leads nowhere from now on. When it returns nobody uses the queue, and all that was pushed is
    /// seen.
    pub(crate) fn stop(&self) {
        self.queue.store(ptr::null_mut(), Relaxed);
        fence(SeqCst);
        // Nobody begins to push any more, and who does is done soon.
        while self.pushing.load(Acquire) != 0 {
            yield_now();
        }
    }
}
