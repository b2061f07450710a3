//! The engine: all that works under an address space, in engine memory.

use core::ptr::NonNull;

use super::{
    changes::Change,
    gate::Gate,
    handlers::Lead,
    inside::{Inside, Place},
    views::Aliases,
};
use crate::{
    block::{Block, BlockState, BlockTable, Fault, Left, Next, Turn, TurnPool, Whose},
    counters::Counters,
    device::{DeviceState, Devices, Reserved},
    driver::{DeviceIndex, FrameNumber, Translation},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    events::Recorder,
    mirror::{Mirrors, Registration},
    mm::Mm,
    policy::Scans,
    sync::{Lock, SignalsBlocked, order},
    units::{BlockNumber, PageNumber, PageRange},
    view::{Part, View},
};

/// The engine of one address space.
pub(crate) struct Engine<M: Mm> {
    pub(crate) memory: EngineMemory,
    pub(crate) mm: M,
    pub(crate) blocks: BlockTable,
    pub(crate) gate: Gate,
    pub(crate) devices: Devices,
    pub(crate) aliases: Aliases,
    pub(crate) mirrors: Mirrors,
    pub(crate) reserved: Reserved,
    pub(crate) counters: Part<Counters>,
    pub(crate) recorder: Recorder,
    pub(crate) scans: Scans,
    pub(crate) lead: Lead,
    pub(crate) inside: Inside,
    turns: TurnPool,
    /// Changes that were read and wait for others, which come before them, to be read.
    pub(super) waiting: Lock<EngineVec<Change>>,
    /// Faults that met a change of the address space and wait for it to be applied.
    retries: Lock<EngineVec<Fault>>,
    /// Behind those who have parts of it.
    pub(crate) view: View,
}

/// Why `asked` bytes of engine memory could not be had.
pub(crate) fn exhausted(memory: &EngineMemory, asked: usize) -> EngineMemoryError {
    EngineMemoryError::Exhausted { asked, used: memory.used(), limit: memory.limit() }
}

const RETRIES: usize = 1024;

impl<M: Mm> Engine<M> {
    /// An engine that shows what it does in `view`.
    pub(crate) fn new(mm: M, memory: &EngineMemory, view: View) -> Result<Self, EngineMemoryError> {
        // SAFETY: the view is the last of the engine's parts to be dropped.
        let (counters, latencies) =
            unsafe { (view.part(|head| &head.counters), view.part(|head| &head.latencies)) };
        let blocks = BlockTable::new(memory, mm.page_limit())?;
        let retries = EngineVec::try_with_capacity(memory, RETRIES)?;
        Ok(Self {
            memory: memory.clone(),
            mm,
            blocks,
            gate: Gate::new(memory),
            devices: Devices::new(),
            aliases: Aliases::new(memory),
            mirrors: Mirrors::new(memory),
            reserved: Reserved::new(memory),
            counters,
            recorder: Recorder::new(latencies),
            scans: Scans::new(),
            lead: Lead::new(),
            inside: Inside::new(),
            turns: TurnPool::new(memory),
            waiting: Lock::new(EngineVec::new(memory.clone())),
            retries: Lock::new(retries),
            view,
        })
    }

    /// All pages that a program can have.
    pub(crate) fn all_pages(&self) -> PageRange {
        PageRange::new(PageNumber(0), self.mm.page_limit())
    }

