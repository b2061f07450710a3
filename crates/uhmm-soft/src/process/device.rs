//! What runs in the device process: one thread keeps the page table, the others run kernels.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, SeqCst},
    },
    time::Duration,
};
use std::{
    os::fd::AsFd,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
};

use uhmm::{
    InFlight, SparseTable,
    engine_memory::{EngineMemory, EngineMemoryError},
    ring::{Command, Limits, Order, Receiver, Report, Sender, VERSION},
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

use super::{
    asking::Asking,
    errors::words_of,
    layout::{MAGIC, Mapping, READY, REFUSED, Shared, wait, wake},
};
use crate::{
    kernels::{ARGUMENTS, Kernel, fingerprint},
    launch::batch,
    limits::MOST_WORKERS,
    table::{Entry, Leaf, places},
    worker::Worker,
};

#[cfg(fuzzing)]
pub(super) mod fuzzing;

/// By what a process knows that it is to be a device: its program's number.
pub(super) const ASKED: &str = "UHMM_SOFT_DEVICE_OF";

/// Why a device process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// It was told to, or the program is gone.
    Done = 0,
    /// What it was given is no memory to serve with, or of another version or list of kernels.
    Refused = 3,
    /// The program does not keep to the protocol.
    Protocol = 4,
    /// It has no memory for its page table.
    Memory = 5,
    /// A kernel panicked.
    Panicked = 6,
}

impl Exit {
    /// Ends the process.
    pub(super) fn now(self) -> ! {
        #[cfg(fuzzing)]
        std::panic::resume_unwind(Box::new(self));
        #[cfg(not(fuzzing))]
        std::process::exit((self as u8).into())
    }
}

/// Memory for the page table: addresses only, until it is used.
const TABLE_BYTES: usize = 1 << 30;

/// How long a sleep lasts at most, before it is looked whether the program lives.
const SLICE: Duration = Duration::from_millis(if cfg!(fuzzing) { 0 } else { 50 });

/// How often a ring is looked at before sleeping: about as long as an answer takes.
const LOOKS: u32 = if cfg!(fuzzing) { 1 } else { 200 };

/// Becomes a device process, and does not return, where this process was started to be one; else
/// returns at once. To be called first in `main`, with the kernels that
/// [`KernelDevice::start`](crate::KernelDevice::start) is given.
pub fn serve_if_asked(kernels: &'static [Kernel]) {
    let Some(asked) = std::env::var_os(ASKED) else { return };
    match asked.to_str().and_then(|text| text.parse().ok()) {
        Some(program) => serve(kernels, program).now(),
        None => Exit::Refused.now(),
    }
}

/// What all threads have. It lives as long as the process.
pub(super) struct Device {
    mapping: &'static Mapping,
    limits: Limits,
    leaves: SparseTable<Leaf>,
    in_flight: InFlight,
    reports: Mutex<Sender<'static>>,
    kernels: &'static [Kernel],
    program: u32,
}

fn serve(kernels: &'static [Kernel], program: u32) -> Exit {
    let device = Device::open(std::io::stdin(), kernels, program);
    let Some(device) = device else { return Exit::Refused };
    let Ok(device) = device else { return Exit::Memory };
    let device: &'static Device = Box::leak(Box::new(device));
    for number in 0..device.limits.workers {
        let work = AssertUnwindSafe(move || device.work(number, &mut device.orders(number)));
        // A kernel that panics has said why. Who waits for it hears of the process's end.
        let work = move || match std::panic::catch_unwind(work) {
            Err(_) => Exit::Panicked.now(),
        };
        if std::thread::Builder::new().spawn(work).is_err() {
            return Exit::Memory;
        }
    }
    device.shared().state.store(READY, SeqCst);
    wake(&device.shared().state);
    device.keep_table(&mut device.commands())
}

/// The receiver of commands, and how many were applied.
struct Commands {
    receiver: Receiver<'static>,
    applied: u32,
}

