//! The program's side of a device process.

use core::{
    ops::Range,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    },
    time::Duration,
};
use std::{
    os::fd::OwnedFd,
    process::{Child, Command as Program, Stdio},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{Pid, PidfdFlags, Signal},
};
use thiserror::Error;
use uhmm::{
    AddressSpace, AttachError, Attachment, Begun, CopyingMemory, Device, DeviceFaultError, Entries,
    Invalidation, Migration, PageTable, PrepareError, Shared, Ticket, Transfer, TransferError,
    Translation, Use, copy_bytes,
    engine_memory::{EngineMemoryError, EngineThread, EngineVec, SpawnError, thread},
    mm::{Access, Errno, Mm, linux::Linux},
    ring::{Command, Limits, Order, Receiver, Report, Sender, VERSION},
    sync::{Lock, SignalsBlocked, WaitWord},
    units::{AddressRange, PageRange, RangeError},
};

use super::{
    ARGUMENTS, ProcessKernel,
    device::ASKED,
    fingerprint,
    layout::{MAGIC, Mapping, READY, STARTING, wait},
};

/// Why a device process could not be started.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// a memory that does not hold a page
    #[error("a memory of {memory} bytes does not hold a page of {page} bytes: give it more")]
    MemoryTooSmall {
        /// Bytes asked for.
        memory: usize,
        /// The size of a page in bytes.
        page: usize,
    },
    /// the memory that both processes have cannot be made
    #[error("{memory} bytes that both processes have cannot be mapped ({errno}): give it less")]
    Mapping {
        /// Bytes asked for.
        memory: usize,
        /// The system's error.
        errno: Errno,
    },
    /// the process cannot be started, or not be watched
    #[error("the device process cannot be started: {0}")]
    Start(#[source] std::io::Error),
    /// the process did not say that it is ready
    #[error(
        "the device process did not become ready in {patience:?}: does main call serve_if_asked first?"
    )]
    NotReady {
        /// How long it had.
        patience: Duration,
    },
    /// the process is of another version, or has other kernels
    #[error("the device process has another version or other kernels: start the same executable")]
    Refused,
    /// It cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The thread that serves it cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Why a launch on a device process failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProcessRunError {
    /// no such kernel
    #[error("kernel {kernel} of {kernels} that there are")]
    Kernel {
        /// The kernel's place in the list.
        kernel: usize,
        /// How many there are.
        kernels: usize,
    },
    /// an item's access failed, and the items behind it were left
    #[error("item {item}, at {address:#x}: {}", Why(*.cause))]
    Item {
        /// The item.
        item: u64,
        /// Where the access was.
        address: u64,
        /// Why the program did not let the device have the page; none where the launch does not name it,
        /// or the access was not aligned.
        cause: Option<DeviceFaultError>,
    },
    /// the device process is gone, and what it held is lost
    #[error("the device process is gone, and what it held is lost")]
    Lost,
    /// No engine memory for the launch.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

struct Why(Option<DeviceFaultError>);

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(cause) => cause.fmt(f),
            None => f.write_str("not aligned, or outside of what the launch names"),
        }
    }
}

/// How long a sleep lasts at most, before it is looked whether the other process lives.
const SLICE: Duration = Duration::from_millis(20);

/// How often an answer is looked for before sleeping.
const LOOKS: u32 = 200;

/// The sender of commands, and how many were sent.
struct Commands {
    sender: Sender<'static>,
    sent: u32,
}

/// The connection to the device process.
///
/// # Invariants
/// What is `'static` here borrows from `mapping`, and is reached while this lives.
struct Link {
    commands: Lock<Commands>,
    orders: Lock<Sender<'static>>,
    mapping: Mapping,
    process: OwnedFd,
    patience: Duration,
    /// Whether the process is gone, or was ended.
    dead: AtomicBool,
}

impl Link {
    fn is_dead(&self) -> bool {
        self.dead.load(Acquire)
    }

    /// Whether the process lives. Notes it where not.
    fn lives(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        let mut process = [PollFd::new(&self.process, PollFlags::IN)];
        let ended = rustix::event::poll(&mut process, Some(&NO_TIME)).is_ok_and(|count| count > 0);
        if ended {
            self.dead.store(true, Release);
        }
        !ended
    }

