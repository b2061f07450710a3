//! In which frame each page is, as the program has told the device process.
//!
//! What the process notes it notes of frames, and the core asks about pages. The program keeps the way from one to the
//! other to itself, in engine memory: a leaf for each block that the device ever had a page of.

use core::{
    array,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use uhmm::{
    SparseTable,
    engine_memory::{EngineMemory, EngineMemoryError},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// For each page of a block the number of its frame and one, or 0 for none.
///
/// The calls of the core for one block come one at a time, so there is one writer, and the lock of the block
/// orders them.
#[derive(Debug)]
struct Leaf([AtomicU32; BLOCK_PAGES]);

/// The frames of pages that the device had a translation of since it was last asked what it wrote.
#[derive(Debug)]
pub(super) struct PageFrames(SparseTable<Leaf>);

impl PageFrames {
    /// None, of pages before `limit`.
    pub(super) fn new(memory: &EngineMemory, limit: PageNumber) -> Result<Self, EngineMemoryError> {
        Ok(Self(SparseTable::try_new(memory, limit.0.div_ceil(BLOCK_PAGES))?))
    }

    /// Makes room for pages.
    pub(super) fn prepare(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        let new = || Ok(Leaf(array::from_fn(|_| AtomicU32::new(0))));
        for part in pages.by_block() {
            self.0.get_or_make(part.start().block().0, new)?;
        }
        Ok(())
    }

    /// Enters pages of one block, which are in frames from `first` on. Answers whether there was room.
    pub(super) fn enter(&self, pages: PageRange, first: usize) -> bool {
        let Some(leaf) = self.0.get(pages.start().block().0) else { return false };
        let places = pages.start().in_block()..pages.start().in_block() + pages.len();
        for (entry, frame) in leaf.0[places].iter().zip(first..) {
            // The core numbers frames by 32 bits, and less.
            entry.store(u32::try_from(frame + 1).unwrap_or(0), Relaxed);
        }
        true
    }

    /// The frame of a page.
    pub(super) fn frame(&self, page: PageNumber) -> Option<usize> {
        let entry = self.0.get(page.block().0)?.0[page.in_block()].load(Relaxed);
        (entry as usize).checked_sub(1)
    }

    /// The frame of a page, which is in none as far as this knows from here on.
    pub(super) fn take(&self, page: PageNumber) -> Option<usize> {
        let entry = &self.0.get(page.block().0)?.0[page.in_block()];
        let frame = (entry.load(Relaxed) as usize).checked_sub(1);
        entry.store(0, Relaxed);
        frame
    }
}