impl Device {
    /// Maps what the program shares, which is the file. `None` where it is not to be served.
    fn open(
        file: impl AsFd,
        kernels: &'static [Kernel],
        program: u32,
    ) -> Option<Result<Self, EngineMemoryError>> {
        let page_size = PageSize::new(rustix::param::page_size())?;
        let len = usize::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
        let frames = Mapping::frames_in(len, page_size)?;
        let mapping = Mapping::map(&file, frames, page_size).ok()?;
        let shared = mapping.shared();
        let number = |word: u64| usize::try_from(word).ok();
        let limits = Limits {
            frames: number(shared.frames.load(Relaxed))?,
            kernels: number(shared.kernels.load(Relaxed))?,
            workers: number(shared.workers.load(Relaxed))?,
            pages: number(shared.page_limit.load(Relaxed))?,
            page_bytes: number(shared.page_bytes.load(Relaxed))?,
        };
        let fits = shared.magic.load(Acquire) == MAGIC
            && shared.version.load(Relaxed) == VERSION
            && shared.program.load(Relaxed) == program
            && limits.page_bytes == page_size.bytes()
            && limits.frames == frames
            && limits.kernels == kernels.len()
            && (1..=MOST_WORKERS).contains(&limits.workers)
            && shared.fingerprint.load(Relaxed) == fingerprint(kernels);
        if !fits {
            shared.state.store(REFUSED, SeqCst);
            wake(&shared.state);
            return None;
        }
        Some(Self::new(mapping, limits, kernels, program))
    }

    fn new(
        mapping: Mapping,
        limits: Limits,
        kernels: &'static [Kernel],
        program: u32,
    ) -> Result<Self, EngineMemoryError> {
        let memory = EngineMemory::map(TABLE_BYTES)?;
        let leaves = SparseTable::try_new(&memory, limits.pages.div_ceil(BLOCK_PAGES))?;
        let in_flight = InFlight::new(&memory, limits.workers)?;
        let mapping: &'static Mapping = Box::leak(Box::new(mapping));
        let reports = Mutex::new(Sender::new(&mapping.shared().reports));
        Ok(Self { mapping, limits, leaves, in_flight, reports, kernels, program })
    }

