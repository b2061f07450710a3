//! What a fault buffer knows, under its lock: the entries, the queues, and who is to serve.

use super::{
    batch::{Outcome, Storage, Taken},
    fault::{Fault, QueueCancelled, QueueNumber},
};
use crate::{
    driver::FaultAccess,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
};

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
    pub(super) len: usize,
    pub(super) queues: EngineVec<Queue>,
    /// The queues that are held back, the first and the last.
    pub(super) held: Option<(usize, usize)>,
    pub(super) storage: Option<Storage>,
    /// How many entries there ever were.
    pub(super) entered: u64,
    /// How many were held back since that was last told.
    pub(super) held_back: usize,
    /// How many were stale and are dropped, since that was last told.
    pub(super) dropped: usize,
    /// Whether the device's own thread sleeps.
    pub(super) thread_sleeps: bool,
    pub(super) ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) open: bool,
    pub(super) generation: u32,
    pub(super) pending: usize,
    pub(super) sleeps: Sleeps,
    pub(super) cancelled: Option<QueueCancelled>,
    /// The fault that ends it in the replay under way, by the order in which it came.
    ends: Option<(u64, QueueCancelled)>,
    pub(super) held: Option<Fault>,
    /// The queue that is held back behind it.
    behind: Option<usize>,
}

/// What a queue sleeps for, if it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sleeps {
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
pub(super) enum Wake {
    Nobody,
    Queue(usize),
    Thread,
}

impl State {
    /// No entry, `queues` queues.
    pub(super) fn new(
        memory: &EngineMemory,
        queues: usize,
        entries: usize,
        batch: usize,
    ) -> Result<Self, EngineMemoryError> {
        let mut all = EngineVec::try_with_capacity(memory, queues)?;
        for _ in 0..queues {
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
        Ok(Self {
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
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.ring.len()
    }

    pub(super) fn push(&mut self, fault: Fault) {
        let place = (self.first + self.len) % self.ring.len();
        self.ring[place] = fault;
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<Fault> {
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

    pub(super) fn is_current(&self, fault: &Fault) -> bool {
        self.queues[fault.queue.0].generation == fault.generation
    }

    pub(super) fn hold_back(&mut self, fault: Fault) {
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
    pub(super) fn let_in(&mut self, storage: &mut Storage) {
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
    pub(super) fn end_queue(&mut self, queue: usize) {
        self.drop_held(queue);
        let queue = &mut self.queues[queue];
        queue.generation = queue.generation.wrapping_add(1);
        queue.pending = 0;
    }

    /// Notes that a queue, if it sleeps, is woken.
    fn wakes(&mut self, queue: usize) {
        self.queues[queue].sleeps = Sleeps::No;
    }

    /// Who is to serve what is in the buffer, nobody doing so: the queue that waits for longest, else the
    /// device's own thread. A queue that does not sleep comes by itself.
    pub(super) fn next_to_serve(&mut self) -> Wake {
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

    pub(super) fn thread_to_serve(&mut self) -> Wake {
        if core::mem::take(&mut self.thread_sleeps) { Wake::Thread } else { Wake::Nobody }
    }

    /// Notes what became of a batch, and names the queues that go on, or are cancelled. Answers how many are
    /// cancelled.
    pub(super) fn replay(&mut self, storage: &mut Storage) -> usize {
        for place in 0..storage.taken.len() {
            let Taken { fault, outcome } = storage.taken[place];
            if fault.access.is_hint() || !self.is_current(&fault) {
                continue;
            }
            let queue = &mut self.queues[fault.queue.0];
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
            if let Some((_, report)) = self.queues[number].ends.take() {
                self.end_queue(number);
                self.queues[number].cancelled = Some(report);
                cancelled += 1;
            }
            let queue = &self.queues[number];
            let goes_on = match queue.sleeps {
                Sleeps::No => false,
                Sleeps::ForRoom { .. } => queue.cancelled.is_some(),
                Sleeps::ForReplay { .. } => queue.pending == 0,
            };
            if goes_on {
                self.wakes(number);
                storage.wake(number);
            }
        }
        cancelled
    }
}
