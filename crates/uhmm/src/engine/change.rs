//! A change of the address space, as it was read.

use crate::{
    mm::{Child, Message},
    units::{PageNumber, PageRange},
};

/// A change of the address space that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Content and addresses ended.
    Unmapped(PageRange),
    /// Content moved to other addresses.
    Remapped { from: PageRange, to: PageNumber },
    /// Content ends, the addresses stay.
    Discarded(PageRange),
    /// A child has what there was; nothing is to change until it has all of it. So often it was looked
    /// whether other changes are under way.
    Forked { child: Child, looks: u32 },
}

/// All pages that there could be.
const EVERYTHING: PageRange = PageRange::new(PageNumber(0), PageNumber(usize::MAX));

impl Change {
    /// The change that a message tells of; none for a fault.
    pub(crate) const fn of(message: &Message) -> Option<Self> {
        match *message {
            Message::Fault { .. } => None,
            Message::Unmapped(pages) => Some(Self::Unmapped(pages)),
            Message::Remapped { from, to } => Some(Self::Remapped { from, to }),
            Message::Discarded(pages) => Some(Self::Discarded(pages)),
            Message::Forked(child) => Some(Self::Forked { child, looks: 0 }),
        }
    }

    /// The range whose content it changes.
    pub(crate) const fn source(self) -> PageRange {
        self.ranges()[0]
    }

    /// The ranges that it hits; the second is empty for most.
    pub(crate) const fn ranges(self) -> [PageRange; 2] {
        match self {
            Self::Unmapped(pages) | Self::Discarded(pages) => {
                [pages, PageRange::of(pages.start(), 0)]
            }
            Self::Remapped { from, to } => [from, PageRange::of(to, from.len())],
            Self::Forked { .. } => [EVERYTHING, PageRange::of(PageNumber(0), 0)],
        }
    }
}
