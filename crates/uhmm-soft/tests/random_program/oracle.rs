//! What must be so: of each page whether it is mapped, whether devices may take it, its bytes.

use std::ops::Range;

use uhmm::{Export, StayCause};

use crate::{
    step::{CELL, Cells, LONGEST, Leave, PAGES, Which},
    world::Allowed,
};

/// How many pages around one that a device maps in place it may map besides.
const MAPPED_AT_ONCE: usize = 16;

/// Whether devices may take a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    No,
    /// The page was moved here from where it was adopted. The core follows if the system told it,
    /// which it does for areas that are watched; how large the area around a page is, is the
    /// system's affair.
    Perhaps,
    Yes,
}

/// What is known of the area that a page is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    /// Whether its changes are told is not known.
    Unknown,
    /// Its changes are told: a device had a translation of the page, or of one before it.
    Watched,
    /// And its holes are trapped: a device had the page, or one before it.
    Trapped,
}

/// A page.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a page")]
pub(crate) struct Page {
    pub(crate) mapped: bool,
    pub(crate) adopted: Adopted,
    /// What may be done with it.
    pub(crate) allowed: Allowed,
    /// Whether more was before, which devices may still do, as nobody told.
    pub(crate) stale: bool,
    /// What is known of its area.
    area: Area,
    /// Whether it was discarded where the area may have been watched and not trapped. Who touches it
    /// there is not known, so it stays for good unless it was seen to be a hole.
    discarded: bool,
    /// Whether it was on a device, perhaps, as its adoption was taken back: it stays there, for that
    /// device's use, until the processor touches it or it comes back otherwise.
    lingers: bool,
    /// As that, where the processor maps it: it stays there though the processor touches it.
    stays: bool,
    /// Whether a device may have it alone: it asked for that, and the processor has not touched it since.
    pub(crate) exclusive: bool,
    /// Whether it may be held on to by the system, as it was a part of a huge page in a fork.
    held: bool,
    /// Whether memory has grown by it.
    pub(crate) grown: bool,
    pub(crate) bytes: [u8; CELL],
}

/// What is so of an address, whatever is mapped there, for each device.
#[derive(Clone, Copy, Debug, Default)]
struct Address {
    /// Whether the device is to have what is there where the program has it.
    in_place: [bool; 2],
    /// Whether the device may have a translation of it in place.
    mapped: [bool; 2],
    /// Whether the device lets others map what of it is in its memory, or ever did: what was granted once
    /// stays granted.
    exported: [bool; 2],
    /// Whether it refuses them.
    refused: [bool; 2],
}

/// All pages that one thread works on.
pub(crate) struct Oracle {
    pages: Vec<Page>,
    addresses: Vec<Address>,
    /// Those of the arena that are this thread's.
    pub(crate) part: Range<usize>,
}

/// The bytes that an access stores in a page.
pub(crate) fn pattern(value: u64, page: usize) -> [u8; LONGEST] {
    let mut bytes = [0; LONGEST];
    let mut mixed = value ^ (page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in bytes.chunks_exact_mut(8) {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&mixed.to_ne_bytes());
    }
    bytes
}

/// The part of an access that lies in one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Touch {
    /// The page of which the access is.
    pub(crate) item: usize,
    /// The page that is touched.
    pub(crate) page: usize,
    /// The bytes, of those that the program uses, numbered through all pages.
    pub(crate) bytes: Range<usize>,
}

impl Cells {
    /// The bytes of the access that belongs to a page.
    pub(crate) fn bytes(&self, page: usize) -> Range<usize> {
        let first = page * CELL + self.offset;
        first..first + self.len
    }

    /// What is touched, in order.
    pub(crate) fn touches(&self) -> impl Iterator<Item = Touch> + '_ {
        self.pages.clone().flat_map(move |item| {
            let bytes = self.bytes(item);
            let split = bytes.end.min((item + 1) * CELL);
            let parts = [bytes.start..split, split..bytes.end];
            parts.into_iter().filter(|part| !part.is_empty()).map(move |bytes| Touch {
                item,
                page: bytes.start / CELL,
                bytes,
            })
        })
    }
}

