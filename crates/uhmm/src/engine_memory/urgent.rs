//! Work that nobody can be told has failed draws on a reserve.
//!
//! A change of the address space has happened, and a device's memory is about to go: records must
//! follow. So a part of engine memory is handed out to such work alone. What other work is refused, it
//! reports.

use core::{cell::Cell, marker::PhantomData};

thread_local! {
    /// How many guards there are on this thread.
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// While it lives this thread's work is urgent.
#[derive(Debug)]
pub(crate) struct Urgent {
    this_thread: PhantomData<*mut ()>,
}

impl Urgent {
    pub(crate) fn new() -> Self {
        GUARDS.set(GUARDS.get() + 1);
        Self { this_thread: PhantomData }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

/// Whether this thread's work is urgent.
pub(super) fn is_urgent() -> bool {
    GUARDS.get() > 0
}
