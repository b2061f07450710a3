//! From a block's number to its record.
//!
//! Records are made in leaves of 64, when a page of one of their blocks is first wanted by a device
//! or first touched in a trapped area, and stay until the engine ends: a reference to a record never dangles and finding one takes no lock.

use super::Block;
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError},
    sparse::SparseTable,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

const LEAF_BLOCKS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };
const LEAF_PAGES: usize = LEAF_BLOCKS * BLOCK_PAGES;

/// The records of all blocks.
#[derive(Debug)]
pub(crate) struct BlockTable {
    leaves: SparseTable<[Block; LEAF_BLOCKS]>,
}

impl BlockTable {
    /// An empty table for the pages below `limit`.
    pub(crate) fn new(memory: &EngineMemory, limit: PageNumber) -> Result<Self, EngineMemoryError> {
        Ok(Self { leaves: SparseTable::try_new(memory, limit.0.div_ceil(LEAF_PAGES))? })
    }

    /// The record of a block, if it was made.
    pub(crate) fn get(&self, block: BlockNumber) -> Option<&Block> {
        Some(&self.leaves.get(block.0 / LEAF_BLOCKS)?[block.0 % LEAF_BLOCKS])
    }

    /// Makes the records of all blocks that `pages` touches.
    pub(crate) fn make(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        for leaf in pages.start().0 / LEAF_PAGES..pages.end().0.div_ceil(LEAF_PAGES) {
            self.leaves.get_or_make(leaf, || Ok(core::array::from_fn(|_| Block::new())))?;
        }
        Ok(())
    }

    /// The blocks of `pages` that have a record, in order, with the part of `pages` in each.
    pub(crate) fn existing(&self, pages: PageRange) -> impl Iterator<Item = (&Block, PageRange)> {
        let first = pages.start().0 / LEAF_PAGES;
        let end = pages.end().0.div_ceil(LEAF_PAGES);
        self.leaves.existing(first, end).flat_map(move |(number, leaf)| {
            let whole = PageRange::of(PageNumber(number * LEAF_PAGES), LEAF_PAGES);
            whole
                .intersection(pages)
                .by_block()
                .map(move |part| (&leaf[part.start().block().0 % LEAF_BLOCKS], part))
        })
    }
}
