//! A thread's stay in the engine, and the lock of a block that it holds.

use core::ptr::NonNull;

use super::{Engine, exhausted, inside::Place};
use crate::{
    block::{Block, BlockState, Fault, Left, Next, Turn, Whose},
    device::DeviceState,
    driver::{DeviceIndex, FrameNumber, Translation},
    engine_memory::EngineMemoryError,
    mm::Mm,
    sync::{SignalsBlocked, order},
    units::{BlockNumber, PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
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
            return Locked::serve_without_record(self, fault, visit);
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

/// How faults of the program's threads are served, by who has a block's lock and before letting it go. It takes
/// moving pages, so it is implemented above the engine.
pub(crate) trait ServeFaults<M: Mm> {
    /// Serves a fault on this block. Answers false where the address space is changing: the fault
    /// must be looked up anew once the change is applied.
    fn serve(&mut self, fault: Fault) -> bool;

    /// Serves a fault on a block of which nothing is recorded, nor can be.
    fn serve_without_record(engine: &Engine<M>, fault: Fault, visit: &Visit<'_, M>);
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