    /// Ends the process, which does not answer, or says what makes no sense.
    fn end(&self) {
        if !self.dead.swap(true, AcqRel) {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
    }

    /// Sends a command. Answers how many were sent by then, or that nobody receives them.
    fn command(&self, command: &Command) -> Option<u32> {
        let signals = SignalsBlocked::new();
        let mut commands = self.commands.lock(&signals);
        let since = Instant::now();
        while !self.is_dead() {
            match commands.sender.send(&command.encode()) {
                Ok(true) => {
                    commands.sent = commands.sent.wrapping_add(1);
                    return Some(commands.sent);
                }
                Ok(false) if since.elapsed() < self.patience => {
                    commands.sender.wait_for_room(SLICE);
                    self.lives();
                }
                Ok(false) | Err(_) => self.end(),
            }
        }
        None
    }

    /// Returns when so many commands were applied, or the process is gone.
    fn wait_applied(&self, commands: u32) {
        let shared = self.mapping.shared();
        let is_applied = || {
            let missing = commands.wrapping_sub(shared.applied.load(SeqCst));
            missing == 0 || missing > u32::MAX / 2
        };
        for _ in 0..LOOKS {
            if is_applied() {
                return;
            }
            core::hint::spin_loop();
        }
        let since = Instant::now();
        shared.awaited.fetch_add(1, SeqCst);
        while !is_applied() && self.lives() {
            if since.elapsed() > self.patience {
                self.end();
                break;
            }
            let seen = shared.applied.load(SeqCst);
            if !is_applied() {
                wait(&shared.applied, seen, SLICE);
            }
        }
        shared.awaited.fetch_sub(1, SeqCst);
    }

    /// Gives an order. Answers whether it was.
    fn order(&self, order: &Order) -> bool {
        let signals = SignalsBlocked::new();
        let mut orders = self.orders.lock(&signals);
        // There are as many orders under way as there are reports that await one: one.
        let sent = !self.is_dead() && orders.send(&order.encode()) == Ok(true);
        drop(orders);
        if !sent {
            self.end();
        }
        sent
    }

    /// How many commands were sent.
    fn commands_sent(&self) -> u32 {
        self.commands.lock(&SignalsBlocked::new()).sent
    }
}

const NO_TIME: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// The device's page table, which is in the other process: what the core tells goes there.
struct Remote(Shared<Link>);

// SAFETY: the device touches its own frames alone, by translations that commits gave it; when an
// invalidation returns it has applied it, or is gone. Nothing here uses the heap or waits for a call of the
// core, and waiting for the device is as long as it has patience.
unsafe impl PageTable for Remote {
    fn prepare(&self, _: PageRange, _: Access) -> Result<(), PrepareError> {
        Ok(())
    }

    fn commit(&self, entries: &Entries) {
        // What is elsewhere it cannot reach.
        if let Translation::Copied { frame } = entries.translation {
            let command = Command::Commit { pages: entries.pages, frame, write: entries.write };
            let _ = self.0.command(&command);
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        if let Some(sent) = self.0.command(&Command::Invalidate { pages: invalidation.pages }) {
            self.0.wait_applied(sent);
        }
    }
}

// SAFETY: as above.
unsafe impl Device for Remote {
    /// The other process applies them in their order, so the last is waited for.
    fn invalidate_all(&self, invalidations: &[Invalidation]) {
        let sent = |invalidation: &Invalidation| {
            self.0.command(&Command::Invalidate { pages: invalidation.pages })
        };
        if let Some(last) = invalidations.iter().map(sent).fold(None, |last, sent| sent.or(last)) {
            self.0.wait_applied(last);
        }
    }

    /// It does not tell: all counts as used at some time, and as not used lately.
    fn take_use(&self, pages: PageRange) -> Use {
        Use { lately: 0, ever: pages.len() }
    }
}

/// The frames, which both processes have.
struct RemoteMemory(Shared<Link>);

// SAFETY: a transfer touches the pages before `begin` returns, and no more after; what goes into a frame is
// copied from there, and the other process writes what it has a translation of; nothing here uses the heap or
// waits.
unsafe impl CopyingMemory for RemoteMemory {
    fn begin(&self, transfer: &Transfer) -> Result<Begun, TransferError> {
        if self.0.is_dead() {
            return Err(TransferError::Lost);
        }
        let frames = transfer.frames();
        let (frame, len) = self.0.mapping.part(frames.first, frames.count);
        // SAFETY: the frames are in the mapping, and the pages are as many bytes, are there, and apart
        // from it, as the core says. Another process can write the frames meanwhile only against the
        // protocol: the bytes are then any bytes.
        unsafe {
            match *transfer {
                Transfer::In { from, .. } => copy_bytes(from, frame, len),
                Transfer::Out { to, .. } => copy_bytes(frame, to, len),
                Transfer::Zero { .. } => frame.write_bytes(0, len),
                _ => return Err(TransferError::Failed { code: libc_enosys() }),
            }
        }
        Ok(Begun::Done)
    }

