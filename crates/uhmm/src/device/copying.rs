//! What the core keeps of memory that is reached by copies, and the transfers themselves.

use super::{Coherent, FrameRun, Transit};
use crate::{
    driver::{Begun, CopyingMemory, FrameNumber, Frames, Transfer, TransferError},
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    mm::Mm,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// What a device's frames are.
pub(crate) enum FrameMemory {
    /// Pages of this staging.
    Staging(PageRange),
    /// The device's own.
    Copying(Copying),
    /// Pages that the CPU maps too.
    Coherent(Coherent),
}

/// Memory that is reached by copies, and the way there.
pub(crate) struct Copying {
    memory: EngineBox<dyn CopyingMemory>,
    pub(crate) transit: Transit,
    /// For each block of frames: whether what came into it last was a huge page, or is to be one as it leaves.
    huge: EngineBox<[AtomicBool]>,
}

/// Where a frame's content is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'d> {
    /// In this page of staging.
    Staging(PageNumber),
    /// Beyond a copy.
    Copying(&'d Copying, FrameNumber),
}

impl core::fmt::Debug for Copying {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Copying").finish_non_exhaustive()
    }
}

impl Copying {
    pub(super) fn new(
        memory: EngineBox<dyn CopyingMemory>,
        transit: Transit,
        frames: usize,
        engine_memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        let huge = EngineBox::try_zeroed(engine_memory, frames.div_ceil(BLOCK_PAGES))?;
        Ok(Self { memory, transit, huge })
    }

    /// Whether a transfer takes longer than the processor would copy.
    pub(crate) fn is_far(&self) -> bool {
        self.memory.is_far()
    }

    /// Where this process has the frames mapped, if it has.
    pub(super) fn mapped(&self) -> Option<PageRange> {
        self.memory.mapped()
    }

    /// Notes whether what came into frames was a huge page.
    pub(crate) fn note_huge(&self, frames: FrameRun, is_huge: bool) {
        let (first, end) = (frames.first.0 as usize, frames.first.0 as usize + frames.frames);
        let is_block = frames.frames == BLOCK_PAGES && first.is_multiple_of(BLOCK_PAGES);
        // What is no whole block is no huge page, nor is what was there before any more.
        for block in &self.huge[first / BLOCK_PAGES..end.div_ceil(BLOCK_PAGES)] {
            block.store(is_block && is_huge, Relaxed);
        }
    }

    /// Whether what is in a block of frames from `first` on, as a whole, was one huge page as it came.
    pub(crate) fn is_huge(&self, first: FrameNumber) -> bool {
        let first = first.0 as usize;
        first.is_multiple_of(BLOCK_PAGES) && self.huge[first / BLOCK_PAGES].load(Relaxed)
    }

    /// Copies pages of staging, which are there, into frames.
    pub(crate) fn copy_in<M: Mm>(
        &self,
        from: PageNumber,
        to: FrameRun,
        mm: &M,
    ) -> Result<(), TransferError> {
        self.transfer(&Transfer::In { from: mm.staging_pointer(from), to: Frames::from(to) })
    }

    /// Copies frames out to pages of staging, which are there.
    pub(crate) fn copy_out<M: Mm>(
        &self,
        from: FrameRun,
        to: PageNumber,
        mm: &M,
    ) -> Result<(), TransferError> {
        self.transfer(&Transfer::Out { from: Frames::from(from), to: mm.staging_pointer(to) })
    }

    /// Fills frames with zeros.
    pub(crate) fn zero(&self, frames: FrameRun) -> Result<(), TransferError> {
        self.transfer(&Transfer::Zero { frames: Frames::from(frames) })
    }

    fn transfer(&self, transfer: &Transfer) -> Result<(), TransferError> {
        match self.memory.begin(transfer)? {
            Begun::Done => Ok(()),
            Begun::UnderWay(ticket) => self.memory.finish(ticket),
        }
    }
}

impl From<FrameRun> for Frames {
    fn from(run: FrameRun) -> Self {
        Self { first: run.first.0 as usize, count: run.frames }
    }
}
