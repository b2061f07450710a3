//! From a block's number to its record.
//!
//! Two levels in engine memory: a directory for the whole address space, whose untouched part costs
//! nothing, and leaves of 512 records made when an area of their gibibyte is first trapped. A leaf
//! stays until the engine ends, so a reference to a record never dangles and finding one takes no
//! lock.

use core::ptr::{self, NonNull};

use super::Block;
use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError, ZeroDefault},
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire},
    },
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

const LEAF_BLOCKS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 512 };

#[derive(Debug)]
struct Leaf([Block; LEAF_BLOCKS]);

/// The records of all blocks.
///
/// # Invariants
/// A pointer of the directory is null, or made by `EngineBox::into_raw` and never changed again.
#[derive(Debug)]
pub(crate) struct BlockTable {
    memory: EngineMemory,
    directory: EngineBox<[Slot]>,
}

/// A place of the directory.
#[derive(Debug)]
struct Slot(AtomicPtr<Leaf>);

impl Default for Slot {
    fn default() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}

// SAFETY: a null pointer is all zeros on the systems that this is built for.
unsafe impl ZeroDefault for Slot {}

impl BlockTable {
    /// An empty table for the pages below `limit`.
    pub(crate) fn new(memory: &EngineMemory, limit: PageNumber) -> Result<Self, EngineMemoryError> {
        let leaves = limit.0.div_ceil(BLOCK_PAGES).div_ceil(LEAF_BLOCKS);
        let directory =
            EngineBox::try_zeroed(memory, leaves)?;
        Ok(Self { memory: memory.clone(), directory })
    }

    /// The record of a block, if its leaf was made.
    pub(crate) fn get(&self, block: BlockNumber) -> Option<&Block> {
        let leaf = self.directory.get(block.0 / LEAF_BLOCKS)?.0.load(Acquire);
        // SAFETY: by the invariant a pointer that is not null is a leaf that lives as long as self.
        let leaf = unsafe { leaf.as_ref() }?;
        Some(&leaf.0[block.0 % LEAF_BLOCKS])
    }

    /// Makes the records of all blocks that `pages` touches.
    pub(crate) fn make(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        if pages.is_empty() {
            return Ok(());
        }
        let first = pages.start().block().0 / LEAF_BLOCKS;
        let last = PageNumber(pages.end().0 - 1).block().0 / LEAF_BLOCKS;
        for slot in self.directory.iter().take(last + 1).skip(first) {
            if slot.0.load(Acquire).is_null() {
                let leaf = EngineBox::try_new(&self.memory, Leaf(core::array::from_fn(|_| Block::new())))?;
                let (leaf, _) = EngineBox::into_raw(leaf);
                if slot.0.compare_exchange(ptr::null_mut(), leaf, AcqRel, Acquire).is_err() {
                    // SAFETY: made just above and seen by nobody else.
                    drop(unsafe { self.own(leaf) });
                }
            }
        }
        Ok(())
    }

    /// The blocks of `pages` that have a record, in order, with the part of `pages` in each.
    pub(crate) fn existing(&self, pages: PageRange) -> impl Iterator<Item = (&Block, PageRange)> {
        let leaf_pages = LEAF_BLOCKS * BLOCK_PAGES;
        let first = pages.start().0 / leaf_pages;
        let end = pages.end().0.div_ceil(leaf_pages).min(self.directory.len()).max(first);
        (first..end)
            .filter(|&leaf| !self.directory[leaf].0.load(Acquire).is_null())
            .flat_map(move |leaf| {
                let whole = PageRange::of(PageNumber(leaf * leaf_pages), leaf_pages);
                whole.intersection(pages).by_block()
            })
            .filter_map(|part| Some((self.get(part.start().block())?, part)))
    }

    /// # Safety
    /// `leaf` came from `EngineBox::into_raw` with this table's memory and is given up by its user.
    unsafe fn own(&self, leaf: *mut Leaf) -> Option<EngineBox<Leaf>> {
        // SAFETY: as the caller says.
        NonNull::new(leaf)
            .map(|leaf| unsafe { EngineBox::from_raw(leaf.as_ptr(), self.memory.clone()) })
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        for slot in 0..self.directory.len() {
            let leaf = self.directory[slot].0.load(Acquire);
            // SAFETY: by the invariant; nobody has a reference as the table is dropped.
            drop(unsafe { self.own(leaf) });
        }
    }
}
