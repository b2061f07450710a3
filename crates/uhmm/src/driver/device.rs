//! What a device with memory of its own is to the core.

use super::{Export, FaultAccess, Importer, Invalidation, PageTable};
use crate::units::{PageNumber, PageRange};

/// How a device used some of its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Pages that it used since it was last asked.
    pub lately: usize,
    /// Pages that it used since they came.
    pub ever: usize,
}

/// A device with memory of its own: staging, into which pages move,
/// [`CopyingMemory`](super::CopyingMemory), or coherent memory.
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
    /// empty where it has written none. It is asked of pages in [`CopyingMemory`](super::CopyingMemory) as they
    /// leave, after their translations have ended and before others are made: each page until an answer names
    /// it, or all behind it are unwritten. What it has not written is not copied out, where the core still has
    /// what was copied in.
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
