//! The device's page table: an entry for each page, in engine memory.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use uhmm::{
    AccessorNumber, AddressSpace, Device, Entries, InFlight, InPlace, Invalidation, Lane,
    PageTable, PrepareError, Refuser, SparseTable, Translation, Use,
    engine_memory::EngineMemoryError,
    mm::Access,
    sync::{Lock, SignalsBlocked},
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

/// The device may write the page.
const WRITE: usize = 1;
/// The page is where the program has it, at the program's address.
const IN_PLACE: usize = 2;
/// The device used the page since it was last asked.
const USED: usize = 4;
/// The page is in the device's memory, which the program maps: it is in place, too.
const COHERENT: usize = 8;
const FLAGS: usize = WRITE | IN_PLACE | USED | COHERENT;

/// The entries of a block: each nothing, or where the page is with flags in the lowest bits.
#[derive(Debug)]
struct Leaf([AtomicUsize; BLOCK_PAGES]);

/// The page table. One call of a node at a time goes through it.
///
/// # Invariants
/// An entry is made by [`PageTable::commit`] alone. A page is touched by an entry's pointer only within
/// an access of the one lane, for which [`PageTable::invalidate`] waits once the entry is gone.
#[derive(Debug)]
pub(crate) struct Table {
    page_size: PageSize,
    leaves: SparseTable<Leaf>,
    in_flight: InFlight,
    /// By what accesses in place are named that are under way.
    accessor: Lock<Option<AccessorNumber>>,
    refuser: Refuser,
}

impl Table {
    pub(crate) fn new(space: &AddressSpace) -> Result<Self, EngineMemoryError> {
        let memory = space.engine_memory();
        Ok(Self {
            page_size: space.page_size(),
            leaves: SparseTable::try_new(memory, space.page_limit().0.div_ceil(BLOCK_PAGES))?,
            in_flight: InFlight::new(memory, 1)?,
            accessor: Lock::new(None),
            refuser: space.refuser(),
        })
    }

    fn entry(&self, page: PageNumber) -> Option<&AtomicUsize> {
        Some(&self.leaves.get(page.block().0)?.0[page.in_block()])
    }

    /// Whether the page is in the device's memory.
    pub(crate) fn is_in_frame(&self, page: PageNumber) -> bool {
        self.entry(page).is_some_and(|entry| {
            let value = entry.load(Acquire);
            value & !FLAGS != 0 && (value & IN_PLACE == 0 || value & COHERENT != 0)
        })
    }

    /// Begins accesses.
    ///
    /// # Safety
    /// There are no others until these end.
    pub(crate) unsafe fn accesses<'t>(&'t self, in_place: InPlace<'t>) -> Accesses<'t> {
        *self.accessor.lock(&SignalsBlocked::new()) = Some(in_place.number());
        // SAFETY: by the caller's promise.
        Accesses { table: self, lane: unsafe { self.in_flight.open(0) }, in_place }
    }
}

/// Accesses of the device through its page table.
pub(crate) struct Accesses<'t> {
    table: &'t Table,
    lane: Lane<'t>,
    in_place: InPlace<'t>,
}

impl Accesses<'_> {
    /// Reads the whole page into `bytes`, where the device has an entry for it. Answers whether it did.
    pub(crate) fn read(&mut self, page: PageNumber, bytes: &mut [u8]) -> bool {
        let Self { table, lane, in_place } = self;
        let Some(entry) = table.entry(page) else { return false };
        lane.access(|| match translate(entry, false) {
            // SAFETY: by the invariant of `Table` the frame is the device's for as long as this access
            // lasts; it has the length of a page.
            Some(Place::Frame(frame)) => unsafe {
                frame.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
                true
            },
            // SAFETY: the program that had its device read this page says that nobody writes there.
            Some(Place::InPlace(address)) => unsafe { in_place.copy_from(address, bytes) }.is_ok(),
            None => false,
        })
    }

    /// Writes `bytes` to the whole page, where the device has an entry for writing it.
    pub(crate) fn write(&mut self, page: PageNumber, bytes: &[u8]) -> bool {
        let Self { table, lane, in_place } = self;
        let Some(entry) = table.entry(page) else { return false };
        lane.access(|| match translate(entry, true) {
            // SAFETY: as of `read`, and the entry is one for writing.
            Some(Place::Frame(frame)) => unsafe {
                frame.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                true
            },
            // SAFETY: the program that had its device write this page says that nobody else uses it.
            Some(Place::InPlace(address)) => unsafe { in_place.copy_to(address, bytes) }.is_ok(),
            None => false,
        })
    }
}

