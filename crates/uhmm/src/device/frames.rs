//! The frames of a device's memory: which are free, and which free ones can be handed out as they are.
//!
//! Pages are moved in runs, so frames are handed out in runs, within chunks of a block's size: a
//! whole block gets a chunk of its own, aligned, so that a huge page stays one. What a free frame has to be
//! depends on the memory. Where pages move into it only a hole can take one over, and returning a page by
//! copying leaves its frame *stale*: free, but not a hole. Where they are copied into it by the processor
//! a frame has to be a page, and one that went away with the program leaves a hole, which is the stale one
//! there. Stale frames are made *ready* when those that are so run short.

use super::{Bits, bits::CHUNK};
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
};

/// Consecutive frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRun {
    pub(crate) first: FrameNumber,
    pub(crate) frames: usize,
}

impl FrameRun {
    /// Its first `frames` frames, or all, and what follows them.
    pub(crate) fn split(self, frames: usize) -> (Self, Self) {
        let frames = frames.min(self.frames);
        let rest = Self { first: self.first.plus(frames), frames: self.frames - frames };
        (Self { frames, ..self }, rest)
    }

    /// What follows its first `frames` frames.
    pub(crate) fn behind(self, frames: usize) -> Self {
        self.split(frames).1
    }
}

/// Which frames of a chunk are free. Others are handed out, or beyond the end of the memory.
#[derive(Debug)]
struct Chunk {
    ready: Bits,
    /// Free and not ready.
    stale: Bits,
}

/// All frames of one device.
#[derive(Debug)]
pub(crate) struct FramePool {
    chunks: EngineVec<Chunk>,
    /// How many ready frames each chunk has, apart from the bits: most chunks are looked at no further.
    ready_in: EngineVec<u16>,
    /// As of stale frames.
    stale_in: EngineVec<u16>,
    ready: usize,
    stale: usize,
    /// The chunk where the last run was found.
    hand: usize,
}

impl FramePool {
    /// A pool of `frames` frames, all ready.
    pub(crate) fn new(frames: usize, memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        let count = frames.div_ceil(CHUNK);
        let mut chunks = EngineVec::try_with_capacity(memory, count)?;
        let mut ready_in = EngineVec::try_with_capacity(memory, count)?;
        let mut stale_in = EngineVec::try_with_capacity(memory, count)?;
        for chunk in 0..count {
            let len = CHUNK.min(frames - chunk * CHUNK);
            let mut ready = Bits::NONE;
            ready.set(0, len);
            chunks.try_push(Chunk { ready, stale: Bits::NONE })?;
            ready_in.try_push(in_chunk(len))?;
            stale_in.try_push(0)?;
        }
        Ok(Self { chunks, ready_in, stale_in, ready: frames, stale: 0, hand: 0 })
    }

    /// As [`new`](Self::new), all handed out.
    pub(crate) fn new_in_use(
        frames: usize,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        let mut pool = Self::new(frames, memory)?;
        pool.chunks.iter_mut().for_each(|chunk| chunk.ready = Bits::NONE);
        pool.ready_in.iter_mut().for_each(|ready| *ready = 0);
        pool.ready = 0;
        Ok(pool)
    }

    /// How many frames are free, stale ones among them.
    pub(crate) const fn free(&self) -> usize {
        self.ready + self.stale
    }

    /// How many frames are stale.
    pub(crate) const fn stale(&self) -> usize {
        self.stale
    }

