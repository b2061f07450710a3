//! An attempt at a part of a block: what is wanted, and what was found.

use super::Want;
use crate::{
    engine::Permitted,
    mirror::Subscriber,
    mm::{Access, Backing, Look, Mapping, Presence},
    units::{HUGE_ORDER, PageRange},
};

/// An attempt at pages of one block, in one area, of which the same is wanted.
pub(super) struct Attempt<'a> {
    pub(super) who: &'a Subscriber,
    pub(super) pages: PageRange,
    pub(super) want: Want,
    pub(super) mapping: Mapping,
    /// How often changes of protection were told before the mapping was looked up.
    pub(super) told: u64,
    pub(super) trapped: bool,
    pub(super) pins: bool,
}

impl Attempt<'_> {
    pub(super) const fn access(&self) -> Access {
        match self.want {
            Want::Present | Want::Read => Access::Read,
            Want::Write => Access::Write,
        }
    }

    pub(super) const fn permitted(&self) -> Permitted {
        Permitted::by(self.mapping.protection)
    }

    /// Whether a page has to be made present, or the process's own, before it can be mapped. Holes
    /// of a trapped area are filled under the lock of their block.
    pub(super) fn is_missing(&self, presence: Presence) -> bool {
        let absent = match presence.look {
            Look::Hole => !self.trapped,
            Look::Swapped => true,
            Look::Present | Look::PresentHuge | Look::Zero | Look::Poisoned => false,
        };
        match self.want {
            Want::Present => false,
            Want::Read => absent,
            Want::Write => absent || self.may_be_shared(presence),
        }
    }

    /// Whether a page that is there may not be the process's own.
    pub(super) fn may_be_shared(&self, presence: Presence) -> bool {
        let of_file = presence.file && self.mapping.backing == Backing::PrivateFile;
        presence.look == Look::Zero || of_file || self.pins && presence.look != Look::Hole
    }

    /// Whether that is so of every page, whatever is there.
    pub(super) fn all_are_missing(&self) -> bool {
        self.want == Want::Write && self.pins && !self.trapped
    }

    pub(super) const fn order(&self, presence: Presence) -> u8 {
        if self.mapping.page_order > 0 {
            self.mapping.page_order
        } else if matches!(presence.look, Look::PresentHuge) {
            HUGE_ORDER
        } else {
            0
        }
    }
}

/// What was known of protection before an area was looked at.
#[derive(Clone, Copy)]
pub(super) struct Protections {
    /// How often changes were told.
    pub(super) told: u64,
    /// Whether nothing was known of the pages.
    pub(super) clear: bool,
}

/// What was known of an area before it was looked at.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) trapped: bool,
    pub(super) protection: Protections,
}

/// How many runs of pages that are alike one attempt at a part of a block takes: what its stack has
/// room for.
pub(super) const RUNS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };

/// Pages, as runs that are alike.
pub(super) struct Runs {
    pub(super) pages: PageRange,
    pub(super) list: [(PageRange, Presence); RUNS],
    pub(super) count: usize,
}

impl Runs {
    pub(super) fn iter(&self) -> impl Iterator<Item = (PageRange, Presence)> {
        self.list[..self.count].iter().copied()
    }
}
