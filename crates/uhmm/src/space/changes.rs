//! Changes of the address space are applied: records follow their pages, or end with them.
//!
//! By the one thread that leads the readers of messages. The ranges are closed in the gate meanwhile,
//! so nothing else works on them. In which order is said in [`order`](super::order).

use core::ops::Range;

use crate::{
    block::Residence,
    clock::Began,
    driver::{FrameNumber, InvalidationKind},
    engine::{Change, Engine, Locked, Visit},
    engine_memory::{EngineMemoryError, EngineVec},
    events::{Holder, MoveCause, What},
    migrate::AwayRun,
    mm::Mm,
    sync::SignalsBlocked,
    units::{PageNumber, PageRange},
    view::Held,
};

/// How content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Unmap,
    Discard,
}

pub(super) fn or_abort<T>(result: Result<T, EngineMemoryError>) -> T {
    match result {
        Ok(value) => value,
        Err(_) => crate::abort::abort(
            b"engine memory is exhausted and a change of the address space cannot be applied",
        ),
    }
}

impl<M: Mm> Engine<M> {
    /// Applies a change whose ranges are closed, before those in `behind`.
    pub(crate) fn apply(&self, change: Change, behind: &[Change], visit: &mut Visit<'_, M>) {
        self.fetch_ahead(change.source(), visit.signals());
        match change {
            Change::Unmapped { pages, of } => {
                self.apply_told_unmapped(pages, of, visit);
                // Who waited on a page of it looks at what is there now.
                self.mm.wake(pages);
            }
            Change::Remapped { from, to, of } => {
                let target = PageRange::of(to, from.len());
                loop {
                    let room = { self.gate.share(visit.signals()).doubts.room_for(target) };
                    let Some(room) = room else { break };
                    self.believe(room, visit);
                }
                if !self.is_outdated(from, of, visit.signals()) {
                    or_abort(self.blocks.make(target));
                    self.end_in_place(from, InvalidationKind::Unmap, visit);
                    self.note_leaving(from, visit);
                    self.move_records(from, to, visit);
                    self.end_grants(from, visit.signals());
                    self.move_areas(from, to, visit.signals());
                }
                let doubtful = self.mm.changing();
                let mut areas = self.gate.alone(visit.signals());
                areas.doubts.arrivals.ended(from);
                or_abort(areas.doubts.arrivals.arrived(target, doubtful));
                drop(areas);
                self.mm.wake(from);
            }
            Change::Discarded(pages) => {
                // Of shared memory only a view of the content may go, or the content too, by a call that
                // is told in the same way; both are so for the alias as well. Devices look anew.
                let mut rest = pages;
                while !rest.is_empty() {
                    let (part, shared) = {
                        let areas = self.gate.share(visit.signals());
                        let (part, first) = areas.views.leading(rest);
                        (part, first.is_some())
                    };
                    rest = PageRange::new(part.end(), rest.end());
                    if shared {
                        self.end_translations(part, InvalidationKind::Clear, visit);
                    } else {
                        self.apply_discarded(part, visit);
                    }
                }
            }
            Change::Forked { child, .. } => {
                self.fill_child(child, behind, visit);
                self.leave_frames(visit);
            }
        }
        self.counters.changes.add(1);
    }

    /// Applies the discard of private memory.
    fn apply_discarded(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        // The thread that discards goes on only now, and what of it is in system memory the
        // kernel drops at a moment that we are not told; or, after MADV_FREE, does not
        // while the program writes to it again. Until a page has been seen to be a hole,
        // it stays: on a device its old content would survive.
        or_abort(self.gate.alone(visit.signals()).discarding.add(pages));
        self.end_all(pages, End::Discard, visit);
    }

    /// Ends what we count on of `pages`.
    pub(super) fn apply_unmapped(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        if pages.is_empty() {
            return;
        }
        self.note_leaving(pages, visit);
        let mut areas = self.gate.alone(visit.signals());
        or_abort(areas.trapped.remove(pages));
        or_abort(areas.watched.remove(pages));
        or_abort(areas.withheld.remove(pages));
        or_abort(areas.huge.remove(pages));
        or_abort(areas.discarding.remove(pages));
        or_abort(areas.kept.remove(pages));
        or_abort(areas.views.remove(pages));
        areas.restricted.forget(pages);
        drop(areas);
        self.end_grants(pages, visit.signals());
        self.end_all(pages, End::Unmap, visit);
        self.end_unused_aliases(visit.signals());
    }

    /// Notes what of `pages`, which end or move, is away, where a fork may be under way, or be read
    /// already.
    fn note_leaving(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        if !self.gate.share(visit.signals()).fork_seen {
            return;
        }
        let mut leaving = EngineVec::new(self.memory.clone());
        for (block, part) in self.blocks.existing(pages) {
            if block.hint().away == 0 {
                continue;
            }
            let mut held = visit.lock(block, part.start().block());
            let mut place = part.start().in_block();
            let end = place + part.len();
            while let Some(run) = held.next_away(place..end, None) {
                // A child has the file of shared memory.
                if !run.frame.is_shared() {
                    or_abort(leaving.try_push(held.pages(&run.pages)));
                }
                place = run.pages.end;
                if place == end {
                    break;
                }
            }
        }
        let mut areas = self.gate.alone(visit.signals());
        for &pages in leaving.iter() {
            or_abort(areas.left_lately.add(pages));
        }
    }

