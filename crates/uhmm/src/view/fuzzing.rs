//! What a process shows, written by a fuzzer.

use core::{mem::offset_of, ops::Range, sync::atomic::AtomicU32};

use super::{
    layout::{self, BYTES, MAP_OFFSET, Map, PLACES, Place},
    memfd,
};
use crate::{mm::Errno, units::BlockNumber};

/// The last of the numbers in the line `NSpid:` of a process's status.
pub fn innermost_number(status: &str) -> Option<u32> {
    super::observer::innermost_number(status)
}

/// The memory that this process shows, for as long as it lives.
pub struct Shown(&'static [AtomicU32]);

impl Shown {
    /// Shows that there is an engine, and nothing of it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(page_size: usize) -> Result<Self, Errno> {
        let shown = memfd::Shown::new(page_size)?;
        let first = shown.head().as_ptr().cast();
        core::mem::forget(shown);
        // SAFETY: there are so many bytes, for good, which are reached as atomics or as bytes that anybody may
        // change.
        Ok(Self(unsafe { core::slice::from_raw_parts(first, BYTES / 4) }))
    }

    /// All of it.
    pub const fn words(&self) -> &[AtomicU32] {
        self.0
    }

    /// Which words come before the map.
    pub const HEAD: Range<usize> = 0..size_of::<layout::Head>() / 4;

    /// Which words tell of a block: its place's, and those of who holds its pages, and of why they stayed.
    pub fn of_block(block: usize) -> [Range<usize>; 3] {
        let place = layout::places_of(BlockNumber(block)).next().unwrap_or_default();
        let range = |at: usize, each: usize| {
            let start = (MAP_OFFSET + at + place * each) / 4;
            start..start + each / 4
        };
        let (held, stayed) = (offset_of!(Map, held), offset_of!(Map, stayed));
        let pages = (stayed - held) / PLACES;
        [range(0, size_of::<Place>()), range(held, pages), range(stayed, pages)]
    }
}