impl Page {
    const UNMAPPED: Self = Self {
        mapped: false,
        adopted: Adopted::No,
        allowed: Allowed::All,
        stale: false,
        area: Area::Unknown,
        discarded: false,
        lingers: false,
        stays: false,
        exclusive: false,
        held: false,
        grown: false,
        bytes: [0; CELL],
    };

    /// Whether the processor may access it so.
    pub(crate) fn allows(&self, write: bool) -> bool {
        self.mapped && self.allowed.allows(write)
    }

    /// Something more is known of its area.
    fn told(&mut self, area: Area) {
        self.area = self.area.max(area);
    }
}

impl Oracle {
    pub(crate) fn new(part: Range<usize>) -> Self {
        Self {
            pages: vec![Page::UNMAPPED; PAGES],
            addresses: vec![Address::default(); PAGES],
            part,
        }
    }

    pub(crate) fn page(&self, page: usize) -> &Page {
        &self.pages[page]
    }

    /// The bytes from one on.
    pub(crate) fn bytes(&self, bytes: Range<usize>) -> Vec<u8> {
        bytes.map(|byte| self.pages[byte / CELL].bytes[byte % CELL]).collect()
    }

    /// Stores a part of an access.
    pub(crate) fn store(&mut self, touch: &Touch, value: u64, first: usize) {
        let pattern = pattern(value, touch.item);
        for byte in touch.bytes.clone() {
            self.pages[byte / CELL].bytes[byte % CELL] = pattern[byte - first];
        }
    }

    /// The first run of pages in a range that are not mapped.
    pub(crate) fn first_gap(&self, pages: Range<usize>) -> Option<Range<usize>> {
        let start = pages.clone().find(|&page| !self.pages[page].mapped)?;
        let end = (start..pages.end).find(|&page| self.pages[page].mapped).unwrap_or(pages.end);
        Some(start..end)
    }

    /// The runs of pages in a range that are mapped.
    pub(crate) fn mapped_runs(&self, pages: Range<usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for page in pages.filter(|&page| self.pages[page].mapped) {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        runs
    }

    /// Adds to a number, and answers what was there.
    pub(crate) fn add(&mut self, page: usize, offset: usize, value: u64) -> u64 {
        let number = &mut self.pages[page].bytes[offset..offset + 8];
        let before = u64::from_ne_bytes(number.try_into().expect("eight bytes"));
        number.copy_from_slice(&before.wrapping_add(value).to_ne_bytes());
        before
    }

    /// Whether a device may fail to get a page for this cause.
    pub(crate) fn may_stay(&self, page: usize, cause: StayCause) -> bool {
        let page = &self.pages[page];
        match cause {
            StayCause::NotAdopted => page.adopted != Adopted::Yes,
            StayCause::NoArea => page.adopted != Adopted::No && !page.mapped,
            StayCause::Discarded => page.adopted != Adopted::No && page.discarded,
            StayCause::Busy => page.adopted != Adopted::No && page.held,
            StayCause::Protection => page.adopted != Adopted::No && !page.allows(true),
            _ => false,
        }
    }

    /// Whether a device may be given a page, from where it is.
    pub(crate) fn may_go(&self, page: usize) -> bool {
        self.pages[page].adopted != Adopted::No && self.pages[page].allows(false)
    }

    /// Whether a page may go that nobody can access, nobody disturbing it.
    pub(crate) fn may_be_taken(&self, page: usize) -> bool {
        self.pages[page].adopted != Adopted::No
    }

    /// Whether a page may be on a device.
    pub(crate) fn may_be_away(&self, page: usize) -> bool {
        let page = &self.pages[page];
        page.mapped && (page.adopted != Adopted::No || page.lingers)
    }

    /// Whether a page may be on a device whose memory the processor maps.
    pub(crate) fn may_be_there(&self, page: usize) -> bool {
        self.may_be_away(page) || self.pages[page].mapped && self.pages[page].stays
    }

    /// What may be done with pages changes, of which the core is told or not.
    pub(crate) fn protect(&mut self, pages: Range<usize>, allowed: Allowed, told: bool) {
        for page in &mut self.pages[pages] {
            page.stale = !told && (page.stale || allowed < page.allowed);
            page.allowed = allowed;
        }
    }

    /// The pages around one that is mapped with which the same may be done.
    pub(crate) fn alike(&self, page: usize) -> Range<usize> {
        let allowed = self.pages[page].allowed;
        let other = |&page: &usize| !self.pages[page].mapped || self.pages[page].allowed != allowed;
        let start = (self.part.start..page).rev().find(other).map_or(self.part.start, |at| at + 1);
        start..(page..self.part.end).find(other).unwrap_or(self.part.end)
    }

    /// The core knows what may be done with pages.
    pub(crate) fn knows(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.stale = false;
        }
    }

