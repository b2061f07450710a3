//! What devices, their mirrors and their frames are called.

use crate::mm::MOST_ALIASES;

/// How many devices one address space can have at a time.
pub const MAX_DEVICES: usize = 16;

/// A device's place among those of its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceIndex(pub(crate) u8);

impl DeviceIndex {
    /// The place as a number, less than [`MAX_DEVICES`].
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// What a mirror is called among all of its address space. It is never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorId(pub(crate) u64);

/// A frame of a device's memory, by its number; or a page of an alias, which is in no device's memory,
/// by a number apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameNumber(pub(crate) u32);

/// The numbers of pages of aliases begin here. No device has so many frames.
const OF_ALIAS: u32 = 1 << 31;
/// Set in the numbers of those that show a pool's pages, which are whole, all or none.
const OF_POOL: u32 = 1 << 30;
const _: () = assert!(MOST_ALIASES <= OF_POOL as usize);

impl FrameNumber {
    /// The number of the page of aliases `page` pages after the first that there can be.
    pub(crate) fn of_alias(page: usize) -> Self {
        // There are not so many.
        Self(OF_ALIAS | u32::try_from(page).unwrap_or(OF_POOL - 1))
    }

    /// The number of the same page of an alias that shows a pool's pages.
    pub(crate) const fn of_pool(self) -> Self {
        Self(self.0 | OF_POOL)
    }

    /// Whether it is a page of an alias that shows a pool's pages.
    #[inline]
    pub(crate) const fn is_of_pool(self) -> bool {
        self.0 & (OF_ALIAS | OF_POOL) == OF_ALIAS | OF_POOL
    }

    /// Whether it is a page of an alias: of shared memory.
    #[inline]
    pub(crate) const fn is_shared(self) -> bool {
        self.0 & OF_ALIAS != 0
    }

    /// Which page of aliases it is.
    #[inline]
    pub(crate) const fn in_alias(self) -> usize {
        (self.0 & !(OF_ALIAS | OF_POOL)) as usize
    }

    /// The frame `frames` further on.
    pub(crate) fn plus(self, frames: usize) -> Self {
        // Runs of frames lie within a device's memory, whose size fits.
        Self(self.0 + u32::try_from(frames).unwrap_or(u32::MAX - self.0))
    }
}
