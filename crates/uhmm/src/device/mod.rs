//! Devices: the one seam above the core.
//!
//! A device is a protocol of plain data. The core says which pages to prepare for, which entries to
//! commit and which translations end; the device keeps a page table of its own, which is a
//! [`PageTable`]. Its memory is of one of three kinds: pages of staging, into which pages move and which
//! the device reaches through the pointers that a commit hands it; [`CopyingMemory`], which is the
//! device's own and has pages copied in and out; or coherent memory, whose frames the CPU maps too.

mod ahead;
mod area;
mod attachment;
mod bits;
mod clock;
mod coherent;
mod copying;
mod faults;
mod frames;
mod given_back;
mod grants;
mod memory;
mod reservation;
mod state;
mod transit;
mod twins;

use ahead::Ahead;
pub use area::{DeviceArea, ReserveError};
pub(crate) use area::{Reserved, ReservedRun};
pub(crate) use attachment::Kind;
pub use attachment::{AttachError, Attachment, DeviceFaultError, MapError};
pub(crate) use bits::Bits;
pub(crate) use clock::Clock;
pub(crate) use coherent::Coherent;
pub(crate) use copying::{Copying, FrameMemory, Place};
pub use faults::Service;
pub(crate) use frames::{FramePool, FrameRun};
use given_back::GivenBack;
use grants::Grants;
pub use memory::{Begun, CopyingMemory, Frames, Ticket, Transfer, TransferError, copy_bytes};
pub(crate) use reservation::Reservation;
pub(crate) use state::{DeviceState, Devices};
pub(crate) use transit::{Borrowed, Transit};

use crate::{
    faults::FaultAccess,
    mirror::{Export, Importer, Invalidation, PageTable},
    mm::MOST_ALIASES,
    units::{PageNumber, PageRange},
};

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

/// A frame of a device's memory, by its number; or a page of an alias, which is in no device's memory,
/// by a number apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameNumber(pub(crate) u32);

/// The numbers of pages of aliases begin here. No device has so many frames.
const OF_ALIAS: u32 = 1 << 31;
const _: () = assert!(MOST_ALIASES <= OF_ALIAS as usize);

impl FrameNumber {
    /// The number of the page of aliases `page` pages after the first that there can be.
    pub(crate) fn of_alias(page: usize) -> Self {
        // There are not so many.
        Self(OF_ALIAS | u32::try_from(page).unwrap_or(u32::MAX))
    }

    /// Whether it is a page of an alias: of shared memory.
    #[inline]
    pub(crate) const fn is_shared(self) -> bool {
        self.0 & OF_ALIAS != 0
    }

    /// Which page of aliases it is.
    #[inline]
    pub(crate) const fn in_alias(self) -> usize {
        (self.0 & !OF_ALIAS) as usize
    }

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

/// A device with memory of its own: staging, into which pages move, [`CopyingMemory`], or coherent
/// memory.
///
/// Its page table has both: pages in its memory, and pages that it maps in place or at a peer.
///
/// # Safety
/// As of [`PageTable`]; and the methods here keep to what is said there of methods.
pub unsafe trait Device: PageTable {
    /// How many of `pages`, within one block, the device used, as far as it can tell; "lately"
    /// starts anew with each asking. Unless this is implemented all count as used at some time and
    /// none as used lately: pages leave in the order in which they came, and neighbours go on coming.
    fn take_use(&self, pages: PageRange) -> Use {
        Use { lately: 0, ever: pages.len() }
    }

    /// The first run of `pages`, within one block, that the device may have written since it was last asked:
    /// empty where it has written none. It is asked of pages in [`CopyingMemory`] as they leave, after their
    /// translations have ended and before others are made: each page until an answer names it, or all behind it
    /// are unwritten. What it has not written is not copied out, where the core still has what was copied in.
    ///
    /// A write counts from when it is made, through whatever translation, until an answer has named its
    /// page; that translations end meanwhile changes nothing. So where [`invalidate`](PageTable::invalidate)
    /// has returned, every write by what it ended is known here. Unless this is implemented all pages may have
    /// been written. What was written to a page that is not named is lost.
    fn take_written(&self, pages: PageRange) -> PageRange {
        pages
    }

    /// Whether the device has a translation of a page by which such an access is made now, as far as it
    /// knows: then a [fault](crate::FaultBuffer) for it is stale. False of pages in place, where an access
    /// can be refused that there is a translation for. Unless this is implemented no fault is stale.
    fn has(&self, page: PageNumber, access: FaultAccess) -> bool {
        let _ = (page, access);
        false
    }

    /// As [`invalidate`](PageTable::invalidate), of several ranges of one block, apart and in their order:
    /// for a device that waits for its accesses once for all.
    fn invalidate_all(&self, invalidations: &[Invalidation]) {
        for invalidation in invalidations {
            self.invalidate(invalidation);
        }
    }

    /// Whether a peer may map `pages`, within one block, which are in this device's memory, where
    /// they are. Called under the block's lock. The answer is for those pages that it names with it, the
    /// first of `pages` and what follows of which the same is so; the core asks again for the rest.
    ///
    /// The peer's translations end before the pages move or go. What was granted once is granted to
    /// that peer again, without asking, while its area lives. Unless this is implemented the pages
    /// go back to main memory for a peer. Nobody asks for pages in copying memory: a peer cannot map
    /// what is reached by copies.
    fn export(&self, importer: Importer, pages: PageRange, write: bool) -> (PageRange, Export) {
        let _ = (importer, write);
        (pages, Export::SystemMemory)
    }
}
