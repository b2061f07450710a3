//! What the program discards, and has not been seen to be a hole since: it stays in system memory until
//! it has, or was touched first.
//!
//! Whoever filled holes notes that after it left the gate, so it has to know whether the same pages were
//! discarded again in between.

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError},
    range_set::RangeSet,
    units::{PageNumber, PageRange},
};

/// As many of the latest discards are told apart.
const LATEST: usize = 16;

#[derive(Debug)]
pub(crate) struct Discarding {
    pages: RangeSet,
    /// The ranges that were added last, in a ring.
    latest: [PageRange; LATEST],
    /// How often ranges were added.
    additions: usize,
}

impl Discarding {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self {
            pages: RangeSet::new(memory),
            latest: [PageRange::of(PageNumber(0), 0); LATEST],
            additions: 0,
        }
    }

    /// How often something was added.
    pub(crate) const fn additions(&self) -> usize {
        self.additions
    }

    /// Whether some of `pages` may have been added after `additions` were counted.
    pub(crate) fn added_since(&self, additions: usize, pages: PageRange) -> bool {
        let count = self.additions.wrapping_sub(additions);
        count > LATEST
            || (0..count).any(|back| {
                self.latest[self.additions.wrapping_sub(back + 1) % LATEST].overlaps(pages)
            })
    }

    /// The program discards `pages`.
    pub(crate) fn add(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        self.latest[self.additions % LATEST] = pages;
        self.additions = self.additions.wrapping_add(1);
        self.pages.add(pages)
    }

    /// That is over for `pages`.
    pub(crate) fn remove(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        self.pages.remove(pages)
    }

    pub(crate) fn overlaps(&self, pages: PageRange) -> bool {
        self.pages.overlaps(pages)
    }

    /// The longest part of `pages` from its start on that is discarded, or is not, and which it is.
    pub(crate) fn leading(&self, pages: PageRange) -> (PageRange, bool) {
        self.pages.leading(pages)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::testing::memory;

    fn range(start: usize, len: usize) -> PageRange {
        PageRange::of(PageNumber(start), len)
    }

    #[test]
    fn what_was_added_since_is_known_for_a_while() {
        let memory = memory();
        let mut discarding = Discarding::new(&memory);
        discarding.add(range(0, 4)).unwrap();
        let seen = discarding.additions();
        assert!(!discarding.added_since(seen, range(0, 4)));
        discarding.add(range(10, 4)).unwrap();
        assert!(!discarding.added_since(seen, range(0, 10)));
        assert!(discarding.added_since(seen, range(13, 1)));
        for _ in 1..LATEST {
            discarding.add(range(20, 1)).unwrap();
        }
        assert!(!discarding.added_since(seen, range(0, 10)));
        assert!(discarding.added_since(seen, range(10, 1)));
        discarding.add(range(20, 1)).unwrap();
        assert!(discarding.added_since(seen, range(0, 1)), "more than can be told apart");
    }
}