    /// Where a device is to have pages.
    pub(crate) fn place(&mut self, which: Which, pages: Range<usize>, in_place: bool) {
        for address in &mut self.addresses[pages] {
            address.in_place[which as usize] = in_place;
        }
    }

    /// Whether a device is to have a page where the program has it.
    pub(crate) fn is_in_place(&self, which: Which, page: usize) -> bool {
        self.addresses[page].in_place[which as usize]
    }

    /// What a device lets others have.
    pub(crate) fn export(&mut self, which: Which, pages: Range<usize>, export: Export) {
        for address in &mut self.addresses[pages] {
            address.exported[which as usize] |= export == Export::Map;
            address.refused[which as usize] = export == Export::Refuse;
        }
    }

    /// Whether a page may be mapped where one of these devices has it.
    pub(crate) fn may_be_peers(&self, page: usize, at: &[Which]) -> bool {
        let exported = self.addresses[page].exported;
        self.may_be_away(page) && at.iter().any(|&which| exported[which as usize])
    }

    /// Whether one of these devices may refuse others a page.
    pub(crate) fn may_refuse(&self, page: usize, at: &[Which]) -> bool {
        let refused = self.addresses[page].refused;
        self.may_be_away(page) && at.iter().any(|&which| refused[which as usize])
    }

    /// Whether an access of a device has the page go there for sure, if it is not there.
    pub(crate) fn goes(&self, which: Which, page: usize) -> bool {
        let Address { in_place, mapped, .. } = self.addresses[page];
        let page = &self.pages[page];
        page.allows(true)
            && page.adopted == Adopted::Yes
            && !page.discarded
            && !page.held
            && !in_place[which as usize]
            && !mapped[which as usize]
    }

    /// An access of a device succeeded.
    pub(crate) fn used(&mut self, which: Which, page: usize) {
        if !self.goes(which, page) {
            self.mapped_around(which, page);
        }
        self.pages[page].told(Area::Watched);
    }

    /// A device mapped a page in place, or tried to, and its neighbours.
    pub(crate) fn mapped_around(&mut self, which: Which, page: usize) {
        let first = page / MAPPED_AT_ONCE * MAPPED_AT_ONCE;
        for address in &mut self.addresses[first..first + MAPPED_AT_ONCE] {
            address.mapped[which as usize] = true;
        }
    }

    /// A device without memory was given translations, or found that there is nothing to translate.
    pub(crate) fn mapped(&mut self, pages: Range<usize>) {
        for (page, address) in self.pages[pages.clone()].iter_mut().zip(&self.addresses[pages]) {
            if page.mapped {
                page.told(Area::Watched);
            }
            // Else it may have been mapped where it is.
            if address.exported == [false; 2] {
                page.lingers = false;
            }
            page.exclusive = false;
        }
    }

    /// Translations in place end.
    pub(crate) fn translations_end(&mut self, pages: Range<usize>) {
        for address in &mut self.addresses[pages] {
            address.mapped = [false; 2];
        }
    }