    /// Begins a thread's stay in the engine.
    pub(crate) fn visit<'e>(
        &'e self,
        signals: &'e SignalsBlocked,
    ) -> Result<Visit<'e, M>, EngineMemoryError> {
        let place = self.inside.enter();
        let turn = match &place {
            Some(place) => self.inside.turn(place),
            None => self
                .turns
                .take(None, signals)
                .ok_or_else(|| exhausted(&self.memory, size_of::<Turn>()))?,
        };
        Ok(Visit { engine: self, signals, turn, place })
    }

    /// Has the processor fetch what ending translations of the first of `pages` will look up, while it
    /// passes the gate: among very many blocks and mirrors that is in no cache.
    pub(super) fn fetch_ahead(&self, pages: PageRange, signals: &SignalsBlocked) {
        self.blocks.prefetch(pages.start().block());
        self.mirrors.prefetch(pages.start(), signals);
    }

    /// Ends a subscription, and what peers granted it.
    pub(crate) fn end_mirror(&self, registration: Registration) {
        let mirror = registration.subscriber().importer().mirror;
        {
            let signals = SignalsBlocked::new();
            for device in self.devices.attached(&signals) {
                device.grants.forget(mirror, &signals);
            }
        }
        self.mirrors.end(registration);
    }

    /// Serves a fault now if its block is free, else parks it in the block's queue, where the
    /// holder serves it.
    pub(crate) fn serve_or_park(&self, fault: Fault, visit: &Visit<'_, M>) {
        let number = fault.page.block();
        let Some(block) = self.blocks.get(number) else {
            // No area of this block was ever trapped by us on purpose: a part of one that grew.
            // Its records come now; without memory for them the fault is a first touch all the
            // same, as nothing of the block can be away.
            if self.blocks.make(PageRange::of(fault.page, 1)).is_ok() {
                return self.serve_or_park(fault, visit);
            }
            return self.serve_without_record(fault, visit);
        };
        if block.turns.try_acquire() {
            let mut held = self.locked_for_fault(block, number, visit);
            held.serve_or_retry(fault);
            return;
        }
        let Some(turn) = self.turns.take(Some(fault), visit.signals) else {
            // Without a place in the queue the thread tries again.
            return self.mm.wake(PageRange::of(fault.page, 1));
        };
        // SAFETY: the turn is new from the pool, whose turns stay valid.
        if unsafe { block.turns.acquire_or_queue(turn) } {
            let mut held = self.locked_for_fault(block, number, visit);
            held.serve_or_retry(fault);
            drop(held);
            self.turns.give_back(turn, visit.signals);
        }
    }

    /// The lock of a block that was taken to serve a fault.
    fn locked_for_fault<'v>(
        &'v self,
        block: &'v Block,
        number: BlockNumber,
        visit: &'v Visit<'_, M>,
    ) -> Locked<'v, M> {
        order::block_taken();
        Locked { engine: self, block, number, signals: visit.signals, whose: Whose::Fault }
    }

    /// A fault of a thread that has a place in line already is done with.
    fn lost_its_place(&self, left: Left, signals: &SignalsBlocked) {
        self.counters.cpu_faults_over.add(1);
        if let Some(fault) = left.fault {
            self.mm.wake(PageRange::of(fault.page, 1));
        }
        self.turns.give_back(left.turn, signals);
    }

    /// Keeps a fault until the change that it met is applied.
    pub(crate) fn retry_later(&self, fault: Fault, signals: &SignalsBlocked) {
        self.counters.cpu_faults_retried.add(1);
        let mut retries = self.retries.lock(signals);
        let known = retries.iter().any(|other| other.page == fault.page);
        let full = retries.len() == RETRIES;
        if !known && !full {
            // There is capacity for it.
            let _ = retries.try_push(fault);
        }
        drop(retries);
        if full && !known {
            self.mm.wake(PageRange::of(fault.page, 1));
        }
        self.mm.kick();
    }

    /// Takes one of the faults that were kept.
    pub(crate) fn next_retry(&self, signals: &SignalsBlocked) -> Option<Fault> {
        self.retries.lock(signals).pop()
    }

    /// Whether faults are kept.
    pub(crate) fn has_retries(&self, signals: &SignalsBlocked) -> bool {
        !self.retries.lock(signals).is_empty()
    }
}

/// A thread's stay in the engine: its signals are blocked, and it has a turn of its own, so that
/// waiting for a block cannot fail.
pub(crate) struct Visit<'e, M: Mm> {
    engine: &'e Engine<M>,
    signals: &'e SignalsBlocked,
    /// Of the place, or else of the pool.
    turn: NonNull<Turn>,
    place: Option<Place>,
}

impl<'e, M: Mm> Visit<'e, M> {
    pub(crate) const fn signals(&self) -> &'e SignalsBlocked {
        self.signals
    }

    /// Waits for a block's lock and takes it. One at a time: the borrow sees to it.
    pub(crate) fn lock<'v>(&'v mut self, block: &'v Block, number: BlockNumber) -> Locked<'v, M> {
        order::block_wanted();
        if !block.turns.try_acquire() {
            // SAFETY: the turn is this visit's, which has no other lock and waits for none, and a
            // turn of the engine stays valid.
            unsafe { self.turn.as_ref().prepare(None) };
            // SAFETY: as above, and it is in no queue.
            if !unsafe { block.turns.acquire_or_queue(self.turn) } {
                // SAFETY: as above.
                unsafe { self.turn.as_ref() }.wait();
            }
        }
        order::block_taken();
        Locked { engine: self.engine, block, number, signals: self.signals, whose: Whose::Thread }
    }
}

impl<M: Mm> Drop for Visit<'_, M> {
    fn drop(&mut self) {
        match &self.place {
            Some(place) => self.engine.inside.leave(place),
            None => self.engine.turns.give_back(self.turn, self.signals),
        }
    }
}

