//! The device's page table, in engine memory: a leaf for each block of the address space that the
//! device ever had a page of, an entry for each page.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicUsize,
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

/// An entry: nothing, or where the page is in the device's memory, with the bits of its use.
#[derive(Debug, Default)]
pub(crate) struct Entry(AtomicUsize);

impl Entry {
    /// Where the page is, noted as used; none where the device has no translation.
    pub(crate) fn translate(&self) -> Option<NonNull<u8>> {
        let value = self.0.load(Acquire);
        if value & USED == 0 {
            if value & !EVER_USED == 0 {
                return None;
            }
            self.0.fetch_or(USED | EVER_USED, Relaxed);
        }
        NonNull::new(core::ptr::with_exposed_provenance_mut(value & !(USED | EVER_USED)))
    }
}

/// The entries of one block.
pub(crate) type Leaf = [Entry; BLOCK_PAGES];

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

    fn entries(&self, pages: PageRange) -> &[Entry] {
        let first = pages.start().in_block();
        self.leaf(pages.start()).map_or(&[], |leaf| &leaf[first..first + pages.len()])
    }
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and then waits for the
// accesses in flight, which are the only use of a translation; nothing here touches memory other
// than the table, or waits for a call of the core.
unsafe impl Device for Table {
    fn prepare(&self, pages: PageRange) -> Result<(), EngineMemoryError> {
        for part in pages.by_block() {
            self.leaves.get_or_make(part.start().block().0, || {
                Ok(core::array::from_fn(|_| Entry::default()))
            })?;
        }
        Ok(())
    }

    fn commit(&self, pages: PageRange, memory: NonNull<u8>) {
        let first = memory.as_ptr().expose_provenance();
        for (place, entry) in self.entries(pages).iter().enumerate() {
            entry.0.store(first + self.page_size.bytes_in(place), Release);
        }
    }

    fn invalidate(&self, pages: PageRange) {
        let mut had_any = false;
        for entry in self.entries(pages) {
            if entry.0.load(Relaxed) != 0 {
                entry.0.store(0, Relaxed);
                had_any = true;
            }
        }
        if had_any {
            self.in_flight.wait_for_accesses();
        }
    }

    fn take_use(&self, pages: PageRange) -> Use {
        let mut total = Use::default();
        for entry in self.entries(pages) {
            let seen = entry.0.load(Relaxed);
            total.ever += usize::from(seen & EVER_USED != 0);
            if seen & USED != 0 {
                total.lately += 1;
                entry.0.fetch_and(!USED, AcqRel);
            }
        }
        total
    }
}
