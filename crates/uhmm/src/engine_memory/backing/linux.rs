//! Engine memory as a private anonymous mapping.

use core::{
    ffi::c_void,
    ptr::{self, NonNull},
};

use rustix::{
    io,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap},
};

use super::Backing;
use crate::{mm::Errno, units::PageSize};

/// The size of the system's base page.
pub(in super::super) fn page_size() -> PageSize {
    let Some(size) = PageSize::new(rustix::param::page_size()) else {
        crate::abort::abort(b"the system's page size is not a power of two");
    };
    size
}

/// What lies behind so many bytes is to be backed by huge pages. Less does not fill many, and then what
/// misses in the TLB is little.
const SMALL_PAGES: usize = 16 << 20;

fn done(result: io::Result<()>) -> Result<(), Errno> {
    result.map_err(|error| Errno(error.raw_os_error()))
}

impl Backing {
    /// Reserves `bytes` bytes, a multiple of the page size, that a child does not inherit.
    pub(in super::super) fn reserve(bytes: usize) -> Result<Self, Errno> {
        // SAFETY: the system chooses the addresses, so no mapping of anybody's is replaced.
        let mapped = unsafe {
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(|error| Errno(error.raw_os_error()))?;
        let Some(start) = NonNull::new(mapped.cast::<u8>()) else {
            return Err(Errno(libc::ENOMEM));
        };
        let backing = Self { start, bytes };
        if bytes > SMALL_PAGES {
            let at = backing.pointer(SMALL_PAGES, bytes - SMALL_PAGES);
            // SAFETY: the range is ours, and nothing is in it yet. A system without huge pages does
            // without.
            let _ = unsafe { madvise(at, bytes - SMALL_PAGES, Advice::LinuxHugepage) };
        }
        // SAFETY: the range is ours, and nothing is in it yet.
        match done(unsafe { madvise(mapped, bytes, Advice::LinuxDontFork) }) {
            Ok(()) => Ok(backing),
            Err(errno) => {
                // SAFETY: nobody knows of the reservation.
                unsafe { backing.release() };
                Err(errno)
            }
        }
    }

    fn protect(&self, offset: usize, bytes: usize, flags: MprotectFlags) -> Result<(), Errno> {
        let at = self.pointer(offset, bytes);
        // SAFETY: by the invariant of `Backing` the range is ours; who takes access away shows that
        // nobody uses it.
        done(unsafe { mprotect(at, bytes, flags) })
    }

    fn pointer(&self, offset: usize, bytes: usize) -> *mut c_void {
        let _end = self.at(offset.saturating_add(bytes));
        self.at(offset).as_ptr().cast()
    }

    /// Makes a part readable and writable. What was so already keeps its content.
    pub(in super::super) fn commit(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        self.protect(offset, bytes, MprotectFlags::READ | MprotectFlags::WRITE)
    }

    /// Makes a committed part inaccessible; `commit` undoes it.
    ///
    /// # Safety
    /// Nobody uses the part until then.
    pub(in super::super) unsafe fn guard(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        self.protect(offset, bytes, MprotectFlags::empty())
    }

    /// Says whether children inherit a part.
    pub(in super::super) fn inherit(
        &self,
        offset: usize,
        bytes: usize,
        inherit: bool,
    ) -> Result<(), Errno> {
        let advice = if inherit { Advice::LinuxDoFork } else { Advice::LinuxDontFork };
        // SAFETY: by the invariant of `Backing` the range is ours; this process sees no difference.
        done(unsafe { madvise(self.pointer(offset, bytes), bytes, advice) })
    }

    /// Gives the memory of a committed part back to the system, and says whether the part is zero
    /// now. Our mapping is trapped by no userfaultfd, so this raises no event.
    ///
    /// # Safety
    /// Nobody needs the content of the part.
    pub(in super::super) unsafe fn discard(&self, offset: usize, bytes: usize) -> bool {
        // SAFETY: by the invariant of `Backing` the range is ours, by the contract its content is
        // not needed.
        unsafe { madvise(self.pointer(offset, bytes), bytes, Advice::LinuxDontNeed) }.is_ok()
    }

    /// Ends the reservation.
    ///
    /// # Safety
    /// Nobody uses it, now or later.
    pub(in super::super) unsafe fn release(self) {
        // SAFETY: by the invariant of `Backing` the range is ours, by the contract it is not used.
        // Where the system refuses, the addresses stay reserved, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
