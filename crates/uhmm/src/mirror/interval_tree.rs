//! A search tree of page ranges: which of them overlap a given one.
//!
//! A B+ tree, ordered by where ranges start, each subtree noted with where the ranges in it end.
//! There are millions of ranges, so what a search costs is what it misses in the caches: nodes are
//! wide, what a search reads of one lies together ([`node`]), and it is kept small. For that most
//! ranges are kept in *regions* of 2³² pages, by numbers of 32 bits. What reaches across the end of
//! a region, as a mirror of everything does, is kept in a tree of its own, by whole page numbers.
//!
//! A range with a value of eight bytes takes 26 bytes where ranges come in order, 30 where they come
//! in none, and twice the first at most, as nodes are never less than half full.

mod node;
mod overlap;
mod tree;

use core::{fmt, ops::ControlFlow};

use self::{node::Entry, tree::Tree};
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{PageNumber, PageRange},
};

/// The most children of an inner node.
///
/// Measured: three levels of them, with leaves of 60, are enough for millions of ranges, and wider
/// ones take longer to compare. Under the schedule explorer and the interpreter nodes are small, so
/// that every boundary is met often.
const CHILDREN: usize = if cfg!(any(shuttle, miri)) { 4 } else { 48 };

/// The most entries of a leaf: with values of eight bytes it fills a kibibyte.
///
/// Measured: with leaves of half that, the nodes above them do not stay in the second cache.
const ENTRIES: usize = if cfg!(any(shuttle, miri)) { 4 } else { 60 };

/// A kibibyte, and not a byte more: engine memory would hand out a quarter more.
#[cfg(all(target_pointer_width = "64", not(any(shuttle, miri))))]
const _: () = assert!(size_of::<node::Node<i32, u64, ENTRIES>>() == 1024);

/// From how many ranges on there may be a tree that is deep, so that a search misses the caches.
const LARGE: usize = (CHILDREN / 2).pow(2) * ENTRIES / 2;

/// Pages of a region, as a power of two.
const REGION_LOG: u32 = 32;

/// The ranges that lie in one region.
struct Region<T, const INNER: usize, const LEAF: usize> {
    number: usize,
    tree: Tree<i32, T, INNER, LEAF>,
}

/// The region that a page is in.
const fn region_of(page: PageNumber) -> usize {
    page.0 >> REGION_LOG
}

/// A page's place in its region; the middle of the region is zero.
#[expect(clippy::cast_possible_truncation, reason = "the other bits are the region")]
const fn in_region(page: PageNumber) -> i32 {
    (page.0 as u32).cast_signed() ^ i32::MIN
}

/// The page at a place in a region.
const fn page_at(region: usize, place: i32) -> PageNumber {
    PageNumber((region << REGION_LOG) | (place ^ i32::MIN).cast_unsigned() as usize)
}

/// The pages from `first` to `last`.
const fn inclusive(first: PageNumber, last: PageNumber) -> PageRange {
    PageRange::new(first, last.plus(1))
}

/// The first and the last page of a range that is not empty.
fn ends(pages: PageRange) -> Option<(PageNumber, PageNumber)> {
    (!pages.is_empty()).then(|| (pages.start(), PageNumber(pages.end().0 - 1)))
}

/// Ranges of pages, each with a value.
///
/// Ranges may overlap in any way, and be equal: ids tell them apart. A range has a page at least.
///
/// # Cost
/// With `n` ranges, adding and removing one takes O(log n). Finding takes O(log n) for the search, and
/// again for each range found; those found next to each other share theirs. Memory falls as ranges
/// go: a node other than a root is at least half full.
///
/// # Invariants
/// `regions` is sorted by the number, and none is empty. A range is in `wide` where it begins and ends
/// in different regions, else in its region. `len` counts them all.
pub(crate) struct IntervalTree<T, const INNER: usize = CHILDREN, const LEAF: usize = ENTRIES> {
    regions: EngineVec<Region<T, INNER, LEAF>>,
    wide: Tree<usize, T, INNER, LEAF>,
    len: usize,
}

