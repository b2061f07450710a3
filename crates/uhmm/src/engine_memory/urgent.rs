//! Work that nobody can be told has failed draws on a reserve.
//!
//! A change of the address space has happened, and a device's memory is about to go: records must
//! follow. So a part of engine memory is handed out to such work alone. What other work is refused, it
//! reports.

use core::marker::PhantomData;

use crate::sync::this_thread;

/// While it lives this thread's work is urgent.
#[derive(Debug)]
pub(crate) struct Urgent {
    this_thread: PhantomData<*mut ()>,
}

impl Urgent {
    pub(crate) fn new() -> Self {
        let guards = &this_thread().urgent;
        guards.set(guards.get() + 1);
        Self { this_thread: PhantomData }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        let guards = &this_thread().urgent;
        guards.set(guards.get() - 1);
    }
}

/// Whether this thread's work is urgent.
pub(super) fn is_urgent() -> bool {
    this_thread().urgent.get() > 0
}
