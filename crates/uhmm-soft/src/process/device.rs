//! What runs in the device process: one thread keeps the page table, another runs kernels.

use core::{
    cell::Cell,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, SeqCst},
    },
    time::Duration,
};

use std::panic::AssertUnwindSafe;

use thiserror::Error;
use uhmm::{
    InFlight, Lane, SparseTable,
    engine_memory::{EngineMemory, EngineMemoryError},
    ring::{Command, Limits, Order, Receiver, Report, Sender, VERSION},
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

use super::{
    ProcessKernel, fingerprint,
    layout::{MAGIC, Mapping, READY, REFUSED, Shared, wake},
};
use crate::{
    plain::Plain,
    table::{Entry, Leaf, Place, places},
};

/// By what a process knows that it is to be a device: its program's number.
pub(super) const ASKED: &str = "UHMM_SOFT_DEVICE_OF";

/// The access of a kernel failed: the program does not let the device have the page, which its launch
/// says why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the device cannot have the page at {address:#x}")]
pub struct ProcessAccessError {
    /// Where the access was.
    pub address: usize,
}

/// Why a device process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
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

/// Memory for the page table: addresses only, until it is used.
const TABLE_BYTES: usize = 1 << 30;

/// How long a sleep lasts at most, before it is looked whether the program lives.
const SLICE: Duration = Duration::from_millis(50);

/// How often a ring is looked at before sleeping: about as long as an answer takes.
const LOOKS: u32 = 200;

/// Becomes a device process, and does not return, where this process was started to be one; else
/// returns at once. To be called first in `main`, with the kernels that
/// [`DeviceProcess::start`](super::DeviceProcess::start) is given.
pub fn serve_if_asked(kernels: &'static [ProcessKernel]) {
    let Some(asked) = std::env::var_os(ASKED) else { return };
    let program = asked.to_str().and_then(|text| text.parse().ok());
    let exit = match program {
        Some(program) => serve(kernels, program),
        None => Exit::Refused,
    };
    std::process::exit((exit as u8).into());
}

/// What both threads have.
struct Device {
    mapping: Mapping,
    limits: Limits,
    leaves: SparseTable<Leaf>,
    in_flight: InFlight,
    kernels: &'static [ProcessKernel],
    program: u32,
}

fn serve(kernels: &'static [ProcessKernel], program: u32) -> Exit {
    let Some(device) = Device::open(kernels, program) else { return Exit::Refused };
    let Ok(device) = device else { return Exit::Memory };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let work = AssertUnwindSafe(|| device.work());
            // A kernel that panics has said why. Who waits for it hears of the process's end.
            let exit = std::panic::catch_unwind(work).unwrap_or(Exit::Panicked);
            std::process::exit((exit as u8).into())
        });
        device.mapping.shared().state.store(READY, SeqCst);
        wake(&device.mapping.shared().state);
        let exit = device.keep_table();
        std::process::exit((exit as u8).into())
    })
}

impl Device {
    /// Maps what the program shares, which is this process's standard input. `None` where it is not to be
    /// served.
    fn open(
        kernels: &'static [ProcessKernel],
        program: u32,
    ) -> Option<Result<Self, EngineMemoryError>> {
        let page_size = PageSize::new(rustix::param::page_size())?;
        let file = std::io::stdin();
        let len = usize::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
        let head = size_of::<Shared>().next_multiple_of(page_size.bytes());
        let frames = len.checked_sub(head)? / page_size.bytes();
        let mapping = Mapping::map(&file, frames, page_size).ok()?;
        let shared = mapping.shared();
        let number = |word: u64| usize::try_from(word).ok();
        let limits = Limits {
            frames: number(shared.frames.load(Relaxed))?,
            kernels: number(shared.kernels.load(Relaxed))?,
            pages: number(shared.page_limit.load(Relaxed))?,
            page_bytes: number(shared.page_bytes.load(Relaxed))?,
        };
        let fits = shared.magic.load(Acquire) == MAGIC
            && shared.version.load(Relaxed) == VERSION
            && shared.program.load(Relaxed) == program
            && limits.page_bytes == page_size.bytes()
            && limits.frames == frames
            && limits.kernels == kernels.len()
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
        kernels: &'static [ProcessKernel],
        program: u32,
    ) -> Result<Self, EngineMemoryError> {
        let memory = EngineMemory::map(TABLE_BYTES)?;
        let leaves = SparseTable::try_new(&memory, limits.pages.div_ceil(BLOCK_PAGES))?;
        let in_flight = InFlight::new(&memory, 1)?;
        Ok(Self { mapping, limits, leaves, in_flight, kernels, program })
    }

    /// Whether the program is gone.
    fn is_orphan(&self) -> bool {
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
        parent.map(i32::unsigned_abs) != Some(self.program)
    }

    /// Applies commands to the page table until told to stop.
    fn keep_table(&self) -> Exit {
        let shared = self.mapping.shared();
        let mut commands = Receiver::new(&shared.commands);
        let mut applied: u32 = 0;
        let mut looks = 0;
        loop {
            match commands.receive() {
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
                    applied = applied.wrapping_add(1);
                    shared.applied.store(applied, SeqCst);
                    if shared.awaited.load(SeqCst) != 0 {
                        wake(&shared.applied);
                    }
                }
                Ok(None) if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                }
                Ok(None) => {
                    commands.wait(SLICE);
                    if self.is_orphan() {
                        return Exit::Done;
                    }
                }
            }
        }
    }

    fn leaf(&self, page: PageNumber) -> Option<&Leaf> {
        self.leaves.get(page.block().0)
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

    /// Runs kernels.
    fn work(&self) -> Exit {
        let shared = self.mapping.shared();
        let talk =
            Talk { orders: Receiver::new(&shared.orders), reports: Sender::new(&shared.reports) };
        let mut worker = ProcessWorker { device: self, talk, lane: None, exit: Cell::new(None) };
        loop {
            match worker.next_order() {
                Ok(Order::Launch { kernel, first, count, arguments }) => {
                    let report = worker.launch(self.kernels[kernel], first, count, &arguments);
                    if let Some(exit) = worker.exit.get() {
                        return exit;
                    }
                    if let Err(exit) = worker.report(report) {
                        return exit;
                    }
                }
                // Nothing was asked.
                Ok(Order::Served { .. }) => return Exit::Protocol,
                Err(exit) => return exit,
            }
        }
    }
}

