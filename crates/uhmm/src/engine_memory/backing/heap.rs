//! Engine memory as a piece of std's heap: no protections, nothing that fails late.
#![expect(clippy::disallowed_methods, reason = "no program has this")]

use core::{alloc::Layout, ptr::NonNull};

use super::Backing;
use crate::{mm::Errno, units::PageSize};

const ENOMEM: Errno = Errno(12);

/// The size of a base page of this world.
pub(in super::super) fn page_size() -> PageSize {
    const { PageSize::new(4096).unwrap() }
}

impl Backing {
    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, page_size().bytes()).ok().filter(|layout| layout.size() > 0)
    }

    /// Reserves `bytes` bytes, a multiple of the page size.
    pub(in super::super) fn reserve(bytes: usize) -> Result<Self, Errno> {
        let layout = Self::layout(bytes).ok_or(ENOMEM)?;
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(ENOMEM)?;
        Ok(Self { start, bytes })
    }

    /// All of it is readable and writable.
    #[expect(clippy::unnecessary_wraps, reason = "the system's call can fail")]
    pub(in super::super) fn commit(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        let _end = self.at(offset.saturating_add(bytes));
        Ok(())
    }

    /// There are no protections in this world.
    ///
    /// # Safety
    /// Nobody uses the part until it is committed again.
    #[expect(dead_code, reason = "only threads of the system have guards of their own")]
    pub(in super::super) unsafe fn guard(&self, offset: usize, bytes: usize) -> Result<(), Errno> {
        self.commit(offset, bytes)
    }

    /// Makes a part zero.
    ///
    /// # Safety
    /// Nobody needs the content of the part.
    pub(in super::super) unsafe fn discard(&self, offset: usize, bytes: usize) -> bool {
        let _end = self.at(offset.saturating_add(bytes));
        // SAFETY: by the invariant of `Backing` the part is ours, by the contract its content is
        // not needed.
        unsafe { self.at(offset).write_bytes(0, bytes) };
        true
    }

    /// Ends the reservation.
    ///
    /// # Safety
    /// Nobody uses it, now or later.
    pub(in super::super) unsafe fn release(self) {
        if let Some(layout) = Self::layout(self.bytes) {
            // SAFETY: it was allocated with this layout, by the contract it is not used.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
        }
    }
}
