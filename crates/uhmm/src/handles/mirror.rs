//! A mirror, as its driver holds it.

use core::{fmt, mem::ManuallyDrop, ptr, ptr::NonNull};

use crate::{
    driver::{MirrorId, PageTable},
    engine::SpaceRef,
    engine_box_as,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    in_place::InPlace,
    mirror::{Registration, Table},
    mm::{Errno, Mm, linux::Linux},
    range::{PageEntry, RangeFaultError, RangeReport, Request},
    units::{AddressRange, PageRange, PageSize},
};

/// A device's subscription to a range of the address space, with the device's page table in it: the
/// kernel's interval notifier (`mmu_interval_notifier`, `include/linux/mmu_notifier.h`).
///
/// The device has no memory of its own: it maps pages where they are. The range may be of any kind
/// of memory, mapped or not, up to the whole address space, and mirrors may overlap.
///
/// Dropping it ends the subscription, from any thread: when the drop returns no call of the table
/// runs or will, unless the table itself drops the mirror from within such a call; then the table is
/// dropped when no call of it runs any more. In the child of a fork it must be neither used nor
/// dropped.
pub struct Mirror<T: PageTable, M: Mm = Linux> {
    space: SpaceRef<M>,
    registration: ManuallyDrop<Registration>,
    table: NonNull<T>,
}

// SAFETY: a page table is shared between threads by its trait, the rest is `Shared`.
unsafe impl<T: PageTable, M: Mm> Send for Mirror<T, M> {}
// SAFETY: as above.
unsafe impl<T: PageTable, M: Mm> Sync for Mirror<T, M> {}

impl<T: PageTable, M: Mm> Mirror<T, M> {
    pub(crate) fn new(
        space: &SpaceRef<M>,
        pages: PageRange,
        table: T,
    ) -> Result<Self, EngineMemoryError> {
        let table = EngineBox::try_new(&space.engine.memory, table)?;
        let table = engine_box_as!(table, dyn PageTable);
        let registration = space.engine.mirrors.subscribe(pages, Table::Own(table))?;
        // From where it stays: taking a box apart ends pointers made before.
        let table = NonNull::from(registration.subscriber().table()).cast();
        let registration = ManuallyDrop::new(registration);
        Ok(Self { space: space.clone(), registration, table })
    }

    /// The device's page table.
    pub fn table(&self) -> &T {
        // SAFETY: the subscription owns the box that the pointer came from, whose value is a `T`,
        // and lives as long as self; nobody has the box mutably.
        unsafe { self.table.as_ref() }
    }

    /// What it is called among all mirrors of the address space.
    pub fn id(&self) -> MirrorId {
        self.registration.subscriber().importer().mirror
    }

    /// The pages that it spans.
    pub fn pages(&self) -> PageRange {
        self.registration.subscriber().pages
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.space.engine.mm.page_size()
    }

    /// The engine's memory.
    pub fn engine_memory(&self) -> &EngineMemory {
        &self.space.engine.memory
    }

    /// Makes a range accessible to the device as `request` asks, and enters translations of it into
    /// the page table: `hmm_range_fault` with what a driver does around it.
    ///
    /// When it returns each page of the request has a translation, or is in the report with why it
    /// has none. A translation holds until its invalidation, which can come at once. The request is
    /// never changed: asking again asks the same. Pages that have been given to the device and have
    /// not been invalidated since cost a comparison a block.
    ///
    /// # Errors
    /// [`RangeFaultError`] where the request as a whole makes no sense; nothing was done then.
    pub fn fault(&self, request: &Request<'_>) -> Result<RangeReport, RangeFaultError> {
        self.space.engine.range_fault(self.registration.subscriber(), request, None)
    }

    /// As [`fault`](Self::fault), and tells of each page of the request what the device got, in
    /// `entries`, one for each.
    ///
    /// # Errors
    /// [`RangeFaultError`]; nothing was done then.
    pub fn fault_into(
        &self,
        request: &Request<'_>,
        entries: &mut [PageEntry],
    ) -> Result<RangeReport, RangeFaultError> {
        self.space.engine.range_fault(self.registration.subscriber(), request, Some(entries))
    }

    /// Gives the calling thread access to memory in place, for what the device maps so.
    ///
    /// # Errors
    /// The system's error where no more threads can have that.
    pub fn in_place(&self) -> Result<InPlace<'_, M>, Errno> {
        InPlace::open(&self.space.engine.mm)
    }

    /// Looks what a fault of `range` would find now, page by page, and changes nothing: no page is
    /// made present, no translation entered, and the range is not watched on account of it.
    ///
    /// # Errors
    /// [`RangeFaultError`].
    pub fn snapshot(
        &self,
        range: AddressRange,
        entries: &mut [PageEntry],
    ) -> Result<(), RangeFaultError> {
        self.space.engine.snapshot(self.registration.subscriber(), range, entries)
    }
}

impl<T: PageTable, M: Mm> Drop for Mirror<T, M> {
    fn drop(&mut self) {
        // SAFETY: it is not used again.
        let registration = unsafe { ptr::read(&raw const *self.registration) };
        self.space.engine.end_mirror(registration);
    }
}

impl<T: PageTable, M: Mm> fmt::Debug for Mirror<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("id", &self.id())
            .field("pages", &self.pages())
            .finish_non_exhaustive()
    }
}
