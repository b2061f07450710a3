//! Handing memory out and taking it back.

use core::{
    alloc::Layout,
    num::NonZeroUsize,
    ptr::{self, NonNull},
};

use allocator_api2::alloc::{AllocError, Allocator};

use super::{
    EngineMemory, EngineMemoryError,
    memory::State,
    pages::{Kind, Refusal},
    slabs::{self, Object},
    urgent::is_urgent,
};
use crate::units::PageSize;

/// From this size on the memory of what is given back goes back to the system.
pub(super) const BIG: usize = 64 << 10;

/// Whether a layout is for a run of pages, not for a small object.
fn is_run(layout: Layout, page: PageSize) -> bool {
    slabs::class_for(layout.size(), layout.align(), page.bytes()).is_none()
}

/// The size of the block for a layout of some bytes.
fn block_bytes(layout: Layout, page: PageSize) -> usize {
    match slabs::class_for(layout.size(), layout.align(), page.bytes()) {
        Some(class) => slabs::object_bytes(class),
        None => page.bytes_in(page.pages_for(layout.size())),
    }
}

impl State {
    fn obtain(&mut self, layout: Layout, urgent: bool) -> Result<Object, Refusal> {
        if self.is_refused(urgent) {
            return Err(Refusal::Full);
        }
        let page = self.pages.page_size();
        let class = slabs::class_for(layout.size(), layout.align(), page.bytes());
        let block = if let Some(class) = class {
            self.slabs.take(&mut self.pages, class, urgent)?
        } else {
            let count = page.pages_for(layout.size());
            let (first, zero) = self.pages.take(count, layout.align(), urgent)?;
            Object { address: self.pages.address(first), bytes: page.bytes_in(count), zero }
        };
        self.used += block.bytes;
        Ok(block)
    }

    /// # Safety
    /// As of `Allocator::deallocate`; `zero` says that the whole block, a run, is zero.
    unsafe fn release(&mut self, address: NonNull<u8>, zero: bool) {
        let page = self.pages.page_of(address.addr().get());
        let kind = page.map_or(Kind::Inside, |page| self.pages.at(page).kind);
        self.used -= match (page, kind) {
            (Some(page), Kind::Slab) => {
                // SAFETY: by the contract.
                unsafe { self.slabs.give(&mut self.pages, page, address) }
            }
            (Some(page), Kind::Run) if self.pages.address(page) == address => {
                let bytes = self.pages.page_size().bytes_in(self.pages.at(page).len as usize);
                self.pages.give(page, zero);
                bytes
            }
            _ => crate::abort::abort(
                b"an address that engine memory did not hand out was given back",
            ),
        };
    }
}

impl EngineMemory {
    /// Hands out memory for `layout`, zeroed where asked.
    pub(crate) fn obtain(
        &self,
        layout: Layout,
        zeroed: bool,
    ) -> Result<NonNull<[u8]>, EngineMemoryError> {
        if layout.size() == 0 {
            let align = NonZeroUsize::new(layout.align()).unwrap_or(NonZeroUsize::MIN);
            return Ok(NonNull::slice_from_raw_parts(NonNull::without_provenance(align), 0));
        }
        let block = self
            .with_state(|state| state.obtain(layout, is_urgent()))
            .map_err(|refusal| self.refused(layout.size(), refusal))?;
        // Outside the lock: it can take long.
        if zeroed && !block.zero {
            // SAFETY: the block is ours alone, and its content is of no use to anybody.
            let zero = block.bytes >= BIG
                && unsafe { self.backing().discard(self.offset_of(block.address), block.bytes) };
            if !zero {
                // SAFETY: the block is ours alone and has these bytes.
                unsafe { block.address.write_bytes(0, block.bytes) };
            }
        }
        Ok(NonNull::slice_from_raw_parts(block.address, block.bytes))
    }

    /// Takes memory back.
    ///
    /// # Safety
    /// As of `Allocator::deallocate`.
    pub(crate) unsafe fn release(&self, address: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let page = super::backing::page_size();
        let bytes = block_bytes(layout, page);
        // Before the lock is taken: it can take long, and the block is still the caller's.
        let zero = bytes >= BIG
            && is_run(layout, page)
            // SAFETY: by the contract the block is one of this size, and nobody uses it.
            && unsafe { self.backing().discard(self.offset_of(address), bytes) };
        // SAFETY: by the contract.
        self.with_state(|state| unsafe { state.release(address, zero) });
    }

    /// Makes a block larger or smaller, moving its content where it must.
    ///
    /// # Safety
    /// As of `Allocator::grow` and `Allocator::shrink`.
    pub(crate) unsafe fn resize(
        &self,
        address: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, EngineMemoryError> {
        let page = super::backing::page_size();
        if old.align() == new.align()
            && old.size() != 0
            && new.size() != 0
            && is_run(old, page) == is_run(new, page)
            && block_bytes(old, page) == block_bytes(new, page)
        {
            return Ok(NonNull::slice_from_raw_parts(address, block_bytes(new, page)));
        }
        let moved = self.obtain(new, false)?;
        // SAFETY: both blocks have the bytes copied, and they are two; by the contract the old one
        // is the caller's to end.
        unsafe {
            let bytes = old.size().min(new.size());
            ptr::copy_nonoverlapping(address.as_ptr(), moved.cast::<u8>().as_ptr(), bytes);
            self.release(address, old);
        }
        Ok(moved)
    }
}

// SAFETY: a block is handed out once until it is taken back; by the invariant of `EngineMemory` the
// memory lives while a clone does, wherever the handles move.
unsafe impl Allocator for EngineMemory {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.obtain(layout, false).map_err(|_| AllocError)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.obtain(layout, true).map_err(|_| AllocError)
    }

    unsafe fn deallocate(&self, address: NonNull<u8>, layout: Layout) {
        // SAFETY: the contracts are the same.
        unsafe { self.release(address, layout) }
    }

    unsafe fn grow(
        &self,
        address: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the contracts are the same.
        unsafe { self.resize(address, old, new) }.map_err(|_| AllocError)
    }

    unsafe fn shrink(
        &self,
        address: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the contracts are the same.
        unsafe { self.resize(address, old, new) }.map_err(|_| AllocError)
    }
}
