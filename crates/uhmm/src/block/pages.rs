//! Where the content of each page of a block is.
//!
//! A quiet block has no table. A block that lies on one device as a whole, in consecutive frames,
//! is one entry. Anything else is a table of eight bytes a page in engine memory, made before the
//! block's lock is taken and gone with the last entry.

use core::ops::Range;

use crate::{
    device::{DeviceIndex, FrameNumber},
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    units::BLOCK_PAGES,
};

/// Where a page's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    /// In system memory, or never touched.
    System,
    /// In a device's frame.
    Away {
        /// The device.
        device: DeviceIndex,
        /// Its frame.
        frame: FrameNumber,
    },
    /// Lost; an access ends with an error.
    Poisoned,
}

/// A [`Residence`] in eight bytes: a tag in the lowest byte, the device in the next, the frame in
/// the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
struct Entry(u64);

impl Entry {
    const AWAY: u64 = 1;
    const POISONED: u64 = 2;

    const fn away(device: DeviceIndex, frame: FrameNumber) -> Self {
        Self(Self::AWAY | (device.0 as u64) << 8 | (frame.0 as u64) << 16)
    }

    const fn residence(self) -> Residence {
        match self.0 & 0xff {
            Self::AWAY => Residence::Away {
                device: DeviceIndex((self.0 >> 8 & 0xff) as u8),
                frame: FrameNumber((self.0 >> 16 & 0xffff_ffff) as u32),
            },
            Self::POISONED => Residence::Poisoned,
            _ => Residence::System,
        }
    }

    const fn is_system(self) -> bool {
        self.0 == 0
    }

    /// The entry of the page `pages` further on in the same run.
    const fn plus(self, pages: usize) -> Self {
        if self.0 & 0xff == Self::AWAY { Self(self.0 + ((pages as u64) << 16)) } else { self }
    }
}

/// A table for one block, not yet in use.
#[derive(Debug)]
pub(crate) struct Table(EngineBox<[Entry; BLOCK_PAGES]>);

impl Table {
    pub(crate) fn reserve(memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        Ok(Self(EngineBox::try_new(memory, [Entry::default(); BLOCK_PAGES])?))
    }
}

/// Consecutive pages of a block with one residence and, where they are away, consecutive frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Their places in the block.
    pub(crate) pages: Range<usize>,
    /// Where the first is.
    pub(crate) residence: Residence,
}

/// The record of a block's pages.
#[derive(Debug, Default)]
pub(crate) enum Pages {
    /// All are in system memory.
    #[default]
    Quiet,
    /// All are away, from this entry on.
    Whole(WholeEntry),
    /// Each has its entry.
    Table(Table),
}

/// The entry of the first page of a block that is away as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeEntry(Entry);

impl Pages {
    fn entry(&self, page: usize) -> Entry {
        match self {
            Self::Quiet => Entry::default(),
            Self::Whole(first) => first.0.plus(page),
            Self::Table(table) => table.0[page],
        }
    }

    /// Where `page` is.
    pub(crate) fn residence(&self, page: usize) -> Residence {
        self.entry(page).residence()
    }

    /// The longest run that starts with the first page of `within`, which is not empty.
    pub(crate) fn run(&self, within: &Range<usize>) -> Run {
        let first = self.entry(within.start);
        let end = match self {
            Self::Quiet | Self::Whole(_) => within.end,
            Self::Table(table) => (within.start + 1..within.end)
                .find(|&page| table.0[page] != first.plus(page - within.start))
                .unwrap_or(within.end),
        };
        Run { pages: within.start..end, residence: first.residence() }
    }

    /// All of `within`, as runs.
    pub(crate) fn runs(&self, within: Range<usize>) -> impl Iterator<Item = Run> {
        let mut rest = within;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = self.run(&rest);
            rest.start = run.pages.end;
            Some(run)
        })
    }

    /// Whether all are away, in consecutive frames.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// Whether recording a part of the block needs a table that it does not have.
    pub(crate) const fn wants_table(&self) -> bool {
        !matches!(self, Self::Table(_))
    }

    /// Records that `pages`, in system memory so far or away elsewhere, are in the device's frames
    /// from `frame` on. `spare` is used up where a table is wanted and there was none.
    pub(crate) fn record_away(
        &mut self,
        pages: Range<usize>,
        device: DeviceIndex,
        frame: FrameNumber,
        spare: &mut Option<Table>,
    ) {
        let entry = Entry::away(device, frame);
        if pages.len() == BLOCK_PAGES {
            *self = Self::Whole(WholeEntry(entry));
            return;
        }
        let table = self.table(spare);
        for (offset, place) in table[pages].iter_mut().enumerate() {
            *place = entry.plus(offset);
        }
    }

    /// Records that `pages` are in system memory. `spare` is used up where the block was whole and
    /// some of it stays away.
    pub(crate) fn record_system(&mut self, pages: Range<usize>, spare: &mut Option<Table>) {
        if pages.len() == BLOCK_PAGES {
            *self = Self::Quiet;
        }
        if matches!(self, Self::Quiet) {
            return;
        }
        let table = self.table(spare);
        table[pages].fill(Entry::default());
    }

    /// Drops the table if it says nothing any more.
    pub(crate) fn settle(&mut self) {
        if let Self::Table(table) = self
            && table.0.iter().all(|entry| entry.is_system())
        {
            *self = Self::Quiet;
        }
    }

    fn table(&mut self, spare: &mut Option<Table>) -> &mut [Entry; BLOCK_PAGES] {
        if self.wants_table() {
            let Some(mut table) = spare.take() else {
                crate::abort::abort(b"a block's record was changed without a table reserved");
            };
            for (page, place) in table.0.iter_mut().enumerate() {
                *place = self.entry(page);
            }
            *self = Self::Table(table);
        }
        match self {
            Self::Table(table) => &mut table.0,
            Self::Quiet | Self::Whole(_) => unreachable!("a table was put there just above"),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
