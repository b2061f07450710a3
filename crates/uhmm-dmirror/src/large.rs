//! Large allocations: of a frame for a huge page, or of a huge page for what comes back. The next one can be
//! told to fail, once, by the call FLAGS. Then pages go one way or the other in small ones, as a driver has
//! them go whose allocator has no large one left.

use core::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};

use uhmm::{
    PageEntry, PageState,
    units::{BLOCK_PAGES, PageRange},
};

/// In FLAGS: the next large allocation fails.
const FAIL_NEXT: u64 = 1;

/// Whether the next large allocation is to fail.
#[derive(Debug, Default)]
pub(crate) struct Large {
    fails: AtomicBool,
}

impl Large {
    /// What FLAGS says. Flags that nobody knows are nothing.
    pub(crate) fn set(&self, flags: u64) {
        self.fails.store(flags & FAIL_NEXT != 0, Release);
    }

    /// Whether a large allocation is to fail, if one is made.
    pub(crate) fn may_fail(&self) -> bool {
        self.fails.load(Acquire)
    }

    /// The parts in which `pages` are to move: all at once, but for the huge page whose allocation fails. Of that
    /// the halves go one after the other, so that nobody takes it for a whole. `entries` are of `seen`, which
    /// `pages` lie in.
    pub(crate) fn parts(
        &self,
        pages: PageRange,
        (seen, entries): (PageRange, &[PageEntry]),
    ) -> impl Iterator<Item = PageRange> {
        let fails = pages.by_block().find(|block| {
            let first = block.start().since(seen.start());
            block.len() == BLOCK_PAGES && entries.get(first).is_some_and(is_huge)
        });
        let fails = fails.filter(|_| self.fails.swap(false, AcqRel));
        let start = fails.map_or(pages.end(), PageRange::start);
        let end = fails.map_or(pages.end(), PageRange::end);
        let half = start.plus((end.since(start)) / 2);
        [(pages.start(), start), (start, half), (half, end), (end, pages.end())]
            .into_iter()
            .map(|(start, end)| PageRange::new(start, end))
            .filter(|part| !part.is_empty())
    }
}

/// Whether the page begins a huge one that is to move.
fn is_huge(entry: &PageEntry) -> bool {
    matches!(entry.state, PageState::InPlace | PageState::Own) && 1 << entry.order == BLOCK_PAGES
}

#[cfg(test)]
mod tests {
    use uhmm::units::PageNumber;

    use super::*;

    #[test]
    fn the_next_huge_page_goes_in_halves_and_the_one_after_whole() {
        let huge = PageEntry { state: PageState::Own, order: 9, ..PageEntry::default() };
        let seen = PageRange::of(PageNumber(10 * BLOCK_PAGES - 1), 2 * BLOCK_PAGES + 2);
        let mut entries = vec![huge; 2 * BLOCK_PAGES + 2];
        let large = Large::default();
        let parts =
            || -> Vec<usize> { large.parts(seen, (seen, &entries)).map(PageRange::len).collect() };
        assert_eq!(parts(), [seen.len()]);
        large.set(3);
        assert!(large.may_fail());
        assert_eq!(parts(), [1, BLOCK_PAGES / 2, BLOCK_PAGES / 2, BLOCK_PAGES + 1]);
        assert_eq!(parts(), [seen.len()]);
        // No large allocation is made, and none fails.
        large.set(1);
        entries.fill(PageEntry { order: 0, ..huge });
        let small: Vec<_> = large.parts(seen, (seen, &entries)).collect();
        assert_eq!(small, [seen]);
        assert!(large.may_fail());
        large.set(0);
        assert!(!large.may_fail());
    }
}