    fn finish(&self, _: Ticket) -> Result<(), TransferError> {
        Ok(())
    }

    fn mapped(&self) -> Option<PageRange> {
        let mapping = &self.0.mapping;
        let (first, _) = mapping.part(0, mapping.frames());
        let first = mapping.page_size().page_of(first.as_ptr().addr());
        Some(PageRange::of(first, mapping.frames()))
    }
}

/// What a transfer of a kind that the device does not know says.
const fn libc_enosys() -> i32 {
    rustix::io::Errno::NOSYS.raw_os_error()
}

/// What the program and the thread that serves the device know of the launch under way.
struct Launch {
    /// Where the device may have pages.
    given: EngineVec<AddressRange>,
    /// Why the last page was not given that was asked for in vain.
    cause: Option<DeviceFaultError>,
    result: Result<(), ProcessRunError>,
}

struct Work {
    launch: Lock<Option<Launch>>,
    /// Changes as a launch is done.
    done: WaitWord,
    ending: AtomicBool,
    /// Pages that were lost with the process.
    lost: AtomicUsize,
}

/// A device in a process of its own, attached to an address space. Dropping it brings back what the device
/// holds, and ends the process.
///
/// One launch runs at a time. The device has pages in its own memory only: what cannot go there it
/// cannot reach.
pub struct DeviceProcess<M: Mm = Linux> {
    /// Ends first.
    server: Option<EngineThread>,
    attachment: Option<Attachment<Remote, M>>,
    link: Shared<Link>,
    work: Shared<Work>,
    child: Child,
    kernels: usize,
    one: Mutex<()>,
}

impl<M: Mm> DeviceProcess<M> {
    /// How long a device process may take to answer, unless [`start_with`](Self::start_with) says
    /// otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// Starts this executable anew as a device with a memory of `memory` bytes, rounded down to pages, and
    /// attaches it. Its `main` calls [`serve_if_asked`](super::serve_if_asked) with the same kernels.
    ///
    /// # Errors
    /// [`ProcessError`]; nothing is left behind then.
    pub fn start(
        space: &AddressSpace<M>,
        memory: usize,
        kernels: &'static [ProcessKernel],
    ) -> Result<Self, ProcessError> {
        let program = std::env::current_exe().map_err(ProcessError::Start)?;
        Self::start_with(space, memory, kernels, Program::new(program), Self::PATIENCE)
    }

