//! What may be done with areas, so far as devices' translations are concerned.
//!
//! The system tells nobody that the protection of an area changes. So every commit knows what may be
//! done with its pages: from the system, which moves pages out of areas only that can be read and
//! written, or by asking it. Where less may be done than devices may have translations for, those of
//! the whole area end first, and that is noted, so that the next commit need not look for them again.

use super::Engine;
use crate::{
    engine_memory::EngineMemory,
    mm::{Errno, Mm, Protection},
    range_set::RangeSet,
    units::PageRange,
};

/// What a device may do with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permitted {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Permitted {
    /// What may be written can be read, as on most processors.
    pub(crate) const fn by(protection: Protection) -> Self {
        Self { read: protection.read || protection.write, write: protection.write }
    }
}

/// Pages of which devices are known to have no translations that the protection forbids.
///
/// # Invariants
/// But for what is being ended at the moment, which is closed, no device has a translation for
/// writing of a page of `unwritable`, nor any of a page of `unreadable`. Of other pages nothing is
/// known.
#[derive(Debug)]
pub(crate) struct Restricted {
    unwritable: RangeSet,
    unreadable: RangeSet,
    /// How often the program told of a change.
    told: u64,
}

impl Restricted {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        Self { unwritable: RangeSet::new(memory), unreadable: RangeSet::new(memory), told: 0 }
    }

    /// How often the program told of a change. What was seen of protection before another number is
    /// to be looked at again.
    #[inline]
    pub(crate) const fn told(&self) -> u64 {
        self.told
    }

    /// The program changed what may be done with `pages`, and told.
    pub(crate) fn changed(&mut self, pages: PageRange) {
        self.told += 1;
        self.forget(pages);
    }

    /// Whether nothing is known of `pages`.
    #[inline]
    pub(crate) fn is_clear(&self, pages: PageRange) -> bool {
        // What cannot be read cannot be written either.
        self.unwritable.is_empty() || !self.unwritable.overlaps(pages)
    }

    /// Whether translations for what is permitted may be entered without breaking the invariant.
    pub(crate) fn allows(&self, pages: PageRange, permitted: Permitted) -> bool {
        !(permitted.write && self.unwritable.overlaps(pages)
            || permitted.read && self.unreadable.overlaps(pages))
    }

    /// Whether all translations of `pages` that are not permitted are known to have ended.
    pub(crate) fn knows(&self, pages: PageRange, permitted: Permitted) -> bool {
        (permitted.write || self.unwritable.covers(pages))
            && (permitted.read || self.unreadable.covers(pages))
    }

    /// The first of `pages`, as many as the same is known of.
    pub(crate) fn leading(&self, pages: PageRange) -> PageRange {
        self.unreadable.leading(self.unwritable.leading(pages).0).0
    }

    /// Nothing is known of `pages` any more.
    pub(crate) fn forget(&mut self, pages: PageRange) {
        let written = self.unwritable.remove(pages);
        if written.and(self.unreadable.remove(pages)).is_err() {
            // Without memory to tell what remains, all is forgotten, and found out about anew.
            self.unwritable.clear();
            self.unreadable.clear();
        }
    }

    /// From here on translations are entered for what is permitted only, and all others are about to
    /// end. Where there is no memory for the note they end again at the next commit.
    pub(crate) fn note(&mut self, pages: PageRange, permitted: Permitted) {
        self.forget(pages);
        if !permitted.write && self.unwritable.add(pages).is_ok() && !permitted.read {
            // In this order, as what is unreadable is looked for among what is unwritable.
            let _ = self.unreadable.add(pages);
        }
    }
}

impl<M: Mm> Engine<M> {
    /// What may be done with the first of `pages` as it is now, and the pages from there on of which
    /// the same is so, within their area. `None` where there is none.
    #[inline(never)]
    pub(crate) fn permitted(
        &self,
        pages: PageRange,
    ) -> Result<Option<(PageRange, Permitted)>, Errno> {
        let mapping = self.mm.mapping_at(pages.start())?;
        Ok(mapping
            .map(|mapping| (mapping.pages.intersection(pages), Permitted::by(mapping.protection))))
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{testing::memory, units::PageNumber};

    const READ_WRITE: Permitted = Permitted { read: true, write: true };
    const READ_ONLY: Permitted = Permitted { read: true, write: false };
    const NONE: Permitted = Permitted { read: false, write: false };

    fn range(start: usize, len: usize) -> PageRange {
        PageRange::of(PageNumber(start), len)
    }

    #[test]
    fn what_is_permitted_is_known_by_area() {
        let memory = memory();
        let mut restricted = Restricted::new(&memory);
        assert!(restricted.is_clear(range(0, 100)));
        assert!(restricted.allows(range(0, 100), READ_WRITE));
        assert!(!restricted.knows(range(0, 1), READ_ONLY));
        restricted.note(range(10, 10), READ_ONLY);
        restricted.note(range(30, 10), NONE);
        assert!(restricted.is_clear(range(20, 10)) && !restricted.is_clear(range(0, 11)));
        assert!(restricted.knows(range(12, 4), READ_ONLY));
        assert!(
            !restricted.knows(range(12, 4), NONE) && !restricted.knows(range(12, 9), READ_ONLY)
        );
        assert!(restricted.allows(range(12, 4), READ_ONLY));
        assert!(!restricted.allows(range(12, 4), READ_WRITE));
        assert!(
            !restricted.allows(range(39, 4), READ_ONLY) && restricted.knows(range(39, 1), NONE)
        );
        restricted.note(range(12, 4), READ_WRITE);
        assert!(restricted.allows(range(12, 4), READ_WRITE));
        assert!(restricted.knows(range(10, 2), READ_ONLY));
        let parts = [(0, 10), (10, 2), (12, 4), (16, 4), (20, 10), (30, 10), (40, 60)];
        for (start, len) in parts {
            assert_eq!(restricted.leading(range(start, 100 - start)), range(start, len));
        }
        restricted.forget(range(0, 100));
        assert!(restricted.is_clear(range(0, 100)));
    }
}
