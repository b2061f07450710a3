//! The buffer itself: its lock, and what its queues and threads sleep on.

use thiserror::Error;

use super::{
    batch::{FaultBatch, Storage},
    fault::{Fault, QueueCancelled, QueueNumber},
    queue::{FaultQueue, Serve},
    state::{Sleeps, State, Wake},
};
use crate::{
    driver::FaultAccess,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    sync::{
        Lock, LockGuard, SignalsBlocked, WaitWord,
        atomic::Ordering::{Acquire, Release},
    },
    units::PageSize,
};

/// Why a queue of a fault buffer could not be opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OpenQueueError {
    /// there is no such queue
    #[error("there is no queue {}: the buffer has {queues}", number.0)]
    NoSuchQueue {
        /// The queue asked for.
        number: QueueNumber,
        /// How many the buffer has.
        queues: usize,
    },
    /// the queue is open already
    #[error("queue {} is open already", number.0)]
    Open {
        /// The queue asked for.
        number: QueueNumber,
    },
}

/// A bounded buffer of the faults of a device's queues, which are served in batches.
///
/// Each queue is [opened](Self::open) by the thread that works it off, which enters what it misses and waits
/// ([`FaultQueue`]). A batch is taken by a queue that waits while nobody serves, by
/// [`next_batch`](Self::next_batch) or by [`drain`](Self::drain), the oldest entries first, and goes to
/// [`Attachment::serve_faults`](crate::Attachment::serve_faults); or it is served otherwise, by its stages:
/// [`FaultBatch::sort`], [`SortedFaults::replay`](crate::SortedFaults::replay).
///
/// A queue that finds no room is held back until there is some, and nothing is lost. One of whose faults one cannot be
/// served is cancelled alone ([`QueueCancelled`]).
#[derive(Debug)]
pub struct FaultBuffer {
    pub(super) page_size: PageSize,
    state: Lock<State>,
    /// What a queue sleeps on, one for each.
    words: EngineVec<WaitWord>,
    /// What the device's own thread sleeps on.
    arrivals: WaitWord,
}

/// What a queue does next.
pub(super) enum Next<'a> {
    /// What it waits for is there.
    Over,
    /// Its work was ended.
    Cancelled(QueueCancelled),
    /// It is to serve these.
    Serve(FaultBatch<'a>),
    /// It slept, or may have: look again.
    Again,
}

impl FaultBuffer {
    /// A buffer of `entries` entries for `queues` queues, of which `batch` entries at most are served at a
    /// time. Each is one at least.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where there is no memory for it.
    pub fn new(
        memory: &EngineMemory,
        page_size: PageSize,
        queues: usize,
        entries: usize,
        batch: usize,
    ) -> Result<Self, EngineMemoryError> {
        let (queues, entries) = (queues.max(1), entries.max(1));
        let mut words = EngineVec::try_with_capacity(memory, queues)?;
        for _ in 0..queues {
            words.try_push(WaitWord::new(0))?;
        }
        let state = State::new(memory, queues, entries, batch)?;
        Ok(Self { page_size, state: Lock::new(state), words, arrivals: WaitWord::new(0) })
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        self.words.len()
    }