    /// Ends what is away of `pages`.
    fn end_all(&self, pages: PageRange, how: End, visit: &mut Visit<'_, M>) {
        for (block, part) in self.blocks.existing(pages) {
            if block.hint().away > 0 || block.is_translated() {
                visit.lock(block, part.start().block()).end(part, how);
            }
        }
    }

    /// Ends all translations of pages of `pages` that are not in a device's own memory.
    pub(crate) fn end_in_place(
        &self,
        pages: PageRange,
        kind: InvalidationKind,
        visit: &mut Visit<'_, M>,
    ) {
        for (block, part) in self.blocks.existing(pages) {
            if block.is_translated() {
                let first = part.start().in_block();
                let held = visit.lock(block, part.start().block());
                held.end_in_place(&(first..first + part.len()), kind);
            }
        }
    }

    /// Ends what devices let their peers map of `pages`, whose area is gone.
    fn end_grants(&self, pages: PageRange, signals: &SignalsBlocked) {
        for device in self.devices.attached(signals) {
            or_abort(device.grants.end(pages, signals));
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
            let (part, withheld) = areas.withheld.leading(part);
            let (part, huge) = areas.huge.leading(part);
            let (part, kept) = areas.kept.leading(part);
            let target = PageRange::of(to.plus(part.start().since(from.start())), part.len());
            if adopted {
                or_abort(areas.adopted.add(target));
            }
            if discarding {
                or_abort(areas.discarding.add(target));
            }
            if withheld {
                or_abort(areas.withheld.add(target));
            }
            if huge {
                or_abort(areas.huge.add(target));
            }
            if kept {
                or_abort(areas.kept.add(target));
            }
            rest = PageRange::new(part.end(), rest.end());
        }
        self.view.note_adopted(areas.adopted.iter());
        // The old range stays as it is unless it was unmapped, and then that is told next. What was
        // made longer without our knowing is found out about when a device wants it.
        let target = PageRange::of(to, from.len());
        or_abort(areas.left_lately.remove(target));
        or_abort(areas.views.copy(from, to));
        if areas.trapped.overlaps(from) {
            or_abort(areas.trapped.add(target));
        } else if areas.watched.overlaps(from) {
            or_abort(areas.watched.add(target));
        }
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
                let Some(run) = held.next_on_device(place..end, None) else { break };
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

impl<M: Mm> Locked<'_, M> {
    /// Ends what is away of `part`.
    fn end(&mut self, part: PageRange, how: End) {
        let start = part.start().in_block();
        let kind = match how {
            End::Unmap => InvalidationKind::Unmap,
            End::Discard => InvalidationKind::Clear,
        };
        self.end_in_place(&(start..start + part.len()), kind);
        while let Some(run) = self.next_on_device(start..start + part.len(), None) {
            let pages = run.pages.len();
            let began = self.engine.recorder.begin();
            or_abort(self.reserve(&run.pages, Residence::System));
            self.end_leaving(&run, kind);
            // What the CPU mapped it has, and the frames with it.
            self.came_back(&run, pages, !run.mapped);
            self.engine.view.note_held(self.pages(&run.pages), Held::NOBODY);
            let cause = match how {
                End::Unmap => MoveCause::Unmapped,
                End::Discard => MoveCause::Discarded,
            };
            self.tell_moved(began, &run.pages, Holder::Device(run.device), Holder::Nobody, cause);
            match how {
                End::Unmap => self.engine.counters.ended_by_unmap.add(pages),
                End::Discard => self.engine.counters.ended_by_discard.add(pages),
            }
        }
    }

    /// Takes the record of a run out of the block; its frames stay in use.
    fn take_out(&mut self, run: &AwayRun) {
        let began = self.engine.recorder.begin();
        or_abort(self.reserve(&run.pages, Residence::System));
        let device = self.device(run.device);
        self.end_leaving(run, InvalidationKind::Unmap);
        self.state().pages.record_system(&run.pages);
        self.engine.view.note_held(self.pages(&run.pages), Held::NOBODY);
        self.pages_left(run.pages.len(), device);
        let from = Holder::Device(run.device);
        self.tell_moved(began, &run.pages, from, Holder::Nobody, MoveCause::Remapped);
    }

    fn tell_moved(
        &self,
        began: Began,
        places: &Range<usize>,
        from: Holder,
        to: Holder,
        cause: MoveCause,
    ) {
        self.engine.recorder.tell(began, self.pages(places), What::Moved { from, to, cause });
    }

    /// Puts a record into the block for pages of a run whose address changed, from `frame` on. The
    /// device learns of the new address when it asks for it.
    fn put_record(&mut self, places: Range<usize>, run: &AwayRun, frame: FrameNumber) {
        let AwayRun { device, exclusive, .. } = *run;
        let began = self.engine.recorder.begin();
        or_abort(self.reserve(&places, run.residence(frame)));
        self.state().pages.record_at(&places, run.residence(frame));
        self.engine.view.note_held(self.pages(&places), Held::device(device, exclusive));
        self.block.changed(places.len(), 0);
        // SAFETY of `device`: the entry just made names it.
        let state = self.device(device);
        if !frame.is_shared() {
            or_abort(state.clock.lock(self.signals).reserve(1));
            self.enter_clock(state);
        }
        let to = Holder::Device(device);
        self.tell_moved(began, &places, Holder::Nobody, to, MoveCause::Remapped);
    }
}
