//! Devices: the one seam above the core.
//!
//! A device is a protocol of plain data. The core says which pages to prepare for, which entries to
//! commit and which translations end; the device keeps a page table of its own and reaches its
//! memory, whose frames are pages of staging, through the pointers that a commit hands it.

mod attachment;
mod clock;
mod frames;
mod reservation;
mod state;

use core::ptr::NonNull;

pub use attachment::{AttachError, Attachment, DeviceFaultError};
pub(crate) use clock::Clock;
pub(crate) use frames::{FramePool, FrameRun};
pub(crate) use reservation::Reservation;
pub(crate) use state::{DeviceState, Devices};

use crate::{engine_memory::EngineMemoryError, units::PageRange};

/// How many devices one address space can have at a time.
pub const MAX_DEVICES: usize = 16;

/// A device's place among those of its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceIndex(pub(crate) u8);

/// A frame of a device's memory, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameNumber(pub(crate) u32);

impl FrameNumber {
    /// The frame `frames` further on.
    pub(crate) fn plus(self, frames: usize) -> Self {
        // Runs of frames lie within a device's memory, whose size fits.
        Self(self.0 + u32::try_from(frames).unwrap_or(u32::MAX - self.0))
    }
}

/// How a device used some of its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Pages that it used since it was last asked.
    pub lately: usize,
    /// Pages that it used since they came.
    pub ever: usize,
}

/// A device that takes pages over into memory that is in this process.
///
/// The calls come from any thread, also several at a time for different blocks; for one block they
/// come one at a time, in the order in which its pages move.
///
/// # Safety
/// The core frees, moves and hands out memory trusting that
/// - [`invalidate`](Self::invalidate) returns only when the device has no translation of the pages
///   and no access through one in flight, and that none is made until the next commit;
/// - the device touches a frame only through a translation that a commit gave it;
/// - no method touches memory that could be away (the process's heap among it), waits for another
///   of the core's calls, or unwinds.
pub unsafe trait Device: Send + Sync + 'static {
    /// Makes ready for a commit of `pages`: does what can fail or sleep, such as making room in the
    /// page table. Called with no lock held; a commit need not follow.
    ///
    /// # Errors
    /// Engine memory is exhausted; the pages stay where they are.
    fn prepare(&self, pages: PageRange) -> Result<(), EngineMemoryError>;

    /// Enters translations: `pages`, within one block, are at `memory` and on, in the device's
    /// memory, readable and writable. They were prepared for. It replaces what was there.
    fn commit(&self, pages: PageRange, memory: NonNull<u8>);

    /// Ends all translations of `pages`, within one block.
    fn invalidate(&self, pages: PageRange);

    /// How many of `pages`, within one block, the device used, as far as it can tell; "lately"
    /// starts anew with each asking.
    fn take_use(&self, pages: PageRange) -> Use;
}
