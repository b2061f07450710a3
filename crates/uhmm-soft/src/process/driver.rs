//! What the program has of a device process: a device that is attached to the address space, launches and is detached.

use core::{
    ops::Range,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};
use std::sync::{Mutex, PoisonError};

use uhmm::{
    AddressSpace, Attachment, DeviceIndex, Migration, Shared,
    engine_memory::{EngineMemory, EngineThread, EngineVec, on_engine_thread, thread},
    mm::{Mm, linux::Linux},
    ring::{Limits, Order, Receiver},
    sync::{Lock, SignalsBlocked, WaitWord},
    units::{AddressRange, PageRange, PageSize, RangeError},
};

use super::{
    link::Link,
    remote::{Remote, RemoteMemory},
    server::{Launch, Server, Work},
};
use crate::{
    bus::Bus,
    errors::{KernelRunError, RunError, StartError},
    kernels::ARGUMENTS,
    limits::{ENTRIES_PER_WORKER, MOST_WORKERS},
};

#[cfg(fuzzing)]
pub(super) mod fuzzing;

/// A device whose process is ready. Dropping it brings back what the device holds, and has the process end.
///
/// One launch runs at a time. The device has pages in its own memory only: what cannot go there it
/// cannot reach.
pub(crate) struct Driver<M: Mm = Linux> {
    /// Ends first.
    server: Option<EngineThread>,
    attachment: Option<Attachment<Remote, M>>,
    link: Shared<Link>,
    work: Shared<Work>,
    workers: usize,
    /// Whether pages come back as a launch returns.
    brings_back: bool,
    one: Mutex<()>,
}

impl<M: Mm> Driver<M> {
    /// Attaches the device, whose memory is behind `bus`, and whose pages come back as a launch returns unless it
    /// `keeps_pages`. What it asks for is served once it [is](Self::serve).
    ///
    /// # Errors
    /// [`StartError`]; nothing is left attached then.
    pub(super) fn attach(
        space: &AddressSpace<M>,
        link: Shared<Link>,
        reports: Receiver<'static>,
        limits: Limits,
        bus: Bus,
        keeps_pages: bool,
    ) -> Result<(Self, Server<M>), StartError> {
        let work = Work {
            launch: Lock::new(None),
            done: WaitWord::new(0),
            ending: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
        };
        let work = Shared::try_new(work, space.engine_memory())?;
        let table = Remote::new(space, link.clone())?;
        let memory = RemoteMemory::new(link.clone(), bus);
        let attachment = space.attach_copying(table, memory, limits.frames)?;
        let server = Server {
            attachment: attachment.clone(),
            reports,
            link: link.clone(),
            work: work.clone(),
            limits,
        };
        let brings_back = !keeps_pages && !space.serves_system_calls();
        let (attachment, one) = (Some(attachment), Mutex::new(()));
        let workers = limits.workers;
        let driver = Self { server: None, attachment, link, work, workers, brings_back, one };
        Ok((driver, server))
    }

    /// Has a thread serve what the device asks for.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn serve(&mut self, server: Server<M>) -> Result<(), StartError> {
        let room = self.workers * ENTRIES_PER_WORKER;
        let faults = self.attachment().fault_buffer(self.workers, room)?;
        let serve = move |_: &SignalsBlocked| server.serve(&faults, room);
        self.server = Some(thread::spawn(self.engine_memory(), c"uhmm-device", serve)?);
        Ok(())
    }

    pub(super) fn attachment(&self) -> &Attachment<Remote, M> {
        let Some(attachment) = &self.attachment else { unreachable!("until it is dropped") };
        attachment
    }

    /// Runs a kernel, which there is, once for each of `items`. It gets pages of `given`, sorted and apart, and no
    /// more ranges than can be told.
    ///
    /// # Errors
    /// [`KernelRunError`]. What was written stays.
    pub(crate) fn run(
        &self,
        kernel: usize,
        items: Range<usize>,
        arguments: [u64; ARGUMENTS],
        given: EngineVec<PageRange>,
    ) -> Result<(), KernelRunError> {
        if on_engine_thread() {
            return Err(RunError::FromKernel.into());
        }
        let given = Shared::try_new(given, self.engine_memory())?;
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let times = self.work.done.word().load(Acquire);
        self.begin(kernel, items, arguments, given);
        self.work.done.wait_while(times);
        self.end()
    }

    /// Has all workers begin.
    fn begin(
        &self,
        kernel: usize,
        items: Range<usize>,
        arguments: [u64; ARGUMENTS],
        given: Shared<EngineVec<PageRange>>,
    ) {
        // What the program unmapped or moved before, the device has no translation of.
        self.attachment().settle();
        self.tell_launch(&given);
        let (first, count) = (items.start as u64, items.len() as u64);
        let launch = Launch {
            given,
            items,
            working: u64::MAX >> (MOST_WORKERS - self.workers),
            failure: None,
            // Unless it is done.
            result: Err(KernelRunError::Lost),
        };
        *self.work.launch.lock(&SignalsBlocked::new()) = Some(launch);
        let order = Order::Launch { kernel, first, count, arguments };
        // Where nobody hears it the server finds the process gone, and ends the launch.
        (0..self.workers).for_each(|worker| self.link.order(worker, &order));
    }

    /// What became of the launch that all workers have left.
    fn end(&self) -> Result<(), KernelRunError> {
        let launch = self.work.launch.lock(&SignalsBlocked::new()).take();
        if self.brings_back {
            // What stays for want of memory comes back when it is touched by an instruction.
            let _ = self.bring_all_back();
        }
        launch.map_or(Err(KernelRunError::Lost), |launch| launch.result)
    }

    /// Puts where all workers find it what belongs to a launch, while none is under way.
    fn tell_launch(&self, given: &[PageRange]) {
        let shared = self.link.mapping.shared();
        for (words, pages) in shared.given.iter().zip(given) {
            words[0].store(pages.start().0 as u64, Relaxed);
            words[1].store(pages.end().0 as u64, Relaxed);
        }
        let count = u32::try_from(given.len()).unwrap_or(0);
        shared.given_count.store(count, Relaxed);
        shared.launched_after.store(self.link.commands_sent(), Relaxed);
        shared.taken.store(0, Relaxed);
        shared.failed.store(0, SeqCst);
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub(crate) fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment().migrate(range)
    }

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub(crate) fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment().bring_back(range)
    }

    pub(crate) fn bring_all_back(&self) -> Migration {
        self.attachment().bring_all_back()
    }

    /// The size of its memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.page_size().bytes_in(self.attachment().frames())
    }

    /// How much of its memory holds pages, in bytes.
    pub(crate) fn memory_used(&self) -> usize {
        self.page_size().bytes_in(self.attachment().frames_used())
    }

    pub(crate) fn index(&self) -> DeviceIndex {
        self.attachment().index()
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.attachment().page_size()
    }

    pub(crate) fn engine_memory(&self) -> &EngineMemory {
        self.attachment().engine_memory()
    }

    /// Whether the process is gone, by itself or as it did not answer.
    pub(crate) fn is_lost(&self) -> bool {
        !self.link.lives()
    }

    /// How many pages were marked as the process was found gone.
    pub(crate) fn lost_pages(&self) -> usize {
        self.work.lost.load(Acquire)
    }
}

impl<M: Mm> Drop for Driver<M> {
    fn drop(&mut self) {
        self.work.ending.store(true, Release);
        self.server = None;
        // Detached, while the process still answers.
        self.attachment = None;
        self.link.stop();
    }
}
