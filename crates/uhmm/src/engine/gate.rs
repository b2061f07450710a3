//! The area gate: where commits and changes of the address space pass each other.
//!
//! The kernel refuses to move a page while a change of the address space is unread. Reading it ends
//! the refusal, so between reading a change and having applied it, what we hold of those addresses
//! is wrong and nothing of the kernel's stands in the way. The gate does: a commit runs inside a
//! *section*, which many may share; a reader of messages needs the gate alone to read, and *closes*
//! the ranges that the changes hit before it lets go. Whatever overlaps a closed range backs out,
//! without waiting under a lock, until the change is applied and the range opened.
//!
//! The gate also holds what is decided by areas: which pages are adopted, trapped, or stay here
//! whatever their area is.

use core::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::{
    discarding::Discarding, doubts::Doubts, looks::Looks, protection::Restricted, views::Views,
};
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    range_set::RangeSet,
    sync::{
        SignalsBlocked, WaitWord,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
        order,
    },
    units::PageRange,
};

const ALONE: u32 = 1 << 31;
const WANTED_ALONE: u32 = 1 << 30;
const SLEEPERS: u32 = 1 << 29;
const SHARERS: u32 = SLEEPERS - 1;

/// A range whose change was read and is not applied yet.
#[derive(Clone, Copy, Debug)]
struct Closed {
    pages: PageRange,
    /// Which it is of all that were closed.
    number: u32,
}

/// What is known of areas.
#[derive(Debug)]
pub(crate) struct Areas {
    /// Where devices may take pages from, by address.
    pub(crate) adopted: RangeSet,
    /// Where holes fault to us and changes are told: whole areas.
    pub(crate) trapped: RangeSet,
    /// What of it children do not have because we say so: whole areas, mostly. Where forks are told
    /// there is none.
    pub(crate) withheld: RangeSet,
    /// What of it the system would fill with huge pages on first touch, as it was when it was trapped.
    pub(crate) huge: RangeSet,
    /// Where changes are told because a device maps pages in place: whole areas. Some of it may be
    /// trapped by now.
    pub(crate) watched: RangeSet,
    /// Control blocks of the threads that lived when an area was last trapped or adopted: they never
    /// leave system memory although their area may.
    pub(crate) thread_blocks: RangeSet,
    /// Writable data of the objects that were loaded at the last adoption, likewise.
    pub(crate) objects_data: RangeSet,
    /// Stacks, and what else the program wants to be kept, wherever it is moved.
    pub(crate) kept: RangeSet,
    /// Which addresses show which pages of aliases: of shared memory of which something may be away.
    pub(crate) views: Views,
    /// What only a device backs.
    pub(crate) reserved: RangeSet,
    /// What the program discards.
    pub(crate) discarding: Discarding,
    /// What devices are known to have no translations for, as it is not permitted.
    pub(crate) restricted: Restricted,
    /// What is not known yet of the order of changes.
    pub(crate) doubts: Doubts,
    /// The looks at areas that are under way outside.
    pub(crate) looks: Looks,
    /// Whether a fork was under way as changes were read that are not applied yet.
    pub(crate) fork_seen: bool,
    /// What was away and has been unmapped or moved by such changes: the fork may be from before, and its
    /// child has it still.
    pub(crate) left_lately: RangeSet,
    /// Ranges, closed, whose pages the engine takes out of their area, or puts back: what is told of that is
    /// no change.
    pub(super) aside: EngineVec<PageRange>,
    /// Ranges whose change was read and is not applied yet.
    closed: EngineVec<Closed>,
    /// How many ranges were closed so far.
    closings: u32,
    /// Counts the changes of all this.
    version: u64,
    /// Whether the address space is closing: nothing goes away any more.
    pub(crate) closing: bool,
    /// Whether this process is about to fork: nothing goes away until it has.
    pub(crate) forking: bool,
}

impl Areas {
    /// A number that is another once any of this has changed.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether a change of a page of `pages` is being applied.
    #[inline]
    pub(crate) fn is_closed(&self, pages: PageRange) -> bool {
        self.closed.iter().any(|closed| closed.pages.overlaps(pages))
    }

    /// Whether a change was read that is not applied yet, but for what is doubted.
    pub(crate) fn has_unapplied(&self) -> bool {
        self.closed.len() > self.doubts.disbelieved()
    }

