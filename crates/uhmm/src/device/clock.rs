//! The plain clock by which a device's memory is given up: blocks in a ring, and a hand that goes
//! round from page to page.

use core::ops::Range;

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{BLOCK_PAGES, BlockNumber},
};

/// A ring of so few blocks is kept as it is.
const LEAST_ROOM: usize = 64;

/// The blocks that have pages on a device, and the hand.
#[derive(Debug)]
pub(crate) struct Clock {
    ring: EngineVec<BlockNumber>,
    /// The hand points to a block of the ring,
    hand: usize,
    /// and to a place in it.
    place: usize,
    /// How often a block has been left by its last page since the ring was last swept.
    quiet: usize,
}

impl Clock {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { ring: EngineVec::new(memory.clone()), hand: 0, place: 0, quiet: 0 }
    }

    /// Makes room so that `blocks` more can be added without fail.
    #[inline]
    pub(crate) fn reserve(&mut self, blocks: usize) -> Result<(), EngineMemoryError> {
        self.ring.try_reserve(blocks)
    }

    /// Adds a block just behind the hand, so that it is looked at last.
    pub(crate) fn add(&mut self, block: BlockNumber) {
        // Room was made before; a hand that points to nothing points to the first.
        let hand = if self.hand < self.ring.len() { self.hand } else { 0 };
        if self.ring.try_push(block).is_ok() {
            let last = self.ring.len() - 1;
            self.ring[hand..=last].rotate_right(1);
            self.hand = if last == 0 { 0 } else { hand + 1 };
        }
    }

    /// How many blocks are in the ring.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Up to `pages` places of one block from the hand on, aligned to `pages`. The hand moves past
    /// them.
    pub(crate) fn advance(&mut self, pages: usize) -> Option<(BlockNumber, Range<usize>)> {
        if self.hand >= self.ring.len() {
            self.hand = 0;
            self.place = 0;
        }
        let block = self.ring.get(self.hand).copied()?;
        let start = self.place;
        let end = ((start / pages + 1) * pages).min(BLOCK_PAGES);
        self.place = end;
        if end == BLOCK_PAGES {
            self.skip_block();
        }
        Some((block, start..end))
    }

    /// Moves the hand back to a place that it passed last.
    pub(crate) fn resume(&mut self, block: BlockNumber, place: usize) {
        if self.ring.get(self.hand) == Some(&block) {
            self.place = place;
        } else if self.place == 0 && self.hand > 0 && self.ring.get(self.hand - 1) == Some(&block) {
            self.hand -= 1;
            self.place = place;
        }
    }

    /// Moves the hand to the next block, where it still points into `block`.
    pub(crate) fn skip(&mut self, block: BlockNumber) {
        if self.place > 0 && self.ring.get(self.hand) == Some(&block) {
            self.skip_block();
        }
    }

    fn skip_block(&mut self) {
        self.hand += 1;
        self.place = 0;
    }

    /// Takes a block out.
    pub(crate) fn remove(&mut self, block: BlockNumber) {
        // It is mostly the one that the hand points to, or has just passed.
        let near = [self.hand, self.hand.wrapping_sub(1)];
        let at = near
            .into_iter()
            .find(|&at| self.ring.get(at) == Some(&block))
            .or_else(|| self.ring.iter().position(|&other| other == block));
        let Some(at) = at else { return };
        self.ring.remove(at);
        if at < self.hand {
            self.hand -= 1;
        } else if at == self.hand {
            self.place = 0;
        }
    }

    /// Notes that the last page of a block left it. Answers whether enough did that it is worth
    /// [sweeping](Self::sweep) the ring.
    pub(crate) fn note_quiet(&mut self) -> bool {
        self.quiet += 1;
        self.quiet > self.ring.len() / 2 && self.quiet > LEAST_ROOM
    }

    /// Takes out the blocks of which `is_over` answers so.
    pub(crate) fn sweep(&mut self, mut is_over: impl FnMut(BlockNumber) -> bool) {
        let mut kept = 0;
        let mut hand = self.hand;
        for at in 0..self.ring.len() {
            let block = self.ring[at];
            if !is_over(block) {
                self.ring[kept] = block;
                kept += 1;
            } else if at < self.hand {
                hand -= 1;
            } else if at == self.hand {
                self.place = 0;
            }
        }
        self.ring.truncate(kept);
        self.hand = hand;
        self.quiet = 0;
        if self.ring.capacity() > LEAST_ROOM.max(kept * 4) {
            // It can do with too much room.
            let _ = self.ring.try_shrink(LEAST_ROOM.max(kept * 2));
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
