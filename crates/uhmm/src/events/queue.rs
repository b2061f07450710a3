//! A bounded queue of events: any number of threads push, one takes.
//!
//! Positions count up without end; a position's slot is the position modulo the capacity. A slot says
//! in which lap it is and whether it is full: twice the lap while it is empty for that lap, one more
//! while it is full. So zeroed memory is an empty queue, and its pages are not touched before events
//! come there. Who pushes takes a position by compare-exchange if its slot is empty for that lap,
//! writes, and says that it is full. A thread that is stopped in between delays who takes, and those
//! who push a whole lap later find no room; it delays nobody else.

#[cfg(not(shuttle))]
use crate::sync::atomic;
// Nothing is decided by it, so it is no step to the schedule explorer. Loom looks into it.
#[cfg(shuttle)]
use core::sync::atomic;

use atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::engine_memory::{EngineBox, EngineMemory, EngineMemoryError, ZeroDefault};

/// An event, packed.
pub(crate) type Words = [u64; 4];

#[derive(Debug, Default)]
struct Slot {
    /// Twice the lap, and one more while it is full.
    state: AtomicUsize,
    words: [AtomicU64; 4],
}

// SAFETY: by default all its atomics are zero.
unsafe impl ZeroDefault for Slot {}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    slots: EngineBox<[Slot]>,
    /// The next position to push at.
    next: AtomicUsize,
    lost: AtomicU64,
}

/// The next position to take from: whoever has it is the one who takes.
#[derive(Debug, Default)]
pub(crate) struct Taker(usize);

impl Queue {
    /// An empty queue for `capacity` events or up to twice as many, a power of two.
    pub(crate) fn new(memory: &EngineMemory, capacity: usize) -> Result<Self, EngineMemoryError> {
        let capacity = capacity.clamp(1, usize::MAX >> 8).next_power_of_two();
        let slots = EngineBox::try_zeroed(memory, capacity)?;
        Ok(Self { slots, next: AtomicUsize::new(0), lost: AtomicU64::new(0) })
    }

    fn slot(&self, position: usize) -> (&Slot, usize) {
        let capacity = self.slots.len();
        let empty = position / capacity * 2;
        (&self.slots[position & (capacity - 1)], empty)
    }

    /// Puts an event at the end, or counts it as lost where there is no room.
    pub(crate) fn push(&self, words: Words) {
        let mut position = self.next.load(Relaxed);
        loop {
            let (slot, empty) = self.slot(position);
            let state = slot.state.load(Acquire);
            if state < empty {
                self.lost.fetch_add(1, Relaxed);
                return;
            }
            if state > empty {
                position = self.next.load(Relaxed);
                continue;
            }
            let next = position.wrapping_add(1);
            match self.next.compare_exchange_weak(position, next, Relaxed, Relaxed) {
                Ok(_) => {
                    for (place, word) in slot.words.iter().zip(words) {
                        place.store(word, Relaxed);
                    }
                    slot.state.store(empty + 1, Release);
                    return;
                }
                Err(now) => position = now,
            }
        }
    }

    /// Takes the oldest event, if it is there as a whole.
    pub(crate) fn take(&self, taker: &mut Taker) -> Option<Words> {
        let (slot, empty) = self.slot(taker.0);
        if slot.state.load(Acquire) != empty + 1 {
            return None;
        }
        let words = core::array::from_fn(|index| slot.words[index].load(Relaxed));
        slot.state.store(empty + 2, Release);
        taker.0 = taker.0.wrapping_add(1);
        Some(words)
    }

    /// How many events found no room so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{Queue, Taker};
    use crate::engine_memory::EngineMemory;

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_comes_in_order() {
        let memory = EngineMemory::map(4 << 20).unwrap();
        let queue = Queue::new(&memory, 3).unwrap();
        let mut taker = Taker::default();
        for round in 0..5 {
            for number in 0..6 {
                queue.push([round, number, 1, 2]);
            }
            for number in 0..4 {
                assert_eq!(queue.take(&mut taker), Some([round, number, 1, 2]));
            }
            assert_eq!(queue.take(&mut taker), None);
            assert_eq!(queue.lost(), 2 * (round + 1));
        }
    }
}
