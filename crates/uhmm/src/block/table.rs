//! From a block's number to its record.
//!
//! Records are made in leaves of 64, when a page of one of their blocks is first wanted by a device
//! or first touched in a trapped area, and stay until the engine ends: a reference to a record never dangles and finding one takes no lock.

use core::ptr;

use super::Block;
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError},
    processor::prefetch,
    sparse::SparseTable,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

const LEAF_BLOCKS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };
const LEAF_PAGES: usize = LEAF_BLOCKS * BLOCK_PAGES;

type Leaf = [Block; LEAF_BLOCKS];

/// The records of all blocks.
#[derive(Debug)]
pub(crate) struct BlockTable {
    leaves: SparseTable<Leaf>,
}

impl BlockTable {
    /// An empty table for the pages below `limit`.
    pub(crate) fn new(memory: &EngineMemory, limit: PageNumber) -> Result<Self, EngineMemoryError> {
        Ok(Self { leaves: SparseTable::try_new(memory, limit.0.div_ceil(LEAF_PAGES))? })
    }

    /// The record of a block, if it was made.
    #[inline]
    pub(crate) fn get(&self, block: BlockNumber) -> Option<&Block> {
        Some(&self.leaves.get(block.0 / LEAF_BLOCKS)?[block.0 % LEAF_BLOCKS])
    }

    /// Has the processor fetch the record of a block, if it was made.
    pub(crate) fn prefetch(&self, block: BlockNumber) {
        if let Some(made) = self.get(block) {
            prefetch(ptr::from_ref(made));
        }
    }

    /// The record of a block, made if it was not. `None` where the block is beyond the limit.
    #[inline]
    pub(crate) fn get_or_make(
        &self,
        block: BlockNumber,
    ) -> Result<Option<&Block>, EngineMemoryError> {
        if let Some(made) = self.get(block) {
            return Ok(Some(made));
        }
        let leaf = self.leaf_or_make(block.0 / LEAF_BLOCKS)?;
        Ok(leaf.map(|leaf| &leaf[block.0 % LEAF_BLOCKS]))
    }

    /// Makes the records of all blocks that `pages` touches.
    pub(crate) fn make(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        for leaf in pages.start().0 / LEAF_PAGES..pages.end().0.div_ceil(LEAF_PAGES) {
            self.leaf_or_make(leaf)?;
        }
        Ok(())
    }

    fn leaf_or_make(&self, leaf: usize) -> Result<Option<&Leaf>, EngineMemoryError> {
        self.leaves.get_or_make(leaf, || Ok(core::array::from_fn(|_| Block::new())))
    }

    /// The blocks of `pages` that have a record, in order, with the part of `pages` in each.
    pub(crate) fn existing(&self, pages: PageRange) -> impl Iterator<Item = (&Block, PageRange)> {
        let mut rest = pages;
        core::iter::from_fn(move || {
            while !rest.is_empty() {
                let number = rest.start().block();
                if let Some(block) = self.get(number) {
                    let part = rest.intersection(number.pages());
                    rest = PageRange::new(part.end(), rest.end());
                    return Some((block, part));
                }
                let leaf = number.0 / LEAF_BLOCKS + 1;
                let end = rest.end().0.div_ceil(LEAF_PAGES);
                let next = self.leaves.existing(leaf, end).next().map_or(end, |(leaf, _)| leaf);
                rest = PageRange::new(PageNumber(next * LEAF_PAGES).min(rest.end()), rest.end());
            }
            None
        })
    }
}

#[cfg(test)]
mod tests;
