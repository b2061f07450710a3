//! The device's page table, in engine memory: a leaf for each block of the address space that the
//! device ever had a page of, an entry for each page.

use core::{
    ops::Range,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use uhmm::{
    AccessorNumber, AddressSpace, Device, Entries, Export, FaultAccess, Importer, InFlight,
    Invalidation, PageTable, PrepareError, Refuser, Shared, SparseTable, Translation, Use,
    engine_memory::{EngineMemoryError, EngineVec},
    mm::{Access, Mm},
    sync::{Lock, SignalsBlocked},
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

use crate::{exports::Exports, memory::OwnMemory};

/// The lowest bit of an entry: the device used the page since it was last asked.
const USED: usize = 1;

/// The device used the page since it came.
const EVER_USED: usize = 2;

/// The page is where the program has it, or in the file of shared memory: it can go without a word.
const IN_PLACE: usize = 4;

/// The device may write the page.
const WRITE: usize = 8;

/// The device's writes of the page are noted.
const NOTED: usize = 16;

const USE: usize = USED | EVER_USED;
const FLAGS: usize = USE | IN_PLACE | WRITE | NOTED;

/// Where a page is that the device has a translation of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the device's memory or a peer's, from here on.
    Frame(NonNull<u8>),
    /// At this address, which is reached by the core's access in place alone.
    InPlace(usize),
}

/// An entry: nothing, or where the page is, with what may be done and the bits of its use.
#[derive(Debug, Default)]
pub(crate) struct Entry(AtomicUsize);

impl Entry {
    /// The entry of the first page; the others follow. `own` is the device's own memory, if it has one.
    fn of(entries: &Entries, page_size: PageSize, own: Option<&OwnMemory>) -> Option<usize> {
        let place = match entries.translation {
            Translation::Frames { memory } | Translation::Peer { memory, .. } => {
                memory.as_ptr().expose_provenance()
            }
            Translation::Copied { frame } => own?.frame(frame).as_ptr().expose_provenance() | NOTED,
            // What the CPU maps of the device's memory it maps where the program has the page.
            Translation::InPlace { .. } | Translation::Coherent { .. } => {
                page_size.address_of(entries.pages.start()) | IN_PLACE
            }
            Translation::Alias { memory } => memory.as_ptr().expose_provenance() | IN_PLACE,
            // A kind that this device does not know it does without: its accesses fault again.
            _ => return None,
        };
        Some(place | if entries.write { WRITE } else { 0 })
    }

    /// The entry of a page that is in the device's memory.
    pub(crate) fn of_frame(memory: NonNull<u8>, write: bool) -> usize {
        memory.as_ptr().expose_provenance() | if write { WRITE } else { 0 }
    }

    /// Where the page `offset` bytes further on is, noted as used, and where its writes are noted by
    /// `note_written`; none where the device has no translation for such an access.
    fn translate(&self, offset: usize, write: bool, note_written: impl FnOnce()) -> Option<Place> {
        let value = self.0.load(Acquire);
        if value & !FLAGS == 0 || write && value & WRITE == 0 {
            return None;
        }
        if value & USED == 0 {
            self.0.fetch_or(USED | EVER_USED, Relaxed);
        }
        if write && value & NOTED != 0 {
            note_written();
        }
        if value & IN_PLACE != 0 {
            return Some(Place::InPlace((value & !FLAGS) + offset));
        }
        let at = core::ptr::with_exposed_provenance_mut((value & !FLAGS) + offset);
        NonNull::new(at).map(Place::Frame)
    }

    /// Whether the page is in a frame, and may be written if `write`. Not noted as a use.
    fn has(&self, write: bool) -> bool {
        let value = self.0.load(Acquire);
        value & !FLAGS != 0 && value & IN_PLACE == 0 && (!write || value & WRITE != 0)
    }

    /// Becomes an entry. A page that stays where it is was used as before.
    fn enter(&self, entry: usize) {
        let before = self.0.load(Relaxed);
        let stays = before & !FLAGS == entry & !FLAGS;
        self.0.store(entry | if stays { before & USE } else { 0 }, Release);
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
///
/// Who is to write a page notes it in `written` before, as one access with the look for the translation: so
/// who ended that, and waited for the accesses in flight, finds it noted.
#[derive(Debug)]
pub(crate) struct Leaf {
    whole: Entry,
    pages: [Entry; BLOCK_PAGES],
    /// Whether an entry of `pages` may hold a translation.
    parts: AtomicBool,
    /// A bit for each page that was written since the core last asked, of those whose writes are noted.
    written: [AtomicU64; BLOCK_PAGES.div_ceil(64)],
}

impl Leaf {
    pub(crate) fn new() -> Self {
        Self {
            whole: Entry::default(),
            pages: core::array::from_fn(|_| Entry::default()),
            parts: AtomicBool::new(false),
            written: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Where the page at a place of the block is, if the device may access it so.
    pub(crate) fn translate(
        &self,
        place: usize,
        page_size: PageSize,
        write: bool,
    ) -> Option<Place> {
        let note_written = || self.note_written(place);
        // A whole block's pages are consecutive wherever they are.
        let whole = self.whole.translate(page_size.bytes_in(place), write, note_written);
        whole.or_else(|| self.pages[place].translate(0, write, note_written))
    }

    /// Notes that the page at a place of the block is about to be written.
    fn note_written(&self, place: usize) {
        let (word, bit) = (&self.written[place / 64], 1 << (place % 64));
        // It mostly was before, and a load leaves the line where other workers have it.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// The first run of some places that were written, which are not noted as such any more.
    fn take_written(&self, places: Range<usize>) -> Range<usize> {
        let is_written = |place: &usize| self.take_written_at(*place);
        let start = places.clone().find(is_written).unwrap_or(places.end);
        let run = (start + 1..places.end).take_while(is_written).count();
        start..(start + 1 + run).min(places.end)
    }

    fn take_written_at(&self, place: usize) -> bool {
        let (word, bit) = (&self.written[place / 64], 1 << (place % 64));
        // Pages beside it can be written meanwhile.
        word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, Relaxed) & bit != 0
    }

    /// Whether the page at a place of the block is in a frame, and may be written if `write`.
    pub(crate) fn has(&self, place: usize, write: bool) -> bool {
        self.whole.has(write) || self.pages[place].has(write)
    }

    /// Replaces the entry for the whole block by one a page.
    fn split(&self, page_size: PageSize) {
        let whole = self.whole.0.load(Relaxed);
        if whole & !FLAGS != 0 {
            for (place, entry) in self.pages.iter().enumerate() {
                entry.0.store(whole + page_size.bytes_in(place), Release);
            }
            self.parts.store(true, Relaxed);
            // Who does not find the one any more finds the others.
            self.whole.0.store(0, Release);
        }
    }

    /// Enters translations of `places`, the first by this entry, the others behind it.
    pub(crate) fn enter(&self, places: Range<usize>, first: usize, page_size: PageSize) {
        if places.len() == BLOCK_PAGES {
            self.clear(0..BLOCK_PAGES, page_size);
            self.whole.0.store(first, Release);
            return;
        }
        self.split(page_size);
        self.parts.store(true, Relaxed);
        for (place, entry) in self.pages[places].iter().enumerate() {
            entry.enter(first + page_size.bytes_in(place));
        }
    }

    /// Clears the entries of `places`. Answers whether there was a translation.
    pub(crate) fn clear(&self, places: Range<usize>, page_size: PageSize) -> bool {
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
pub struct Table<M: Mm> {
    page_size: PageSize,
    leaves: SparseTable<Leaf>,
    pub(crate) in_flight: InFlight,
    /// By what the accesses in place of each worker are named.
    accessors: EngineVec<Lock<Option<AccessorNumber>>>,
    refuser: Refuser<M>,
    /// What peers are let have.
    pub(crate) exports: Exports,
    /// The device's own memory, where its frames are not staging.
    pub(crate) own: Option<Shared<OwnMemory>>,
}

impl<M: Mm> Table<M> {
    /// An empty table for a device of `workers` workers, with a memory of its own if there is one.
    pub(crate) fn new(
        space: &AddressSpace<M>,
        workers: usize,
        own: Option<Shared<OwnMemory>>,
    ) -> Result<Self, EngineMemoryError> {
        let memory = space.engine_memory();
        let mut accessors = EngineVec::try_with_capacity(memory, workers)?;
        for _ in 0..workers {
            accessors.try_push(Lock::new(None))?;
        }
        Ok(Self {
            page_size: space.page_size(),
            leaves: SparseTable::try_new(memory, space.page_limit().0.div_ceil(BLOCK_PAGES))?,
            in_flight: InFlight::new(memory, workers)?,
            accessors,
            refuser: space.refuser(),
            exports: Exports::new(memory),
            own,
        })
    }

    pub(crate) fn leaf(&self, page: PageNumber) -> Option<&Leaf> {
        self.leaves.get(page.block().0)
    }

    /// Says by what a worker's accesses in place are named.
    pub(crate) fn name_accessor(&self, worker: usize, accessor: AccessorNumber) {
        *self.accessors[worker].lock(&SignalsBlocked::new()) = Some(accessor);
    }

    /// Clears the entries of pages. Answers whether there was a translation.
    fn clear(&self, invalidation: &Invalidation) -> bool {
        let pages = invalidation.pages;
        self.leaf(pages.start()).is_some_and(|leaf| leaf.clear(places(pages), self.page_size))
    }

    /// Waits for the accesses of workers that found a translation which is gone by now.
    fn wait_for_accesses(&self) {
        self.in_flight.wait_for_accesses_or(|worker| {
            let accessor = *self.accessors[worker].lock(&SignalsBlocked::new());
            if let Some(accessor) = accessor {
                self.refuser.refuse(accessor);
            }
        });
    }
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and then waits for the
// accesses in flight, which are the only use of a translation, and go by its flags: what is in place
// they reach by the core's access in place; nothing here touches memory other than the table, or
// waits for a call of the core.
unsafe impl<M: Mm> PageTable for Table<M> {
    fn prepare(&self, pages: PageRange, _: Access) -> Result<(), PrepareError> {
        for part in pages.by_block() {
            if self.leaf(part.start()).is_none() {
                self.leaves.get_or_make(part.start().block().0, || Ok(Leaf::new()))?;
            }
        }
        Ok(())
    }

    #[unsafe(link_section = ".text.hot.moving")]
    fn commit(&self, entries: &Entries) {
        let pages = entries.pages;
        let Some(leaf) = self.leaf(pages.start()) else { return };
        let Some(first) = Entry::of(entries, self.page_size, self.own.as_deref()) else { return };
        leaf.enter(places(pages), first, self.page_size);
    }

    #[unsafe(link_section = ".text.hot.moving")]
    fn invalidate(&self, invalidation: &Invalidation) {
        if self.clear(invalidation) {
            self.wait_for_accesses();
        }
    }
}

// SAFETY: as above.
unsafe impl<M: Mm> Device for Table<M> {
    fn invalidate_all(&self, invalidations: &[Invalidation]) {
        let cleared = |any, invalidation| self.clear(invalidation) || any;
        if invalidations.iter().fold(false, cleared) {
            self.wait_for_accesses();
        }
    }

    fn export(&self, _: Importer, pages: PageRange, _: bool) -> (PageRange, Export) {
        self.exports.leading(pages)
    }

    fn has(&self, page: PageNumber, access: FaultAccess) -> bool {
        let write = access.access() == Access::Write;
        self.leaf(page).is_some_and(|leaf| leaf.has(page.in_block(), write))
    }

    fn take_written(&self, pages: PageRange) -> PageRange {
        let places = places(pages);
        let first = places.start;
        let written = match self.leaf(pages.start()) {
            Some(leaf) => leaf.take_written(places),
            None => places.end..places.end,
        };
        PageRange::of(pages.start().plus(written.start - first), written.len())
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
pub(crate) const fn places(pages: PageRange) -> Range<usize> {
    let first = pages.start().in_block();
    first..first + pages.len()
}
