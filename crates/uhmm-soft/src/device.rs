//! What a program holds of a device: it starts it, and runs kernels on it.

use core::{ffi::CStr, fmt, ops::Range};

use uhmm::{
    AddressSpace, Attachment, DeviceIndex, Migration, Shared,
    engine_memory::{EngineThread, EngineVec, on_engine_thread, thread},
    mm::{Mm, linux::Linux},
    units::{AddressRange, NumaNode, PageRange, PageSize, RangeError},
};

use crate::{
    arguments::Arguments,
    bus::Bus,
    errors::{AccessError, PlaceError, RunError, StartError},
    faults::Server,
    job::Job,
    launch::Begun,
    limits::{ENTRIES_PER_WORKER, MOST_WORKERS},
    memory::{Lent, OwnMemory},
    placement::Placement,
    queue::Queue,
    table::Table,
    worker::Worker,
};

/// How a device is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    memory: usize,
    workers: usize,
    keeps_pages: bool,
    kind: Kind,
    fault_buffer: Option<usize>,
}

/// What memory a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Pages move into it.
    Staging,
    /// Pages are copied into it.
    BehindBus(Bus),
    /// Pages are copied into it, and the CPU maps it.
    Coherent(Option<NumaNode>),
}

impl Options {
    /// A device with a memory of `memory` bytes, rounded down to pages, and one worker.
    pub const fn new(memory: usize) -> Self {
        Self { memory, workers: 1, keeps_pages: false, kind: Kind::Staging, fault_buffer: None }
    }

    /// Has pages stay on the device as a launch that is waited for returns, also where a system call on
    /// them would fail then.
    ///
    /// Without it they are brought back before [`Soft::launch`], [`Soft::run`] and [`Soft::scope`]
    /// return where faults of system calls are
    /// [not served](AddressSpace::serves_system_calls), so that the program can write to a file what
    /// was computed. That costs moving them to and fro.
    #[must_use]
    pub const fn keep_pages(self) -> Self {
        Self { keeps_pages: true, ..self }
    }

    /// Gives the device a memory of its own, behind a bus: pages are copied into it and out of it, as with
    /// a card. Without it pages move, and nothing is copied.
    #[must_use]
    pub const fn behind_bus(self, bus: Bus) -> Self {
        Self { kind: Kind::BehindBus(bus), ..self }
    }

    /// Gives the device coherent memory, which is set aside for it: pages are copied into it, and the program
    /// goes on to read and write them there with no fault. So nothing needs to be brought back after a launch
    /// either.
    #[must_use]
    pub const fn coherent(self) -> Self {
        Self { kind: Kind::Coherent(None), ..self }
    }

    /// As [`coherent`](Self::coherent), with memory of one NUMA node.
    #[must_use]
    pub const fn coherent_on(self, node: NumaNode) -> Self {
        Self { kind: Kind::Coherent(Some(node)), ..self }
    }

    /// Sets how many faults its workers can have in its buffer: 16 a worker where it is not set. A worker that
    /// finds no room waits for it.
    #[must_use]
    pub const fn fault_buffer(self, entries: usize) -> Self {
        Self { fault_buffer: Some(entries), ..self }
    }

    /// Sets how many threads run its kernels: each is a queue of its fault buffer.
    #[must_use]
    pub const fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }
}

/// A device in software, attached to an address space. Dropping it waits for the launches that are
/// queued, ends its workers and brings back what it holds.
///
/// # Kernels
/// A kernel runs once for each item of a launch, on the device's workers, several at a time and in any
/// order. It may borrow what the launch may, and reaches it as any code does; its arguments it reaches
/// by its worker alone. It should be short of everything else: a worker is a thread of the engine, with
/// a small stack. A kernel that panics ends the process, with a message: whoever waits for the launch
/// would wait for ever. For the same reason a kernel cannot launch others.
///
/// Launches run in the order of the calls: each begins when the one before is done.
pub struct Soft<M: Mm = Linux> {
    queue: Shared<Queue<M>>,
    workers: EngineVec<EngineThread>,
    /// The thread that serves what no worker waits for.
    driver: Option<EngineThread>,
    attachment: Attachment<Table<M>, M>,
    /// Whether pages come back as a launch that is waited for returns.
    brings_back: bool,
}

const NAME: &CStr = c"uhmm-soft";
const DRIVER: &CStr = c"uhmm-soft-fault";

