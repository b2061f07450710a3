//! The connection to a device process: what is sent there, by which it is seen to be gone, and what the
//! core has of it: a page table and a memory.

use core::{
    ptr,
    sync::atomic::{
        AtomicBool,
        Ordering::{AcqRel, Acquire, Release, SeqCst},
    },
    time::Duration,
};
use std::{os::fd::OwnedFd, time::Instant};

use rustix::{
    event::{PollFd, PollFlags},
    process::Signal,
};
use uhmm::{
    Begun, CopyingMemory, Device, Entries, Invalidation, PageTable, Shared, Ticket, Transfer,
    TransferError, Translation, copy_bytes,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    ring::{Command, Order, Receiver, Sender},
    sync::{Lock, SignalsBlocked},
    units::PageRange,
};

use super::layout::{self, Mapping, READY, STARTING, wait};
use crate::errors::KernelStartError;

/// How long a sleep lasts at most, before it is looked whether the other process lives.
pub(super) const SLICE: Duration = Duration::from_millis(if cfg!(fuzzing) { 0 } else { 20 });

/// How often an answer is looked for before sleeping.
pub(super) const LOOKS: u32 = if cfg!(fuzzing) { 1 } else { 200 };

/// The sender of commands, and how many were sent.
struct Commands {
    sender: Sender<'static>,
    sent: u32,
}

/// The connection to the device process.
///
/// # Invariants
/// What is `'static` here borrows from `mapping`, and is reached while this lives.
pub(super) struct Link {
    commands: Lock<Commands>,
    /// One for each worker.
    orders: Lock<EngineVec<Sender<'static>>>,
    pub(super) mapping: Mapping,
    process: OwnedFd,
    patience: Duration,
    /// Whether the process is gone, or was ended.
    dead: AtomicBool,
}

impl Link {
    /// The connection by `mapping` to `process`, and where its reports come.
    pub(super) fn new(
        mapping: Mapping,
        process: OwnedFd,
        patience: Duration,
        workers: usize,
        memory: &EngineMemory,
    ) -> Result<(Shared<Self>, Receiver<'static>), EngineMemoryError> {
        // SAFETY: it borrows from the mapping, which goes into the link with what borrows from it, and
        // stays where it is. Who receives has the link too.
        let shared: &'static layout::Shared = unsafe { &*ptr::from_ref(mapping.shared()) };
        let mut orders = EngineVec::try_with_capacity(memory, workers)?;
        for ring in &shared.orders[..workers] {
            orders.try_push(Sender::new(ring))?;
        }
        let link = Self {
            commands: Lock::new(Commands { sender: Sender::new(&shared.commands), sent: 0 }),
            orders: Lock::new(orders),
            mapping,
            process,
            patience,
            dead: AtomicBool::new(false),
        };
        Ok((Shared::try_new(link, memory)?, Receiver::new(&shared.reports)))
    }

    /// Returns when the process says that it serves.
    pub(super) fn wait_until_ready(&self) -> Result<(), KernelStartError> {
        let state = &self.mapping.shared().state;
        // Starting an executable takes longer than an answer.
        let patience = self.patience.max(Duration::from_secs(10));
        let since = Instant::now();
        loop {
            match state.load(SeqCst) {
                READY => return Ok(()),
                STARTING if !self.lives() || since.elapsed() > patience => {
                    return Err(KernelStartError::NotReady { patience });
                }
                STARTING => wait(state, STARTING, SLICE),
                // Told so, or nonsense.
                _ => return Err(KernelStartError::Refused),
            }
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Acquire)
    }

    /// Whether the process lives. Notes it where not. Asked wherever it was waited for.
    pub(super) fn lives(&self) -> bool {
        if self.is_dead() {
            return false;
        }
        #[cfg(fuzzing)]
        super::fuzzing::turn();
        let mut process = [PollFd::new(&self.process, PollFlags::IN)];
        let ended = rustix::event::poll(&mut process, Some(&NO_TIME)).is_ok_and(|count| count > 0);
        if ended {
            self.dead.store(true, Release);
        }
        !ended
    }

    /// Ends the process, which does not answer, or says what makes no sense.
    pub(super) fn end(&self) {
        if !self.dead.swap(true, AcqRel) {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        }
    }

    /// Sends a command. Answers how many were sent by then, or that nobody receives them.
    pub(super) fn command(&self, command: &Command) -> Option<u32> {
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

    /// Gives a worker an order.
    pub(super) fn order(&self, worker: usize, order: &Order) {
        let signals = SignalsBlocked::new();
        let mut orders = self.orders.lock(&signals);
        // A worker has as many orders under way as it has reports that await one, or launches: one.
        let sent = !self.is_dead()
            && orders.get_mut(worker).is_some_and(|ring| ring.send(&order.encode()) == Ok(true));
        drop(orders);
        if !sent {
            self.end();
        }
    }

    /// Has the process end, and waits for that as long as there is patience.
    pub(super) fn stop(&self) {
        if self.command(&Command::Stop).is_some() {
            let since = Instant::now();
            while self.lives() && since.elapsed() < self.patience {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.end();
    }

    /// How many commands were sent.
    pub(super) fn commands_sent(&self) -> u32 {
        self.commands.lock(&SignalsBlocked::new()).sent
    }
}

const NO_TIME: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// The device's page table, which is in the other process: what the core tells goes there.
pub(super) struct Remote(pub(super) Shared<Link>);

// SAFETY: the device touches its own frames alone, by translations that commits gave it; when an
// invalidation returns it has applied it, or is gone. Nothing here uses the heap or waits for a call of the
// core, and waiting for the device is as long as it has patience.
unsafe impl PageTable for Remote {
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
}

/// The frames, which both processes have.
pub(super) struct RemoteMemory(pub(super) Shared<Link>);

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
