//! What memory a device is attached with.

use super::{Coherent, Copying, FrameMemory, Transit};
use crate::{
    driver::CopyingMemory,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    units::{NumaNode, PageRange},
};

/// What memory a device is attached with.
pub(crate) enum Kind {
    /// Pages move into it.
    Staging,
    /// Pages are copied into it.
    Copying(EngineBox<dyn CopyingMemory>),
    /// Pages are copied into it, and the CPU maps it. Its frames are set aside, as memory of the NUMA node, if one
    /// is named.
    Coherent(Option<NumaNode>),
}

impl Kind {
    /// The most frames that a device can have.
    pub(crate) fn most_frames() -> usize {
        // Transit has no more pages than as many again, and some; numbers have a bit to spare.
        (u32::MAX as usize >> 2) - Transit::pages_for(0, 0)
    }

    /// How much staging it takes for `frames` frames.
    pub(crate) fn staging_for(&self, frames: usize, memory_pages: usize) -> usize {
        match self {
            Self::Staging => frames,
            Self::Copying(_) => Transit::pages_for(frames, memory_pages),
            Self::Coherent(_) => Coherent::staging_for(frames),
        }
    }

    /// What of `staging` is to be set aside, where the device has `frames` frames, and of which NUMA node, if
    /// one is named.
    pub(crate) fn aside(
        &self,
        staging: PageRange,
        frames: usize,
    ) -> Option<(PageRange, Option<NumaNode>)> {
        let Self::Coherent(node) = *self else { return None };
        Some((Coherent::frames_in(staging, frames), node))
    }

    /// The memory of `frames` frames, with `staging`, of which is set aside what is [to be](Self::aside).
    pub(crate) fn with(
        self,
        staging: PageRange,
        frames: usize,
        memory: &EngineMemory,
    ) -> Result<FrameMemory, EngineMemoryError> {
        Ok(match self {
            Self::Staging => FrameMemory::Staging(staging),
            Self::Copying(copying) => {
                let transit = Transit::new(staging, frames, memory)?;
                FrameMemory::Copying(Copying::new(copying, transit, frames, memory)?)
            }
            Self::Coherent(node) => {
                FrameMemory::Coherent(Coherent::new(staging, frames, node, memory)?)
            }
        })
    }
}