impl<M: Mm> Soft<M> {
    /// Attaches a device to `space` and starts its workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(space: &AddressSpace<M>, options: Options) -> Result<Self, StartError> {
        let Options { memory, workers, keeps_pages, kind, fault_buffer } = options;
        if workers == 0 || workers > MOST_WORKERS {
            return Err(StartError::Workers { workers, most: MOST_WORKERS });
        }
        let page = space.page_size().bytes();
        let frames = memory / page;
        if frames == 0 {
            return Err(StartError::MemoryTooSmall { memory, page });
        }
        let engine_memory = space.engine_memory().clone();
        let attachment = match kind {
            Kind::Staging => space.attach(Table::new(space, workers, None)?, frames)?,
            Kind::Coherent(node) => {
                let table = Table::new(space, workers, None)?;
                match node {
                    Some(node) => space.attach_coherent_on(table, frames, node)?,
                    None => space.attach_coherent(table, frames)?,
                }
            }
            Kind::BehindBus(bus) => {
                let own = OwnMemory::map(frames, space.page_size(), bus)
                    .map_err(|errno| StartError::Mapping { memory, errno })?;
                let own = Shared::try_new(own, &engine_memory)?;
                let table = Table::new(space, workers, Some(own.clone()))?;
                space.attach_copying(table, Lent(own), frames)?
            }
        };
        let entries = fault_buffer.unwrap_or(workers * ENTRIES_PER_WORKER);
        let faults = attachment.fault_buffer(workers, entries)?;
        let queue = Shared::try_new(Queue::new(&engine_memory, faults), &engine_memory)?;
        let mut device = Self {
            queue,
            workers: EngineVec::try_with_capacity(&engine_memory, workers)?,
            driver: None,
            attachment,
            brings_back: !keeps_pages
                && !matches!(kind, Kind::Coherent(_))
                && !space.serves_system_calls(),
        };
        for number in 0..workers {
            let queue = device.queue.clone();
            let attachment = device.attachment.clone();
            queue.expect_worker();
            let worker = thread::spawn(&engine_memory, NAME, move |signals| {
                queue.serve(number, &attachment, signals);
            })?;
            device.workers.try_push(worker)?;
        }
        let queue = device.queue.clone();
        let attachment = device.attachment.clone();
        device.driver = Some(thread::spawn(&engine_memory, DRIVER, move |_| {
            Server::new(&attachment, &queue.placements, None).serve_until_end(&queue.faults);
        })?);
        match device.queue.wait_for_workers() {
            Ok(()) => Ok(device),
            Err(errno) => Err(StartError::InPlace { errno }),
        }
    }

    /// Runs `kernel` once for each of `items`, with views of `arguments`, and returns when all are
    /// done or one has failed.
    ///
    /// ```
    /// use uhmm_soft::{In, InOut, Worker};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = uhmm::AddressSpace::open()?;
    /// # let device = uhmm_soft::Soft::start(&space, uhmm_soft::Options::new(1 << 20))?;
    /// let (xs, mut ys) = (vec![2.0; 1000], [1.0; 1000]);
    /// let add = |worker: &mut Worker<'_>, item, (xs, ys): &(In<f64>, InOut<f64>)| {
    ///     let sum = xs.get(worker, item)? + ys.get(worker, item)?;
    ///     ys.set(worker, item, sum)
    /// };
    /// device.launch(0..1000, add, (&xs[..], &mut ys[..]))?;
    /// assert_eq!(ys, [3.0; 1000]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RunError`]: of the items that failed the first, and the rest is left. What was written stays.
    pub fn launch<A, K>(&self, items: Range<usize>, kernel: K, arguments: A) -> Result<(), RunError>
    where
        A: Arguments,
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError> + Sync,
    {
        self.launch_given(items, kernel, arguments, None)
    }

    /// As [`launch`](Self::launch); by address the kernel can reach the pages of `given` alone, where that is set.
    pub(crate) fn launch_given<A, K>(
        &self,
        items: Range<usize>,
        kernel: K,
        arguments: A,
        given: Option<EngineVec<PageRange>>,
    ) -> Result<(), RunError>
    where
        A: Arguments,
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError> + Sync,
    {
        // SAFETY: all that is borrowed is so until this returns, which it does after the launch is
        // done and dropped, on this thread.
        let begun = unsafe { self.begin(items, kernel, arguments, given) };
        if let Some(launch) = begun.launch() {
            // SAFETY: it is new, and lives until it was waited for.
            unsafe { self.queue.add(launch.pointer()) };
            self.queue.wait(launch);
        }
        let result = begun.finish().1;
        self.after_launches();
        result
    }

    /// Brings back what the device has, where the program could not use it in system calls otherwise.
    pub(crate) fn after_launches(&self) {
        if self.brings_back {
            // What stays for want of memory comes back when it is touched by an instruction.
            let _ = self.attachment.bring_all_back();
        }
    }

    /// Queues a launch of `kernel` over buffers that it takes, and returns at once.
    /// [`join`](Job::join) gives them back.
    ///
    /// A launch that cannot be made is an error of the job.
    pub fn start_job<A, K>(&self, items: Range<usize>, kernel: K, arguments: A) -> Job<A, M>
    where
        A: Arguments + 'static,
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError>
            + Send
            + Sync
            + 'static,
    {
        // SAFETY: nothing is borrowed for less than for ever, and the kernel is `Send`.
        let begun = unsafe { self.begin(items, kernel, arguments, None) };
        if let Some(launch) = begun.launch() {
            // SAFETY: it is new, and the job keeps it until it is done.
            unsafe { self.queue.add(launch.pointer()) };
        }
        Job::new(begun, self.queue.clone())
    }

    /// Runs `kernel` once for each of `items`, as [`launch`](Self::launch) does, without arguments:
    /// the kernel reaches memory by addresses.
    ///
    /// # Errors
    /// [`RunError`], as of [`launch`](Self::launch).
    ///
    /// # Safety
    /// Whatever the kernel reaches by address until this returns, it
    /// [may](Worker#safety-of-accesses-by-address).
    pub unsafe fn run<K>(&self, items: Range<usize>, kernel: K) -> Result<(), RunError>
    where
        K: Fn(&mut Worker<'_, M>, usize) -> Result<(), AccessError> + Send + Sync + 'static,
    {
        self.launch(items, move |worker, item, &()| kernel(worker, item), ())
    }

    /// Makes a launch, which is in no queue yet.
    ///
    /// # Safety
    /// What the kernel and the arguments borrow stays borrowed until the launch is done, and until
    /// its last owner is dropped. Owners are dropped on other threads only if the kernel is `Send`.
    pub(crate) unsafe fn begin<A, K>(
        &self,
        items: Range<usize>,
        kernel: K,
        arguments: A,
        given: Option<EngineVec<PageRange>>,
    ) -> Begun<A, M>
    where
        A: Arguments,
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError> + Sync,
    {
        if on_engine_thread() {
            return Begun::Refused { error: RunError::FromKernel, arguments };
        }
        // What the program unmapped or moved before, the workers have no translation of.
        self.attachment.settle();
        let (memory, workers) = (self.attachment.engine_memory(), self.workers.len());
        // SAFETY: the caller's promise.
        unsafe { Begun::new(memory, workers, items, kernel, arguments, given) }
    }

    pub(crate) const fn queue(&self) -> &Shared<Queue<M>> {
        &self.queue
    }

    /// Says where the pages of `range` are to be as the device works on them, from now on and
    /// whatever is mapped there. Nothing moves; pages that are in the device's memory stay there
    /// until they are brought back.
    ///
    /// # Errors
    /// [`PlaceError`] where the range is not one of whole pages, or cannot be noted.
    pub fn place(&self, range: AddressRange, placement: Placement) -> Result<(), PlaceError> {
        let pages = range.pages(self.page_size())?;
        Ok(self.queue.placements.set(pages, placement)?)
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment.migrate(range)
    }

    /// Moves `range` to the device, what cannot be written too: see
    /// [`Attachment::migrate_undisturbed`].
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    ///
    /// # Safety
    /// As of [`Attachment::migrate_undisturbed`].
    pub unsafe fn migrate_undisturbed(&self, range: AddressRange) -> Result<Migration, RangeError> {
        // SAFETY: the caller's promise.
        unsafe { self.attachment.migrate_undisturbed(range) }
    }

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment.bring_back(range)
    }

    /// Brings back all that is on this device. What stays is in the report.
    pub fn bring_all_back(&self) -> Migration {
        self.attachment.bring_all_back()
    }

    /// Has the device fail for good, and its memory with it, as [`Attachment::lose`] says; answers how
    /// many pages it has lost. From then on a launch fails where it needs a page that the device does not
    /// map in place.
    pub fn lose(&self) -> usize {
        self.attachment.lose()
    }

    /// Has the `nth` transfer to or from the device's own memory from now on fail, the next being the
    /// first: for tests of what a program, and the core, make of it. Does nothing to a device whose
    /// memory is not [behind a bus](Options::behind_bus).
    pub fn fail_transfer(&self, nth: usize) {
        if let Some(own) = &self.attachment.device().own {
            own.fail(nth);
        }
    }

    /// How many transfers to and from the device's own memory there were, those that failed included.
    pub fn transfers(&self) -> usize {
        self.attachment.device().own.as_ref().map_or(0, |own| own.transfers())
    }

    /// The size of its memory in bytes.
    pub fn memory(&self) -> usize {
        self.page_size().bytes_in(self.attachment.frames())
    }

    /// How much of its memory holds pages, in bytes.
    pub fn memory_used(&self) -> usize {
        self.page_size().bytes_in(self.attachment.frames_used())
    }

    /// Its place among the devices of the address space.
    pub fn index(&self) -> DeviceIndex {
        self.attachment.index()
    }

    pub(crate) fn attachment(&self) -> &Attachment<Table<M>, M> {
        &self.attachment
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.attachment.page_size()
    }
}

impl<M: Mm> Drop for Soft<M> {
    fn drop(&mut self) {
        self.queue.end();
        self.workers.clear();
        self.queue.faults.end();
        self.driver = None;
    }
}

impl<M: Mm> fmt::Debug for Soft<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Soft")
            .field("index", &self.index())
            .field("memory", &self.memory())
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}
