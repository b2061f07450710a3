//! Access to the program's memory where it is, for a thread of a device in this process.
//!
//! A device looks into its page table and accesses what it finds there without a lock, so a page can
//! go under it: by an invalidation, which waits for accesses in flight, or by a system call that
//! nobody announces. An access in place survives that, and it never waits for another thread of the
//! engine, which could be the very one that waits for it: it is refused, and the device faults.

use core::{fmt, mem::ManuallyDrop, ptr};

use crate::{
    engine::SpaceRef,
    mm::{Accessor, AccessorNumber, Errno, Mm, Refused, Width, linux::Linux},
};

/// A thread's right to reach the program's memory in place.
pub struct InPlace<'a, M: Mm = Linux> {
    mm: &'a M,
    accessor: ManuallyDrop<Accessor>,
}

impl<'a, M: Mm> InPlace<'a, M> {
    pub(crate) fn open(mm: &'a M) -> Result<Self, Errno> {
        Ok(Self { mm, accessor: ManuallyDrop::new(mm.open_accessor()?) })
    }

    /// Names it to who waits for its accesses to end.
    pub fn number(&self) -> AccessorNumber {
        self.accessor.number()
    }

    /// Sees to it again that accesses end where they find no page. The program may have set handlers of
    /// its own for SIGSEGV or SIGBUS since this was opened; those would run on the device's thread, for an
    /// access that is none of theirs. So a device calls this before the first access in place of each
    /// piece of work. It makes two system calls. Not to be called while an access is in flight.
    ///
    /// # Errors
    /// The system's error. `ENOSPC`: the program has set eight different handlers, each in front of the
    /// last.
    pub fn renew(&self) -> Result<(), Errno> {
        self.mm.renew_accessor(&self.accessor)
    }

    /// Loads a number; its bits are the lowest of the answer.
    ///
    /// # Errors
    /// [`Refused`] where the page is not there, or may not be read.
    ///
    /// # Safety
    /// The address is aligned for the width, and others write there at most by atomic accesses, or
    /// in place, meanwhile.
    pub unsafe fn load(&self, address: usize, width: Width) -> Result<u64, Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.load_in_place(&self.accessor, address, width) }
    }

    /// Stores the lowest bits of `value` as a number.
    ///
    /// # Errors
    /// [`Refused`] where the page is not there, or may not be written.
    ///
    /// # Safety
    /// The address is aligned for the width, what is there may be written, and others access it at
    /// most by atomic accesses, or in place, meanwhile.
    pub unsafe fn store(&self, address: usize, width: Width, value: u64) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.store_in_place(&self.accessor, address, width, value) }
    }

    /// Replaces a number of four or eight bytes by `new` if it is `expected`, as one atomic access,
    /// and answers what was there: as an error where that was another number.
    ///
    /// # Errors
    /// [`Refused`] where the page is not there, or may not be written.
    ///
    /// # Safety
    /// As of [`store`](Self::store).
    pub unsafe fn compare_exchange(
        &self,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.compare_exchange_in_place(&self.accessor, address, width, expected, new) }
    }

    /// Adds to a number of four or eight bytes, wrapping, as one atomic access, and answers what was
    /// there.
    ///
    /// # Errors
    /// [`Refused`] where the page is not there, or may not be written.
    ///
    /// # Safety
    /// As of [`store`](Self::store).
    pub unsafe fn fetch_add(
        &self,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<u64, Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.fetch_add_in_place(&self.accessor, address, width, value) }
    }

    /// Loads bytes.
    ///
    /// # Errors
    /// [`Refused`] where a page is not there, or may not be read; some may be loaded then.
    ///
    /// # Safety
    /// Nobody writes the bytes meanwhile but by atomic accesses, or in place.
    pub unsafe fn copy_from(&self, address: usize, bytes: &mut [u8]) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.copy_in_place(&self.accessor, address, bytes) }
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`Refused`] where a page is not there, or may not be written; some may be stored then.
    ///
    /// # Safety
    /// What is there may be written, and nobody else accesses it meanwhile but by atomic accesses, or
    /// in place.
    pub unsafe fn copy_to(&self, address: usize, bytes: &[u8]) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.mm.write_in_place(&self.accessor, address, bytes) }
    }
}

/// Ends accesses in place that last, for a device that waits for them as it invalidates.
///
/// Such an access can wait for a message to be read, and who reads may wait for the lock that is held
/// as translations are invalidated.
pub struct Refuser<M: Mm = Linux> {
    space: SpaceRef<M>,
}

impl<M: Mm> Refuser<M> {
    pub(crate) fn new(space: &SpaceRef<M>) -> Self {
        Self { space: space.clone() }
    }

    /// Has an access end that is under way: as done, or as refused. Does nothing where none is. To be
    /// called again while the access lasts.
    pub fn refuse(&self, accessor: AccessorNumber) {
        self.space.engine.mm.refuse(accessor);
    }
}

impl<M: Mm> fmt::Debug for Refuser<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refuser").finish_non_exhaustive()
    }
}

impl<M: Mm> Drop for InPlace<'_, M> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let accessor = unsafe { ptr::read(&raw const *self.accessor) };
        self.mm.close_accessor(accessor);
    }
}

impl<M: Mm> fmt::Debug for InPlace<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InPlace").finish_non_exhaustive()
    }
}