    /// Closes a range, until it is [opened](Self::open).
    pub(crate) fn close(&mut self, pages: PageRange) {
        if self.try_close(pages).is_err() {
            crate::abort::abort(
                b"engine memory is exhausted and a change of the address space cannot be noted",
            );
        }
    }

    /// Closes a range where there is memory to note it.
    pub(crate) fn try_close(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        let number = self.closings.wrapping_add(1);
        self.closed.try_push(Closed { pages, number })?;
        self.closings = number;
        Ok(())
    }

    /// Forgets disbelieved unmappings of some of `pages`, which kept their ranges closed.
    pub(crate) fn open_disbelieved(&mut self, pages: PageRange) {
        while let Some(disbelieved) = self.doubts.take(pages) {
            self.open(disbelieved);
        }
    }

    /// Opens a range that was closed. Who waits for it is to be [told](Gate::tell_opened).
    pub(crate) fn open(&mut self, pages: PageRange) {
        // Of two changes of the same range the first is applied first.
        if let Some(at) = self.closed.iter().position(|closed| closed.pages == pages) {
            self.closed.remove(at);
        }
    }
}

/// The gate.
///
/// # Invariants
/// `areas` is written only by the holder of a [`Alone`], read only by one of a [`Section`], and the
/// word says who is there: either `ALONE`, or a count of sharers.
#[derive(Debug)]
pub(crate) struct Gate {
    word: WaitWord,
    /// Counts the times that ranges were opened.
    opened: WaitWord,
    /// How many ranges are closed.
    unapplied: AtomicUsize,
    areas: UnsafeCell<Areas>,
}

// SAFETY: by the invariant there is one writer or there are readers.
unsafe impl Sync for Gate {}
// SAFETY: the gate owns what it holds.
unsafe impl Send for Gate {}

/// A stay inside the gate that others share: no message is read meanwhile.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    gate: &'a Gate,
}

/// A stay inside the gate alone.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    gate: &'a Gate,
}

