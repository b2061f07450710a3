//! The page table of a device without memory: it notes what it is told, and does nothing with it.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
};

use uhmm::{
    Entries, Invalidation, PageTable, PrepareError, Translation,
    mm::Access,
    units::{BLOCK_PAGES, PageRange},
};

use crate::step::PAGES;

const READ: u8 = 1;
const WRITE: u8 = 2;
const ZERO: u8 = 4;
const PEER: u8 = 8;

/// A translation of one page, in place or at a device that lets others map its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) write: bool,
    pub(crate) zero: bool,
    pub(crate) peer: bool,
}

/// What was told of each page of the arena.
#[derive(Debug)]
pub(crate) struct Records {
    /// The number of the arena's first page.
    first: usize,
    entries: Vec<AtomicU8>,
    prepared: Vec<AtomicBool>,
    /// Calls that must not be.
    wrong: AtomicUsize,
}

impl Records {
    pub(crate) fn new(first: usize) -> Self {
        Self {
            first,
            entries: (0..PAGES).map(|_| AtomicU8::new(0)).collect(),
            prepared: (0..PAGES).map(|_| AtomicBool::new(false)).collect(),
            wrong: AtomicUsize::new(0),
        }
    }

    /// The translation of a page that was given and has not ended.
    pub(crate) fn translation(&self, page: usize) -> Option<Mapped> {
        let entry = self.entries[page].load(SeqCst);
        (entry & READ != 0).then_some(Mapped {
            write: entry & WRITE != 0,
            zero: entry & ZERO != 0,
            peer: entry & PEER != 0,
        })
    }

    /// How many calls there were that must not be.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong.load(SeqCst)
    }

    /// The places of pages; of those that are not of the arena none.
    fn places(&self, pages: PageRange) -> Range<usize> {
        let place = |page: usize| page.checked_sub(self.first).filter(|&place| place <= PAGES);
        let one_block =
            pages.is_empty() || pages.start().0 / BLOCK_PAGES == (pages.end().0 - 1) / BLOCK_PAGES;
        match (place(pages.start().0), place(pages.end().0)) {
            (Some(start), Some(end)) if one_block => start..end,
            _ => {
                self.wrong.fetch_add(1, SeqCst);
                0..0
            }
        }
    }
}

/// The page table.
#[derive(Debug)]
pub(crate) struct Recorder(pub(crate) Arc<Records>);

// SAFETY: the device accesses nothing. What the methods touch is no memory that devices may take.
unsafe impl PageTable for Recorder {
    fn prepare(&self, pages: PageRange, _: Access) -> Result<(), PrepareError> {
        for prepared in &self.0.prepared[self.0.places(pages)] {
            prepared.store(true, SeqCst);
        }
        Ok(())
    }

    fn commit(&self, entries: &Entries) {
        let kind = match entries.translation {
            Translation::InPlace { zero: false } => 0,
            Translation::InPlace { zero: true } => ZERO,
            Translation::Peer { .. } => PEER,
            // It has no memory.
            _ => {
                self.0.wrong.fetch_add(1, SeqCst);
                return;
            }
        };
        let places = self.0.places(entries.pages);
        let unprepared =
            self.0.prepared[places.clone()].iter().filter(|prepared| !prepared.load(SeqCst));
        self.0.wrong.fetch_add(unprepared.count(), SeqCst);
        let entry = READ | if entries.write { WRITE } else { 0 } | kind;
        for place in &self.0.entries[places] {
            place.store(entry, SeqCst);
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        for entry in &self.0.entries[self.0.places(invalidation.pages)] {
            entry.store(0, SeqCst);
        }
    }
}
