//! A ring as words, for who plays a side that does not keep to it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uhmm::ring::{RingMemory, SLOTS, WORDS, Words};

/// The word of the sender's place, in its lower half. Whether it sleeps is in the upper one.
pub const SENT: usize = 0;

/// The word of the receiver's place, likewise.
pub const RECEIVED: usize = 8;

/// The first slot's first word.
pub const SLOTS_AT: usize = 16;

/// All of a ring.
pub fn words(ring: &RingMemory) -> &[AtomicU64] {
    let count = size_of::<RingMemory>() / 8;
    // SAFETY: it is atomics, aligned to more than words, whose bytes are all words too.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(ring).cast(), count) }
}

/// How far a side is, as it says.
pub fn place(ring: &RingMemory, side: usize) -> u32 {
    words(ring)[side].load(Relaxed) as u32
}

/// The slot of the message at a place.
pub fn slot(ring: &RingMemory, place: u32) -> &[AtomicU64] {
    &words(ring)[SLOTS_AT + place as usize % SLOTS * WORDS..][..WORDS]
}

/// The message at a place.
pub fn message(ring: &RingMemory, place: u32) -> Words {
    std::array::from_fn(|word| slot(ring, place)[word].load(Relaxed))
}

/// Sends the message of a place.
pub fn send(ring: &RingMemory, place: u32, message: Words) {
    slot(ring, place).iter().zip(message).for_each(|(word, value)| word.store(value, Relaxed));
    words(ring)[SENT].store(place.wrapping_add(1).into(), Relaxed);
}
