//! The program's side of a device process: it is started, given launches, and ended.

use core::{
    ops::Range,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
    time::Duration,
};
use std::{
    os::fd::OwnedFd,
    process::{Child, Command as Program, Stdio},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rustix::process::{Pid, PidfdFlags};
use uhmm::{
    AddressSpace, Attachment, DeviceIndex, Migration, Shared,
    engine_memory::{EngineMemory, EngineThread, EngineVec, on_engine_thread, thread},
    ring::{Command, Limits, Order, Receiver, Sender, VERSION},
    sync::{Lock, SignalsBlocked, WaitWord},
    units::{AddressRange, PageRange, PageSize, RangeError},
};

use super::{
    device::ASKED,
    layout::{self, MAGIC, Mapping, READY, STARTING, wait},
    link::{Commands, Link, Remote, RemoteMemory, SLICE},
    server::{Launch, Server, Work},
};
use crate::{
    device::{MOST_WORKERS, RunError, StartError},
    faults::ENTRIES_PER_WORKER,
    kernel_device::{KernelRunError, KernelStartError},
    kernels::{ARGUMENTS, Kernel, fingerprint},
};

/// How a device in a process of its own is made.
#[derive(Debug)]
pub struct ProcessOptions {
    memory: usize,
    workers: usize,
    keeps_pages: bool,
    patience: Duration,
    command: Option<Program>,
}

impl ProcessOptions {
    /// How long a device process may take to answer, unless [`patience`](Self::patience) says otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// A device with a memory of `memory` bytes, rounded down to pages, and one worker, in a process that is this
    /// executable started anew.
    pub const fn new(memory: usize) -> Self {
        let (patience, command) = (Self::PATIENCE, None);
        Self { memory, workers: 1, keeps_pages: false, patience, command }
    }

    /// Sets how many threads of the process run its kernels.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Has pages stay on the device as a launch returns, as [`Options::keep_pages`](crate::Options::keep_pages)
    /// says.
    #[must_use]
    pub fn keep_pages(self) -> Self {
        Self { keeps_pages: true, ..self }
    }

    /// Sets for how long the process may leave unanswered what it has to answer at once. Then it is ended.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sets the command that starts the process. Its standard input is taken, and of its environment one variable.
    #[must_use]
    pub fn command(self, command: Program) -> Self {
        Self { command: Some(command), ..self }
    }
}

/// A device in a process of its own, attached to an address space. Dropping it brings back what the device
/// holds, and ends the process.
///
/// One launch runs at a time. The device has pages in its own memory only: what cannot go there it
/// cannot reach.
pub(crate) struct DeviceProcess {
    /// Ends first.
    server: Option<EngineThread>,
    attachment: Option<Attachment<Remote>>,
    link: Shared<Link>,
    work: Shared<Work>,
    child: Child,
    workers: usize,
    /// Whether pages come back as a launch returns.
    brings_back: bool,
    one: Mutex<()>,
}

impl DeviceProcess {
    /// Starts the process and attaches the device.
    ///
    /// # Errors
    /// [`KernelStartError`]; nothing is left behind then.
    pub(crate) fn start(
        space: &AddressSpace,
        options: ProcessOptions,
        kernels: &'static [Kernel],
    ) -> Result<Self, KernelStartError> {
        let ProcessOptions { memory, workers, keeps_pages, patience, command } = options;
        let page_size = space.page_size();
        let page = page_size.bytes();
        if workers == 0 || workers > MOST_WORKERS {
            return Err(StartError::Workers { workers, most: MOST_WORKERS }.into());
        }
        let frames = memory / page;
        if frames == 0 {
            return Err(StartError::MemoryTooSmall { memory, page }.into());
        }
        let (file, mapping) = Mapping::create(frames, page_size)
            .map_err(|errno| StartError::Mapping { memory, errno })?;
        let limits = Limits {
            frames,
            kernels: kernels.len(),
            workers,
            pages: space.page_limit().0,
            page_bytes: page,
        };
        tell_limits(mapping.shared(), &limits, kernels);
        let mut command = match command {
            Some(command) => command,
            None => Program::new(std::env::current_exe().map_err(KernelStartError::Spawn)?),
        };
        let child = command
            .env(ASKED, std::process::id().to_string())
            .stdin(Stdio::from(file))
            .spawn()
            .map_err(KernelStartError::Spawn)?;
        let mut starting = Starting(Some(child));
        let process = starting.watch().map_err(KernelStartError::Spawn)?;
        let engine_memory = space.engine_memory();
        // SAFETY: it borrows from the mapping, which goes into the link with what borrows from it, and
        // stays where it is.
        let shared: &'static layout::Shared = unsafe { &*ptr::from_ref(mapping.shared()) };
        let mut orders =
            EngineVec::try_with_capacity(engine_memory, workers).map_err(StartError::from)?;
        for ring in &shared.orders[..workers] {
            orders.try_push(Sender::new(ring)).map_err(StartError::from)?;
        }
        let link = Link {
            commands: Lock::new(Commands { sender: Sender::new(&shared.commands), sent: 0 }),
            orders: Lock::new(orders),
            mapping,
            process,
            patience,
            dead: AtomicBool::new(false),
        };
        let link = Shared::try_new(link, engine_memory).map_err(StartError::from)?;
        wait_until_ready(&link)?;
        let work = Work {
            launch: Lock::new(None),
            done: WaitWord::new(0),
            ending: AtomicBool::new(false),
            lost: AtomicUsize::new(0),
        };
        let work = Shared::try_new(work, engine_memory).map_err(StartError::from)?;
        let (table, memory) = (Remote(link.clone()), RemoteMemory(link.clone()));
        let attachment = space.attach_copying(table, memory, frames).map_err(StartError::from)?;
        let server = Server {
            attachment: attachment.clone(),
            reports: Receiver::new(&shared.reports),
            link: link.clone(),
            work: work.clone(),
            limits,
        };
        let room = workers * ENTRIES_PER_WORKER;
        let faults = attachment.fault_buffer(workers, room).map_err(StartError::from)?;
        let server = move |_: &SignalsBlocked| server.serve(&faults, room);
        let server =
            thread::spawn(engine_memory, c"uhmm-device", server).map_err(StartError::from)?;
        let Some(child) = starting.0.take() else { unreachable!("it is taken once") };
        let brings_back = !keeps_pages && !space.serves_system_calls();
        let (server, attachment, one) = (Some(server), Some(attachment), Mutex::new(()));
        Ok(Self { server, attachment, link, work, child, workers, brings_back, one })
    }

    fn attachment(&self) -> &Attachment<Remote> {
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
        // What the program unmapped or moved before, the device has no translation of.
        self.attachment().settle();
        self.tell_launch(&given);
        let times = self.work.done.word().load(Acquire);
        let launch = Launch {
            given,
            items: items.clone(),
            working: u64::MAX >> (MOST_WORKERS - self.workers),
            failure: None,
            // Unless it is done.
            result: Err(KernelRunError::Lost),
        };
        *self.work.launch.lock(&SignalsBlocked::new()) = Some(launch);
        let (first, count) = (items.start as u64, items.len() as u64);
        let order = Order::Launch { kernel, first, count, arguments };
        // Where nobody hears it the server finds the process gone, and ends the launch.
        (0..self.workers).for_each(|worker| self.link.order(worker, &order));
        self.work.done.wait_while(times);
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

    /// The system's number of the device process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
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

/// Puts where the process finds it what there is that messages may name.
fn tell_limits(shared: &layout::Shared, limits: &Limits, kernels: &[Kernel]) {
    shared.version.store(VERSION, Relaxed);
    shared.page_bytes.store(limits.page_bytes as u64, Relaxed);
    shared.frames.store(limits.frames as u64, Relaxed);
    shared.page_limit.store(limits.pages as u64, Relaxed);
    shared.kernels.store(limits.kernels as u64, Relaxed);
    shared.workers.store(limits.workers as u64, Relaxed);
    shared.fingerprint.store(fingerprint(kernels), Relaxed);
    shared.program.store(std::process::id(), Relaxed);
    shared.magic.store(MAGIC, Release);
}

impl Drop for DeviceProcess {
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

impl core::fmt::Debug for DeviceProcess {
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

fn wait_until_ready(link: &Link) -> Result<(), KernelStartError> {
    let state = &link.mapping.shared().state;
    // Starting an executable takes longer than an answer.
    let patience = link.patience.max(Duration::from_secs(10));
    let since = Instant::now();
    loop {
        match state.load(SeqCst) {
            READY => return Ok(()),
            STARTING if !link.lives() || since.elapsed() > patience => {
                return Err(KernelStartError::NotReady { patience });
            }
            STARTING => wait(state, STARTING, SLICE),
            // Told so, or nonsense.
            _ => return Err(KernelStartError::Refused),
        }
    }
}
