//! The buffer itself: a bounded ring of entries, the queues, and who serves.

use thiserror::Error;

use super::{
    batch::{FaultBatch, Outcome, Storage, Taken},
    fault::{Fault, FaultAccess, QueueCancelled, QueueNumber},
    queue::{FaultQueue, Serve},
};
use crate::{
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

/// A bounded buffer of the faults of a device's queues. [The module](self) tells how it works.
#[derive(Debug)]
pub struct FaultBuffer {
    pub(super) page_size: PageSize,
    state: Lock<State>,
    /// What a queue sleeps on, one for each.
    words: EngineVec<WaitWord>,
    /// What the device's own thread sleeps on.
    arrivals: WaitWord,
}

/// # Invariants
/// - The entries of `ring` from `first` on, `len` of them, round its end, are in the order in which they
///   came, and those that are held back came after.
/// - `pending` of a queue counts its entries of now that are no hints and were not replayed: in the ring,
///   held back, or in the batch that is being served.
/// - A queue is in the list of those held back while, and only while, it has an entry in `held`.
/// - `storage` is there while nobody serves.
#[derive(Debug)]
pub(super) struct State {
    ring: EngineVec<Fault>,
    first: usize,
    len: usize,
    pub(super) queues: EngineVec<Queue>,
    /// The queues that are held back, the first and the last.
    held: Option<(usize, usize)>,
    storage: Option<Storage>,
    /// How many entries there ever were.
    entered: u64,
    /// How many were held back since that was last told.
    held_back: usize,
    /// How many were stale and are dropped, since that was last told.
    dropped: usize,
    /// Whether the device's own thread sleeps.
    thread_sleeps: bool,
    ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    open: bool,
    generation: u32,
    pub(super) pending: usize,
    sleeps: Sleeps,
    cancelled: Option<QueueCancelled>,
    /// The fault that ends it in the replay under way, by the order in which it came.
    pub(super) ends: Option<(u64, QueueCancelled)>,
    held: Option<Fault>,
    /// The queue that is held back behind it.
    behind: Option<usize>,
}

/// What a queue sleeps for, if it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleeps {
    #[default]
    No,
    /// For its entry to be in the buffer.
    ForRoom { leads: bool },
    /// For a replay of all its entries.
    ForReplay { leads: bool },
}

impl Sleeps {
    /// Whether it can serve, once woken.
    const fn leads(self) -> bool {
        matches!(self, Self::ForRoom { leads: true } | Self::ForReplay { leads: true })
    }
}

/// Who is to be woken once the lock is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Nobody,
    Queue(usize),
    Thread,
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

impl State {
    fn is_full(&self) -> bool {
        self.len == self.ring.len()
    }

