//! Random numbers, and content that is told by a number.

use std::{cell::RefCell, collections::VecDeque};

/// A generator (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a size fits");
        usize::try_from(self.next() % end).expect("below a size")
    }

    /// Whether something that happens once in `times` happens.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A number that looks unlike its argument (splitmix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

/// The byte at `place` of the content that `seed` tells.
pub(crate) fn byte(seed: u64, place: usize) -> u8 {
    let words = u64::try_from(place / 8).expect("a size fits");
    mix(seed ^ words).to_le_bytes()[place % 8]
}

/// Fills `bytes`, which are from `place` of the content on.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, place: usize) {
    for (index, to) in bytes.iter_mut().enumerate() {
        *to = byte(seed, place + index);
    }
}

/// Ends the process unless `bytes` are what [`fill`] would make of them.
pub(crate) fn check(what: &str, bytes: &[u8], seed: u64, place: usize) {
    for (index, &found) in bytes.iter().enumerate() {
        if found != byte(seed, place + index) {
            lost(what, (&raw const bytes[index]).addr(), found.into());
        }
    }
}

thread_local! {
    static STEPS: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Notes what this thread does next, to be told where something is lost.
pub(crate) fn note(step: String) {
    STEPS.with_borrow_mut(|steps| {
        steps.push_back(step);
        if steps.len() > 40 {
            steps.pop_front();
        }
    });
}

/// Reports a value that is not what was left there, and ends the process.
pub(crate) fn lost(what: &str, address: usize, found: u64) -> ! {
    STEPS.with_borrow(|steps| {
        for step in steps {
            eprintln!("{step}");
        }
    });
    eprintln!("LOST: {what}: at {address:#x} is {found:#x}");
    std::process::abort();
}