    /// As [`start`](Self::start), by a command of the caller's, whose standard input and environment are
    /// taken. A device that does not answer for as long as `patience` is ended.
    ///
    /// # Errors
    /// [`ProcessError`]; nothing is left behind then.
    pub fn start_with(
        space: &AddressSpace<M>,
        memory: usize,
        kernels: &'static [ProcessKernel],
        mut command: Program,
        patience: Duration,
    ) -> Result<Self, ProcessError> {
        let page_size = space.page_size();
        let page = page_size.bytes();
        let frames = memory / page;
        if frames == 0 {
            return Err(ProcessError::MemoryTooSmall { memory, page });
        }
        let (file, mapping) = Mapping::create(frames, page_size)
            .map_err(|errno| ProcessError::Mapping { memory, errno })?;
        let limits = Limits {
            frames,
            kernels: kernels.len(),
            pages: space.page_limit().0,
            page_bytes: page,
        };
        let shared = mapping.shared();
        shared.version.store(VERSION, Relaxed);
        shared.page_bytes.store(page as u64, Relaxed);
        shared.frames.store(frames as u64, Relaxed);
        shared.page_limit.store(limits.pages as u64, Relaxed);
        shared.kernels.store(kernels.len() as u64, Relaxed);
        shared.fingerprint.store(fingerprint(kernels), Relaxed);
        shared.program.store(std::process::id(), Relaxed);
        shared.magic.store(MAGIC, Release);
        let child = command
            .env(ASKED, std::process::id().to_string())
            .stdin(Stdio::from(file))
            .spawn()
            .map_err(ProcessError::Start)?;
        let mut starting = Starting(Some(child));
        let process = starting.watch().map_err(ProcessError::Start)?;
        let engine_memory = space.engine_memory();
        // SAFETY: it borrows from the mapping, which goes into the link with what borrows from it, and
        // stays where it is.
        let shared: &'static super::layout::Shared = unsafe { &*ptr::from_ref(mapping.shared()) };
        let link = Link {
            commands: Lock::new(Commands { sender: Sender::new(&shared.commands), sent: 0 }),
            orders: Lock::new(Sender::new(&shared.orders)),
            mapping,
            process,
            patience,
            dead: AtomicBool::new(false),
        };
        let link = Shared::try_new(link, engine_memory)?;
        wait_until_ready(&link)?;
        let work = Work {
            launch: Lock::new(None),
            done: WaitWord::new(0),
            ending: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
        };
        let work = Shared::try_new(work, engine_memory)?;
        let (table, memory) = (Remote(link.clone()), RemoteMemory(link.clone()));
        let attachment = space.attach_copying(table, memory, frames)?;
        let server = Server {
            attachment: attachment.clone(),
            reports: Receiver::new(&shared.reports),
            link: link.clone(),
            work: work.clone(),
            limits,
        };
        let server = thread::spawn(engine_memory, c"uhmm-device", move |_| server.serve())?;
        let Some(child) = starting.0.take() else { unreachable!("it is taken once") };
        let kernels = kernels.len();
        let (server, attachment) = (Some(server), Some(attachment));
        Ok(Self { server, attachment, link, work, child, kernels, one: Mutex::new(()) })
    }

    fn attachment(&self) -> &Attachment<Remote, M> {
        let Some(attachment) = &self.attachment else { unreachable!("until it is dropped") };
        attachment
    }

    /// Runs a kernel, by its place in the list, once for each of `items`, one after the other, and returns
    /// when all are done or one has failed. The device gets pages that have a byte in `given`,
    /// and no others.
    ///
    /// # Errors
    /// [`ProcessRunError`]. What was written stays.
    ///
    /// # Safety
    /// While it runs nobody writes what the kernel loads, and nobody reads or writes what it stores. What is
    /// stored is a value of the type that the program has there. All of `given` may be overwritten by any
    /// bytes, should the process be another than it seems.
    pub unsafe fn run(
        &self,
        kernel: usize,
        items: Range<u64>,
        arguments: [u64; ARGUMENTS],
        given: &[AddressRange],
    ) -> Result<(), ProcessRunError> {
        if kernel >= self.kernels {
            return Err(ProcessRunError::Kernel { kernel, kernels: self.kernels });
        }
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let attachment = self.attachment();
        let mut copy = EngineVec::new(attachment.engine_memory().clone());
        copy.try_extend_from_slice(given)?;
        attachment.settle();
        let times = self.work.done.word().load(Acquire);
        let launch = Launch { given: copy, cause: None, result: Err(ProcessRunError::Lost) };
        *self.work.launch.lock(&SignalsBlocked::new()) = Some(launch);
        let count = items.end.saturating_sub(items.start);
        let order = Order::Launch { kernel, first: items.start, count, arguments };
        // Where nobody hears it the server finds the process gone, and ends the launch.
        let _ = self.link.order(&order);
        self.work.done.wait_while(times);
        let launch = self.work.launch.lock(&SignalsBlocked::new()).take();
        launch.map_or(Err(ProcessRunError::Lost), |launch| launch.result)
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment().migrate(range)
    }

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment().bring_back(range)
    }

    /// Brings back all that is on this device. What stays is in the report.
    pub fn bring_all_back(&self) -> Migration {
        self.attachment().bring_all_back()
    }

    /// How much of its memory holds pages, in bytes.
    pub fn memory_used(&self) -> usize {
        let attachment = self.attachment();
        attachment.page_size().bytes_in(attachment.frames_used())
    }

    /// The system's number of the device process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process is gone, by itself or as it did not answer. What it held is marked, or is as
    /// it is touched.
    pub fn is_lost(&self) -> bool {
        !self.link.lives()
    }

