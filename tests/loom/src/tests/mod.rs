//! What is run, part by part.

mod calls;
mod in_flight;
mod turns;

use crate::sync::UnsafeCell;

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
}
