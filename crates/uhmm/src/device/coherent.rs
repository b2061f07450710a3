//! Coherent memory: frames that the CPU maps where the program has the pages.
//!
//! A frame is a page of staging, as of a device whose memory is nothing else. A page goes there by a
//! copy, by way of transit, and then the frame itself moves to where the program has the page. So its
//! place in staging is a hole for as long as the CPU maps it, and nothing of the program's page tables
//! is ours: a fork, a remapping or a discarding does to it what it does to any page.

use super::Transit;
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemory, EngineMemoryError},
    units::{NumaNode, PageNumber, PageRange},
};

/// What the core keeps of coherent memory.
pub(crate) struct Coherent {
    /// The places of the frames.
    frames: PageRange,
    pub(crate) transit: Transit,
    /// The NUMA node that the frames are of, if that is said.
    pub(crate) node: Option<NumaNode>,
}

impl core::fmt::Debug for Coherent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Coherent").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Coherent {
    /// How many pages of staging a memory of `frames` frames takes.
    pub(super) fn staging_for(frames: usize) -> usize {
        // What comes back goes another way, so none of it is kept for that.
        Transit::pages_for(0, 0) + frames
    }

    /// The memory in `staging`, which is as long as [`staging_for`](Self::staging_for) says: transit, and
    /// behind it the frames, which begin as aligned as the staging does.
    pub(super) fn new(
        staging: PageRange,
        frames: usize,
        node: Option<NumaNode>,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        let frames = Self::frames_in(staging, frames);
        Ok(Self {
            frames,
            transit: Transit::new(PageRange::new(staging.start(), frames.start()), 0, memory)?,
            node,
        })
    }

    /// The places of `frames` frames in `staging`.
    pub(super) const fn frames_in(staging: PageRange, frames: usize) -> PageRange {
        PageRange::new(staging.start().plus(staging.len() - frames), staging.end())
    }

    /// The place of a frame.
    pub(crate) fn page(&self, frame: FrameNumber) -> PageNumber {
        self.frames.start().plus(frame.0 as usize)
    }

    /// All of its staging.
    pub(super) const fn staging(&self) -> PageRange {
        PageRange::new(self.transit.pages.start(), self.frames.end())
    }

    /// The places of the frames.
    pub(super) const fn frames(&self) -> PageRange {
        self.frames
    }
}
