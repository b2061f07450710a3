//! A set of pages as sorted, disjoint, non-adjacent ranges in engine memory.

use core::ops::Range;

use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{PageNumber, PageRange},
};

/// A set of pages.
///
/// # Invariants
/// The ranges are not empty, sorted, and between two of them lies a page that is in neither.
#[derive(Debug)]
pub struct RangeSet {
    ranges: EngineVec<PageRange>,
}

impl RangeSet {
    /// An empty set in `memory`.
    pub fn new(memory: &EngineMemory) -> Self {
        Self { ranges: EngineVec::new(memory.clone()) }
    }

    /// Whether there is no page in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes all pages out.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.ranges.iter().copied()
    }

    /// The index of the first range that ends after `page`.
    fn first_after(&self, page: PageNumber) -> usize {
        self.ranges.partition_point(|range| range.end() <= page)
    }

    /// Whether all of `pages` is in the set.
    pub fn covers(&self, pages: PageRange) -> bool {
        pages.is_empty()
            || self
                .ranges
                .get(self.first_after(pages.start()))
                .is_some_and(|range| range.covers(pages))
    }

    /// Whether a page of `pages` is in the set.
    pub fn overlaps(&self, pages: PageRange) -> bool {
        self.ranges.get(self.first_after(pages.start())).is_some_and(|range| range.overlaps(pages))
    }

    /// The part of `pages` before the first change between in and out, and whether it is in.
    #[inline]
    pub fn leading(&self, pages: PageRange) -> (PageRange, bool) {
        if self.is_empty() {
            return (pages, false);
        }
        match self.ranges.get(self.first_after(pages.start())) {
            Some(range) if range.contains(pages.start()) => (range.intersection(pages), true),
            Some(range) => {
                (PageRange::new(pages.start(), range.start()).intersection(pages), false)
            }
            None => (pages, false),
        }
    }

    /// Adds `pages`.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the set is as it was.
    pub fn add(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        if pages.is_empty() || self.covers(pages) {
            return Ok(());
        }
        // Adjacent ranges are joined, so those that touch count too.
        let first = self.ranges.partition_point(|range| range.end() < pages.start());
        let end = self.ranges.partition_point(|range| range.start() <= pages.end());
        if first == end {
            return self.ranges.try_insert(first, pages);
        }
        let start = self.ranges[first].start().min(pages.start());
        let last = self.ranges[end - 1].end().max(pages.end());
        self.ranges[first] = PageRange::new(start, last);
        self.cut(first + 1..end);
        Ok(())
    }

    /// Takes `pages` out.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where that needs memory and none can be had; the set is as it was.
    pub fn remove(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        if !self.overlaps(pages) {
            return Ok(());
        }
        let first = self.first_after(pages.start());
        let end = self.ranges.partition_point(|range| range.start() < pages.end());
        let before = PageRange::new(self.ranges[first].start(), pages.start());
        let behind = PageRange::new(pages.end(), self.ranges[end - 1].end());
        match (before.is_empty(), behind.is_empty()) {
            (true, true) => self.cut(first..end),
            (false, true) => {
                self.ranges[first] = before;
                self.cut(first + 1..end);
            }
            (true, false) => {
                self.ranges[end - 1] = behind;
                self.cut(first..end - 1);
            }
            (false, false) if end - first >= 2 => {
                self.ranges[first] = before;
                self.ranges[end - 1] = behind;
                self.cut(first + 1..end - 1);
            }
            (false, false) => {
                self.ranges.try_insert(first + 1, behind)?;
                self.ranges[first] = before;
            }
        }
        Ok(())
    }

    fn cut(&mut self, places: Range<usize>) {
        let len = self.ranges.len();
        self.ranges.copy_within(places.end..len, places.start);
        self.ranges.truncate(len - places.len());
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
