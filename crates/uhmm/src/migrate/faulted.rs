//! The pages of one block that a device missed, and those that are to come with them.

use core::ops::Range;

use crate::{
    device::Bits,
    mm::Access,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

/// Faults of a device on pages of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faulted {
    block: BlockNumber,
    /// What is to come: what was missed, and neighbours.
    wanted: Bits,
    /// The first of that.
    start: usize,
    /// The place behind the last.
    end: usize,
    /// Whether all between is to come, too.
    is_solid: bool,
    missed: Bits,
    /// What of that is to be written.
    written: Bits,
}

impl Faulted {
    /// None yet.
    pub(crate) const fn in_block(block: BlockNumber) -> Self {
        let none = Bits::NONE;
        Self { block, wanted: none, start: 0, end: 0, is_solid: true, missed: none, written: none }
    }

    /// One page.
    pub(crate) fn on(page: PageNumber, access: Access) -> Self {
        let mut faulted = Self::in_block(page.block());
        faulted.add(page, access);
        faulted
    }

    /// Adds a page of the block, missed for `access`.
    pub(crate) fn add(&mut self, page: PageNumber, access: Access) {
        let place = page.in_block();
        self.want(&(place..place + 1));
        self.missed.set(place, 1);
        if access == Access::Write {
            self.written.set(place, 1);
        }
    }

    /// Adds neighbours: pages of the block.
    pub(crate) fn add_neighbours(&mut self, pages: PageRange) {
        if !pages.is_empty() {
            let first = pages.start().in_block();
            self.want(&(first..first + pages.len()));
        }
    }

    /// Adds places, at least one, to those that are to come.
    fn want(&mut self, places: &Range<usize>) {
        self.wanted.set(places.start, places.len());
        if self.start == self.end {
            (self.start, self.end) = (places.start, places.end);
            return;
        }
        self.is_solid &= places.start <= self.end && places.end >= self.start;
        self.start = self.start.min(places.start);
        self.end = self.end.max(places.end);
    }

    /// What of `places` lies between the first that is to come and the last; none, at their end, where nothing is.
    fn bounded(&self, places: &Range<usize>) -> Range<usize> {
        let start = places.start.max(self.start);
        let end = places.end.min(self.end);
        if start < end { start..end } else { places.end..places.end }
    }

    /// Whether a page of the block comes.
    pub(crate) fn wants(&self, page: PageNumber) -> bool {
        self.wanted.has(page.in_block())
    }

    /// From the first page that is to come up to the last.
    pub(crate) fn span(&self) -> PageRange {
        let first = self.block.first_page();
        PageRange::new(first.plus(self.start), first.plus(self.end))
    }

    /// The first run of `places` that is to come; none, at their end, where none is.
    pub(crate) fn next(&self, places: &Range<usize>) -> Range<usize> {
        let within = self.bounded(places);
        if self.is_solid || within.is_empty() {
            return within;
        }
        let start = self.wanted.next(within.start, true);
        if start >= within.end {
            return places.end..places.end;
        }
        start..self.wanted.next(start, false).min(within.end)
    }

    /// The runs of pages that are to come.
    pub(crate) fn windows(&self) -> impl Iterator<Item = PageRange> {
        let first = self.block.first_page();
        let mut rest = 0..BLOCK_PAGES;
        core::iter::from_fn(move || {
            let next = self.next(&rest);
            rest.start = next.end;
            (!next.is_empty()).then(|| PageRange::of(first.plus(next.start), next.len()))
        })
    }

    /// Whether a page of the block was missed.
    pub(crate) fn has_missed(&self, page: PageNumber) -> bool {
        self.missed.has(page.in_block())
    }

    /// How many of `places` are to come.
    pub(crate) fn count(&self, places: &Range<usize>) -> usize {
        let within = self.bounded(places);
        if self.is_solid { within.len() } else { self.wanted.count(&within) }
    }

    /// How many of `places` were missed.
    pub(crate) fn missed(&self, places: &Range<usize>) -> usize {
        self.missed.count(places)
    }

    /// Whether any of `places` is to be written.
    pub(crate) fn writes(&self, places: &Range<usize>) -> bool {
        self.written.next(places.start, true) < places.end
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    #![expect(clippy::disallowed_macros, reason = "tests are off the fault path")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn property_places_are_a_set(
            ranges in proptest::collection::vec((0..BLOCK_PAGES, 0..BLOCK_PAGES), 0..6),
            asked in (0..=BLOCK_PAGES, 0..=BLOCK_PAGES),
        ) {
            let block = BlockNumber(3);
            let mut faulted = Faulted::in_block(block);
            let mut oracle = [false; BLOCK_PAGES];
            for (one, other) in ranges {
                let range = one.min(other)..one.max(other);
                if !range.is_empty() {
                    faulted.want(&range);
                }
                oracle[range].fill(true);
            }
            let asked = asked.0.min(asked.1)..asked.0.max(asked.1);
            let inside = |place: &usize| oracle[*place];
            prop_assert_eq!(faulted.count(&asked), asked.clone().filter(inside).count());
            let start = asked.clone().find(inside).unwrap_or(asked.end);
            let end = (start..asked.end).find(|place| !oracle[*place]).unwrap_or(asked.end);
            prop_assert_eq!(faulted.next(&asked), start..end);
            let first = (0..BLOCK_PAGES).find(inside).unwrap_or(0);
            let last = (0..BLOCK_PAGES).rfind(inside).map_or(first, |last| last + 1);
            let at = |place: usize| block.first_page().plus(place);
            prop_assert_eq!(faulted.span(), PageRange::new(at(first), at(last)));
        }
    }
}