    /// How many pages were marked as the process was found gone.
    pub fn lost_pages(&self) -> usize {
        self.work.lost.load(Acquire)
    }
}

impl<M: Mm> Drop for DeviceProcess<M> {
    fn drop(&mut self) {
        self.work.ending.store(true, Release);
        self.server = None;
        // Detached, while the process still answers.
        self.attachment = None;
        if self.link.command(&Command::Stop).is_some() {
            let since = Instant::now();
            while self.link.lives() && since.elapsed() < self.link.patience {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.link.end();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<M: Mm> core::fmt::Debug for DeviceProcess<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceProcess").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A process that was started, and is ended unless all goes well.
struct Starting(Option<Child>);

impl Starting {
    /// By what its end is seen.
    fn watch(&self) -> Result<OwnedFd, std::io::Error> {
        let id = self.0.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let process = id.and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(rustix::process::pidfd_open(process, PidfdFlags::empty())?)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_until_ready(link: &Link) -> Result<(), ProcessError> {
    let state = &link.mapping.shared().state;
    // Starting an executable takes longer than an answer.
    let patience = link.patience.max(Duration::from_secs(10));
    let since = Instant::now();
    loop {
        match state.load(SeqCst) {
            READY => return Ok(()),
            STARTING if !link.lives() || since.elapsed() > patience => {
                return Err(ProcessError::NotReady { patience });
            }
            STARTING => wait(state, STARTING, SLICE),
            // Told so, or nonsense.
            _ => return Err(ProcessError::Refused),
        }
    }
}

/// What serves the device's requests, on an engine thread.
struct Server<M: Mm> {
    attachment: Attachment<Remote, M>,
    reports: Receiver<'static>,
    link: Shared<Link>,
    work: Shared<Work>,
    limits: Limits,
}

impl<M: Mm> Server<M> {
    fn serve(mut self) {
        let mut looks = 0;
        while !self.work.ending.load(Acquire) {
            match self.reports.receive() {
                Ok(Some(words)) => {
                    looks = 0;
                    match Report::parse(words, &self.limits) {
                        Ok(report) => self.hear(report),
                        Err(_) => self.link.end(),
                    }
                }
                Ok(None) if looks < LOOKS => {
                    looks += 1;
                    core::hint::spin_loop();
                    continue;
                }
                Ok(None) => self.reports.wait(SLICE),
                Err(_) => self.link.end(),
            }
            if !self.link.lives() {
                return self.bury();
            }
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Fault { address, write } => self.fault(address, write),
            Report::Done => self.finish(|_| Ok(())),
            Report::Failed { item, address } => self
                .finish(|launch| Err(ProcessRunError::Item { item, address, cause: launch.cause })),
        }
    }

    /// Serves a fault, of an address that the launch under way names.
    fn fault(&mut self, address: usize, write: bool) {
        let signals = SignalsBlocked::new();
        let launch = self.work.launch.lock(&signals);
        let holds = |range: &&AddressRange| range.start() <= address && address < range.end();
        let given = launch.as_ref().and_then(|launch| launch.given.iter().find(holds).copied());
        drop(launch);
        drop(signals);
        let access = if write { Access::Write } else { Access::Read };
        let cause = given.map(|given| self.attachment.fault_within(address, access, given).err());
        let served = cause == Some(None);
        if let Some(launch) = self.work.launch.lock(&SignalsBlocked::new()).as_mut() {
            launch.cause = cause.flatten();
        }
        let commands = self.link.commands_sent().into();
        self.link.order(&Order::Served { served, commands });
    }

    /// A launch is done. A report of one that is not under way is nonsense.
    fn finish(&mut self, result: impl FnOnce(&Launch) -> Result<(), ProcessRunError>) {
        let signals = SignalsBlocked::new();
        let mut launch = self.work.launch.lock(&signals);
        let Some(under_way) = &mut *launch else { return self.link.end() };
        under_way.result = result(under_way);
        drop(launch);
        self.tell_done();
    }

    fn tell_done(&self) {
        self.work.done.word().fetch_add(1, SeqCst);
        self.work.done.wake_all();
    }

    /// The process is gone: what it held is marked, and whoever launches hears of it, from here on.
    fn bury(&mut self) {
        self.work.lost.store(self.attachment.lose(), Release);
        while !self.work.ending.load(Acquire) {
            let waits = self.work.launch.lock(&SignalsBlocked::new()).is_some();
            if waits {
                self.tell_done();
            }
            self.reports.wait(SLICE);
        }
    }
}
