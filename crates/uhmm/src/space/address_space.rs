//! The open address space: what a program and a driver do with it.

use core::{fmt, mem::ManuallyDrop};

#[cfg(not(any(shuttle, miri)))]
use super::on_signal::{self, SignalSet};
use super::{
    AdoptError, Adopted, CloseError, MakeAnonymousError, MirrorError, OpenError, Options,
    claim::Claim,
};
use crate::{
    block::Residence,
    counters::CounterValues,
    device::Kind,
    driver::{CopyingMemory, Device, DeviceIndex, InvalidationKind, PageTable},
    engine::{Engine, SpaceRef},
    engine_box_as,
    engine_memory::{EngineBox, EngineMemory, EngineThread, EngineVec, Urgent},
    handles::{AttachError, Attachment, Mirror, RecordError, Recording},
    in_place::Refuser,
    migrate::ReturnCause,
    mm::{Errno, Look, Mm, linux::Linux},
    report::Migration,
    sync::{Patience, SignalsBlocked},
    units::{AddressRange, NumaNode, PageNumber, PageRange, PageSize, RangeError},
};

/// Where a page's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageLocation {
    /// In system memory, or nowhere yet.
    System,
    /// On a device. Coherent memory of one the CPU maps all the same.
    Device(DeviceIndex),
    /// Lost. An ordinary user is told that it is in system memory, as the system does not tell such a
    /// one the mark of a lost page from a page in swap.
    Poisoned,
}

/// The memory of this process, as its CPU threads and devices see it.
///
/// There is one a process. Dropping it closes it, and ends the process where that fails, rather
/// than leave pages behind that nobody can bring back; [`close`](Self::close) says why it fails.
pub struct AddressSpace<M: Mm = Linux> {
    /// Not dropped by the child of a fork.
    pub(super) space: ManuallyDrop<SpaceRef<M>>,
    /// Likewise.
    pub(super) handlers: ManuallyDrop<EngineVec<EngineThread>>,
    /// What has all come back.
    #[cfg(not(any(shuttle, miri)))]
    pub(super) signals: SignalSet,
    pub(super) claim: Option<Claim>,
    pub(super) closed: bool,
}

impl AddressSpace {
    /// Opens this process's address space with the options that are by default. What its children
    /// have of it is said at [`Options::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        Options::new().open()
    }
}

