//! What a mirror knows that it has: a word for each block, so that asking again for what has not
//! changed since costs a comparison.
//!
//! A word says for which pages of the block, and for what access, the device was given translations
//! at which generation of the block. Whatever ends a translation raises the generation, and with
//! that the word says nothing any more.

use core::ops::Range;

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    sparse::SparseTable,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    units::{BLOCK_PAGES, BlockNumber, PageRange},
};

const LEAF_WORDS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };

/// How many blocks a mirror can span with one word each from the start.
const FEW: usize = LEAF_WORDS;

/// Words that take no more room in a mirror than what leads to others would. An invalidation among
/// very many small mirrors, each a few pages, then misses the caches once less.
const WITHIN: usize = if cfg!(any(shuttle, miri)) { 1 } else { 2 };

const TOUCHED: u64 = 1 << 63;
const WRITE: u64 = 1 << 62;
const START: u32 = 32;
const LEN: u32 = 42;
const PLACE: u64 = (1 << 10) - 1;

/// The words of all blocks of a mirror.
///
/// # Invariants
/// A block's word is changed only under the block's lock.
#[derive(Debug)]
pub(crate) struct Holds {
    first: BlockNumber,
    words: Words,
}

#[derive(Debug)]
enum Words {
    Within([AtomicU64; WITHIN]),
    Few(EngineVec<AtomicU64>),
    Many(SparseTable<[AtomicU64; LEAF_WORDS]>),
}

impl Holds {
    /// Words for the blocks of `pages`, nothing held.
    pub(crate) fn new(memory: &EngineMemory, pages: PageRange) -> Result<Self, EngineMemoryError> {
        let first = pages.start().block();
        let blocks = pages.end().0.div_ceil(BLOCK_PAGES) - first.0;
        let words = if blocks <= WITHIN {
            Words::Within(core::array::from_fn(|_| AtomicU64::new(0)))
        } else if blocks <= FEW {
            let mut words = EngineVec::try_with_capacity(memory, blocks)?;
            for _ in 0..blocks {
                words.try_push(AtomicU64::new(0))?;
            }
            Words::Few(words)
        } else {
            Words::Many(SparseTable::try_new(memory, blocks.div_ceil(LEAF_WORDS))?)
        };
        Ok(Self { first, words })
    }

    fn word(&self, block: BlockNumber) -> Option<&AtomicU64> {
        let index = block.0.checked_sub(self.first.0)?;
        match &self.words {
            Words::Within(words) => words.get(index),
            Words::Few(words) => words.get(index),
            Words::Many(leaves) => Some(&leaves.get(index / LEAF_WORDS)?[index % LEAF_WORDS]),
        }
    }

    /// Makes room for the word of a block of the mirror.
    pub(crate) fn prepare(&self, block: BlockNumber) -> Result<(), EngineMemoryError> {
        if let Words::Many(leaves) = &self.words {
            let leaf = (block.0 - self.first.0) / LEAF_WORDS;
            leaves.get_or_make(leaf, || Ok(core::array::from_fn(|_| AtomicU64::new(0))))?;
        }
        Ok(())
    }

    /// Whether the device was given all of `places` of the block, for writing if `write`, and
    /// nothing of the block ended since, whose generation is `generation`.
    pub(crate) fn covers(
        &self,
        block: BlockNumber,
        places: &Range<usize>,
        write: bool,
        generation: impl FnOnce() -> u32,
    ) -> bool {
        let Some(word) = self.word(block) else { return false };
        let word = word.load(Acquire);
        let held = held(word);
        held.start <= places.start
            && places.end <= held.end
            && (!write || word & WRITE != 0)
            && word & u64::from(u32::MAX) == u64::from(generation())
    }

    /// Notes that the device was given `places`. The block's lock is held, and room was made.
    pub(crate) fn record(
        &self,
        block: BlockNumber,
        places: &Range<usize>,
        write: bool,
        generation: u32,
    ) {
        let Some(word) = self.word(block) else { return };
        let before = word.load(Relaxed);
        let mut all = places.clone();
        let same =
            before & u64::from(u32::MAX) == u64::from(generation) && (before & WRITE != 0) == write;
        let held = held(before);
        if same && held.start <= all.end && all.start <= held.end && !held.is_empty() {
            all = held.start.min(all.start)..held.end.max(all.end);
        }
        let word_now = u64::from(generation)
            | (all.start as u64) << START
            | (all.len() as u64) << LEN
            | if write { WRITE } else { 0 }
            | TOUCHED;
        word.store(word_now, Release);
    }

    /// Notes that the device is given something of the block. What it had for writing may be for
    /// reading now, unless `write`: then it is not known any more what it has. The block's lock is
    /// held.
    pub(crate) fn touch(&self, block: BlockNumber, write: bool) {
        let Some(word) = self.word(block) else { return };
        let before = word.load(Relaxed);
        let kept = if write || before & WRITE == 0 { before } else { 0 };
        word.store(kept | TOUCHED, Release);
    }

    /// Whether the device was given anything of the block since it last ended as a whole. The
    /// block's lock is held.
    pub(crate) fn is_touched(&self, block: BlockNumber) -> bool {
        self.word(block).is_some_and(|word| word.load(Relaxed) & TOUCHED != 0)
    }

    /// Notes that everything of the block ended. The block's lock is held.
    pub(crate) fn clear(&self, block: BlockNumber) {
        if let Some(word) = self.word(block) {
            word.store(0, Relaxed);
        }
    }
}

fn held(word: u64) -> Range<usize> {
    // Both are at most the pages of a block.
    let start = (word >> START & PLACE) as usize;
    start..start + (word >> LEN & PLACE) as usize
}
