//! Twins: full pages of transit that still have what a frame was filled from.
//!
//! A page that was copied into a frame leaves its content behind, in transit. As long as the device
//! writes nothing to the frame, the two are the same, and when the page goes back its twin does instead,
//! with no copy. Where the device has written, the twin is what its frame is copied out to: so pages that
//! came together go back together, a huge page as one.
//!
//! # Invariants
//! A frame that has a twin is in use, for the page that it was filled with. Its twin is full, belongs to
//! no transfer, and has the frame's content, unless it is noted as written, or is noted as writable and the
//! device has written it since it was last asked.

use super::{Bits, FramePool, FrameRun, bits::CHUNK};
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
};

/// The twins of one device's frames.
#[derive(Debug)]
pub(super) struct Twins {
    /// Those that there are, which the pool calls stale.
    pages: FramePool,
    /// The twin of each frame.
    of_frame: EngineBox<[u32]>,
    /// The frame of each page of transit, which means something only if it is a twin.
    frame_of: EngineBox<[u32]>,
}

/// Of a frame's entry: the device has written the frame since it was filled.
const WRITTEN: u32 = 1;

/// Of a frame's entry: the device had a translation by which it may write since it was last asked.
const WRITABLE: u32 = 2;

/// What a frame's entry says beside that: nothing, or a page of transit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Twin {
    page: FrameNumber,
    written: bool,
}

impl Twin {
    /// An entry of zero says that there is none. Transit has fewer than 2^30 - 1 pages.
    const fn of_entry(entry: u32) -> Option<Self> {
        match entry >> 2 {
            0 => None,
            page => Some(Self { page: FrameNumber(page - 1), written: entry & WRITTEN != 0 }),
        }
    }

    fn entry(self) -> u32 {
        ((self.page.0 + 1) << 2) | if self.written { WRITTEN } else { 0 }
    }
}

/// Twins of frames that follow each other, and do themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct TwinRun {
    pub(super) pages: FrameRun,
    /// Of which frames the device has written.
    pub(super) written: Bits,
}

impl Twins {
    /// Room for twins of `frames` frames among `pages` pages of transit.
    pub(super) fn new(
        frames: usize,
        pages: usize,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        // Without frames there are none.
        let pages = if frames == 0 { 0 } else { pages };
        Ok(Self {
            pages: FramePool::new_in_use(pages, memory)?,
            of_frame: EngineBox::try_zeroed(memory, frames)?,
            frame_of: EngineBox::try_zeroed(memory, pages)?,
        })
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.pages.stale()
    }

    /// How many there are in a chunk of transit.
    pub(super) fn in_chunk(&self, chunk: usize) -> usize {
        // Where there can be none there are no chunks.
        if self.len() == 0 { 0 } else { self.pages.stale_in(chunk) }
    }

    fn of(&self, frame: FrameNumber) -> Option<Twin> {
        Twin::of_entry(self.of_frame[frame.0 as usize])
    }

    /// Makes full pages the twins of as many frames from `first` on, which have none.
    pub(super) fn add(
        &mut self,
        pages: FrameRun,
        first: FrameNumber,
        written: impl Fn(usize) -> bool,
    ) {
        for place in 0..pages.frames {
            let (page, frame) = (pages.first.plus(place), first.plus(place));
            debug_assert!(self.of(frame).is_none(), "a frame has one twin");
            self.frame_of[page.0 as usize] = frame.0;
            self.of_frame[frame.0 as usize] = Twin { page, written: written(place) }.entry();
        }
        self.pages.give_back(pages, true);
    }

    /// The twins of the first of some frames, no more than a block's, as far as they follow each other
    /// within a chunk of transit; or how many frames from the first on have none.
    pub(super) fn leading(&self, frames: FrameRun) -> Result<TwinRun, usize> {
        let mut twins = (0..frames.frames).map(|place| self.of(frames.first.plus(place)));
        let Some(first) = self.of(frames.first) else {
            return Err(twins.take_while(Option::is_none).count());
        };
        let most = CHUNK - first.page.0 as usize % CHUNK;
        let mut written = Bits::NONE;
        let mut count = 0;
        while count < most
            && let Some(Some(twin)) = twins.next()
            && twin.page == first.page.plus(count)
        {
            if twin.written {
                written.set(count, 1);
            }
            count += 1;
        }
        Ok(TwinRun { pages: FrameRun { first: first.page, frames: count }, written })
    }

    /// Takes twins out, of one chunk of transit: they are the caller's, and no twins any more.
    pub(super) fn take(&mut self, pages: FrameRun) {
        self.pages.take_these_stale(pages);
        self.part(pages);
    }

    /// Takes up to `want` out, whosever they are, as [`FramePool::take_stale`] does.
    pub(super) fn take_any(&mut self, want: usize) -> Option<FrameRun> {
        let pages = self.pages.take_stale(want)?;
        self.part(pages);
        Some(pages)
    }

    /// Takes some of a chunk of transit out, whosever they are.
    pub(super) fn take_any_in(&mut self, chunk: usize) -> Option<FrameRun> {
        if self.len() == 0 {
            return None;
        }
        let pages = self.pages.take_stale_in(chunk)?;
        self.part(pages);
        Some(pages)
    }

    /// Whether a chunk of transit is all twins.
    pub(super) fn have_whole(&self) -> bool {
        self.pages.has_whole_stale()
    }

    /// Their frames have no twins any more.
    fn part(&mut self, pages: FrameRun) {
        for place in 0..pages.frames {
            let frame = self.frame_of[pages.first.plus(place).0 as usize];
            self.of_frame[frame as usize] = 0;
        }
    }

    /// Notes that the device may write frames from here on, as far as they have twins.
    pub(super) fn note_writable(&mut self, frames: FrameRun) {
        let have_twins = self.entries(frames).filter(|entry| **entry != 0);
        have_twins.for_each(|entry| *entry |= WRITABLE);
    }

    /// Notes that the device says that it may have written frames, as far as they have twins. Those that it
    /// had no way to write it has not.
    pub(super) fn note_written(&mut self, frames: FrameRun) {
        let writable = self.entries(frames).filter(|entry| **entry & WRITABLE != 0);
        writable.for_each(|entry| *entry |= WRITTEN);
    }

    fn entries(&mut self, frames: FrameRun) -> impl Iterator<Item = &mut u32> {
        let first = frames.first.0 as usize;
        self.of_frame[first..first + frames.frames].iter_mut()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