impl<M: Mm> AddressSpace<M> {
    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.engine().mm.page_size()
    }

    /// The page after the last that a program can have.
    pub fn page_limit(&self) -> PageNumber {
        self.engine().mm.page_limit()
    }

    /// Whether a system call on memory that is away has it come back, as an instruction does. Where
    /// only faults of user mode are served, as for an ordinary user of most systems, it fails with
    /// `EFAULT`: [`bring_back`](Self::bring_back) the memory first.
    pub fn serves_system_calls(&self) -> bool {
        self.engine().mm.serves_system_calls()
    }

    /// The engine's memory, for what a device's fault path touches.
    pub fn engine_memory(&self) -> &EngineMemory {
        &self.engine().memory
    }

    /// Lets devices take the anonymous memory in `range`, private or shared, whole pages: what is mapped there
    /// now and what will be. Nothing moves until a device wants it.
    ///
    /// # Errors
    /// [`AdoptError`], where a part of the range is not mapped, cannot migrate, or belongs to
    /// another userfaultfd or to the engine; nothing is adopted then.
    pub fn adopt(&self, range: AddressRange) -> Result<Adopted, AdoptError> {
        self.engine().adopt(range)
    }

    /// Has private mappings of files that lie in `range`, and of which every page was written, become
    /// anonymous memory with the same content, which can be adopted and migrates as any. Answers how many
    /// pages that are. For the process's only thread beside the engine's.
    ///
    /// Pages that were not written show the file, and stay with it: so does an area that has some, or lies in
    /// `range` in part. A transfer by the system into the range that is under way (`O_DIRECT`, `io_uring`) is to
    /// be waited for before: it would go on into the old page. What became anonymous has nothing to do with the file any more: where the program
    /// discards it (`MADV_DONTNEED`) it finds zeros, not what the file has.
    ///
    /// # Errors
    /// [`MakeAnonymousError`]; [`Disturbed`](MakeAnonymousError::Disturbed) where there are other threads.
    pub fn make_anonymous(&self, range: AddressRange) -> Result<usize, MakeAnonymousError> {
        self.engine().make_anonymous(range, false)
    }

    /// As [`make_anonymous`](Self::make_anonymous), where there are other threads.
    ///
    /// # Errors
    /// As of [`make_anonymous`](Self::make_anonymous).
    ///
    /// # Safety
    /// Until it returns nobody writes to `range` (what was written would be lost), unmaps pages of it, maps
    /// over them, moves, discards, locks or protects them, and nobody forks by the bare system call.
    pub unsafe fn make_anonymous_undisturbed(
        &self,
        range: AddressRange,
    ) -> Result<usize, MakeAnonymousError> {
        self.engine().make_anonymous(range, true)
    }

    /// Lets devices take all anonymous memory, private and shared, that this process has now: heaps, and what it
    /// mapped itself. Left out, with the cause reported, is what never migrates: stacks, control
    /// blocks of threads, data of loaded objects, the engine's own, and what is of another kind.
    ///
    /// Memory mapped later is not adopted: call again. Stacks that the program provides itself, in memory
    /// that is adopted here, are to be [kept](Self::keep), but for those of the calling thread; threads on
    /// such must have been started before.
    ///
    /// # Errors
    /// [`AdoptError`] where the areas cannot be looked up or noted.
    pub fn adopt_everything(&self) -> Result<Adopted, AdoptError> {
        self.engine().adopt_everything()
    }

    /// Takes an adoption back: no page of `range` goes to a device any more. What is away stays
    /// until it is touched or [brought back](Self::bring_back).
    ///
    /// # Errors
    /// [`AdoptError`] where the range is not one of whole pages or cannot be noted.
    pub fn release(&self, range: AddressRange) -> Result<(), AdoptError> {
        let pages = range.pages(self.page_size())?;
        Ok(self.engine().release(pages)?)
    }

    /// Has `range`, whole pages, stay in system memory from now on, whatever is adopted, before or later:
    /// until it is unmapped, and wherever it is moved. What of it is away comes back, and what could not
    /// is in the report; call again then. All of it is made present, and should not be discarded.
    ///
    /// For stacks that the program provides itself in memory that is adopted, of threads
    /// (`pthread_attr_setstack`), coroutines and signal handlers (`sigaltstack`), of which the system
    /// tells nobody. A thread must not call the engine on a stack that is away; and where faults of
    /// system calls are not served, a signal whose handler is to run on one ends the process with
    /// SIGSEGV. The stacks of the thread that adopts are found by themselves, and so are those that are
    /// mapped as stacks (`MAP_STACK`), as glibc's and those of Rust's threads are.
    ///
    /// # Errors
    /// [`AdoptError`] where the range is not one of whole pages or cannot be noted.
    pub fn keep(&self, range: AddressRange) -> Result<Migration, AdoptError> {
        self.engine().keep(range)
    }

    /// Brings back whatever of `range` is away, on any device.
    ///
    /// # Errors
    /// [`RangeError`] where the range reaches into a page. Pages that could not come back are in
    /// the report.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        Ok(self.engine().bring_back_on_request(range.pages(self.page_size())?, None))
    }

    /// Brings back all that is away, on any device: for a debugger, which sees holes where pages are
    /// away, or before a core dump. Devices may take pages again at once. Pages that could not come
    /// back are in the report.
    pub fn bring_all_back(&self) -> Migration {
        self.engine().bring_back_on_request(self.engine().all_pages(), None)
    }

    /// What a device of this process ends accesses in place with, as it invalidates.
    pub fn refuser(&self) -> Refuser<M> {
        Refuser::new(&self.space)
    }

    /// Subscribes a device without memory of its own to `range`, whole pages of any kind of memory,
    /// mapped or not. Nothing is watched or made present until the device faults.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn mirror<T: PageTable>(
        &self,
        range: AddressRange,
        table: T,
    ) -> Result<Mirror<T, M>, MirrorError> {
        let pages = range.pages(self.page_size())?;
        if pages.end() > self.page_limit() {
            return Err(MirrorError::BeyondLimit { range });
        }
        Ok(Mirror::new(&self.space, pages, table)?)
    }

    /// All addresses that a program can have: a range for a mirror of everything.
    ///
    /// # Panics
    /// Never: there are some.
    pub fn everything(&self) -> AddressRange {
        let end = self.page_size().address_of(self.page_limit());
        AddressRange::new(0, end).expect("a program can have addresses")
    }

    /// Tells that the program has changed what may be done with `range` (`mprotect`, whoever called
    /// it), which the system tells nobody. To be called after the change.
    ///
    /// When it returns all translations of `range` have ended, with the kind
    /// [`Protection`](crate::InvalidationKind::Protection): in place, at peers and in the devices' own
    /// memory. The next fault of a device finds what is permitted then. A page that a device holds in
    /// an area that cannot be written stays there and can be read there; where nothing is permitted it
    /// stays there until something is. The content is kept in any case.
    ///
    /// Without the call a device goes on as before with the translations that it has, until the next
    /// commit of a page of the area: of a migration or of a range fault, by any device, that does not
    /// find all it asked for translated already. What a commit enters is what is permitted then, and
    /// where that is less than before, translations of the whole area end first. A device that goes
    /// through the CPU's page tables in place is refused by those at once.
    ///
    /// # Errors
    /// [`AdoptError`] where the range is not one of whole pages, or engine memory is exhausted; no
    /// translation has ended then.
    pub fn protection_changed(&self, range: AddressRange) -> Result<(), AdoptError> {
        let pages = range.pages(self.page_size())?;
        let engine = self.engine();
        engine.gate.settle();
        let signals = SignalsBlocked::new();
        engine.protection_changed(pages, &mut engine.visit(&signals)?);
        Ok(())
    }

    /// Attaches a device, with a memory of `frames` pages.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach<D: Device>(
        &self,
        device: D,
        frames: usize,
    ) -> Result<Attachment<D, M>, AttachError> {
        let device = EngineBox::try_new(self.engine_memory(), device)?;
        Attachment::new(&self.space, device, frames, Kind::Staging)
    }

    /// Attaches a device with a memory of its own, of `frames` frames as large as a page, which pages
    /// are copied into and out of.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach_copying<D: Device, C: CopyingMemory>(
        &self,
        device: D,
        memory: C,
        frames: usize,
    ) -> Result<Attachment<D, M>, AttachError> {
        let device = EngineBox::try_new(self.engine_memory(), device)?;
        let memory = EngineBox::try_new(self.engine_memory(), memory)?;
        let memory = engine_box_as!(memory, dyn CopyingMemory);
        Attachment::new(&self.space, device, frames, Kind::Copying(memory))
    }

    /// Attaches a device with coherent memory of `frames` frames: memory that the CPU maps too.
    ///
    /// The memory is set aside: all frames are there when this returns, as pages of main memory, and stay until the
    /// device is detached, but for those that the program takes along. They are pages as any are, so the system
    /// may swap them out. Attaching takes as long as writing so much memory does.
    ///
    /// A page that goes there is copied into a frame, and the CPU maps the frame in its place. So threads
    /// of the program read and write it with no fault, while the device has it
    /// ([`Translation::Coherent`](crate::Translation::Coherent)). What the program does to its memory it
    /// does to such a page as to any: unmapped or discarded it is gone and its frame free, moved it takes
    /// its frame along, and after a fork it is shared until one of both writes, and counts as system
    /// memory. What the program locks, pins or protects from writing while it is there stays there. A frame
    /// whose page is gone or the program's for good gets another page when it is needed next; where the system
    /// has none then, pages stay with [`StayCause::NoMemory`](crate::StayCause::NoMemory).
    ///
    /// What the device has alone ([`Attachment::make_exclusive`]) no thread can map: those pages are away
    /// as on any device. So is what the CPU could not be given, and comes back as it is touched.
    ///
    /// # Errors
    /// [`AttachError`]; [`AttachError::SetAside`] where the system has not so much memory. Nothing is left of
    /// it then.
    pub fn attach_coherent<D: Device>(
        &self,
        device: D,
        frames: usize,
    ) -> Result<Attachment<D, M>, AttachError> {
        let device = EngineBox::try_new(self.engine_memory(), device)?;
        Attachment::new(&self.space, device, frames, Kind::Coherent(None))
    }

    /// As [`attach_coherent`](Self::attach_coherent), with frames that are memory of one NUMA node: that of the
    /// device's own memory, where the system has it as a node, or the one that lies nearest to the device.
    ///
    /// Pages that go there are copied to that node, and those that come back are of any node again.
    ///
    /// # Errors
    /// As of [`attach_coherent`](Self::attach_coherent); [`AttachError::Node`] where the process can have no memory
    /// of the node.
    pub fn attach_coherent_on<D: Device>(
        &self,
        device: D,
        frames: usize,
        node: NumaNode,
    ) -> Result<Attachment<D, M>, AttachError> {
        let device = EngineBox::try_new(self.engine_memory(), device)?;
        Attachment::new(&self.space, device, frames, Kind::Coherent(Some(node)))
    }

    /// Where the content of the page at `address` is now.
    pub fn locate(&self, address: usize) -> PageLocation {
        let _urgent = Urgent::new();
        let engine = self.engine();
        engine.gate.settle();
        let page = engine.mm.page_size().page_of(address);
        let Some(block) = engine.blocks.get(page.block()) else { return PageLocation::System };
        let signals = SignalsBlocked::new();
        let Ok(mut visit) = engine.visit(&signals) else { return PageLocation::System };
        let mut held = visit.lock(block, page.block());
        match held.state().pages.residence(page.in_block()) {
            Residence::System => {
                let mut look = [Look::Hole];
                let looked = engine.mm.look(page, &mut look).is_ok();
                let marked = looked && look == [Look::Poisoned];
                if marked { PageLocation::Poisoned } else { PageLocation::System }
            }
            Residence::Away { device, .. } | Residence::Mapped { device, .. } => {
                PageLocation::Device(device)
            }
        }
    }

    /// What happened so far. Takes no lock.
    pub fn counters(&self) -> CounterValues {
        self.engine().counters.values()
    }

    /// Whether other processes can see the state of this address space, as an
    /// [`Observer`](crate::Observer) reads it. Not where the system gives no file for it.
    pub fn is_shown(&self) -> bool {
        self.engine().view.is_shown()
    }

    /// Records events from now on, until the answer is dropped or stopped: up to `events` of them, or
    /// some more, are kept until they are taken. Each takes 40 bytes of engine memory once it was used.
    ///
    /// # Errors
    /// [`RecordError`], where events are recorded already or there is no memory.
    pub fn record(&self, events: usize) -> Result<Recording<M>, RecordError> {
        Recording::start(&self.space, events)
    }

    /// Brings everything back, releases every area, and ends the engine's threads. Devices that
    /// are still attached get errors from then on.
    ///
    /// # Errors
    /// [`CloseError`], with the address space in it: what could be brought back is, and closing
    /// again goes on with the rest.
    pub fn close(mut self) -> Result<(), CloseError<M>> {
        match self.shut() {
            Ok(()) => Ok(()),
            Err(Failure::Stayed(report)) => Err(CloseError::Stayed { space: self, report }),
            Err(Failure::Release(pages, errno)) => {
                Err(CloseError::Release { space: self, pages, errno })
            }
        }
    }

    fn engine(&self) -> &Engine<M> {
        &self.space.engine
    }

    fn shut(&mut self) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let _urgent = Urgent::new();
        let engine = self.engine();
        {
            let signals = SignalsBlocked::new();
            engine.gate.alone(&signals).closing = true;
        }
        let mut report = Migration::new(&engine.memory);
        engine.bring_everything_back(None, ReturnCause::Request, &mut report);
        if report.stayed() > 0 {
            return Err(Failure::Stayed(report));
        }
        {
            let everything = engine.all_pages();
            let signals = SignalsBlocked::new();
            let Ok(mut visit) = engine.visit(&signals) else {
                return Err(Failure::Release(everything, Errno(libc::ENOMEM)));
            };
            engine.end_in_place(everything, InvalidationKind::Release, &mut visit);
        }
        #[cfg(not(any(shuttle, miri)))]
        if self.claim.is_some() {
            super::fork::unwatch();
        }
        engine.untrap_all().map_err(|(pages, errno)| Failure::Release(pages, errno))?;
        engine.end_all_aliases(&SignalsBlocked::new());
        // Before the handlers end: who forks may hold locks of libc that a thread's end needs.
        engine.mm.stop_telling_forks();
        engine.stop();
        #[cfg(not(any(shuttle, miri)))]
        if !self.signals.is_empty() {
            on_signal::stop(self.signals);
        }
        self.handlers.clear();
        self.engine().view.close();
        self.closed = true;
        self.claim = None;
        Ok(())
    }
}

enum Failure {
    Stayed(Migration),
    Release(PageRange, Errno),
}

impl<M: Mm> Drop for AddressSpace<M> {
    fn drop(&mut self) {
        if self.claim.as_ref().is_some_and(Claim::is_inherited) {
            // The engine is the parent's: its memory and its threads are not here.
            core::mem::forget(self.claim.take());
            return;
        }
        let mut patience = Patience::new();
        while self.shut().is_err() {
            if !patience.wait() {
                crate::abort::abort(
                    b"the address space was dropped and pages could not be brought back",
                );
            }
        }
        // SAFETY: neither is used again.
        unsafe {
            ManuallyDrop::drop(&mut self.handlers);
            ManuallyDrop::drop(&mut self.space);
        }
    }
}

impl<M: Mm> fmt::Debug for AddressSpace<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").finish_non_exhaustive()
    }
}