impl<T, const INNER: usize, const LEAF: usize> IntervalTree<T, INNER, LEAF> {
    /// A tree with no range, which takes no memory yet.
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { regions: EngineVec::new(memory.clone()), wide: Tree::new(memory.clone()), len: 0 }
    }

    /// How many ranges there are.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no range.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `pages`, which are not none, with a value; `id` is the id of no other range.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where the memory cannot be had; the value is dropped then, and the tree
    /// is as it was.
    pub(crate) fn try_insert(
        &mut self,
        pages: PageRange,
        id: u64,
        value: T,
    ) -> Result<(), EngineMemoryError> {
        let Some((first, last)) = ends(pages) else {
            crate::abort::abort(b"a range of no pages is put into an interval tree");
        };
        let number = region_of(first);
        if number == region_of(last) {
            let (start, last) = (in_region(first), in_region(last));
            let entry = Entry { start, last, id, payload: value };
            let at = self.regions.partition_point(|region| region.number < number);
            match self.regions.get_mut(at) {
                Some(region) if region.number == number => region.tree.try_insert(entry)?,
                _ => {
                    let mut tree = Tree::new(self.regions.memory().clone());
                    tree.try_insert(entry)?;
                    self.regions.try_insert(at, Region { number, tree })?;
                }
            }
        } else {
            self.wide.try_insert(Entry { start: first.0, last: last.0, id, payload: value })?;
        }
        self.len += 1;
        Ok(())
    }

    /// Takes out the range that was added as `pages` with `id`, and returns its value; `None` where
    /// there is none. Takes no memory.
    pub(crate) fn remove(&mut self, pages: PageRange, id: u64) -> Option<T> {
        let (first, last) = ends(pages)?;
        let number = region_of(first);
        let value = if number == region_of(last) {
            let at = self.regions.binary_search_by_key(&number, |region| region.number).ok()?;
            let tree = &mut self.regions[at].tree;
            let value = tree.remove(in_region(first), in_region(last), id)?;
            if tree.is_empty() {
                self.regions.remove(at);
            }
            value
        } else {
            self.wide.remove(first.0, last.0, id)?
        };
        self.len -= 1;
        Some(value)
    }

    /// Has the processor fetch what a search for `page` will look at last, where there are so many
    /// ranges that it is likely to be in no cache.
    pub(crate) fn prefetch(&self, page: PageNumber) {
        let number = region_of(page);
        if let Ok(at) = self.regions.binary_search_by_key(&number, |region| region.number) {
            self.regions[at].tree.prefetch(in_region(page));
        }
    }

    /// Whether there are so many.
    pub(crate) const fn is_large(&self) -> bool {
        self.len > LARGE
    }

    /// By what ranges are visited in order: that of a range which was added as `pages` with `id`.
    pub(crate) fn order(pages: PageRange, id: u64) -> (bool, usize, u64) {
        let within = ends(pages).is_some_and(|(first, last)| region_of(first) == region_of(last));
        (within, pages.start().0, id)
    }

    /// Calls `visit` with each range that shares a page with `pages`, and its value, until it breaks.
    /// Those that reach across the end of a region come first; among them, and then among the others,
    /// the order is that of their starts, then of their ids.
    pub(crate) fn for_each_overlapping<B>(
        &self,
        pages: PageRange,
        mut visit: impl FnMut(PageRange, &T) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some((first, last)) = ends(pages) else { return ControlFlow::Continue(()) };
        self.wide.visit(first.0, last.0, &mut |first, last, value| {
            visit(inclusive(PageNumber(first), PageNumber(last)), value)
        })?;
        let numbers = region_of(first)..=region_of(last);
        let from = self.regions.partition_point(|region| region.number < *numbers.start());
        for &Region { number, ref tree } in &self.regions[from..] {
            if number > *numbers.end() {
                break;
            }
            let start = if number == *numbers.start() { in_region(first) } else { i32::MIN };
            let end = if number == *numbers.end() { in_region(last) } else { i32::MAX };
            tree.visit(start, end, &mut |first, last, value| {
                visit(inclusive(page_at(number, first), page_at(number, last)), value)
            })?;
        }
        ControlFlow::Continue(())
    }
}

impl<T, const INNER: usize, const LEAF: usize> fmt::Debug for IntervalTree<T, INNER, LEAF> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntervalTree").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
