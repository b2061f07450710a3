//! The connection to a device process: what is sent there, and by which it is seen to be gone.

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
    Shared,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    ring::{Command, Order, Receiver, Sender},
    sync::{Lock, SignalsBlocked},
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
    pub(super) fn wait_applied(&self, commands: u32) {
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