impl Gate {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self {
            word: WaitWord::new(0),
            opened: WaitWord::new(0),
            unapplied: AtomicUsize::new(0),
            areas: UnsafeCell::new(Areas {
                adopted: RangeSet::new(memory),
                trapped: RangeSet::new(memory),
                withheld: RangeSet::new(memory),
                huge: RangeSet::new(memory),
                watched: RangeSet::new(memory),
                thread_blocks: RangeSet::new(memory),
                objects_data: RangeSet::new(memory),
                kept: RangeSet::new(memory),
                views: Views::new(memory),
                reserved: RangeSet::new(memory),
                discarding: Discarding::new(memory),
                restricted: Restricted::new(memory),
                doubts: Doubts::new(memory),
                looks: Looks::new(memory),
                fork_seen: false,
                left_lately: RangeSet::new(memory),
                aside: EngineVec::new(memory.clone()),
                closed: EngineVec::new(memory.clone()),
                closings: 0,
                version: 0,
                closing: false,
                forking: false,
            }),
        }
    }

    /// Enters, beside others. Not again by a thread that is inside.
    #[inline]
    pub(crate) fn share<'a>(&'a self, _signals: &'a SignalsBlocked) -> Section<'a> {
        order::gate_wanted();
        let word = self.word.word();
        let mut seen = word.load(Relaxed);
        loop {
            if seen & (ALONE | WANTED_ALONE) == 0 {
                match word.compare_exchange_weak(seen, seen + 1, Acquire, Relaxed) {
                    Ok(_) => return Section { gate: self },
                    Err(now) => seen = now,
                }
            } else {
                seen = self.sleep(seen, SLEEPERS);
            }
        }
    }

    /// Enters alone.
    pub(crate) fn alone<'a>(&'a self, _signals: &'a SignalsBlocked) -> Alone<'a> {
        order::gate_wanted();
        let word = self.word.word();
        let mut seen = word.load(Relaxed);
        loop {
            if seen & (ALONE | SHARERS) == 0 {
                let new = ALONE | seen & SLEEPERS;
                match word.compare_exchange_weak(seen, new, Acquire, Relaxed) {
                    Ok(_) => return Alone { gate: self },
                    Err(now) => seen = now,
                }
            } else {
                seen = self.sleep(seen, SLEEPERS | WANTED_ALONE);
            }
        }
    }

    /// Marks the word with `marks` and sleeps until it changes.
    fn sleep(&self, seen: u32, marks: u32) -> u32 {
        let word = self.word.word();
        let marked = seen | marks;
        if seen == marked || word.compare_exchange(seen, marked, Relaxed, Relaxed).is_ok() {
            self.word.wait(marked);
        }
        word.load(Relaxed)
    }

    /// Clears `who` from the word and, where nobody is left inside, wakes those who sleep.
    #[inline]
    fn leave(&self, who: u32) {
        let word = self.word.word();
        let mut left = word.fetch_sub(who, Release) - who;
        // A sleeper may add its marks meanwhile; whoever came inside meanwhile wakes in our place.
        while left & (SHARERS | ALONE) == 0 && left & SLEEPERS != 0 {
            match word.compare_exchange(left, 0, Relaxed, Relaxed) {
                Ok(_) => return self.word.wake_all(),
                Err(now) => left = now,
            }
        }
    }

    /// Opens a range that was closed, its change being applied.
    pub(crate) fn open(&self, pages: PageRange, signals: &SignalsBlocked) {
        self.alone(signals).open(pages);
        self.tell_opened();
    }

    /// Wakes who waits for a range to be opened.
    pub(crate) fn tell_opened(&self) {
        self.opened.word().fetch_add(1, Release);
        self.opened.wake_all();
    }

    /// How often ranges were opened so far, to [wait](Self::wait_opened) for the next time.
    #[inline]
    pub(crate) fn openings(&self) -> u32 {
        self.opened.word().load(Acquire)
    }

    /// Whether a change was applied since `openings` were counted, or one is being applied.
    pub(crate) fn changed_since(&self, openings: u32, signals: &SignalsBlocked) -> bool {
        !self.share(signals).closed.is_empty() || self.openings() != openings
    }

    /// Waits until all changes are applied that were read before the call. Others that are read
    /// meanwhile are not waited for.
    #[inline]
    pub(crate) fn settle(&self) {
        // Whoever reads is inside alone, and as it leaves says how many ranges are closed.
        if self.word.word().load(SeqCst) & ALONE != 0 || self.unapplied.load(SeqCst) != 0 {
            self.wait_settled();
        }
    }

    #[cold]
    fn wait_settled(&self) {
        let wanted = {
            let signals = SignalsBlocked::new();
            let areas = self.share(&signals);
            if areas.closed.is_empty() {
                return;
            }
            areas.closings
        };
        loop {
            let openings = self.openings();
            let signals = SignalsBlocked::new();
            let is_before = |closed: &Closed| wanted.wrapping_sub(closed.number).cast_signed() >= 0;
            if !self.share(&signals).closed.iter().any(is_before) {
                return;
            }
            drop(signals);
            self.wait_opened(openings);
        }
    }

    /// Waits for a range to be opened after `openings` were counted; not for long, as what was
    /// waited for may have been over before the count.
    pub(crate) fn wait_opened(&self, openings: u32) {
        self.opened.wait_at_most(openings, Duration::from_micros(100));
    }
}

impl Drop for Section<'_> {
    #[inline]
    fn drop(&mut self) {
        self.gate.leave(1);
        order::gate_left();
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.gate.unapplied.store(self.closed.len(), SeqCst);
        self.gate.leave(ALONE);
        order::gate_left();
    }
}

impl Deref for Section<'_> {
    type Target = Areas;
    fn deref(&self) -> &Areas {
        // SAFETY: by the gate's invariant there is no writer while a section lives.
        unsafe { &*self.gate.areas.get() }
    }
}

impl Deref for Alone<'_> {
    type Target = Areas;
    fn deref(&self) -> &Areas {
        // SAFETY: by the gate's invariant nobody else is inside.
        unsafe { &*self.gate.areas.get() }
    }
}

impl DerefMut for Alone<'_> {
    fn deref_mut(&mut self) -> &mut Areas {
        // SAFETY: by the gate's invariant nobody else is inside.
        let areas = unsafe { &mut *self.gate.areas.get() };
        areas.version += 1;
        areas
    }
}

#[cfg(test)]
mod tests;
