//! A bit for each page of a block, or each frame of a chunk.

use core::ops::Range;

use crate::units::BLOCK_PAGES;

/// How many bits there are.
pub(crate) const CHUNK: usize = 512;
const WORDS: usize = CHUNK / 64;
// Tests have smaller ones.
const _: () = assert!(BLOCK_PAGES <= CHUNK);

/// So many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits([u64; WORDS]);

impl Bits {
    pub(crate) const NONE: Self = Self([0; WORDS]);
    pub(crate) const ALL: Self = Self([u64::MAX; WORDS]);

    pub(crate) fn set(&mut self, start: usize, len: usize) {
        if len == CHUNK {
            *self = Self::ALL;
        } else {
            self.for_words(start, len, |word, mask| *word |= mask);
        }
    }

    pub(crate) fn clear(&mut self, start: usize, len: usize) {
        if len == CHUNK {
            *self = Self::NONE;
        } else {
            self.for_words(start, len, |word, mask| *word &= !mask);
        }
    }

    fn for_words(&mut self, start: usize, len: usize, mut change: impl FnMut(&mut u64, u64)) {
        let mut bit = start;
        let end = start + len;
        while bit < end {
            let count = (64 - bit % 64).min(end - bit);
            let mask = (u64::MAX >> (64 - count)) << (bit % 64);
            change(&mut self.0[bit / 64], mask);
            bit += count;
        }
    }

    /// Whether a bit is set.
    pub(crate) const fn has(&self, bit: usize) -> bool {
        self.0[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// How many bits of a range are set.
    pub(crate) fn count(&self, bits: &Range<usize>) -> usize {
        let mut within = Self::NONE;
        within.set(bits.start, bits.len());
        let words = self.0.iter().zip(&within.0);
        words.map(|(word, within)| (word & within).count_ones() as usize).sum()
    }

    /// The first run of `want` bits that are set, or the longest there is: its start and length.
    pub(crate) fn longest_run(&self, want: usize) -> (usize, usize) {
        let mut best = (0, 0);
        let mut bit = 0;
        while bit < CHUNK {
            let from = self.next(bit, true);
            let to = self.next(from, false);
            let len = (to - from).min(want);
            if len > best.1 {
                best = (from, len);
                if len == want {
                    break;
                }
            }
            bit = to;
        }
        best
    }

    /// The first bit from `bit` on that is set, or clear where `is_set` is false; the number of bits if
    /// none.
    pub(crate) fn next(&self, bit: usize, is_set: bool) -> usize {
        let mut bit = bit;
        while bit < CHUNK {
            let word = if is_set { self.0[bit / 64] } else { !self.0[bit / 64] } >> (bit % 64);
            if word != 0 {
                return bit + word.trailing_zeros() as usize;
            }
            bit = (bit / 64 + 1) * 64;
        }
        CHUNK
    }
}