/// A block's lock, held.
pub(crate) struct Locked<'v, M: Mm> {
    pub(crate) engine: &'v Engine<M>,
    pub(crate) block: &'v Block,
    pub(crate) number: BlockNumber,
    pub(crate) signals: &'v SignalsBlocked,
    whose: Whose,
}

impl<'v, M: Mm> Locked<'v, M> {
    /// What the lock protects.
    pub(crate) fn state(&mut self) -> &mut BlockState {
        // SAFETY: the lock is held, and the borrow of self makes the reference unique.
        unsafe { self.block.state() }
    }

    /// The page of the address space at a place of the block.
    pub(crate) fn page(&self, in_block: usize) -> PageNumber {
        self.number.first_page().plus(in_block)
    }

    /// Pages of the address space at places of the block.
    pub(crate) fn pages(&self, in_block: &core::ops::Range<usize>) -> PageRange {
        PageRange::of(self.page(in_block.start), in_block.len())
    }

    /// Where the content of a page is reached that an entry of this block names, if it can be.
    pub(crate) fn pointer_to(
        &self,
        device: DeviceIndex,
        frame: FrameNumber,
    ) -> Option<NonNull<u8>> {
        let mm = &self.engine.mm;
        if frame.is_shared() {
            return Some(mm.staging_pointer(self.engine.aliases.page_of(frame)));
        }
        self.device(device).pointer_of(frame, mm)
    }

    /// What a device is told of a page that an entry of this block has with it; nothing where the
    /// content is on its way.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn own_translation(
        &self,
        device: &DeviceState,
        frame: FrameNumber,
    ) -> Option<Translation> {
        if frame.is_shared() {
            let memory = self.engine.mm.staging_pointer(self.engine.aliases.page_of(frame));
            return Some(Translation::Alias { memory });
        }
        device.translation_of(frame, &self.engine.mm)
    }

    /// The device that an entry of this block names.
    pub(crate) fn device(&self, index: DeviceIndex) -> &'v DeviceState {
        // SAFETY: the lock is held, and callers ask for devices of this block's entries, which
        // keep the device; what they do with it ends before the entry does.
        unsafe { self.engine.devices.of_entry(index) }
    }

    /// Puts the block into a device's clock, where room was made for it. A page of it is recorded as
    /// being there.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn enter_clock(&self, device: &DeviceState) {
        if self.block.enter_clock(device.index) {
            device.clock.lock(self.signals).add(self.number);
        }
    }

    /// Takes the block out of a device's clock, having no page there.
    pub(crate) fn leave_clock(&self, device: &DeviceState) {
        if self.block.leave_clock(device.index) {
            device.clock.lock(self.signals).remove(self.number);
        }
    }

    /// Notes that pages of the block left a device. Blocks of which none is away leave its clock when
    /// there are many.
    pub(crate) fn pages_left(&self, pages: usize, device: &DeviceState) {
        self.block.changed(0, pages);
        if self.block.hint().away > 0 {
            return;
        }
        let mut clock = device.clock.lock(self.signals);
        if clock.note_quiet() {
            clock.sweep(|number| {
                let block = self.engine.blocks.get(number);
                block.is_none_or(|block| block.leaves_clock_if_quiet(device.index))
            });
        }
    }

    fn serve_or_retry(&mut self, fault: Fault) {
        if !self.serve(fault) {
            self.engine.retry_later(fault, self.signals);
        }
    }
}

impl<M: Mm> Drop for Locked<'_, M> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lock is held, and not used where it was let go.
        if unsafe { self.block.turns.try_release() } {
            return order::block_released();
        }
        self.pass_on();
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Passes the lock on to who waits, after it has served the faults before them.
    #[cold]
    fn pass_on(&mut self) {
        let (engine, signals) = (self.engine, self.signals);
        let mut whose = self.whose;
        loop {
            // Room that was made for records and not used goes back.
            self.state().pages.settle(&engine.memory);
            let left = |left| engine.lost_its_place(left, signals);
            // SAFETY: the lock is held until the answer is not a fault, and not used after.
            match unsafe { self.block.turns.pass_on(whose, &engine.counters, left) } {
                Next::Nobody | Next::Thread => return order::block_released(),
                Next::Fault(turn, fault) => {
                    engine.counters.cpu_faults_parked.add(1);
                    self.serve_or_retry(fault);
                    engine.turns.give_back(turn, self.signals);
                    whose = Whose::Fault;
                }
            }
        }
    }
}
