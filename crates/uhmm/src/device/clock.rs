//! The plain clock by which a device's memory is given up: blocks in a ring, a hand that goes round.

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::BlockNumber,
};

/// The blocks that have pages on a device, and the hand.
#[derive(Debug)]
pub(crate) struct Clock {
    ring: EngineVec<BlockNumber>,
    hand: usize,
}

impl Clock {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { ring: EngineVec::new(memory.clone()), hand: 0 }
    }

    /// Makes room so that `blocks` more can be added without fail.
    pub(crate) fn reserve(&mut self, blocks: usize) -> Result<(), EngineMemoryError> {
        self.ring.try_reserve(blocks)
    }

    /// Adds a block just behind the hand, so that it is looked at last.
    pub(crate) fn add(&mut self, block: BlockNumber) {
        let at = self.hand.min(self.ring.len());
        // Room was made before.
        if self.ring.try_push(block).is_ok() {
            let last = self.ring.len() - 1;
            self.ring.swap(at, last);
            self.hand = at + 1;
        }
    }

    /// How many blocks are in the ring.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// The block under the hand, which moves on.
    pub(crate) fn advance(&mut self) -> Option<BlockNumber> {
        if self.hand >= self.ring.len() {
            self.hand = 0;
        }
        let block = self.ring.get(self.hand).copied()?;
        self.hand += 1;
        Some(block)
    }

    /// Takes out the block that was last under the hand, if it is `block`, else wherever it is.
    pub(crate) fn remove(&mut self, block: BlockNumber) {
        let at = match self.hand.checked_sub(1).filter(|&at| self.ring.get(at) == Some(&block)) {
            Some(at) => Some(at),
            None => self.ring.iter().position(|&other| other == block),
        };
        if let Some(at) = at {
            self.ring.swap_remove(at);
            self.hand = self.hand.min(at);
        }
    }
}