impl Drop for Accesses<'_> {
    fn drop(&mut self) {
        *self.table.accessor.lock(&SignalsBlocked::new()) = None;
    }
}

/// Where a page is.
enum Place {
    /// In a frame of the device, from here on.
    Frame(NonNull<u8>),
    /// At this address, which is reached by the core's access in place alone.
    InPlace(usize),
}

/// Where a page is; nothing where there is no entry for such an access.
fn translate(entry: &AtomicUsize, write: bool) -> Option<Place> {
    let value = entry.load(Acquire);
    if value & !FLAGS == 0 || write && value & WRITE == 0 {
        return None;
    }
    if value & USED == 0 {
        entry.fetch_or(USED, Relaxed);
    }
    if value & IN_PLACE != 0 {
        return Some(Place::InPlace(value & !FLAGS));
    }
    NonNull::new(core::ptr::with_exposed_provenance_mut(value & !FLAGS)).map(Place::Frame)
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and then waits for the access
// that may be in flight. Accesses go by an entry's flags, and reach what is in place by the core's access
// in place. Nothing here touches memory other than the table or waits for a call of the core.
unsafe impl PageTable for Table {
    fn prepare(&self, pages: PageRange, _: Access) -> Result<(), PrepareError> {
        for part in pages.by_block() {
            let new = || Ok(Leaf(core::array::from_fn(|_| AtomicUsize::new(0))));
            self.leaves.get_or_make(part.start().block().0, new)?;
        }
        Ok(())
    }

    fn commit(&self, entries: &Entries) {
        let first = match entries.translation {
            Translation::Frames { memory } => memory.as_ptr().expose_provenance(),
            Translation::InPlace { .. } => {
                self.page_size.address_of(entries.pages.start()) | IN_PLACE
            }
            Translation::Alias { memory } => memory.as_ptr().expose_provenance() | IN_PLACE,
            Translation::Coherent { .. } => {
                self.page_size.address_of(entries.pages.start()) | IN_PLACE | COHERENT
            }
            // A kind that the device does not know it does without.
            _ => return,
        };
        let flags = if entries.write { WRITE } else { 0 };
        for (index, page) in entries.pages.pages().enumerate() {
            if let Some(entry) = self.entry(page) {
                entry.store((first + self.page_size.bytes_in(index)) | flags, Release);
            }
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        let mut had_any = false;
        for page in invalidation.pages.pages() {
            if let Some(entry) = self.entry(page) {
                had_any |= entry.swap(0, Relaxed) != 0;
            }
        }
        if had_any {
            self.in_flight.wait_for_accesses_or(|_| {
                let accessor = *self.accessor.lock(&SignalsBlocked::new());
                if let Some(accessor) = accessor {
                    self.refuser.refuse(accessor);
                }
            });
        }
    }
}

// SAFETY: as above.
unsafe impl Device for Table {
    fn take_use(&self, pages: PageRange) -> Use {
        let mut total = Use::default();
        for page in pages.pages() {
            let Some(entry) = self.entry(page) else { continue };
            if entry.fetch_and(!USED, Relaxed) & USED != 0 {
                total.lately += 1;
                total.ever += 1;
            }
        }
        total
    }
}
