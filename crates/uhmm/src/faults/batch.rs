//! A batch of faults on its way: drained, sorted, told what became of each, replayed.

use core::{fmt, ops::Range};

use super::{
    buffer::FaultBuffer,
    fault::{Fault, FaultFailure},
};
use crate::{
    driver::FaultAccess,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    units::PageNumber,
};

/// What became of a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is known: its queue tries again.
    #[default]
    Open,
    Served,
    Failed(FaultFailure),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) fault: Fault,
    pub(super) outcome: Outcome,
}

/// What a batch is kept in: made once, and handed on from who serves to who serves next.
#[derive(Debug)]
pub(super) struct Storage {
    /// There is room for `most`, made ahead.
    pub(super) taken: EngineVec<Taken>,
    most: usize,
    /// The queues that are to be woken. There is room for all.
    woken: EngineVec<usize>,
}

impl Storage {
    pub(super) fn new(
        memory: &EngineMemory,
        most: usize,
        queues: usize,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            taken: EngineVec::try_with_capacity(memory, most)?,
            most,
            woken: EngineVec::try_with_capacity(memory, queues)?,
        })
    }

    pub(super) fn has_room(&self) -> bool {
        self.taken.len() < self.most
    }

    pub(super) fn add(&mut self, fault: Fault) {
        let added = self.taken.try_push(Taken { fault, outcome: Outcome::Open });
        assert!(added.is_ok(), "there is room, made ahead");
    }

    /// Notes that a queue, which sleeps no more, is to be woken.
    pub(super) fn wake(&mut self, queue: usize) {
        let added = self.woken.try_push(queue);
        assert!(added.is_ok(), "there is room for each queue, made ahead");
    }

    /// Names the queues that are to be woken, once.
    pub(super) fn woken(&mut self, mut wake: impl FnMut(usize)) {
        self.woken.iter().for_each(|&queue| wake(queue));
        self.woken.clear();
    }

    pub(super) fn clear(&mut self) {
        self.taken.clear();
    }
}

/// What one replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries of the batch.
    pub faults: usize,
    /// Entries that were dropped on the way, as their queues were cancelled or closed before.
    pub dropped: usize,
    /// Entries that were held back, until this batch was drained, since the one before was.
    pub held_back: usize,
    /// Queues that were cancelled.
    pub cancelled: usize,
}

/// Entries that were drained, in the order in which they came.
///
/// While it lives nobody else serves the buffer. Dropped, here or at a later stage, it is replayed as it is:
/// queues that were told nothing try again.
#[must_use = "queues wait for it"]
pub struct FaultBatch<'a>(Carried<'a>);

/// What the stages hand on.
///
/// # Invariants
/// The storage is there until it is replayed.
struct Carried<'a> {
    buffer: &'a FaultBuffer,
    storage: Option<Storage>,
    told: Replayed,
}

impl Carried<'_> {
    fn taken(&self) -> &[Taken] {
        self.storage.as_ref().map_or(&[], |storage| &storage.taken)
    }

    fn taken_mut(&mut self) -> &mut [Taken] {
        self.storage.as_mut().map_or(&mut [], |storage| &mut storage.taken)
    }

    fn replay(&mut self) -> Replayed {
        if let Some(storage) = self.storage.take() {
            self.told.cancelled = self.buffer.replay(storage);
        }
        self.told
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.replay();
    }
}

impl<'a> FaultBatch<'a> {
    pub(super) fn new(
        buffer: &'a FaultBuffer,
        storage: Storage,
        held_back: usize,
        dropped: usize,
    ) -> Self {
        let told = Replayed { faults: storage.taken.len(), dropped, held_back, cancelled: 0 };
        Self(Carried { buffer, storage: Some(storage), told })
    }

    /// The faults, in the order in which they came.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.0.taken().iter().map(|taken| &taken.fault)
    }

    /// Sorts them by page; of one page the strongest access comes first, and of those alike the oldest.
    pub fn sort(mut self) -> SortedFaults<'a> {
        let page_size = self.0.buffer.page_size;
        self.0.taken_mut().sort_unstable_by_key(|taken| {
            let Fault { address, access, order, .. } = taken.fault;
            (page_size.page_of(address), core::cmp::Reverse(access), order)
        });
        SortedFaults(self.0)
    }
}

/// Faults on one page: places of a sorted batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultedPage {
    /// The page.
    pub page: PageNumber,
    /// The strongest access that is wanted of it.
    pub access: FaultAccess,
    /// Where its faults are in the batch.
    pub faults: Range<usize>,
}

/// Entries that were sorted, those of one page side by side.
#[must_use = "queues wait for it"]
pub struct SortedFaults<'a>(Carried<'a>);

impl SortedFaults<'_> {
    /// How many faults there are.
    pub fn len(&self) -> usize {
        self.0.taken().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fault at a place.
    ///
    /// # Panics
    /// There are not so many.
    pub fn fault(&self, place: usize) -> &Fault {
        &self.0.taken()[place].fault
    }

    /// The faults on the page of the one at `place`, from there on. None behind the last.
    ///
    /// From the first place on, each time from the end of what was answered, this goes through the pages in
    /// the order of their addresses.
    pub fn page_at(&self, place: usize) -> Option<FaultedPage> {
        let taken = self.0.taken();
        let first = taken.get(place)?.fault;
        let page_of = |fault: &Fault| self.0.buffer.page_size.page_of(fault.address);
        let page = page_of(&first);
        let others = taken[place..].iter().take_while(|taken| page_of(&taken.fault) == page);
        Some(FaultedPage { page, access: first.access, faults: place..place + others.count() })
    }

    /// The faults at `places` are served: their pages are there.
    ///
    /// # Panics
    /// There are not so many.
    pub fn served(&mut self, places: Range<usize>) {
        self.tell(places, Outcome::Served);
    }

    /// The faults at `places` cannot be served. In the replay their queues are cancelled, but for hints.
    ///
    /// # Panics
    /// There are not so many.
    pub fn failed(&mut self, places: Range<usize>, failure: FaultFailure) {
        self.tell(places, Outcome::Failed(failure));
    }

    fn tell(&mut self, places: Range<usize>, outcome: Outcome) {
        self.0.taken_mut()[places].iter_mut().for_each(|taken| taken.outcome = outcome);
    }

    /// Has all queues of the batch go on at once: they try again what they missed, but those that are
    /// cancelled.
    pub fn replay(mut self) -> Replayed {
        self.0.replay()
    }
}

impl fmt::Debug for FaultBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.taken()).finish()
    }
}

impl fmt::Debug for SortedFaults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.taken()).finish()
    }
}
