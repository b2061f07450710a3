//! The frames of a device's memory: which are free, and which free ones still hold a page.
//!
//! Pages are moved in runs, so frames are handed out in runs, within chunks of a block's size: a
//! whole block gets a chunk of its own, aligned, so that a huge page stays one. Returning a page by
//! copying leaves its frame *stale*: free, but not a hole, and only a hole can take a page over.
//! Stale frames are emptied in batches, when holes run short.

use super::FrameNumber;
use crate::engine_memory::{EngineMemory, EngineMemoryError, EngineVec};

/// Consecutive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRun {
    pub(crate) first: FrameNumber,
    pub(crate) frames: usize,
}

const CHUNK: usize = 512;
const WORDS: usize = CHUNK / 64;

/// 512 frames, a bit each.
#[derive(Clone, Debug)]
struct Chunk {
    /// Handed out, or beyond the end of the memory.
    used: [u64; WORDS],
    /// Free and not a hole.
    stale: [u64; WORDS],
}

/// All frames of one device.
#[derive(Debug)]
pub(crate) struct FramePool {
    chunks: EngineVec<Chunk>,
    holes: usize,
    stale: usize,
    /// The chunk where the last run was found.
    hand: usize,
}

impl FramePool {
    /// A pool of `frames` frames, all holes.
    pub(crate) fn new(frames: usize, memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        let count = frames.div_ceil(CHUNK);
        let mut chunks = EngineVec::try_with_capacity(memory, count)?;
        for chunk in 0..count {
            let mut used = [0; WORDS];
            for bit in frames.saturating_sub(chunk * CHUNK)..CHUNK {
                used[bit / 64] |= 1 << (bit % 64);
            }
            chunks.try_push(Chunk { used, stale: [0; WORDS] })?;
        }
        Ok(Self { chunks, holes: frames, stale: 0, hand: 0 })
    }

    /// How many frames are free, stale ones among them.
    pub(crate) const fn free(&self) -> usize {
        self.holes + self.stale
    }

    /// Hands out up to `want` consecutive holes, the most that one look finds. A whole chunk is
    /// found only whole or not at all; ask for less then.
    pub(crate) fn take(&mut self, want: usize) -> Option<FrameRun> {
        if self.holes == 0 || want == 0 {
            return None;
        }
        let want = want.min(CHUNK);
        let count = self.chunks.len();
        let mut best: Option<(usize, usize, usize)> = None;
        // Chunks in use come first, so that whole ones last.
        for fresh in [false, true] {
            for step in 0..count {
                let index = (self.hand + step) % count;
                let chunk = &self.chunks[index];
                let busy =
                    core::array::from_fn::<u64, WORDS, _>(|w| chunk.used[w] | chunk.stale[w]);
                if (busy == [0; WORDS]) != fresh {
                    continue;
                }
                let (start, len) = longest_clear_run(&busy, want);
                if len > best.map_or(0, |(_, _, len)| len) {
                    best = Some((index, start, len));
                }
                if len == want {
                    break;
                }
            }
            if best.is_some_and(|(_, _, len)| len == want) {
                break;
            }
        }
        let (index, start, len) = best?;
        self.hand = index;
        set(&mut self.chunks[index].used, start, len);
        self.holes -= len;
        Some(run(index, start, len))
    }

    /// Hands out consecutive stale frames, for their taker to empty and give back.
    pub(crate) fn take_stale(&mut self) -> Option<FrameRun> {
        if self.stale == 0 {
            return None;
        }
        let (index, chunk) =
            self.chunks.iter_mut().enumerate().find(|(_, chunk)| chunk.stale != [0; WORDS])?;
        let (start, len) = longest_clear_run(&chunk.stale.map(|word| !word), CHUNK);
        clear(&mut chunk.stale, start, len);
        set(&mut chunk.used, start, len);
        self.stale -= len;
        Some(run(index, start, len))
    }

    /// Takes a run back: holes, or frames that still hold a page.
    pub(crate) fn give_back(&mut self, run: FrameRun, stale: bool) {
        let mut first = run.first.0 as usize;
        let mut left = run.frames;
        while left > 0 {
            let (index, start) = (first / CHUNK, first % CHUNK);
            let len = left.min(CHUNK - start);
            let chunk = &mut self.chunks[index];
            clear(&mut chunk.used, start, len);
            if stale {
                set(&mut chunk.stale, start, len);
                self.stale += len;
            } else {
                self.holes += len;
            }
            first += len;
            left -= len;
        }
    }
}

fn run(chunk: usize, start: usize, len: usize) -> FrameRun {
    // A pool is made for at most u32::MAX frames.
    let first = u32::try_from(chunk * CHUNK + start).unwrap_or(u32::MAX);
    FrameRun { first: FrameNumber(first), frames: len }
}

fn for_words(start: usize, len: usize, mut change: impl FnMut(usize, u64)) {
    let mut bit = start;
    let end = start + len;
    while bit < end {
        let count = (64 - bit % 64).min(end - bit);
        let mask = (u64::MAX >> (64 - count)) << (bit % 64);
        change(bit / 64, mask);
        bit += count;
    }
}

fn set(words: &mut [u64; WORDS], start: usize, len: usize) {
    for_words(start, len, |word, mask| words[word] |= mask);
}

fn clear(words: &mut [u64; WORDS], start: usize, len: usize) {
    for_words(start, len, |word, mask| words[word] &= !mask);
}

/// The first run of `want` clear bits, or the longest there is: its start and length.
fn longest_clear_run(words: &[u64; WORDS], want: usize) -> (usize, usize) {
    let mut best = (0, 0);
    let mut bit = 0;
    while bit < CHUNK {
        let clear_from = next(words, bit, false);
        let clear_to = next(words, clear_from, true);
        let len = (clear_to - clear_from).min(want);
        if len > best.1 {
            best = (clear_from, len);
            if len == want {
                break;
            }
        }
        bit = clear_to;
    }
    best
}

/// The first bit from `bit` on that is set, or clear where `is_set` is false; `CHUNK` if none.
fn next(words: &[u64; WORDS], bit: usize, is_set: bool) -> usize {
    let mut bit = bit;
    while bit < CHUNK {
        let word = if is_set { words[bit / 64] } else { !words[bit / 64] } >> (bit % 64);
        if word != 0 {
            return bit + word.trailing_zeros() as usize;
        }
        bit = (bit / 64 + 1) * 64;
    }
    CHUNK
}

#[cfg(all(test, not(shuttle)))]
mod tests;