/// The worker's side of the rings.
struct Talk<'d> {
    orders: Receiver<'d>,
    reports: Sender<'d>,
}

/// What a kernel of a device process reaches memory by: addresses of the program, of pages that are
/// in the device's memory, or come when they are touched.
pub struct ProcessWorker<'d> {
    device: &'d Device,
    talk: Talk<'d>,
    lane: Option<Lane<'d>>,
    /// Why the process has to end, if it has.
    exit: Cell<Option<Exit>>,
}

impl ProcessWorker<'_> {
    /// Loads a number.
    ///
    /// # Errors
    /// [`ProcessAccessError`] where the page cannot be had, or the address is not aligned.
    pub fn load<T: Plain>(&mut self, address: usize) -> Result<T, ProcessAccessError> {
        // SAFETY: an aligned number lies within its page, where the pointer is valid.
        self.access::<T, _>(address, false, |at| unsafe { T::load(at) })
    }

    /// Stores a number.
    ///
    /// # Errors
    /// [`ProcessAccessError`] where the page cannot be had, or the address is not aligned.
    pub fn store<T: Plain>(&mut self, address: usize, value: T) -> Result<(), ProcessAccessError> {
        // SAFETY: an aligned number lies within its page, where the pointer is valid.
        self.access::<T, _>(address, true, |at| unsafe { value.store(at) })
    }

    fn access<T: Plain, R>(
        &mut self,
        address: usize,
        write: bool,
        access: impl Fn(*mut u8) -> R,
    ) -> Result<R, ProcessAccessError> {
        let refused = Err(ProcessAccessError { address });
        let page_size = self.device.mapping.page_size();
        let page = page_size.page_of(address);
        if !address.is_multiple_of(align_of::<T>()) || page.0 >= self.device.limits.pages {
            return refused;
        }
        let offset = address % page_size.bytes();
        loop {
            if let (Some(leaf), Some(lane)) = (self.device.leaf(page), &mut self.lane) {
                let result = lane.access(|| {
                    match leaf.translate(page.in_block(), page_size, write)? {
                        Place::Frame(memory) => {
                            // SAFETY: the offset is within the page.
                            Some(access(unsafe { memory.add(offset) }.as_ptr()))
                        }
                        Place::InPlace(_) => None,
                    }
                });
                if let Some(result) = result {
                    return Ok(result);
                }
            }
            match self.fault(address, write) {
                Ok(true) => {}
                Ok(false) => return refused,
                Err(exit) => {
                    self.exit.set(Some(exit));
                    return refused;
                }
            }
        }
    }

    /// Asks the program for a page. Answers whether it may be had.
    fn fault(&mut self, address: usize, write: bool) -> Result<bool, Exit> {
        self.report(Report::Fault { address, write })?;
        match self.next_order()? {
            Order::Served { served, commands } => {
                self.wait_for_commands(commands);
                Ok(served)
            }
            Order::Launch { .. } => Err(Exit::Protocol),
        }
    }

    /// Waits until so many commands were applied.
    fn wait_for_commands(&self, commands: u64) {
        let applied: &AtomicU32 = &self.device.mapping.shared().applied;
        let [one, two, three, four, ..] = commands.to_le_bytes();
        let commands = u32::from_le_bytes([one, two, three, four]);
        // The program counts them as this process does; were it to lie, this process would be the one to
        // miss a page, and ask again.
        for _ in 0..1000 {
            let missing = commands.wrapping_sub(applied.load(SeqCst));
            if missing == 0 || missing > u32::MAX / 2 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn launch(
        &mut self,
        kernel: ProcessKernel,
        first: u64,
        count: u64,
        arguments: &[u64; super::ARGUMENTS],
    ) -> Report {
        let device = self.device;
        // SAFETY: there is one worker.
        self.lane = Some(unsafe { device.in_flight.open(0) });
        let items = first..first + count;
        let failed = items
            .map(|item| (item, (kernel.run)(self, item, arguments)))
            .find_map(|(item, result)| Some((item, result.err()?)));
        self.lane = None;
        match failed {
            None => Report::Done,
            Some((item, error)) => Report::Failed { item, address: error.address as u64 },
        }
    }

    fn report(&mut self, report: Report) -> Result<(), Exit> {
        loop {
            match self.talk.reports.send(&report.encode()) {
                Ok(true) => return Ok(()),
                Ok(false) => self.talk.reports.wait_for_room(SLICE),
                Err(_) => return Err(Exit::Protocol),
            }
        }
    }

    fn next_order(&mut self) -> Result<Order, Exit> {
        let mut looks = 0;
        loop {
            match self.talk.orders.receive() {
                Err(_) => return Err(Exit::Protocol),
                Ok(Some(words)) => {
                    return Order::parse(words, &self.device.limits).map_err(|_| Exit::Protocol);
                }
                Ok(None) if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                }
                Ok(None) => {
                    self.talk.orders.wait(SLICE);
                    if self.device.is_orphan() {
                        return Err(Exit::Done);
                    }
                }
            }
        }
    }
}
