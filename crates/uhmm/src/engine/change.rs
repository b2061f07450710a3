//! A change of the address space, as it was read.

use crate::{
    mm::Child,
    units::{PageNumber, PageRange},
};

/// Whose end at some addresses a change is, where pages have moved there of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// Of what is there as far as is known, or nothing has moved there of late.
    Only,
    /// Of what a remapping moved there that is to be applied yet.
    Last,
    /// Of what was there before.
    Earlier,
    /// That is not known.
    Unknown,
}

/// A change of the address space that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Content and addresses ended.
    Unmapped { pages: PageRange, of: Occupant },
    /// Content moved to other addresses.
    Remapped { from: PageRange, to: PageNumber, of: Occupant },
    /// Content ends, the addresses stay.
    Discarded(PageRange),
    /// A child has what there was; nothing is to change until it has all of it. So often it was looked
    /// whether other changes are under way.
    Forked { child: Child, looks: u32 },
}

/// All pages that there could be.
const EVERYTHING: PageRange = PageRange::new(PageNumber(0), PageNumber(usize::MAX));

impl Change {
    /// Whose end it is. What is discarded is of what is there last.
    pub(crate) const fn of(self) -> Occupant {
        match self {
            Self::Unmapped { of, .. } | Self::Remapped { of, .. } => of,
            Self::Discarded(_) => Occupant::Last,
            Self::Forked { .. } => Occupant::Only,
        }
    }

    /// The range whose content it changes.
    pub(crate) const fn source(self) -> PageRange {
        self.ranges()[0]
    }

    /// The ranges that it hits; the second is empty for most.
    pub(crate) const fn ranges(self) -> [PageRange; 2] {
        match self {
            Self::Unmapped { pages, .. } | Self::Discarded(pages) => {
                [pages, PageRange::of(pages.start(), 0)]
            }
            Self::Remapped { from, to, .. } => [from, PageRange::of(to, from.len())],
            Self::Forked { .. } => [EVERYTHING, PageRange::of(PageNumber(0), 0)],
        }
    }
}