    /// Hands out up to `want` consecutive frames that are ready, the most that one look finds. A whole chunk is
    /// found only whole or not at all; ask for less then.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn take(&mut self, want: usize) -> Option<FrameRun> {
        let (index, start, len) = self.find(want.min(CHUNK))?;
        self.hand = index;
        self.chunks[index].ready.clear(start, len);
        self.ready_in[index] -= in_chunk(len);
        self.ready -= len;
        Some(run(index, start, len))
    }

    /// The chunk, the start in it and the length of the first run of `want` ready frames from the hand on,
    /// or of the longest there is. Chunks in use come first, so that whole ones last.
    fn find(&self, want: usize) -> Option<(usize, usize, usize)> {
        if self.ready == 0 || want == 0 {
            return None;
        }
        let from_hand = || (self.hand..self.chunks.len()).chain(0..self.hand);
        let is_whole = |&index: &usize| usize::from(self.ready_in[index]) == CHUNK;
        if want == CHUNK
            && let Some(whole) = from_hand().find(is_whole)
        {
            return Some((whole, 0, CHUNK));
        }
        let mut best = None;
        let mut best_len = 0;
        let mut whole = None;
        for index in from_hand() {
            if is_whole(&index) {
                whole = whole.or(Some((index, 0, want)));
            } else if usize::from(self.ready_in[index]) > best_len {
                let (start, len) = self.chunks[index].ready.longest_run(want);
                if len > best_len {
                    best = Some((index, start, len));
                    best_len = len;
                }
                if len == want {
                    return best;
                }
            }
        }
        whole.or(best)
    }

    /// Hands out up to `want` consecutive stale frames, for their taker to use or make ready, and give back.
    /// A whole chunk goes to who wants one, to others last.
    pub(crate) fn take_stale(&mut self, want: usize) -> Option<FrameRun> {
        if self.stale == 0 || want == 0 {
            return None;
        }
        let want = want.min(CHUNK);
        let (mut best, mut best_len) = (None, 0);
        for (index, &stale) in self.stale_in.iter().enumerate() {
            let is_whole = usize::from(stale) == CHUNK;
            if usize::from(stale) <= best_len {
                continue;
            }
            let (start, len) = match (is_whole, want == CHUNK) {
                (true, true) => (0, CHUNK),
                // It stays whole where any other chunk has some.
                (true, false) if best.is_none() => {
                    best = Some((index, 0, want));
                    continue;
                }
                (true, false) => continue,
                (false, _) => self.chunks[index].stale.longest_run(want),
            };
            if len > best_len {
                best = Some((index, start, len));
                best_len = len;
            }
            if best_len == want {
                break;
            }
        }
        let (index, start, len) = best?;
        self.clear_stale(index, start, len);
        Some(run(index, start, len))
    }

    /// Hands out a chunk that is free as a whole and has stale frames, for its taker to make ready and give back.
    pub(crate) fn take_free_chunk(&mut self) -> Option<FrameRun> {
        if self.free() < CHUNK || self.stale == 0 {
            return None;
        }
        let mut counts = self.ready_in.iter().zip(self.stale_in.iter());
        let is_free = |(&ready, &stale): (&u16, &u16)| {
            stale > 0 && usize::from(ready) + usize::from(stale) == CHUNK
        };
        let index = counts.position(is_free)?;
        let ready = core::mem::take(&mut self.ready_in[index]);
        self.ready -= usize::from(ready);
        self.chunks[index].ready = Bits::NONE;
        let stale = usize::from(core::mem::take(&mut self.stale_in[index]));
        self.stale -= stale;
        self.chunks[index].stale = Bits::NONE;
        Some(run(index, 0, CHUNK))
    }

    /// Hands out this run of one chunk, all of which is stale.
    pub(crate) fn take_these_stale(&mut self, run: FrameRun) {
        let (index, start) = place(run.first);
        debug_assert!(self.chunks[index].stale.next(start, false) >= start + run.frames);
        self.clear_stale(index, start, run.frames);
    }

    /// Hands out the longest run of stale frames of a chunk.
    pub(crate) fn take_stale_in(&mut self, chunk: usize) -> Option<FrameRun> {
        let (start, len) = self.chunks[chunk].stale.longest_run(CHUNK);
        (len > 0).then(|| {
            self.clear_stale(chunk, start, len);
            run(chunk, start, len)
        })
    }

    fn clear_stale(&mut self, index: usize, start: usize, len: usize) {
        self.chunks[index].stale.clear(start, len);
        self.stale_in[index] -= in_chunk(len);
        self.stale -= len;
    }

    /// Whether a chunk is stale as a whole.
    pub(crate) fn has_whole_stale(&self) -> bool {
        self.stale >= CHUNK && self.stale_in.iter().any(|&stale| usize::from(stale) == CHUNK)
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// How many ready frames a chunk has.
    pub(crate) fn ready_in(&self, chunk: usize) -> usize {
        self.ready_in[chunk].into()
    }

    /// How many stale frames a chunk has.
    pub(crate) fn stale_in(&self, chunk: usize) -> usize {
        self.stale_in[chunk].into()
    }

    /// Takes a run back: ready, or stale.
    pub(crate) fn give_back(&mut self, run: FrameRun, stale: bool) {
        let mut first = run.first.0 as usize;
        let mut left = run.frames;
        while left > 0 {
            let (index, start) = (first / CHUNK, first % CHUNK);
            let len = left.min(CHUNK - start);
            if stale {
                self.chunks[index].stale.set(start, len);
                self.stale_in[index] += in_chunk(len);
                self.stale += len;
            } else {
                self.chunks[index].ready.set(start, len);
                self.ready_in[index] += in_chunk(len);
                self.ready += len;
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

/// The chunk of a frame, and its place there.
pub(super) const fn place(frame: FrameNumber) -> (usize, usize) {
    (frame.0 as usize / CHUNK, frame.0 as usize % CHUNK)
}

/// A number of frames of one chunk.
fn in_chunk(frames: usize) -> u16 {
    u16::try_from(frames).unwrap_or(u16::MAX)
}

#[cfg(all(test, not(shuttle)))]
mod tests;
