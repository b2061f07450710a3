//! What a program holds of a device: it starts it, and runs kernels on it.
//!
//! A launch is a kernel and a range of items. It lies in engine memory, the workers take items off
//! it in small batches, and the thread that launched waits until all are done.

use core::{
    ffi::CStr,
    fmt,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use thiserror::Error;
use uhmm::{
    AddressSpace, AttachError, Attachment, DeviceIndex, Migration, Shared,
    engine_memory::{EngineBox, EngineMemoryError, EngineThread, EngineVec, SpawnError, thread},
    mm::{Errno, Mm, linux::Linux},
    sync::{Lock, SignalsBlocked, WaitWord},
    units::{AddressRange, PageSize, RangeError},
};

use crate::{
    placement::{Placement, Placements},
    table::Table,
    worker::{AccessError, Worker},
};

/// How a device is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    memory: usize,
    workers: usize,
}

impl Options {
    /// A device with a memory of `memory` bytes, rounded down to pages, and one worker.
    pub const fn new(memory: usize) -> Self {
        Self { memory, workers: 1 }
    }

    /// Sets how many threads run its kernels.
    #[must_use]
    pub const fn workers(self, workers: usize) -> Self {
        Self { memory: self.memory, workers }
    }
}

/// Why a device could not be started.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// a memory that does not hold a page
    #[error("a memory of {memory} bytes does not hold a page of {page} bytes: give it more")]
    MemoryTooSmall {
        /// Bytes asked for.
        memory: usize,
        /// The size of a page in bytes.
        page: usize,
    },
    /// no workers, or too many
    #[error("a device cannot have {workers} workers: give it 1 to {most}")]
    Workers {
        /// Workers asked for.
        workers: usize,
        /// The most that there can be.
        most: usize,
    },
    /// It cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A worker cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
    /// a worker cannot be given access to memory in place
    #[error("a worker cannot reach memory in place ({errno}): start fewer workers")]
    InPlace {
        /// The system's error.
        errno: Errno,
    },
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Why a launch failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RunError {
    /// an item's access failed, and the items not begun were left
    #[error("item {item}: {error}")]
    Item {
        /// The first item that failed.
        item: usize,
        /// Why.
        error: AccessError,
    },
    /// No engine memory for the kernel.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Why a placement could not be noted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PlaceError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// No engine memory to note it.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// The most workers that one device can have.
const MOST_WORKERS: usize = 64;

/// How many items a worker takes at a time.
const BATCH: usize = 64;

/// A device in software, attached to an address space. Dropping it ends its workers and brings back
/// what it holds.
pub struct Soft<M: Mm = Linux> {
    queue: Shared<Queue<M>>,
    workers: EngineVec<EngineThread>,
    attachment: Attachment<Table<M>, M>,
    /// Held by the thread that launches, so that launches come one after the other.
    turn: std::sync::Mutex<()>,
}

/// What the workers share with the program.
struct Queue<M: Mm> {
    /// Counts launches; the workers wait for it to change.
    launches: WaitWord,
    /// Workers that have not finished the launch.
    busy: WaitWord,
    ending: AtomicBool,
    launch: Lock<Option<NonNull<dyn Launch<M>>>>,
    placements: Placements,
    /// Why a worker could not begin, if one could not.
    unable: Lock<Option<Errno>>,
}

// SAFETY: the pointer is to a launch in engine memory that lives while it is in the queue, and a
// launch is shared between threads by its trait.
unsafe impl<M: Mm> Send for Queue<M> {}
// SAFETY: as above; the pointer is reached through the lock.
unsafe impl<M: Mm> Sync for Queue<M> {}

trait Launch<M: Mm>: Send + Sync {
    fn work(&self, worker: &mut Worker<'_, M>);
}

struct KernelLaunch<K> {
    kernel: K,
    next: AtomicUsize,
    end: usize,
    failed: AtomicBool,
    failure: Lock<Option<(usize, AccessError)>>,
}

impl<M, K> Launch<M> for KernelLaunch<K>
where
    M: Mm,
    K: Fn(&mut Worker<'_, M>, usize) -> Result<(), AccessError> + Send + Sync,
{
    fn work(&self, worker: &mut Worker<'_, M>) {
        while !self.failed.load(Relaxed) {
            let first = self.next.fetch_add(BATCH, Relaxed);
            if first >= self.end {
                return;
            }
            for item in first..self.end.min(first + BATCH) {
                if let Err(error) = (self.kernel)(worker, item) {
                    self.failed.store(true, Relaxed);
                    let signals = SignalsBlocked::new();
                    let mut failure = self.failure.lock(&signals);
                    if failure.is_none_or(|(other, _)| item < other) {
                        *failure = Some((item, error));
                    }
                    return;
                }
            }
        }
    }
}

impl<M: Mm> Queue<M> {
    /// The work of a worker's thread.
    fn serve(&self, number: usize, attachment: &Attachment<Table<M>, M>, signals: &SignalsBlocked) {
        let in_place = match attachment.in_place() {
            Ok(in_place) => in_place,
            Err(errno) => {
                *self.unable.lock(signals) = Some(errno);
                return self.finished();
            }
        };
        attachment.device().name_accessor(number, in_place.number());
        self.finished();
        let mut seen = 0;
        loop {
            seen = self.launches.wait_while(seen);
            if self.ending.load(Acquire) {
                return;
            }
            let launch = *self.launch.lock(signals);
            if let Some(launch) = launch {
                // SAFETY: each worker's number is its own, and it opens its lane once at a time.
                let lane = unsafe { attachment.device().in_flight.open(number) };
                let mut worker = Worker::new(attachment, &self.placements, lane, &in_place);
                // SAFETY: the launch lives until all workers have finished it.
                unsafe { launch.as_ref() }.work(&mut worker);
            }
            self.finished();
        }
    }

    /// One worker has finished what all are to do.
    fn finished(&self) {
        if self.busy.word().fetch_sub(1, Release) == 1 {
            self.busy.wake_all();
        }
    }

    /// Waits until all workers have finished.
    fn wait_for_workers(&self) {
        loop {
            let busy = self.busy.word().load(Acquire);
            if busy == 0 {
                return;
            }
            self.busy.wait(busy);
        }
    }
}

const NAME: &CStr = c"uhmm-soft";

impl<M: Mm> Soft<M> {
    /// Attaches a device to `space` and starts its workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(space: &AddressSpace<M>, options: Options) -> Result<Self, StartError> {
        let Options { memory, workers } = options;
        if workers == 0 || workers > MOST_WORKERS {
            return Err(StartError::Workers { workers, most: MOST_WORKERS });
        }
        let page = space.page_size().bytes();
        let frames = memory / page;
        if frames == 0 {
            return Err(StartError::MemoryTooSmall { memory, page });
        }
        let engine_memory = space.engine_memory().clone();
        let attachment = space.attach(Table::new(space, workers)?, frames)?;
        let queue = Queue {
            launches: WaitWord::new(0),
            busy: WaitWord::new(0),
            ending: AtomicBool::new(false),
            launch: Lock::new(None),
            placements: Placements::new(&engine_memory),
            unable: Lock::new(None),
        };
        let queue = Shared::try_new(queue, &engine_memory)?;
        let mut device = Self {
            queue,
            workers: EngineVec::try_with_capacity(&engine_memory, workers)?,
            attachment,
            turn: std::sync::Mutex::new(()),
        };
        for number in 0..workers {
            let queue = device.queue.clone();
            let attachment = device.attachment.clone();
            queue.busy.word().fetch_add(1, Release);
            let worker = thread::spawn(&engine_memory, NAME, move |signals| {
                queue.serve(number, &attachment, signals);
            })?;
            device.workers.try_push(worker)?;
        }
        device.queue.wait_for_workers();
        let unable = *device.queue.unable.lock(&SignalsBlocked::new());
        unable.map_or(Ok(device), |errno| Err(StartError::InPlace { errno }))
    }

    /// Runs `kernel` once for each of `items`, on the device's workers, and returns when all are
    /// done or one has failed. Launches by several threads come one after the other.
    ///
    /// # Errors
    /// [`RunError`]: of the items that failed the first, and the rest is left. What was stored
    /// stays.
    ///
    /// # Safety
    /// The kernel runs on threads of the engine: it touches memory of the program through its
    /// worker only, and what it captures by value; it does not use the process's heap, wait for
    /// locks of the program, or panic. The memory that it reaches through its worker is valid for
    /// that, and nobody else writes what it reads, or touches what it writes, until this returns.
    pub unsafe fn run<K>(&self, items: Range<usize>, kernel: K) -> Result<(), RunError>
    where
        K: Fn(&mut Worker<'_, M>, usize) -> Result<(), AccessError> + Send + Sync + 'static,
    {
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // What the program unmapped or moved before, the workers have no translation of.
        self.attachment.settle();
        let launch = EngineBox::try_new(
            self.attachment.engine_memory(),
            KernelLaunch {
                kernel,
                next: AtomicUsize::new(items.start),
                end: items.end,
                failed: AtomicBool::new(false),
                failure: Lock::new(None),
            },
        )?;
        let pointer: NonNull<dyn Launch<M>> = NonNull::from(&*launch);
        *self.queue.launch.lock(&SignalsBlocked::new()) = Some(pointer);
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        self.queue.busy.word().store(workers, Release);
        self.queue.launches.word().fetch_add(1, Release);
        self.queue.launches.wake_all();
        self.queue.wait_for_workers();
        *self.queue.launch.lock(&SignalsBlocked::new()) = None;
        let failure = *launch.failure.lock(&SignalsBlocked::new());
        failure.map_or(Ok(()), |(item, error)| Err(RunError::Item { item, error }))
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

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment.bring_back(range)
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
        self.queue.ending.store(true, Release);
        self.queue.launches.word().fetch_add(1, Release);
        self.queue.launches.wake_all();
        self.workers.clear();
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
