//! The pages that a launch names: ranges in the order of their addresses, and apart from each other.

use uhmm::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{AddressRange, PageNumber, PageRange, PageSize},
};

/// The pages of some ranges, in the order of their addresses, and apart from each other.
pub(crate) fn pages_of(
    memory: &EngineMemory,
    ranges: &[AddressRange],
    page_size: PageSize,
) -> Result<EngineVec<PageRange>, EngineMemoryError> {
    let mut sorted = EngineVec::try_with_capacity(memory, ranges.len())?;
    for range in ranges {
        sorted.try_push(range.pages_touched(page_size))?;
    }
    sorted.sort_unstable_by_key(|pages: &PageRange| pages.start());
    let mut merged: EngineVec<PageRange> = EngineVec::try_with_capacity(memory, ranges.len())?;
    for &pages in sorted.iter().filter(|pages| !pages.is_empty()) {
        match merged.last_mut() {
            Some(last) if pages.start() <= last.end() => {
                *last = PageRange::new(last.start(), last.end().max(pages.end()));
            }
            _ => merged.try_push(pages)?,
        }
    }
    Ok(merged)
}

/// None.
pub(crate) const NO_PAGES: PageRange = PageRange::of(PageNumber(0), 0);

/// That of some ranges, which are sorted and apart, that has a page.
pub(crate) fn range_with(ranges: &[PageRange], page: PageNumber) -> Option<PageRange> {
    let behind = ranges.partition_point(|pages| pages.start() <= page);
    ranges[..behind].last().copied().filter(|pages| pages.contains(page))
}
