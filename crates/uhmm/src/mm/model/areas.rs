//! The table of areas: sorted, split and merged as the kernel does.

use crate::{
    mm::{Area, Backing, Mapping, Protection},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// Loads and stores, no execution: what staging has, and what moves in and out of it.
pub(super) const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };

/// The order of a page of a hugetlb area.
#[expect(clippy::cast_possible_truncation, reason = "far below 256")]
const HUGE_ORDER: u8 = BLOCK_PAGES.trailing_zeros() as u8;

/// What a mapping shows, other than private anonymous memory: which object, and the page at which
/// its first byte would be. Neighbours are one area only where both agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: usize,
    pub(super) origin: PageNumber,
}

/// All that two neighbours must share to be one area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, as the system's flag word")]
pub(super) struct Attributes {
    pub(super) protection: Protection,
    pub(super) backing: Backing,
    pub(super) object: Option<Object>,
    pub(super) stack: bool,
    pub(super) locked: bool,
    /// Registered by us for its holes.
    pub(super) trapped: bool,
    /// Registered by us for its changes alone; never where it is trapped.
    pub(super) watched: bool,
    /// Registered by somebody else.
    pub(super) foreign: bool,
    pub(super) staging: bool,
    /// Children have it.
    pub(super) inherited: bool,
}

impl Attributes {
    pub(super) const fn new(protection: Protection, backing: Backing) -> Self {
        Self {
            protection,
            backing,
            object: None,
            stack: false,
            locked: false,
            trapped: false,
            watched: false,
            foreign: false,
            staging: false,
            inherited: true,
        }
    }

    pub(super) const fn staging() -> Self {
        let area = Self::new(READ_WRITE, Backing::PrivateAnonymous);
        Self { trapped: true, staging: true, inherited: false, ..area }
    }

    /// Whether pages of such an area move to and from an area of staging: same protection, same
    /// state of locking, private and anonymous.
    pub(super) fn movable(&self) -> bool {
        self.backing == Backing::PrivateAnonymous && self.protection == READ_WRITE && !self.locked
    }

    /// Whether the system can trap the holes of such an area.
    pub(super) const fn trappable(&self) -> bool {
        matches!(
            self.backing,
            Backing::PrivateAnonymous
                | Backing::SharedAnonymous
                | Backing::SharedFile
                | Backing::PrivateHugetlb
                | Backing::SharedHugetlb
        )
    }

    /// Whether its changes are told, and its holes can be filled.
    pub(super) const fn registered(&self) -> bool {
        self.trapped || self.watched
    }

    /// Whether content outlives the pages that show it.
    pub(super) const fn shared(&self) -> bool {
        self.backing.is_shared()
    }

    /// The mapping that a lookup of a page of `pages`, all of such an area, tells.
    pub(super) fn mapping(&self, pages: PageRange) -> Mapping {
        let page_order = match self.backing {
            Backing::PrivateHugetlb | Backing::SharedHugetlb => HUGE_ORDER,
            _ => 0,
        };
        Mapping { pages, protection: self.protection, backing: self.backing, page_order }
    }

    /// The same for the area's pages at another place, `from` having gone to `to`.
    pub(super) fn moved(mut self, from: PageNumber, to: PageNumber) -> Self {
        if let Some(object) = &mut self.object {
            object.origin.0 = object.origin.0.wrapping_add(to.0).wrapping_sub(from.0);
        }
        self
    }
}

/// A run of pages with one set of attributes, never empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) pages: PageRange,
    pub(super) attributes: Attributes,
}

/// All areas.
///
/// # Invariants
/// Sorted by page, disjoint, and no two neighbours that touch have equal attributes.
#[derive(Debug, Default)]
pub(super) struct Areas {
    spans: Vec<Span>,
}

impl Areas {
    /// The first area that ends after `page`, by its place in the table.
    fn place_after(&self, page: PageNumber) -> usize {
        self.spans.partition_point(|span| span.pages.end() <= page)
    }

    /// The area that holds `page`.
    pub(super) fn at(&self, page: PageNumber) -> Option<&Span> {
        self.spans.get(self.place_after(page)).filter(|span| span.pages.contains(page))
    }

