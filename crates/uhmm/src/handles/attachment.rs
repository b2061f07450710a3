//! A device that is attached to an address space: what its driver holds.

use core::{fmt, mem::ManuallyDrop, ptr, ptr::NonNull};

use thiserror::Error;

use super::{
    DeviceArea, ReserveError,
    faults::{wanted, window_of},
};
use crate::{
    clock::Began,
    device::DeviceState,
    driver::{Device, DeviceIndex},
    engine::{Engine, SpaceRef},
    engine_memory::{EngineMemory, EngineThread, Urgent},
    events::{DeviceFaultOutcome, What},
    in_place::InPlace,
    latency::Latency,
    migrate::{Faulted, Pull},
    mirror::{Registration, Subscriber},
    mm::{Access, Errno, Mm, linux::Linux},
    range::{PageEntry, PageFailure, RangeFaultError, RangeReport, Request},
    report::{Migration, PageError, StayCause},
    shared::Shared,
    sync::{
        Lock, SignalsBlocked,
        atomic::Ordering::{Relaxed, Release},
    },
    units::{AddressRange, PageNumber, PageRange, PageSize, RangeError},
};

/// Why a device's fault could not be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the device cannot have the page at {address:#x}: {cause}")]
pub struct DeviceFaultError {
    /// The address.
    pub address: usize,
    /// Why the page stays where it is.
    pub cause: StayCause,
}

/// Why a device could not map a page where it is.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the device cannot map the page at {address:#x}: {error}")]
pub struct MapError {
    /// The address.
    pub address: usize,
    /// Why not.
    pub error: PageError,
}

pub(super) struct Inner<M: Mm> {
    pub(super) space: SpaceRef<M>,
    pub(super) state: Shared<DeviceState>,
    /// Gives up its memory ahead of need, where that takes copies.
    pub(super) evictor: Lock<Option<EngineThread>>,
    /// The device's subscription, to everything.
    pub(super) registration: ManuallyDrop<Registration>,
}

/// A device attached to an address space. When the last clone is dropped the device is detached:
/// what it holds comes back first.
pub struct Attachment<D: Device, M: Mm = Linux> {
    pub(super) inner: Shared<Inner<M>>,
    pub(super) device: NonNull<D>,
}

// SAFETY: the device is shared between threads by its trait, the rest is `Shared`.
unsafe impl<D: Device, M: Mm> Send for Attachment<D, M> {}
// SAFETY: as above.
unsafe impl<D: Device, M: Mm> Sync for Attachment<D, M> {}

impl<D: Device, M: Mm> Clone for Attachment<D, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), device: self.device }
    }
}

impl<D: Device, M: Mm> Attachment<D, M> {
    /// The device.
    pub fn device(&self) -> &D {
        // SAFETY: the state owns the box that the pointer came from, whose value is a `D`, and
        // lives as long as self; nobody has the box mutably.
        unsafe { self.device.as_ref() }
    }

    /// Its place among the devices of the address space.
    pub fn index(&self) -> DeviceIndex {
        self.inner.state.index
    }

    pub(super) fn engine(&self) -> &Engine<M> {
        &self.inner.space.engine
    }

    pub(super) fn state(&self) -> &DeviceState {
        &self.inner.state
    }

    /// Reserves addresses for `pages` pages that only this device backs, for as long as the
    /// area lives.
    ///
    /// # Errors
    /// [`ReserveError`].
    pub fn reserve_area(&self, pages: usize) -> Result<DeviceArea<D, M>, ReserveError> {
        DeviceArea::new(self.clone(), pages)
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.inner.space.engine.mm.page_size()
    }

    /// The engine's memory.
    pub fn engine_memory(&self) -> &EngineMemory {
        &self.inner.space.engine.memory
    }

    /// The size of the device's memory, in pages.
    pub fn frames(&self) -> usize {
        self.inner.state.frames
    }

    /// How many frames hold a page, or are about to.
    pub fn frames_used(&self) -> usize {
        self.frames() - self.inner.state.free(&SignalsBlocked::new())
    }

    /// Returns when every change of the address space that the program made before the call is
    /// applied: no translation of the device is of what was unmapped, moved or discarded. To be
    /// called before the device begins work that the program gave it.
    pub fn settle(&self) {
        self.inner.space.engine.gate.settle();
    }

