//! What must be so: of each page whether it is mapped, whether devices may take it, its bytes.

use std::ops::Range;

use uhmm::StayCause;

use crate::step::{CELL, Cells, LONGEST, Leave, PAGES};

/// Whether devices may take a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    No,
    /// The page was moved here from where it was adopted. The core follows if the system told it,
    /// which it does for areas that are trapped; how large the area around a page is, is the
    /// system's affair.
    Perhaps,
    Yes,
}

/// A page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) mapped: bool,
    pub(crate) adopted: Adopted,
    /// Whether its area is known to be trapped: a device had the page, or one before it.
    trapped: bool,
    /// Whether it was on a device, perhaps, as its adoption was taken back: it stays there, for that
    /// device's use, until the processor touches it or it comes back otherwise.
    lingers: bool,
    pub(crate) bytes: [u8; CELL],
}

/// All pages that one thread works on.
pub(crate) struct Oracle {
    pages: Vec<Page>,
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

impl Oracle {
    pub(crate) fn new(part: Range<usize>) -> Self {
        let page = Page {
            mapped: false,
            adopted: Adopted::No,
            trapped: false,
            lingers: false,
            bytes: [0; CELL],
        };
        Self { pages: vec![page; PAGES], part }
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

    /// Whether a device may fail to get a page for this cause.
    pub(crate) fn may_stay(&self, page: usize, cause: StayCause) -> bool {
        let page = &self.pages[page];
        match cause {
            StayCause::NotAdopted => page.adopted != Adopted::Yes,
            StayCause::NoArea => page.adopted != Adopted::No && !page.mapped,
            _ => false,
        }
    }

    /// Whether a device may be given a page.
    pub(crate) fn may_go(&self, page: usize) -> bool {
        self.pages[page].adopted != Adopted::No && self.pages[page].mapped
    }

    /// Whether an access of a device may succeed.
    pub(crate) fn may_be_used(&self, page: usize) -> bool {
        self.may_go(page) || self.pages[page].lingers
    }

    /// An access of a device succeeded.
    pub(crate) fn used(&mut self, page: usize) {
        if !self.pages[page].lingers {
            self.went(page);
        }
    }

    /// The pages are in system memory.
    pub(crate) fn is_back(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.lingers = false;
        }
    }

    /// A device failed to get a page.
    pub(crate) fn stayed(&mut self, page: usize, cause: StayCause) {
        self.pages[page].adopted =
            if cause == StayCause::NotAdopted { Adopted::No } else { Adopted::Yes };
    }

    /// A device got a page.
    pub(crate) fn went(&mut self, page: usize) {
        self.pages[page].adopted = Adopted::Yes;
        self.pages[page].trapped = true;
    }

    /// Whether a device gets the page for sure.
    pub(crate) fn goes(&self, page: usize) -> bool {
        self.pages[page].adopted == Adopted::Yes && self.pages[page].mapped
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
            page.adopted = Adopted::No;
        }
    }

    /// New memory is mapped, or nothing any more.
    pub(crate) fn map(&mut self, pages: Range<usize>, mapped: bool) {
        for page in &mut self.pages[pages] {
            *page = Page { mapped, trapped: false, lingers: false, bytes: [0; CELL], ..*page };
        }
    }

    pub(crate) fn discard(&mut self, pages: Range<usize>) {
        for page in &mut self.pages[pages] {
            page.bytes = [0; CELL];
            page.lingers = false;
        }
    }

    /// The pages of `from`, all mapped, move to where `to` is the first.
    pub(crate) fn remap(&mut self, from: Range<usize>, to: usize, leave: Leave) {
        for (place, old) in from.enumerate() {
            let source = self.pages[old];
            let target = &mut self.pages[to + place];
            let follows = match source.adopted {
                Adopted::Yes if source.trapped => Adopted::Yes,
                Adopted::Yes | Adopted::Perhaps => Adopted::Perhaps,
                Adopted::No => Adopted::No,
            };
            let adopted = match (target.adopted, follows) {
                (Adopted::Yes, _) | (_, Adopted::Yes) => Adopted::Yes,
                (Adopted::No, Adopted::No) => Adopted::No,
                _ => Adopted::Perhaps,
            };
            *target = Page { adopted, ..source };
            match leave {
                Leave::Nothing => self.map(old..old + 1, false),
                Leave::Holes => self.discard(old..old + 1),
            }
        }
    }
}
