//! The pages of one block that a device missed, and those that are to come with them.

use core::ops::Range;

use crate::{
    mm::Access,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

const WORD: usize = u64::BITS as usize;

/// A set of places of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places([u64; BLOCK_PAGES.div_ceil(WORD)]);

impl Places {
    const NONE: Self = Self([0; BLOCK_PAGES.div_ceil(WORD)]);

    /// The bits of a word that are of `places`.
    fn mask(word: usize, places: &Range<usize>) -> u64 {
        let bits = |place: usize| {
            let bits = place.saturating_sub(word * WORD).min(WORD);
            if bits == WORD { u64::MAX } else { (1 << bits) - 1 }
        };
        bits(places.end) & !bits(places.start)
    }

    fn words(places: &Range<usize>) -> Range<usize> {
        places.start / WORD..places.end.div_ceil(WORD)
    }

    fn add(&mut self, places: &Range<usize>) {
        for word in Self::words(places) {
            self.0[word] |= Self::mask(word, places);
        }
    }

    fn contains(&self, place: usize) -> bool {
        self.0[place / WORD] >> (place % WORD) & 1 != 0
    }

    /// How many of `places` are in it.
    fn count(&self, places: &Range<usize>) -> usize {
        Self::words(places)
            .map(|word| (self.0[word] & Self::mask(word, places)).count_ones() as usize)
            .sum()
    }

    /// The first of `places` that is in it, or is not; their end where there is none.
    fn find(&self, places: &Range<usize>, inside: bool) -> usize {
        for word in Self::words(places) {
            let bits = if inside { self.0[word] } else { !self.0[word] };
            let bits = bits & Self::mask(word, places);
            if bits != 0 {
                return word * WORD + bits.trailing_zeros() as usize;
            }
        }
        places.end
    }
}

/// Faults of a device on pages of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faulted {
    block: BlockNumber,
    /// What is to come: what was missed, and neighbours.
    wanted: Places,
    /// The first of that.
    start: usize,
    /// The place behind the last.
    end: usize,
    /// Whether all between is to come, too.
    is_solid: bool,
    missed: Places,
    /// What of that is to be written.
    written: Places,
}

impl Faulted {
    /// None yet.
    pub(crate) const fn in_block(block: BlockNumber) -> Self {
        let none = Places::NONE;
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
        let place = page.in_block()..page.in_block() + 1;
        self.want(&place);
        self.missed.add(&place);
        if access == Access::Write {
            self.written.add(&place);
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
        self.wanted.add(places);
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
        self.wanted.contains(page.in_block())
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
        let start = self.wanted.find(&within, true);
        if start == within.end {
            return places.end..places.end;
        }
        start..self.wanted.find(&(start..within.end), false)
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
        self.missed.contains(page.in_block())
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
        self.written.find(places, true) < places.end
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
