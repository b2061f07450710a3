//! Kernels of a list: what runs wherever a device is.
//!
//! A closure cannot go to another process. A function of a list that both processes have can: it is named
//! by its place there, never by an address, and is given numbers. It reaches memory by its worker, as a closure
//! does, and of memory what its launch names: in the program as in a process of the device's own.

use uhmm::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::{AddressRange, PageNumber, PageRange, PageSize},
};

use crate::worker::{AccessError, Worker};

/// How many numbers a kernel of a list is given.
pub const ARGUMENTS: usize = 4;

/// A kernel of a list.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What it is called, for two processes to see that they have the same list.
    pub name: &'static str,
    /// What it does for an item, with the launch's numbers.
    ///
    /// It may [reach](Worker#safety-of-accesses-by-address) by address what its launch's caller says, and
    /// nothing else but by its arguments: it may be in another process.
    pub run: fn(&mut Worker<'_>, usize, &[u64; ARGUMENTS]) -> Result<(), AccessError>,
}

/// By what a list of kernels is known from another.
pub(crate) fn fingerprint(kernels: &[Kernel]) -> u64 {
    // FNV-1a, of the names with their ends.
    let bytes = kernels.iter().flat_map(|kernel| kernel.name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

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