    /// Serves a fault of the device: brings the page at `address`, and its neighbours where they
    /// will come. When it returns the device has been told of the page's translation. (It may have
    /// lost it again by the time it looks, to the CPU or to its own eviction; it faults again
    /// then.) With [`Access::Write`] that is one for writing; with [`Access::Read`] it is where the
    /// area can be written.
    ///
    /// # Errors
    /// The page cannot go to the device; or it is there, and the area's protection forbids the access:
    /// [`StayCause::Protection`].
    pub fn fault(&self, address: usize, access: Access) -> Result<(), DeviceFaultError> {
        let engine = &self.inner.space.engine;
        let state = &self.inner.state;
        engine.counters.device_faults.add(1);
        let began = engine.recorder.begin();
        let page = self.page_size().page_of(address);
        if page >= engine.mm.page_limit() {
            self.tell_fault(began, page, access, DeviceFaultOutcome::Refused);
            return Err(DeviceFaultError { address, cause: StayCause::NoArea });
        }
        let one = Faulted::on(page, access);
        let mut faulted = one;
        if let Some(block) = engine.blocks.get(page.block()) {
            faulted.add_neighbours(state.window(page, &block.device_stream, state.frames));
        }
        let mut report = Migration::new(&engine.memory);
        engine.pull(state, faulted.span(), Pull::Fault(&faulted), &mut report);
        if report.stayed() > 0 {
            // The neighbours are welcome, the page is wanted.
            report = Migration::new(&engine.memory);
            engine.pull(state, one.span(), Pull::Fault(&one), &mut report);
        }
        let stayed = report.causes().next();
        let outcome = match stayed {
            None => DeviceFaultOutcome::Migrated,
            Some(_) => DeviceFaultOutcome::Refused,
        };
        self.tell_fault(began, page, access, outcome);
        stayed.map_or(Ok(()), |stayed| Err(DeviceFaultError { address, cause: stayed.cause }))
    }

    pub(super) fn tell_fault(
        &self,
        began: Began,
        page: PageNumber,
        access: Access,
        outcome: DeviceFaultOutcome,
    ) {
        let what = What::DeviceFault { device: self.inner.state.index, access, outcome };
        let recorder = &self.inner.space.engine.recorder;
        recorder.tell_timed(began, PageRange::of(page, 1), what, Latency::DeviceFault);
    }

    /// Serves a fault of the device by mapping the page at `address` where it is: for reading, or for
    /// writing too. Of the pages around it those are mapped for reading that are there. When it
    /// returns the device has been told of the page's translation, as with [`fault`](Self::fault).
    ///
    /// # Errors
    /// The page cannot be mapped.
    pub fn map(&self, address: usize, access: Access) -> Result<(), MapError> {
        let page = self.page_size().page_of(address);
        if page >= self.engine().mm.page_limit() {
            self.engine().counters.device_faults.add(1);
            let began = self.engine().recorder.begin();
            self.tell_fault(began, page, access, DeviceFaultOutcome::Refused);
            return Err(MapError { address, error: PageError::NoArea });
        }
        self.map_page(page, access).map_err(|error| MapError { address, error })
    }

    /// Maps a page where it is, and counts the fault.
    pub(super) fn map_page(&self, page: PageNumber, access: Access) -> Result<(), PageError> {
        let engine = self.engine();
        engine.counters.device_faults.add(1);
        let began = engine.recorder.begin();
        let report = engine.map_for(self.subscriber(), window_of(page), &[wanted(page, access)]);
        let failed = |failure: &PageFailure| failure.pages.contains(page);
        let error = report.failures().find(failed).map(|failure| failure.error);
        let outcome = match error {
            None => DeviceFaultOutcome::Mapped,
            Some(_) => DeviceFaultOutcome::Refused,
        };
        self.tell_fault(began, page, access, outcome);
        error.map_or(Ok(()), Err)
    }

    pub(super) fn subscriber(&self) -> &Subscriber {
        self.inner.registration.subscriber()
    }

