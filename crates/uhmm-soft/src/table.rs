//! The device's page table, in engine memory: a leaf for each block of the address space that the
//! device ever had a page of, an entry for each page.

use core::{
    ops::Range,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use uhmm::{
    Device, InFlight, SparseTable, Use,
    engine_memory::{EngineMemory, EngineMemoryError},
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

/// The lowest bit of an entry: the device used the page since it was last asked.
const USED: usize = 1;

/// The bit above: the device used the page since it came.
const EVER_USED: usize = 2;

const USE: usize = USED | EVER_USED;

/// An entry: nothing, or where the page is in the device's memory, with the bits of its use.
#[derive(Debug, Default)]
pub(crate) struct Entry(AtomicUsize);

impl Entry {
    /// Where the page is, noted as used; none where the device has no translation.
    pub(crate) fn translate(&self) -> Option<NonNull<u8>> {
        let value = self.0.load(Acquire);
        if value & USED == 0 {
            if value & !USE == 0 {
                return None;
            }
            self.0.fetch_or(USED | EVER_USED, Relaxed);
        }
        NonNull::new(core::ptr::with_exposed_provenance_mut(value & !USE))
    }

    fn clear(&self) -> bool {
        let had_any = self.0.load(Relaxed) != 0;
        if had_any {
            self.0.store(0, Relaxed);
        }
        had_any
    }

    fn take_use(&self, pages: usize, total: &mut Use) {
        let seen = self.0.load(Relaxed);
        if seen & EVER_USED != 0 {
            total.ever += pages;
        }
        if seen & USED != 0 {
            total.lately += pages;
            self.0.fetch_and(!USED, AcqRel);
        }
    }
}

/// The entries of one block: one for all of it where it came as a whole, else one a page.
///
/// # Invariants
/// While `whole` holds a translation, no entry of `pages` does. The calls of the core for one block
/// come one at a time, so there is one writer, but for the bits of use.
#[derive(Debug)]
pub(crate) struct Leaf {
    whole: Entry,
    pages: [Entry; BLOCK_PAGES],
    /// Whether an entry of `pages` may hold a translation.
    parts: AtomicBool,
}

impl Leaf {
    fn new() -> Self {
        Self {
            whole: Entry::default(),
            pages: core::array::from_fn(|_| Entry::default()),
            parts: AtomicBool::new(false),
        }
    }

    /// Where the page at a place of the block is.
    pub(crate) fn translate(&self, place: usize, page_size: PageSize) -> Option<NonNull<u8>> {
        match self.whole.translate() {
            // SAFETY: a whole block's pages are consecutive in the device's memory.
            Some(first) => Some(unsafe { first.add(page_size.bytes_in(place)) }),
            None => self.pages[place].translate(),
        }
    }

    /// Replaces the entry for the whole block by one a page.
    fn split(&self, page_size: PageSize) {
        let whole = self.whole.0.load(Relaxed);
        if whole & !USE != 0 {
            for (place, entry) in self.pages.iter().enumerate() {
                entry.0.store(whole + page_size.bytes_in(place), Release);
            }
            self.parts.store(true, Relaxed);
            // Who does not find the one any more finds the others.
            self.whole.0.store(0, Release);
        }
    }

    /// Clears the entries of `places`. Answers whether there was a translation.
    fn clear(&self, places: Range<usize>, page_size: PageSize) -> bool {
        let mut had_any = false;
        if places.len() == BLOCK_PAGES {
            had_any = self.whole.clear();
        } else {
            self.split(page_size);
        }
        if self.parts.load(Relaxed) {
            for entry in &self.pages[places.clone()] {
                had_any |= entry.clear();
            }
            if places.len() == BLOCK_PAGES {
                self.parts.store(false, Relaxed);
            }
        }
        had_any
    }
}

/// The page table, and the workers' accesses through it.
#[derive(Debug)]
pub(crate) struct Table {
    page_size: PageSize,
    leaves: SparseTable<Leaf>,
    pub(crate) in_flight: InFlight,
}

impl Table {
    /// An empty table for a device of `workers` workers.
    pub(crate) fn new(
        memory: &EngineMemory,
        page_size: PageSize,
        page_limit: PageNumber,
        workers: usize,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            page_size,
            leaves: SparseTable::try_new(memory, page_limit.0.div_ceil(BLOCK_PAGES))?,
            in_flight: InFlight::new(memory, workers)?,
        })
    }

    pub(crate) fn leaf(&self, page: PageNumber) -> Option<&Leaf> {
        self.leaves.get(page.block().0)
    }
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and then waits for the
// accesses in flight, which are the only use of a translation; nothing here touches memory other
// than the table, or waits for a call of the core.
unsafe impl Device for Table {
    fn prepare(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        for part in pages.by_block() {
            if self.leaf(part.start()).is_none() {
                self.leaves.get_or_make(part.start().block().0, || Ok(Leaf::new()))?;
            }
        }
        Ok(())
    }

    fn commit(&self, pages: PageRange, memory: NonNull<u8>) {
        let Some(leaf) = self.leaf(pages.start()) else { return };
        let first = memory.as_ptr().expose_provenance();
        if pages.len() == BLOCK_PAGES {
            leaf.clear(0..BLOCK_PAGES, self.page_size);
            leaf.whole.0.store(first, Release);
            return;
        }
        leaf.split(self.page_size);
        leaf.parts.store(true, Relaxed);
        for (place, entry) in leaf.pages[places(pages)].iter().enumerate() {
            entry.0.store(first + self.page_size.bytes_in(place), Release);
        }
    }

    fn invalidate(&self, pages: PageRange) {
        let had_any =
            self.leaf(pages.start()).is_some_and(|leaf| leaf.clear(places(pages), self.page_size));
        if had_any {
            self.in_flight.wait_for_accesses();
        }
    }

    fn take_use(&self, pages: PageRange) -> Use {
        let mut total = Use::default();
        if let Some(leaf) = self.leaf(pages.start()) {
            leaf.whole.take_use(pages.len(), &mut total);
            if leaf.parts.load(Relaxed) {
                for entry in &leaf.pages[places(pages)] {
                    entry.take_use(1, &mut total);
                }
            }
        }
        total
    }
}

/// The places of pages in their block.
const fn places(pages: PageRange) -> Range<usize> {
    let first = pages.start().in_block();
    first..first + pages.len()
}