    fn push(&mut self, fault: Fault) {
        let place = (self.first + self.len) % self.ring.len();
        self.ring[place] = fault;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Fault> {
        if self.len == 0 {
            return None;
        }
        let fault = self.ring[self.first];
        self.first = (self.first + 1) % self.ring.len();
        self.len -= 1;
        Some(fault)
    }

    /// The entries in the ring, oldest first.
    fn waiting(&self) -> impl Iterator<Item = &Fault> {
        let (ring, first) = (&self.ring, self.first);
        (0..self.len).map(move |place| &ring[(first + place) % ring.len()])
    }

    fn is_current(&self, fault: &Fault) -> bool {
        self.queues[fault.queue.0].generation == fault.generation
    }

    fn hold_back(&mut self, fault: Fault) {
        let queue = fault.queue.0;
        self.queues[queue].held = Some(fault);
        self.held_back += 1;
        self.held = match self.held {
            None => Some((queue, queue)),
            Some((first, last)) => {
                self.queues[last].behind = Some(queue);
                Some((first, queue))
            }
        };
    }

    /// Takes the entry out that was held back first.
    fn let_go(&mut self) -> Option<Fault> {
        let (first, last) = self.held?;
        let queue = &mut self.queues[first];
        let behind = queue.behind.take();
        let fault = queue.held.take();
        self.held = behind.map(|behind| (behind, last));
        fault
    }

    /// Lets in what was held back, as far as there is room.
    fn let_in(&mut self, storage: &mut Storage) {
        while !self.is_full()
            && let Some(fault) = self.let_go()
        {
            let queue = fault.queue.0;
            self.push(fault);
            if matches!(self.queues[queue].sleeps, Sleeps::ForRoom { .. }) {
                self.wakes(queue);
                storage.wake(queue);
            }
        }
    }

    /// Takes a queue out of those that are held back, and drops its entry.
    fn drop_held(&mut self, queue: usize) {
        if self.queues[queue].held.take().is_none() {
            return;
        }
        let behind = self.queues[queue].behind.take();
        let Some((first, last)) = self.held else { return };
        if first == queue {
            self.held = behind.map(|behind| (behind, last));
            return;
        }
        let mut before = first;
        while let Some(next) = self.queues[before].behind {
            if next == queue {
                self.queues[before].behind = behind;
                break;
            }
            before = next;
        }
        self.held = Some((first, if last == queue { before } else { last }));
    }

    /// Ends what a queue has in the buffer: what is left of it is stale.
    fn end_queue(&mut self, queue: usize) {
        self.drop_held(queue);
        let queue = &mut self.queues[queue];
        queue.generation = queue.generation.wrapping_add(1);
        queue.pending = 0;
    }

    /// Notes that a queue, if it sleeps, is woken.
    fn wakes(&mut self, queue: usize) -> bool {
        core::mem::take(&mut self.queues[queue].sleeps) != Sleeps::No
    }

    /// Who is to serve what is in the buffer, nobody doing so: the queue that waits for longest, else the
    /// device's own thread. A queue that does not sleep comes by itself.
    fn next_to_serve(&mut self) -> Wake {
        if self.len == 0 {
            return Wake::Nobody;
        }
        let held = core::iter::successors(self.held.map(|(first, _)| first), |&queue| {
            self.queues[queue].behind
        });
        let mut waiting = self.waiting().map(|fault| fault.queue.0).chain(held);
        let next = waiting.find(|&queue| self.queues[queue].sleeps.leads());
        drop(waiting);
        match next {
            Some(queue) => {
                self.wakes(queue);
                Wake::Queue(queue)
            }
            None => self.thread_to_serve(),
        }
    }

    fn thread_to_serve(&mut self) -> Wake {
        if core::mem::take(&mut self.thread_sleeps) { Wake::Thread } else { Wake::Nobody }
    }
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
        let mut all = EngineVec::try_with_capacity(memory, queues)?;
        for _ in 0..queues {
            words.try_push(WaitWord::new(0))?;
            all.try_push(Queue::default())?;
        }
        let none = Fault {
            queue: QueueNumber(0),
            address: 0,
            access: FaultAccess::Prefetch,
            order: 0,
            generation: 0,
        };
        let mut ring = EngineVec::try_with_capacity(memory, entries)?;
        for _ in 0..entries {
            ring.try_push(none)?;
        }
        let state = State {
            ring,
            first: 0,
            len: 0,
            queues: all,
            held: None,
            storage: Some(Storage::new(memory, batch.clamp(1, entries), queues)?),
            entered: 0,
            held_back: 0,
            dropped: 0,
            thread_sleeps: false,
            ended: false,
        };
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
        for place in 0..storage.taken.len() {
            let Taken { fault, outcome } = storage.taken[place];
            if fault.access.is_hint() || !state.is_current(&fault) {
                continue;
            }
            let queue = &mut state.queues[fault.queue.0];
            queue.pending -= 1;
            if let Outcome::Failed(failure) = outcome
                && queue.ends.is_none_or(|(order, _)| fault.order < order)
            {
                let Fault { queue: number, address, access, .. } = fault;
                let cancelled = QueueCancelled { queue: number, address, access, failure };
                queue.ends = Some((fault.order, cancelled));
            }
        }
        let mut cancelled = 0;
        for place in 0..storage.taken.len() {
            let number = storage.taken[place].fault.queue.0;
            if let Some((_, report)) = state.queues[number].ends.take() {
                state.end_queue(number);
                state.queues[number].cancelled = Some(report);
                cancelled += 1;
            }
            let queue = &state.queues[number];
            let goes_on = match queue.sleeps {
                Sleeps::No => false,
                Sleeps::ForRoom { .. } => queue.cancelled.is_some(),
                Sleeps::ForReplay { .. } => queue.pending == 0,
            };
            if goes_on {
                state.wakes(number);
                storage.wake(number);
            }
        }
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
