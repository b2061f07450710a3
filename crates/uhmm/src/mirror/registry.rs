//! All subscriptions of an address space, and how an invalidation finds those that it hits.
//!
//! Subscriptions stand in a tree by their ranges. An invalidation takes the tree's lock only to look
//! some of them up, and pins each for as long as its callback runs; who ends a subscription takes it
//! out of the tree and waits until it is not pinned any more. Who does so from within that very
//! callback cannot wait: the last callback that ends then lays the subscription aside, for whoever
//! comes by later, with no lock held, to drop.

use core::{ops::ControlFlow, ptr, ptr::NonNull};

use super::{
    calling,
    calls::{Calls, Due, Ended},
    holds::Holds,
    interval_tree::IntervalTree,
};
use crate::{
    device::DeviceState,
    driver::{DeviceIndex, Importer, Invalidation, MirrorId, PageTable},
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    processor::prefetch,
    shared::Shared,
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// How many subscriptions an invalidation looks up at a time.
const HITS: usize = if cfg!(any(shuttle, miri)) { 2 } else { 16 };

/// The page table of a subscription.
pub(crate) enum Table {
    /// The mirror's own.
    Own(EngineBox<dyn PageTable>),
    /// That of a device with memory.
    Device(Shared<DeviceState>),
}

/// A device's subscription to a range.
pub(crate) struct Subscriber {
    id: u64,
    pub(crate) pages: PageRange,
    table: Table,
    pub(crate) holds: Holds,
    calls: Calls,
    next: AtomicPtr<Subscriber>,
}

impl Subscriber {
    /// Its page table.
    pub(crate) fn table(&self) -> &dyn PageTable {
        match &self.table {
            Table::Own(table) => &**table,
            Table::Device(state) => &*state.device,
        }
    }

    /// The device with memory that it is of, if it is of one.
    pub(crate) fn device(&self) -> Option<DeviceIndex> {
        match &self.table {
            Table::Own(_) => None,
            Table::Device(state) => Some(state.index),
        }
    }

    /// Who it is to a peer.
    pub(crate) fn importer(&self) -> Importer {
        Importer { mirror: MirrorId(self.id), device: self.device() }
    }

    /// Its place in the order in which subscriptions are found.
    fn place(&self) -> Place {
        Subscriptions::order(self.pages, self.id)
    }
}

type Subscriptions = IntervalTree<NonNull<Subscriber>>;

/// A place in the order in which subscriptions are found.
type Place = (bool, usize, u64);

/// All subscriptions.
pub(crate) struct Mirrors {
    memory: EngineMemory,
    tree: Lock<Subscriptions>,
    last_id: AtomicU64,
    /// Whether there are so many that it pays to fetch ahead.
    many: AtomicBool,
    ended: Ended,
    /// Subscriptions that were laid aside.
    aside: AtomicPtr<Subscriber>,
}

// SAFETY: subscriptions are shared between threads: a page table is by its trait, the rest is
// atomic or never changes; they are dropped once, by who takes them from `aside` or ends them.
unsafe impl Send for Mirrors {}
// SAFETY: as above.
unsafe impl Sync for Mirrors {}

/// A subscription that its owner holds. Dropping it ends the subscription: no callback of it runs
/// afterwards, but for the one that drops it.
///
/// # Invariants
/// `subscriber` is in the tree of the registry, and valid until it is ended.
pub(crate) struct Registration {
    subscriber: NonNull<Subscriber>,
}

// SAFETY: as for `Mirrors`.
unsafe impl Send for Registration {}
// SAFETY: as for `Mirrors`.
unsafe impl Sync for Registration {}

impl Registration {
    pub(crate) fn subscriber(&self) -> &Subscriber {
        // SAFETY: by the invariant.
        unsafe { self.subscriber.as_ref() }
    }
}

impl Mirrors {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self {
            memory: memory.clone(),
            tree: Lock::new(Subscriptions::new(memory)),
            last_id: AtomicU64::new(0),
            many: AtomicBool::new(false),
            ended: Ended::new(),
            aside: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Subscribes to `pages`. To be [ended](Self::end).
    pub(crate) fn subscribe(
        &self,
        pages: PageRange,
        table: Table,
    ) -> Result<Registration, EngineMemoryError> {
        self.drop_aside();
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let subscriber = Subscriber {
            id,
            pages,
            table,
            holds: Holds::new(&self.memory, pages)?,
            calls: Calls::new(),
            next: AtomicPtr::new(ptr::null_mut()),
        };
        let (raw, memory) = EngineBox::into_raw(EngineBox::try_new(&self.memory, subscriber)?);
        // SAFETY: a box's pointer is not null.
        let subscriber = unsafe { NonNull::new_unchecked(raw) };
        let signals = SignalsBlocked::new();
        let inserted = {
            let mut tree = self.tree.lock(&signals);
            let inserted = tree.try_insert(pages, id, subscriber);
            self.many.store(tree.is_large(), Relaxed);
            inserted
        };
        if let Err(error) = inserted {
            // SAFETY: the box that was taken apart just now, which nobody else knows of.
            drop(unsafe { EngineBox::from_raw(raw, memory) });
            return Err(error);
        }
        Ok(Registration { subscriber })
    }

    /// Ends a subscription: waits for its callbacks, unless this is called from one of them.
    #[expect(clippy::needless_pass_by_value, reason = "the registration ends here")]
    pub(crate) fn end(&self, registration: Registration) {
        let pointer = registration.subscriber;
        // SAFETY: by the invariant of the registration, which ends here.
        let subscriber = unsafe { pointer.as_ref() };
        {
            let signals = SignalsBlocked::new();
            self.tree.lock(&signals).remove(subscriber.pages, subscriber.id);
        }
        // From here on nobody finds it, so no callback begins.
        if calling::is_calling(subscriber.id) {
            // The last callback to end, this one at the earliest, lays it aside.
            subscriber.calls.defer();
            return;
        }
        subscriber.calls.wait(&self.ended);
        // SAFETY: it came from a box in this memory; nobody finds it any more, and no callback runs.
        drop(unsafe { EngineBox::from_raw(pointer.as_ptr(), self.memory.clone()) });
        self.drop_aside();
    }

    /// Tells all subscriptions, but that of the device `except`, that were given translations of the
    /// block that the pages are in. Answers how many they are. The block's lock is held.
    pub(crate) fn invalidate(
        &self,
        invalidation: &Invalidation,
        except: Option<DeviceIndex>,
        signals: &SignalsBlocked,
    ) -> usize {
        let pages = invalidation.pages;
        let block = pages.start().block();
        let mut told = 0;
        let mut last = None;
        loop {
            let (hits, count, more) = self.pin_some(pages, except, last, signals);
            for hit in hits.iter().take(count).flatten() {
                // SAFETY: it is pinned.
                let subscriber = unsafe { hit.as_ref() };
                last = Some(subscriber.place());
                if pages.len() == BLOCK_PAGES {
                    subscriber.holds.clear(block);
                }
                calling::call(subscriber.id, || subscriber.table().invalidate(invalidation));
                self.unpin(*hit);
            }
            told += count;
            if !more {
                return told;
            }
        }
    }

    /// Has the processor fetch what an [invalidation](Self::invalidate) of a page will look up, where
    /// there are very many subscriptions. For who has something else to do before.
    pub(crate) fn prefetch(&self, page: PageNumber, signals: &SignalsBlocked) {
        if self.many.load(Relaxed) {
            self.tree.lock(signals).prefetch(page);
        }
    }

    /// As [`prefetch`](Self::prefetch), of the subscriptions themselves: for who has had something to do since
    /// that, and has more to do before.
    pub(crate) fn prefetch_hits(&self, page: PageNumber, signals: &SignalsBlocked) {
        if self.many.load(Relaxed) {
            let tree = self.tree.lock(signals);
            let _ = tree.for_each_overlapping(PageRange::of(page, 1), |_, hit| {
                prefetch(hit.as_ptr().cast_const());
                ControlFlow::<()>::Continue(())
            });
        }
    }

    /// Pins some of the subscriptions that overlap `pages`, those behind `last`, in order. Answers
    /// whether there may be more.
    fn pin_some(
        &self,
        pages: PageRange,
        except: Option<DeviceIndex>,
        last: Option<Place>,
        signals: &SignalsBlocked,
    ) -> ([Option<NonNull<Subscriber>>; HITS], usize, bool) {
        let block = pages.start().block();
        let mut hits = [None; HITS];
        let mut count = 0;
        let mut more = false;
        let tree = self.tree.lock(signals);
        let _ = tree.for_each_overlapping(pages, |_, hit| {
            // It lies on two lines, and what is wanted of either is asked for one after the other.
            prefetch(hit.as_ptr().cast_const());
            // SAFETY: what is in the tree is valid.
            let subscriber = unsafe { hit.as_ref() };
            if last.is_some_and(|last| subscriber.place() <= last)
                || except.is_some() && subscriber.device() == except
                || !subscriber.holds.is_touched(block)
            {
                return ControlFlow::Continue(());
            }
            if count == HITS {
                more = true;
                return ControlFlow::Break(());
            }
            subscriber.calls.begin();
            hits[count] = Some(*hit);
            count += 1;
            ControlFlow::Continue(())
        });
        (hits, count, more)
    }

    fn unpin(&self, hit: NonNull<Subscriber>) {
        // SAFETY: it is pinned until the count is changed.
        let due = unsafe { hit.as_ref() }.calls.end();
        // From here on its owner may have dropped it, unless it was left to us.
        match due {
            Due::Nothing => {}
            Due::Tell => self.ended.tell(),
            Due::LayAside => self.lay_aside(hit),
        }
    }

    /// Keeps a subscription that is nobody else's for [`drop_aside`](Self::drop_aside).
    fn lay_aside(&self, subscriber: NonNull<Subscriber>) {
        // SAFETY: its owner has given it up, and no other callback runs.
        let next = unsafe { &subscriber.as_ref().next };
        let mut first = self.aside.load(Relaxed);
        loop {
            next.store(first, Relaxed);
            match self.aside.compare_exchange_weak(first, subscriber.as_ptr(), Release, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Drops what was laid aside. No lock is held.
    fn drop_aside(&self) {
        if self.aside.load(Relaxed).is_null() {
            return;
        }
        let mut rest = self.aside.swap(ptr::null_mut(), Acquire);
        while !rest.is_null() {
            // SAFETY: it came from a box in this memory, and who takes it from here owns it.
            let subscriber = unsafe { EngineBox::from_raw(rest, self.memory.clone()) };
            rest = subscriber.next.load(Relaxed);
            drop(subscriber);
        }
    }
}

impl Drop for Mirrors {
    fn drop(&mut self) {
        self.drop_aside();
    }
}