    /// Opens a queue, for the thread that works it off. `serve` is how it serves a batch where nobody else
    /// does, or [`ServedElsewhere`](super::ServedElsewhere).
    ///
    /// # Errors
    /// [`OpenQueueError`] where there is none with that number, or somebody has it.
    pub fn open<S: Serve>(
        &self,
        number: QueueNumber,
        serve: S,
    ) -> Result<FaultQueue<'_, S>, OpenQueueError> {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        let queues = state.queues.len();
        let Some(queue) = state.queues.get_mut(number.0) else {
            return Err(OpenQueueError::NoSuchQueue { number, queues });
        };
        if queue.open {
            return Err(OpenQueueError::Open { number });
        }
        queue.open = true;
        Ok(FaultQueue::new(self, number, serve))
    }

    /// Waits until there are faults that nobody serves, and takes a batch of them; for a thread of the
    /// device's own. None once the buffer has [ended](Self::end).
    pub fn next_batch(&self) -> Option<FaultBatch<'_>> {
        let signals = SignalsBlocked::new();
        loop {
            let mut state = self.state.lock(&signals);
            if state.ended {
                return None;
            }
            if state.len > 0
                && let Some(storage) = state.storage.take()
            {
                match self.take(state, storage, &signals) {
                    Some(batch) => return Some(batch),
                    None => continue,
                }
            }
            state.thread_sleeps = true;
            let seen = self.arrivals.word().load(Acquire);
            drop(state);
            self.arrivals.wait(seen);
        }
    }

    /// Takes a batch of what is in the buffer, if there is anything that nobody serves.
    pub fn drain(&self) -> Option<FaultBatch<'_>> {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        if state.len == 0 {
            return None;
        }
        let storage = state.storage.take()?;
        self.take(state, storage, &signals)
    }

    /// Has threads return from [`next_batch`](Self::next_batch). Queues are served by each other from then
    /// on, where they can.
    pub fn end(&self) {
        let signals = SignalsBlocked::new();
        self.state.lock(&signals).ended = true;
        self.wake_thread();
    }

    /// Fills a batch with the oldest entries, and lets in what was held back. None, and nobody serves, where all
    /// that was there is stale.
    fn take<'a>(
        &'a self,
        mut state: LockGuard<'_, State>,
        mut storage: Storage,
        signals: &SignalsBlocked,
    ) -> Option<FaultBatch<'a>> {
        while storage.taken.is_empty() && state.len > 0 {
            while storage.has_room()
                && let Some(fault) = state.pop()
            {
                if state.is_current(&fault) {
                    storage.add(fault);
                } else {
                    state.dropped += 1;
                }
            }
            state.let_in(&mut storage);
        }
        let told = if storage.taken.is_empty() {
            None
        } else {
            let State { held_back, dropped, .. } = &mut *state;
            Some((core::mem::take(held_back), core::mem::take(dropped)))
        };
        drop(state);
        self.wake_all(&mut storage);
        let Some((held_back, dropped)) = told else {
            self.give_back(storage, signals);
            return None;
        };
        Some(FaultBatch::new(self, storage, held_back, dropped))
    }

    /// Has the queues of a batch go on, or be cancelled, and passes on who serves. Answers how many queues were
    /// cancelled.
    pub(super) fn replay(&self, mut storage: Storage) -> usize {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        let cancelled = state.replay(&mut storage);
        drop(state);
        self.wake_all(&mut storage);
        self.give_back(storage, &signals);
        cancelled
    }

    /// Nobody serves from here on, but who is woken for it.
    fn give_back(&self, mut storage: Storage, signals: &SignalsBlocked) {
        storage.clear();
        let wake = {
            let mut state = self.state.lock(signals);
            state.storage = Some(storage);
            state.next_to_serve()
        };
        self.wake(wake);
    }

    fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Queue(queue) => self.wake_queue(queue),
            Wake::Thread => self.wake_thread(),
        }
    }

    fn wake_thread(&self) {
        self.arrivals.word().fetch_add(1, Release);
        self.arrivals.wake_all();
    }

    fn wake_queue(&self, queue: usize) {
        let word = &self.words[queue];
        word.word().fetch_add(1, Release);
        word.wake_one();
    }

    fn wake_all(&self, storage: &mut Storage) {
        storage.woken(|queue| self.wake_queue(queue));
    }

    /// Enters a fault of a queue. Answers whether it is in the buffer; else the queue is held back.
    pub(super) fn enter(
        &self,
        number: QueueNumber,
        address: usize,
        access: FaultAccess,
    ) -> Result<bool, QueueCancelled> {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        let order = state.entered;
        let queue = &mut state.queues[number.0];
        if let Some(cancelled) = queue.cancelled.take() {
            return Err(cancelled);
        }
        let fault = Fault { queue: number, address, access, order, generation: queue.generation };
        if !access.is_hint() {
            queue.pending += 1;
        }
        state.entered += 1;
        if state.is_full() || state.held.is_some() {
            state.hold_back(fault);
            return Ok(false);
        }
        state.push(fault);
        let wake = if access.is_hint() && state.storage.is_some() {
            state.thread_to_serve()
        } else {
            Wake::Nobody
        };
        drop(state);
        self.wake(wake);
        Ok(true)
    }

    /// What a queue does next that waits for its entry to be in the buffer, or for all its entries to be
    /// replayed. It sleeps where there is nothing to do.
    pub(super) fn next(&self, number: QueueNumber, for_room: bool, leads: bool) -> Next<'_> {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        let queue = &mut state.queues[number.0];
        if let Some(cancelled) = queue.cancelled.take() {
            return Next::Cancelled(cancelled);
        }
        if if for_room { queue.held.is_none() } else { queue.pending == 0 } {
            return Next::Over;
        }
        if leads && let Some(storage) = state.storage.take() {
            return self.take(state, storage, &signals).map_or(Next::Again, Next::Serve);
        }
        state.queues[number.0].sleeps =
            if for_room { Sleeps::ForRoom { leads } } else { Sleeps::ForReplay { leads } };
        let word = &self.words[number.0];
        let seen = word.word().load(Acquire);
        let wake = if state.storage.is_some() { state.next_to_serve() } else { Wake::Nobody };
        drop(state);
        self.wake(wake);
        word.wait(seen);
        Next::Again
    }

    /// What a queue would see that waits for all its entries and serves nothing.
    #[cfg(all(test, not(any(shuttle, miri, loom))))]
    pub(super) fn look(&self, number: QueueNumber) -> Next<'_> {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        let queue = &mut state.queues[number.0];
        match queue.cancelled.take() {
            Some(cancelled) => Next::Cancelled(cancelled),
            None if queue.pending == 0 => Next::Over,
            None => Next::Again,
        }
    }

    /// A queue is not used any more: what is left of it in the buffer is stale.
    pub(super) fn close(&self, number: QueueNumber) {
        let signals = SignalsBlocked::new();
        let mut state = self.state.lock(&signals);
        state.end_queue(number.0);
        let queue = &mut state.queues[number.0];
        queue.cancelled = None;
        queue.open = false;
    }
}
