//! The program's pages, and what of them the device process may have.

use std::{collections::HashSet, ops::Range};

use uhmm::{
    AddressSpace, PageLocation,
    mm::{Backing, Protection, model::Model},
    units::{AddressRange, BLOCK_PAGES, PageNumber, PageRange},
};
use uhmm_fuzz::Input;
use uhmm_soft::Soft;

pub const PAGE: usize = 64;

/// The pages that devices may take, of two blocks, and how many there are beside them on either side.
pub const FIRST: usize = BLOCK_PAGES - 16;
pub const PAGES: usize = 64;
pub const BESIDE: usize = 4;
pub const PLACES: usize = PAGES + 2 * BESIDE;

/// One address space for all runs: each has pages and a device process of its own.
pub struct World {
    pub model: Model,
    pub space: AddressSpace<Model>,
    /// Other devices, which lose nothing: one whose frames are staging, and one with a memory of its own.
    pub others: [Soft<Model>; 2],
}

/// What a page begins with: what it is known by, wherever it lies.
pub const KNOWN_BY: u64 = 0x5ec2_e700_0000_0000;
pub const MASK: u64 = 0xffff_ff00_0000_0000;

/// The program's pages.
pub struct Memory {
    pub world: &'static World,
    pages: PageRange,
    /// How often each was written. What was not is zeros.
    written: [u32; PLACES],
    /// Which the process may have had, as they are now.
    pub had: [bool; PLACES],
    /// By what the pages are known that it may have had, as they are or were.
    pub known: HashSet<u64>,
    /// Which are lost if the process is gone; where that is over, which are.
    pub may_be_lost: [bool; PLACES],
    pub is_over: bool,
}

/// A page, by its place among those that are looked at.
pub fn places() -> Range<usize> {
    0..PLACES
}

pub const fn address(place: usize) -> usize {
    (FIRST - BESIDE + place) * PAGE
}

/// Those that devices may take.
pub const ADOPTED: Range<usize> = BESIDE..BESIDE + PAGES;

pub fn range(places: Range<usize>) -> AddressRange {
    AddressRange::new(address(places.start), places.len() * PAGE).expect("pages")
}

pub fn some_places(input: &mut Input<'_>) -> Range<usize> {
    let first = input.below(PLACES);
    first..first + 1 + input.below(PLACES - first)
}

impl Memory {
    pub fn map(world: &'static World) -> Self {
        let pages = PageRange::of(PageNumber(FIRST - BESIDE), places().len());
        let mut memory = Self {
            world,
            pages,
            written: [0; _],
            had: [false; _],
            known: HashSet::new(),
            may_be_lost: [false; _],
            is_over: false,
        };
        memory.map_anew(places());
        // Some were never touched.
        places().filter(|place| place % 8 != 5).for_each(|place| memory.write(place, false));
        world.space.adopt(range(ADOPTED)).expect("they may migrate");
        memory
    }

    pub fn map_anew(&self, places: Range<usize>) {
        let protection = Protection { read: true, write: true, execute: false };
        let first = self.pages.start().plus(places.start);
        let mapped =
            self.world.model.map(Some(first), places.len(), protection, Backing::PrivateAnonymous);
        mapped.expect("they fit");
    }

    /// What a page is.
    fn content(&self, place: usize) -> [u8; PAGE] {
        let written = self.written[place];
        if written == 0 {
            return [0; PAGE];
        }
        let mut content = [0xc0; PAGE];
        content[..8].copy_from_slice(&self.known_by(place).to_le_bytes());
        content
    }

    fn known_by(&self, place: usize) -> u64 {
        KNOWN_BY | u64::from(self.written[place]) << 16 | place as u64
    }

    /// The program writes a page, of which the process may have what is new.
    pub fn write(&mut self, place: usize, may_have: bool) {
        self.written[place] += 1;
        self.had[place] = false;
        self.may_be_lost[place] = false;
        if may_have {
            self.note(place..place + 1);
        }
        let stored = self.world.model.store(address(place), &self.content(place));
        stored.expect("it can be written");
    }

    /// The process may have these.
    pub fn note(&mut self, places: Range<usize>) {
        for place in places {
            self.had[place] = true;
            self.known.insert(self.known_by(place));
        }
    }

    /// A page is as it was; but for what the process may have written.
    pub fn check(&self, place: usize, seen: &[u8; PAGE], wrote: bool) {
        let content = self.content(place);
        let sure = if self.had[place] && wrote { 8 } else { PAGE };
        assert_eq!(seen[..sure], content[..sure], "page {place}");
    }

    pub fn is_lost(&self, place: usize) -> bool {
        self.world.space.locate(address(place)) == PageLocation::Poisoned
    }

    /// All pages are as they were, but for those that were lost with the process, as its device is detached.
    pub fn check_all(&self, honest: bool, wrote: bool) {
        for place in places() {
            let mut read = [0; PAGE];
            let seen = self.world.model.load(address(place), &mut read);
            let (lost, may_be_lost) = (self.is_lost(place), self.may_be_lost[place]);
            assert_eq!(seen.is_err(), lost, "page {place}: {seen:?}");
            if seen.is_ok() {
                self.check(place, &read, wrote);
            }
            assert!(!lost || may_be_lost && !honest, "page {place} is lost");
            assert!(lost || !may_be_lost || !self.is_over, "page {place} is not lost");
        }
    }

    pub fn unmap(self) {
        assert_eq!(self.world.model.violations(), []);
        self.world.model.unmap(self.pages).expect("they were mapped");
    }
}
