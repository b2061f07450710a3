//! What pages go to a device for, what was seen of them before, and how far an attempt came.

use core::ops::Range;

use super::{Faulted, aside::Aside};
use crate::{
    driver::{DeviceIndex, FrameNumber, InvalidationKind},
    engine::Eligibility,
    report::{Migration, StayCause},
    units::{PageNumber, PageRange},
};

/// Why pages go to a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pull<'a> {
    /// The device faulted on some of the pages, all of one block, and of the others its neighbours are to
    /// come.
    Fault(&'a Faulted),
    /// The program asked.
    Request,
    /// The program asked, and promises that nobody changes meanwhile what is mapped there.
    Undisturbed,
    /// The device is to be the only one that may access them, until somebody else does.
    Exclusive,
}

impl Pull<'_> {
    /// What other devices are told of pages that go to this one.
    pub(super) const fn kind(self, device: DeviceIndex) -> InvalidationKind {
        let owner = Some(device);
        match self {
            Self::Exclusive => InvalidationKind::Exclusive { owner },
            Self::Fault(..) | Self::Request | Self::Undisturbed => {
                InvalidationKind::Migrate { owner }
            }
        }
    }

    /// The first run of `places` of a block that is to come; none, at their end, where none is.
    pub(super) fn next(self, places: &Range<usize>) -> Range<usize> {
        match self {
            Self::Fault(faulted) => faulted.next(places),
            Self::Request | Self::Undisturbed | Self::Exclusive => places.clone(),
        }
    }

    /// How many of `places` of a block are to come.
    pub(super) fn wants(self, places: &Range<usize>) -> usize {
        match self {
            Self::Fault(faulted) => faulted.count(places),
            Self::Request | Self::Undisturbed | Self::Exclusive => places.len(),
        }
    }

    /// As [`next`](Self::next), of pages of one block.
    pub(super) fn next_pages(self, pages: PageRange) -> PageRange {
        let first = pages.start().in_block();
        let next = self.next(&(first..first + pages.len()));
        PageRange::of(pages.start().plus(next.start - first), next.len())
    }

    /// Reports that of `pages`, within one block, those stay that were to come. Answers how many pages that
    /// deals with: all of them.
    pub(super) fn report_stayed(
        self,
        pages: PageRange,
        cause: StayCause,
        report: &mut Migration,
    ) -> usize {
        let mut rest = pages;
        while !rest.is_empty() {
            let next = self.next_pages(rest);
            report.add_stayed(next, cause);
            rest = PageRange::new(next.end(), rest.end());
        }
        pages.len()
    }
}

/// What was found of the areas of some pages, to be looked at anew where they have changed since.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(super) pages: PageRange,
    pub(super) eligibility: Eligibility,
    /// The version of the areas then.
    pub(super) version: u64,
    /// How often the gate had opened before.
    pub(super) openings: u32,
}

impl Found {
    /// What that says of the first of `pages`, and of those behind it that are alike.
    pub(crate) fn within(self, pages: PageRange) -> Option<Self> {
        if !self.pages.contains(pages.start()) {
            return None;
        }
        let before = pages.start().since(self.pages.start());
        let eligibility = match self.eligibility {
            Eligibility::Eligible { alias } => {
                Eligibility::Eligible { alias: alias.map(|first| first.plus(before)) }
            }
            other => other,
        };
        Some(Self { pages: self.pages.intersection(pages), eligibility, ..self })
    }
}

/// Pages of one block that were seen to be eligible.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) part: PageRange,
    /// That of the areas then.
    pub(super) version: u64,
    /// Those before it were unshared already. Of what lies aside: there.
    pub(super) unshared_until: PageNumber,
    /// Those before it were looked at for what is permitted, and what was not has ended.
    pub(super) heeded_until: PageNumber,
    /// Of shared memory: what the alias shows of the first.
    pub(super) alias: Option<FrameNumber>,
    /// Where they lie aside, by now, closed by who sees them.
    pub(super) aside: Option<Aside>,
    /// Whether they are a pool's whose view was ended, closed by who sees them.
    pub(super) vacated: bool,
}

/// Pages that the system takes from the program by their addresses alone.
#[derive(Clone, Copy)]
pub(super) enum ByAddress {
    /// They cannot be written.
    Unwritable(PageRange),
    /// They are a page of a pool; what the alias shows of the first.
    OfPool(PageRange, FrameNumber),
}

/// How one attempt at a part of a block ended.
pub(super) struct Attempt {
    /// Pages from the start of the part on that are dealt with: moved, there already, or reported.
    pub(super) dealt: usize,
    /// Pages among them that a child shares, or that are pinned: worth another look once they were
    /// unshared. Of what lies aside: there.
    pub(super) busy: Option<PageRange>,
    /// Whether the address space was changing.
    pub(super) changing: bool,
    /// Pages of which less is permitted than devices may have translations for, or more than is known.
    pub(super) heed: Option<PageRange>,
    /// Pages that are to be taken out of their area, or out of view, with no lock held.
    pub(super) by_address: Option<ByAddress>,
}

impl Attempt {
    pub(super) const fn new() -> Self {
        Self { dealt: 0, busy: None, changing: false, heed: None, by_address: None }
    }
}