    /// The pages are in system memory, as that was asked for.
    pub(crate) fn was_brought_back(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages.clone()] {
            page.stays = false;
        }
        self.is_back(pages);
    }

    /// The pages are not away.
    pub(crate) fn is_back(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.lingers = false;
            page.exclusive = false;
        }
    }

    /// A device failed to get a page.
    pub(crate) fn stayed(&mut self, page: usize, cause: StayCause) {
        self.found(page, if cause == StayCause::NotAdopted { Adopted::No } else { Adopted::Yes });
    }

    /// It turned out whether devices may take a page.
    pub(crate) fn found(&mut self, page: usize, adopted: Adopted) {
        self.pages[page].adopted = adopted;
    }

    /// A device got a page, or had it already. Where it is in memory that the processor maps the other
    /// device may map it there since before.
    pub(crate) fn went(&mut self, page: usize, is_mapped_there: bool) {
        let went = &mut self.pages[page];
        went.adopted = Adopted::Yes;
        went.told(Area::Trapped);
        went.held = false;
        went.discarded = false;
        if !is_mapped_there {
            self.translations_end(page..page + 1);
        }
    }

    /// A device may have pages alone.
    pub(crate) fn exclusive(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.exclusive = true;
        }
    }

    pub(crate) fn adopt(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.adopted = Adopted::Yes;
            page.lingers = false;
        }
    }

    pub(crate) fn release(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.lingers |= page.mapped && page.adopted != Adopted::No;
            page.stays |= page.lingers;
            page.adopted = Adopted::No;
        }
    }

    /// Memory becomes longer: what is new is as what is before it.
    pub(crate) fn grow(&mut self, pages: Range<usize>, like: usize) {
        let allowed = self.pages[like].allowed;
        self.map(pages.clone(), true);
        self.protect(pages.clone(), allowed, true);
        for page in &mut self.pages[pages] {
            page.grown = true;
        }
    }

    /// New memory is mapped, or nothing any more.
    pub(crate) fn map(&mut self, pages: Range<usize>, mapped: bool) {
        self.translations_end(pages.clone());
        for page in &mut self.pages[pages] {
            let Page { adopted, .. } = *page;
            *page = Page { mapped, adopted, ..Page::UNMAPPED };
        }
    }

    pub(crate) fn discard(&mut self, pages: Range<usize>) {
        self.translations_end(pages.clone());
        for page in &mut self.pages[pages] {
            page.bytes = [0; CELL];
            page.lingers = false;
            page.stays = false;
            page.exclusive = false;
            page.discarded = page.area != Area::Trapped;
        }
    }

    /// What was discarded may not have been seen to be holes, as looking can fail.
    pub(crate) fn unseen(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.discarded = true;
        }
    }

    /// The content of a page was given up, and is as it was found and written again.
    pub(crate) fn free(&mut self, page: usize, dropped: bool) {
        self.translations_end(page..page + 1);
        let page = &mut self.pages[page];
        if dropped {
            page.bytes = [0; CELL];
        }
        page.lingers = false;
        page.stays = false;
        // Nobody is told when the system is done with it.
        page.discarded = true;
    }

    /// The process has forked, with huge pages.
    pub(crate) fn forked(&mut self) {
        for page in &mut self.pages[self.part.clone()] {
            page.held |= page.mapped;
        }
    }

    /// A device may have come to have some of the pages, or translations of them, in place or not.
    pub(crate) fn disturbed(&mut self, pages: Range<usize>) {
        for address in &mut self.addresses[pages] {
            address.mapped = [true; 2];
        }
    }

    /// The pages of `from`, all mapped, move to where `to` is the first.
    pub(crate) fn remap(&mut self, from: Range<usize>, to: usize, leave: Leave) {
        self.translations_end(to..to + from.len());
        for (place, old) in from.enumerate() {
            let source = self.pages[old];
            let target = &mut self.pages[to + place];
            let follows = match source.adopted {
                Adopted::Yes if source.area >= Area::Watched => Adopted::Yes,
                Adopted::Yes | Adopted::Perhaps => Adopted::Perhaps,
                Adopted::No => Adopted::No,
            };
            let adopted = match (target.adopted, follows) {
                (Adopted::Yes, _) | (_, Adopted::Yes) => Adopted::Yes,
                (Adopted::No, Adopted::No) => Adopted::No,
                _ => Adopted::Perhaps,
            };
            *target = Page { adopted, stale: false, ..source };
            match leave {
                Leave::Nothing => self.map(old..old + 1, false),
                Leave::Holes => self.discard(old..old + 1),
            }
        }
    }
}