    /// Gives the calling thread access to memory in place, for what this device maps so.
    ///
    /// # Errors
    /// The system's error where no more threads can have that.
    pub fn in_place(&self) -> Result<InPlace<'_, M>, Errno> {
        InPlace::open(&self.inner.space.engine.mm)
    }

    /// Makes a range accessible to the device as `request` asks, where it is: in system memory, in
    /// this device's or in a peer's. As [`Mirror::fault`](crate::Mirror::fault).
    ///
    /// # Errors
    /// [`RangeFaultError`] where the request as a whole makes no sense; nothing was done then.
    pub fn fault_range(&self, request: &Request<'_>) -> Result<RangeReport, RangeFaultError> {
        let engine = &self.inner.space.engine;
        engine.range_fault(self.subscriber(), request, None)
    }

    /// Looks what a fault of `range` would find now, page by page, and changes nothing. As
    /// [`Mirror::snapshot`](crate::Mirror::snapshot).
    ///
    /// # Errors
    /// [`RangeFaultError`].
    pub fn snapshot(
        &self,
        range: AddressRange,
        entries: &mut [PageEntry],
    ) -> Result<(), RangeFaultError> {
        let engine = &self.inner.space.engine;
        engine.snapshot(self.subscriber(), range, entries)
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range reaches into a page. What stays is in the report, each page
    /// with its cause.
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.pull(range, Pull::Request)
    }

    /// As [`migrate`](Self::migrate), and pages go too that cannot be written: of private anonymous memory
    /// that can be read only, or not at all. `migrate` takes those where the calling thread is the
    /// process's only one beside the engine's; else they stay, with the cause [`StayCause::Protection`],
    /// unless it is called so.
    ///
    /// The system moves no page out of such memory. What takes it out goes by its addresses, and would take
    /// whatever came to lie there at that moment.
    ///
    /// So do pages of a hugetlb pool of 2 MiB (of a block) that are mapped shared, each whole, and come back so.
    /// Their content stays in its file; but the system ends a view of it by addresses too. They stay, with
    /// the cause [`StayCause::Backing`], where their file cannot be reached: by a process that has neither
    /// `CAP_CHECKPOINT_RESTORE` nor a descriptor of the file for reading and writing. As the file is reached so, record
    /// locks that the process has on it end (`fcntl_locking(2)`).
    ///
    /// Other threads may access the range meanwhile: they wait for what is on its way.
    ///
    /// # Errors
    /// As of [`migrate`](Self::migrate).
    ///
    /// # Safety
    /// Until it returns nobody unmaps pages of `range`, maps over them, moves, discards, locks or protects
    /// them, and nobody forks by the bare system call. (Forks by libc wait.)
    pub unsafe fn migrate_undisturbed(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.pull(range, Pull::Undisturbed)
    }

    #[unsafe(link_section = ".text.hot.moving")]
    fn pull(&self, range: AddressRange, why: Pull<'_>) -> Result<Migration, RangeError> {
        let pages = range.pages(self.page_size())?;
        let engine = &self.inner.space.engine;
        let mut report = Migration::new(&engine.memory);
        let known = pages.intersection(engine.all_pages());
        engine.gate.settle();
        engine.pull(&self.inner.state, known, why, &mut report);
        report.add_stayed(
            PageRange::new(known.end().max(pages.start()), pages.end()),
            StayCause::NoArea,
        );
        Ok(report)
    }

    /// Makes `range` exclusive to the device, as far as it will go: it alone may access the pages,
    /// which are in its memory. For the device's atomic operations, as the kernel's
    /// `make_device_exclusive` (`mm/rmap.c`). A huge page is taken whole.
    ///
    /// Whoever else accesses a page ends that: the CPU gets it back, another device takes it over,
    /// and the device is told before, by an invalidation of the kind
    /// [`Exclusive`](crate::InvalidationKind::Exclusive) with no owner. Whether pages are exclusive
    /// still is told by [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// [`RangeError`] where the range reaches into a page. What cannot be exclusive is in the report,
    /// each page with its cause.
    pub fn make_exclusive(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.pull(range, Pull::Exclusive)
    }

    /// Says that the device's memory is gone, with the content of every page that is there: the
    /// device was reset, fell off its bus, or reports errors that nobody can correct.
    ///
    /// When it returns the device has no translation of these pages any more, and each is marked: an
    /// access of the processor to one ends with `SIGBUS`, of a device with an error, until the program
    /// unmaps or discards it. Nothing goes to the device any more; other pages and devices are as
    /// before. Threads that wait for one of the pages are woken to their mark. A page that only this
    /// device backs ([`reserve_area`](Self::reserve_area)) is not marked: nobody else reaches it.
    ///
    /// Answers how many pages the device has lost. The process ends where a page cannot be marked, as its next
    /// access would read zeros: where the system has no `UFFDIO_POISON`, or no memory for a second.
    pub fn lose(&self) -> usize {
        let state = self.state();
        state.lose();
        self.engine().view.note_lost(state.index);
        if !self.engine().bring_everything_back_in_time(Some(state)) {
            crate::abort::abort(b"a device's memory is gone and its pages could not be marked");
        }
        state.lost_pages.load(Relaxed)
    }

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range reaches into a page. What stays is in the report.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        let pages = range.pages(self.page_size())?;
        Ok(self.engine().bring_back_on_request(pages, Some(self.index())))
    }

    /// Brings back all that is on this device. What stays is in the report.
    pub fn bring_all_back(&self) -> Migration {
        let engine = self.engine();
        engine.bring_back_on_request(engine.all_pages(), Some(self.index()))
    }
}

impl<M: Mm> Drop for Inner<M> {
    fn drop(&mut self) {
        let _urgent = Urgent::new();
        let engine = &self.space.engine;
        self.state.leaving.store(true, Release);
        self.state.ahead.stop();
        if let Some(evictor) = self.evictor.get_mut().take() {
            evictor.join();
        }
        if !engine.bring_everything_back_in_time(Some(&self.state)) {
            crate::abort::abort(b"a device was detached and its pages could not be brought back");
        }
        engine.forget(&self.state);
        // SAFETY: it is not used again.
        let registration = unsafe { ptr::read(&raw const *self.registration) };
        engine.end_mirror(registration);
        engine.view.note_device(self.state.index, 0);
        engine.devices.remove(self.state.index, &SignalsBlocked::new());
        // SAFETY: no page is there any more, none will come, and the device has no translation.
        unsafe { engine.mm.unmap_staging(self.state.staging()) };
    }
}

impl<D: Device, M: Mm> fmt::Debug for Attachment<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("index", &self.index()).finish_non_exhaustive()
    }
}
