//! Changes of the address space are applied: records follow their pages, or end with them.
//!
//! By the one thread that leads the readers of messages, in the order in which they were read. The
//! ranges are closed in the gate meanwhile, so nothing else works on them.

use core::ops::Range;

use super::{Engine, Visit};
use crate::{
    block::Residence,
    device::FrameNumber,
    engine_memory::EngineMemoryError,
    migrate::AwayRun,
    mm::{Message, Mm},
    sync::SignalsBlocked,
    units::{PageNumber, PageRange},
};

/// A change of the address space that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Content and addresses ended.
    Unmapped(PageRange),
    /// Content moved to other addresses.
    Remapped { from: PageRange, to: PageNumber },
    /// Content ends, the addresses stay.
    Discarded(PageRange),
}

impl Change {
    /// The change that a message tells of; none for a fault.
    pub(crate) const fn of(message: &Message) -> Option<Self> {
        match *message {
            Message::Fault { .. } => None,
            Message::Unmapped(pages) => Some(Self::Unmapped(pages)),
            Message::Remapped { from, to } => Some(Self::Remapped { from, to }),
            Message::Discarded(pages) => Some(Self::Discarded(pages)),
        }
    }

    /// The ranges that it hits; the second is empty for most.
    pub(crate) const fn ranges(self) -> [PageRange; 2] {
        match self {
            Self::Unmapped(pages) | Self::Discarded(pages) => {
                [pages, PageRange::of(pages.start(), 0)]
            }
            Self::Remapped { from, to } => [from, PageRange::of(to, from.len())],
        }
    }
}

/// How content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unmap,
    Discard,
}

fn or_abort<T>(result: Result<T, EngineMemoryError>) -> T {
    match result {
        Ok(value) => value,
        Err(_) => crate::abort::abort(
            b"engine memory is exhausted and a change of the address space cannot be applied",
        ),
    }
}

impl<M: Mm> Engine<M> {
    /// Applies a change whose ranges are closed.
    pub(crate) fn apply(&self, change: Change, visit: &mut Visit<'_, M>) {
        match change {
            Change::Unmapped(pages) => {
                let mut areas = self.gate.alone(visit.signals());
                or_abort(areas.trapped.remove(pages));
                or_abort(areas.discarding.remove(pages));
                drop(areas);
                self.end_all(pages, End::Unmap, visit);
                // Who waited on a page of it looks at what is there now.
                self.mm.wake(pages);
            }
            Change::Remapped { from, to } => {
                let target = PageRange::of(to, from.len());
                or_abort(self.blocks.make(target));
                self.move_records(from, to, visit);
                self.move_areas(from, to, visit.signals());
                self.mm.wake(from);
            }
            Change::Discarded(pages) => {
                // The thread that discards goes on only now, and what of it is in system memory the
                // kernel drops at a moment that we are not told; or, after MADV_FREE, does not
                // while the program writes to it again. Until a page has been seen to be a hole,
                // it stays: on a device its old content would survive.
                or_abort(self.gate.alone(visit.signals()).discarding.add(pages));
                self.end_all(pages, End::Discard, visit);
            }
        }
        self.counters.changes.add(1);
    }

    /// Ends what is away of `pages`.
    fn end_all(&self, pages: PageRange, how: End, visit: &mut Visit<'_, M>) {
        for (block, part) in self.blocks.existing(pages) {
            if block.hint().away > 0 {
                visit.lock(block, part.start().block()).end(part, how);
            }
        }
    }

    /// The areas' part of a remapping: what was trapped is so at the new place, and what was
    /// adopted stays adopted with its content.
    fn move_areas(&self, from: PageRange, to: PageNumber, signals: &SignalsBlocked) {
        let mut areas = self.gate.alone(signals);
        let mut rest = from;
        while !rest.is_empty() {
            let (part, adopted) = areas.adopted.leading(rest);
            let (part, discarding) = areas.discarding.leading(part);
            let target = PageRange::of(to.plus(part.start().since(from.start())), part.len());
            if adopted {
                or_abort(areas.adopted.add(target));
            }
            if discarding {
                or_abort(areas.discarding.add(target));
            }
            rest = PageRange::new(part.end(), rest.end());
        }
        // The old range stays trapped unless it was unmapped, and then that is told next.
        or_abort(areas.trapped.add(PageRange::of(to, from.len())));
    }

    /// Moves the records of pages that are away. What is recorded at the new place ended before, as
    /// a remapping onto other memory unmaps that first.
    fn move_records(&self, from: PageRange, to: PageNumber, visit: &mut Visit<'_, M>) {
        for (block, part) in self.blocks.existing(from) {
            let end = part.start().in_block() + part.len();
            let mut place = part.start().in_block();
            while block.hint().away > 0 && place < end {
                // One block at a time: out of the one, then, the range being closed, into the
                // other.
                let mut held = visit.lock(block, part.start().block());
                let Some(run) = held.next_away(place..end, None) else { break };
                place = run.pages.end;
                let target = to.plus(held.page(run.pages.start).since(from.start()));
                held.take_out(&run);
                drop(held);
                self.put_in(&run, target, visit);
            }
        }
    }

    fn put_in(&self, run: &AwayRun, target: PageNumber, visit: &mut Visit<'_, M>) {
        let mut frame = run.frame;
        for part in PageRange::of(target, run.pages.len()).by_block() {
            let number = part.start().block();
            let Some(block) = self.blocks.get(number) else {
                crate::abort::abort(b"a block that was made has no record");
            };
            let mut held = visit.lock(block, number);
            let place = part.start().in_block();
            held.put_record(place..place + part.len(), run, frame);
            frame = frame.plus(part.len());
            self.counters.remapped.add(part.len());
        }
    }
}

impl<M: Mm> super::Locked<'_, M> {
    /// Ends what is away of `part`.
    fn end(&mut self, part: PageRange, how: End) {
        let start = part.start().in_block();
        while let Some(run) = self.next_away(start..start + part.len(), None) {
            let pages = run.pages.len();
            or_abort(self.reserve(&run.pages, Residence::System));
            self.device(run.device).device.invalidate(self.pages(&run.pages));
            self.came_back(&run, pages, true);
            match how {
                End::Unmap => self.engine.counters.ended_by_unmap.add(pages),
                End::Discard => self.engine.counters.ended_by_discard.add(pages),
            }
        }
    }

    /// Takes the record of a run out of the block; its frames stay in use.
    fn take_out(&mut self, run: &AwayRun) {
        or_abort(self.reserve(&run.pages, Residence::System));
        let device = self.device(run.device);
        device.device.invalidate(self.pages(&run.pages));
        self.state().pages.record_system(&run.pages);
        self.block.changed(0, run.pages.len());
    }

    /// Puts a record into the block for pages of a run whose address changed, from `frame` on. The
    /// device learns of the new address when it asks for it.
    fn put_record(&mut self, places: Range<usize>, run: &AwayRun, frame: FrameNumber) {
        let AwayRun { device, exclusive, .. } = *run;
        or_abort(self.reserve(&places, Residence::Away { device, frame, exclusive }));
        self.state().pages.record_away(&places, device, frame, exclusive);
        self.block.changed(places.len(), 0);
        // SAFETY of `device`: the entry just made names it.
        let state = self.device(device);
        or_abort(state.clock.lock(self.signals).reserve(1));
        self.enter_clock(state);
    }
}
