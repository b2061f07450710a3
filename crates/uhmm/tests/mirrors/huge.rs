//! Memory of the program that is one huge page.

use uhmm::{
    PageEntry, PageState, Request,
    units::{AddressRange, BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    World,
    memory::{Mapped, anonymous},
    page, skip,
};

/// A block of the program's that is one huge page, each page filled with its number, adopted, and mapped
/// by a mirror.
pub(crate) struct HugePage {
    pub(crate) area: Mapped,
    pub(crate) first: usize,
}

impl HugePage {
    pub(crate) fn new(test: &str, world: &World) -> Option<Self> {
        let area = anonymous(2 * BLOCK_PAGES);
        let start = area.start.expose_provenance();
        let first = (start.next_multiple_of(BLOCK_PAGES * page()) - start) / page();
        area.advise(first, BLOCK_PAGES, libc::MADV_HUGEPAGE);
        let huge = Self { area, first };
        for number in 0..BLOCK_PAGES {
            huge.area.touch(first + number, 1, Self::value(number));
        }
        if huge.orders(world) != [9; BLOCK_PAGES] {
            skip(test, "no huge page is to be had");
            return None;
        }
        world.space.adopt(huge.range()).expect("memory that can be adopted");
        let report = world.mirror.fault(&Request::write(huge.range())).expect("a request");
        assert_eq!(report.entered(), BLOCK_PAGES, "{report:?}");
        world.mirror.table().take();
        Some(huge)
    }

    pub(crate) fn value(number: usize) -> u8 {
        u8::try_from(number % 251 + 1).expect("a byte")
    }

    pub(crate) fn range(&self) -> AddressRange {
        self.part(0, BLOCK_PAGES)
    }

    pub(crate) fn part(&self, first: usize, pages: usize) -> AddressRange {
        self.area.part(self.first + first, pages)
    }

    pub(crate) fn numbers(&self, first: usize, pages: usize) -> PageRange {
        PageRange::of(PageNumber(self.part(first, pages).start() / page()), pages)
    }

    /// How large the CPU's mapping of each page is.
    pub(crate) fn orders(&self, world: &World) -> [u8; BLOCK_PAGES] {
        let mut entries = [PageEntry::default(); BLOCK_PAGES];
        world.mirror.snapshot(self.range(), &mut entries).expect("a snapshot");
        assert!(entries.iter().all(|entry| entry.state == PageState::InPlace));
        entries.map(|entry| entry.order)
    }

    pub(crate) fn check(&self) {
        for number in 0..BLOCK_PAGES {
            assert_eq!(self.area.byte(self.first + number), Self::value(number));
        }
    }
}
