//! Where engine memory comes from: the one place to edit for another system.
//!
//! In a program it is a mapping of our own; under the schedule explorer and the interpreter it is a
//! piece of std's heap, which has no protections and cannot fail late.

#[cfg(any(shuttle, miri))]
mod heap;
#[cfg(not(any(shuttle, miri)))]
mod linux;

use core::ptr::NonNull;

#[cfg(any(shuttle, miri))]
pub(super) use heap::page_size;
#[cfg(not(any(shuttle, miri)))]
pub(super) use linux::page_size;

/// A reservation of addresses, inaccessible until committed.
///
/// # Invariants
/// The `bytes` bytes from `start` on, both multiples of the page size, are reserved for us from
/// `reserve` to `release`. What was committed and not made a guard since is readable and writable,
/// and zero until written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backing {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it only names memory; whoever touches that says why it may.
unsafe impl Send for Backing {}
// SAFETY: as above; the system's calls may be made from any thread.
unsafe impl Sync for Backing {}

impl Backing {
    /// Where the reservation starts.
    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address `offset` bytes into the reservation.
    fn at(&self, offset: usize) -> NonNull<u8> {
        if offset > self.bytes {
            crate::abort::abort(b"an offset into engine memory is out of range");
        }
        // SAFETY: the offset is at most the length, and by the invariant all of that is ours.
        unsafe { self.start.add(offset) }
    }
}