    /// The areas that overlap `within`, in order, each whole.
    pub(super) fn overlapping(&self, within: PageRange) -> impl Iterator<Item = &Span> {
        self.spans[self.place_after(within.start())..]
            .iter()
            .take_while(move |span| span.pages.overlaps(within))
    }

    /// The first part of `within` where no area is.
    pub(super) fn gap_in(&self, within: PageRange) -> Option<PageRange> {
        let mut next = within.start();
        for span in self.overlapping(within) {
            if next < span.pages.start() {
                return Some(PageRange::new(next, span.pages.start()));
            }
            next = span.pages.end();
        }
        (next < within.end()).then(|| PageRange::new(next, within.end()))
    }

    /// The lowest place of `within` where `pages` pages are free, starting at a multiple of
    /// `align`.
    pub(super) fn room(&self, within: PageRange, pages: usize, align: usize) -> Option<PageRange> {
        let mut next = within.start().0.next_multiple_of(align);
        for span in self.overlapping(within) {
            if next + pages <= span.pages.start().0 {
                break;
            }
            next = next.max(span.pages.end().0.next_multiple_of(align));
        }
        let found = PageRange::of(PageNumber(next), pages);
        (pages > 0 && within.covers(found)).then_some(found)
    }

    /// Makes `page` the start of an area where one holds it.
    fn split(&mut self, page: PageNumber) {
        let place = self.place_after(page);
        let Some(span) = self.spans.get_mut(place) else { return };
        if span.pages.start() < page {
            let behind = Span { pages: PageRange::new(page, span.pages.end()), ..*span };
            span.pages = PageRange::new(span.pages.start(), page);
            self.spans.insert(place + 1, behind);
        }
    }

    /// Makes neighbours with equal attributes one, among those that touch `around`.
    fn merge(&mut self, around: PageRange) {
        let mut place = self.place_after(PageNumber(around.start().0.saturating_sub(1)));
        while let [first, second, ..] = &self.spans[place..] {
            if first.pages.start() > around.end() {
                break;
            }
            if first.pages.end() == second.pages.start() && first.attributes == second.attributes {
                let whole = PageRange::new(first.pages.start(), second.pages.end());
                self.spans[place].pages = whole;
                self.spans.remove(place + 1);
            } else {
                place += 1;
            }
        }
    }

    /// Adds an area where none is.
    pub(super) fn insert(&mut self, pages: PageRange, attributes: Attributes) {
        debug_assert_eq!(self.gap_in(pages), Some(pages), "mapped twice");
        let place = self.place_after(pages.start());
        self.spans.insert(place, Span { pages, attributes });
        self.merge(pages);
    }

    /// Removes what lies in `pages`.
    pub(super) fn remove(&mut self, pages: PageRange) {
        self.split(pages.start());
        self.split(pages.end());
        let first = self.place_after(pages.start());
        let count = self.overlapping(pages).count();
        self.spans.drain(first..first + count);
    }

    /// Changes the attributes of what lies in `pages`.
    pub(super) fn change(&mut self, pages: PageRange, mut change: impl FnMut(&mut Attributes)) {
        if pages.is_empty() {
            return;
        }
        self.split(pages.start());
        self.split(pages.end());
        let first = self.place_after(pages.start());
        let count = self.overlapping(pages).count();
        for span in &mut self.spans[first..first + count] {
            change(&mut span.attributes);
        }
        self.merge(pages);
    }

    /// The area at `page`, or the first after it, as the seam shows it.
    pub(super) fn describe_from(&self, page: PageNumber) -> Option<Area> {
        let place = self.place_after(page);
        let span = self.spans.get(place)?;
        let attributes = span.attributes;
        let object_data = attributes.backing == Backing::PrivateAnonymous
            && place.checked_sub(1).is_some_and(|before| {
                let before = &self.spans[before];
                before.pages.end() == span.pages.start()
                    && before.attributes.backing == Backing::PrivateFile
                    && before.attributes.protection.write
            });
        Some(Area {
            pages: span.pages,
            protection: attributes.protection,
            backing: attributes.backing,
            stack: attributes.stack,
            locked: attributes.locked,
            registered: attributes.registered() || attributes.foreign,
            object_data,
            inherited: attributes.inherited,
            huge: attributes.backing == Backing::PrivateAnonymous,
        })
    }
}