    pub(super) fn shared(&self) -> &'static Shared {
        self.mapping.shared()
    }

    /// What is there to receive commands by, for the thread that keeps the page table.
    fn commands(&self) -> Commands {
        Commands { receiver: Receiver::new(&self.shared().commands), applied: 0 }
    }

    /// What is there to receive orders by, for the one thread that is the worker `number`.
    fn orders(&self, number: usize) -> Receiver<'static> {
        Receiver::new(&self.shared().orders[number])
    }

    /// Whether the program is gone. Asked wherever it was waited for.
    fn is_orphan(&self) -> bool {
        #[cfg(fuzzing)]
        if super::fuzzing::turn() {
            return true;
        }
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
        parent.map(i32::unsigned_abs) != Some(self.program)
    }

    /// Applies commands to the page table until told to stop.
    fn keep_table(&self, commands: &mut Commands) -> Exit {
        let shared = self.shared();
        let Commands { receiver, applied } = commands;
        let mut looks = 0;
        loop {
            match receiver.receive() {
                Err(_) => return Exit::Protocol,
                Ok(Some(words)) => {
                    looks = 0;
                    match Command::parse(words, &self.limits) {
                        Err(_) => return Exit::Protocol,
                        Ok(Command::Stop) => return Exit::Done,
                        Ok(Command::Commit { pages, frame, write }) => {
                            if self.enter(pages, frame, write).is_err() {
                                return Exit::Memory;
                            }
                        }
                        Ok(Command::Invalidate { pages }) => self.end(pages),
                    }
                    *applied = applied.wrapping_add(1);
                    shared.applied.store(*applied, SeqCst);
                    if shared.awaited.load(SeqCst) != 0 {
                        wake(&shared.applied);
                    }
                }
                Ok(None) if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                }
                Ok(None) => {
                    receiver.wait(SLICE);
                    if self.is_orphan() {
                        return Exit::Done;
                    }
                }
            }
        }
    }

    pub(super) fn leaf(&self, page: PageNumber) -> Option<&Leaf> {
        self.leaves.get(page.block().0)
    }

    /// Notes that the frame at `memory` is about to be read, or written.
    pub(super) fn note(&self, memory: NonNull<u8>, write: bool) {
        self.mapping.notes().note(self.mapping.frame_of(memory), write);
    }

    fn enter(&self, pages: PageRange, frame: usize, write: bool) -> Result<(), EngineMemoryError> {
        let leaf = self.leaves.get_or_make(pages.start().block().0, || Ok(Leaf::new()))?;
        if let Some(leaf) = leaf {
            let (memory, _) = self.mapping.part(frame, pages.len());
            leaf.enter(places(pages), Entry::of_frame(memory, write), self.mapping.page_size());
        }
        Ok(())
    }

    fn end(&self, pages: PageRange) {
        let page_size = self.mapping.page_size();
        if self.leaf(pages.start()).is_some_and(|leaf| leaf.clear(places(pages), page_size)) {
            self.in_flight.wait_for_accesses();
        }
    }

    /// Runs kernels, as the worker `number`.
    fn work(&'static self, number: usize, orders: &mut Receiver<'static>) -> ! {
        loop {
            let Order::Launch { kernel, first, count, arguments } = self.next_order(orders) else {
                // Nothing was asked.
                Exit::Protocol.now()
            };
            let asking = Asking { device: self, number, orders: &mut *orders };
            let failed = self.launch(asking, self.kernels[kernel], [first, count], &arguments);
            self.report(failed.unwrap_or(Report::Done { worker: number }));
        }
    }

    /// Takes part in a launch of `count` items from the first on, until all are taken or one has failed.
    fn launch(
        &'static self,
        mut asking: Asking<'_>,
        kernel: Kernel,
        [first, count]: [u64; 2],
        arguments: &[u64; ARGUMENTS],
    ) -> Option<Report> {
        let (shared, number) = (self.shared(), asking.number);
        let given = self.given();
        self.wait_for_commands(shared.launched_after.load(Relaxed));
        // SAFETY: each worker's number is its own, and it opens its lane once at a time.
        let lane = unsafe { self.in_flight.open(number) };
        let page_size = self.mapping.page_size();
        let mut worker = Worker::in_own_process(&mut asking, lane, page_size, &given);
        let items = usize::try_from(count).unwrap_or(usize::MAX);
        let batch = batch(items, self.limits.workers) as u64;
        while shared.failed.load(Relaxed) == 0 {
            let taken = shared.taken.fetch_add(batch, Relaxed);
            let left = count.checked_sub(taken).filter(|&left| left > 0)?;
            for item in first + taken..first + taken + left.min(batch) {
                // An item is a number of the program's.
                let Ok(place) = usize::try_from(item) else { Exit::Protocol.now() };
                if let Err(error) = (kernel.run)(&mut worker, place, arguments) {
                    shared.failed.store(1, Relaxed);
                    let error = words_of(&error);
                    return Some(Report::Failed { worker: number, item, error });
                }
            }
        }
        None
    }

    /// The pages that the launch names.
    fn given(&self) -> Vec<PageRange> {
        let shared = self.shared();
        let count = shared.given_count.load(Relaxed) as usize;
        let Some(ranges) = shared.given.get(..count) else { Exit::Protocol.now() };
        let page = |word: u64| usize::try_from(word).ok().filter(|&page| page <= self.limits.pages);
        let pages = |[start, end]: &[AtomicU64; 2]| {
            let (start, end) = (page(start.load(Relaxed))?, page(end.load(Relaxed))?);
            (start <= end).then(|| PageRange::new(PageNumber(start), PageNumber(end)))
        };
        let given: Option<Vec<_>> = ranges.iter().map(pages).collect();
        given.unwrap_or_else(|| Exit::Protocol.now())
    }

    /// Waits until so many commands were applied.
    pub(super) fn wait_for_commands(&self, commands: u32) {
        let Shared { applied, awaited, .. } = self.shared();
        let is_applied = || {
            let missing = commands.wrapping_sub(applied.load(SeqCst));
            missing == 0 || missing > u32::MAX / 2
        };
        for _ in 0..LOOKS {
            if is_applied() {
                return;
            }
            core::hint::spin_loop();
        }
        awaited.fetch_add(1, SeqCst);
        while !is_applied() {
            let seen = applied.load(SeqCst);
            if !is_applied() {
                wait(applied, seen, SLICE);
            }
            if self.is_orphan() {
                Exit::Done.now();
            }
        }
        awaited.fetch_sub(1, SeqCst);
    }

    /// Tells the program.
    pub(super) fn report(&self, report: Report) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match reports.send(&report.encode()) {
                Ok(true) => return,
                Ok(false) => {
                    reports.wait_for_room(SLICE);
                    if self.is_orphan() {
                        Exit::Done.now();
                    }
                }
                Err(_) => Exit::Protocol.now(),
            }
        }
    }

    /// Waits for what a worker is to do.
    pub(super) fn next_order(&self, orders: &mut Receiver<'_>) -> Order {
        let mut looks = 0;
        loop {
            match orders.receive() {
                Err(_) => Exit::Protocol.now(),
                Ok(Some(words)) => {
                    return Order::parse(words, &self.limits)
                        .unwrap_or_else(|_| Exit::Protocol.now());
                }
                Ok(None) if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                }
                Ok(None) => {
                    orders.wait(SLICE);
                    if self.is_orphan() {
                        Exit::Done.now();
                    }
                }
            }
        }
    }
}
