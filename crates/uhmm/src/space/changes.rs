//! Changes of the address space are applied: records follow their pages, or end with them.
//!
//! By the one thread that leads the readers of messages. The ranges are closed in the gate meanwhile,
//! so nothing else works on them.
//!
//! # The order of changes
//! A thread that unmaps or remaps is told of when it has let go of the kernel's lock, so what two
//! threads did one after the other can be told the other way round: pages moved to addresses that
//! others had left just before, then that those were unmapped. Applied in that order, the records
//! would end that have just arrived. Addresses are what puts it right. Where we still count on what
//! was at the target of a remapping, the change that ended it is under way, and the remapping waits
//! for it. Where we do not, but other changes are under way, the target is *doubtful* (`engine/doubts.rs`):
//! of an unmapping of it that is told next the kernel is asked whether it is one from before, in which
//! case the area is still there. Both end when no change is under way, as the kernel says
//! ([`Mm::changing`](crate::mm::Mm::changing)).
//!
//! A fork can be told after what was unmapped or moved since, too. Its child has an area then whose
//! content we have let go of; so what left while something was under way is noted, and the child gets
//! marks there rather than zeros. And it can be told before what was moved until then. So it waits until
//! nothing is under way, and what is read meanwhile is applied after it: the [filling](super::fork) looks
//! at the child for where such pages are.

use core::{hint::spin_loop, ops::Range};

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

/// How often it is looked whether other changes are under way before a child is filled. Where threads
/// change the address space without end they may always be.
const LOOKS: u32 = 16;
/// How often that is looked at a time.
const GLANCES: u32 = 128;

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
            Change::Unmapped(pages) => {
                self.apply_told_unmapped(pages, visit);
                // Who waited on a page of it looks at what is there now.
                self.mm.wake(pages);
            }
            Change::Remapped { from, to } => {
                let target = PageRange::of(to, from.len());
                loop {
                    let room = { self.gate.share(visit.signals()).doubts.room_for(target) };
                    let Some(room) = room else { break };
                    self.believe(room, visit);
                }
                or_abort(self.blocks.make(target));
                self.end_in_place(from, InvalidationKind::Unmap, visit);
                self.note_leaving(from, visit);
                self.move_records(from, to, visit);
                self.end_grants(from, visit.signals());
                self.move_areas(from, to, visit.signals());
                if self.mm.changing() {
                    or_abort(self.gate.alone(visit.signals()).doubts.add(target));
                }
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

    /// Whether a change has to wait for another that came before it and was not read yet, or that
    /// waits itself: one of those in `before`.
    pub(super) fn must_wait(
        &self,
        change: Change,
        before: &[Change],
        signals: &SignalsBlocked,
    ) -> bool {
        let behind = before.iter().any(|other| {
            let [_, target] = other.ranges();
            match change {
                // What is unmapped at the target of a remapping that waits is what that waits for.
                Change::Unmapped(pages) => other.source().overlaps(pages),
                Change::Discarded(pages) => {
                    other.source().overlaps(pages) || target.overlaps(pages)
                }
                Change::Remapped { .. } => {
                    let [from, to] = change.ranges();
                    other.source().overlaps(from)
                        || other.source().overlaps(to)
                        || target.overlaps(to)
                }
                // The child has what was there after all that came before.
                Change::Forked { .. } => true,
            }
        });
        behind
            || match change {
                Change::Remapped { .. } => self.counts_on(change.ranges()[1], signals),
                Change::Forked { looks, .. } => looks < LOOKS && self.is_restless(signals),
                Change::Unmapped(_) | Change::Discarded(_) => false,
            }
    }

    /// Whether something may have moved before a fork that was told, of which we are told yet.
    fn is_restless(&self, signals: &SignalsBlocked) -> bool {
        // While libc forks nothing is away.
        if self.gate.share(signals).forking {
            return false;
        }
        // The fork itself is under way until its thread has run again, which it does at once.
        (0..GLANCES).all(|_| {
            spin_loop();
            self.mm.changing()
        })
    }

    /// Whether we count on something at `target` that no change we know of ended.
    fn counts_on(&self, target: PageRange, signals: &SignalsBlocked) -> bool {
        let areas = self.gate.share(signals);
        [&areas.trapped, &areas.watched].into_iter().any(|counted_on| {
            let mut rest = target;
            while !rest.is_empty() {
                let (part, is_counted_on) = counted_on.leading(rest);
                if is_counted_on && !areas.doubts.disbelieves(part) {
                    return true;
                }
                rest = PageRange::new(part.end(), rest.end());
            }
            false
        })
    }

    /// Ends what we count on at the target of a remapping that nothing is going to end.
    pub(super) fn end_what_is_in_the_way(&self, change: Change, visit: &mut Visit<'_, M>) {
        let [_, target] = change.ranges();
        self.apply_unmapped(target, visit);
    }

    /// Ends what we count on of `pages`.
    fn apply_unmapped(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        if pages.is_empty() {
            return;
        }
        self.note_leaving(pages, visit);
        let mut areas = self.gate.alone(visit.signals());
        or_abort(areas.trapped.remove(pages));
        or_abort(areas.watched.remove(pages));
        or_abort(areas.withheld.remove(pages));
        or_abort(areas.discarding.remove(pages));
        or_abort(areas.kept.remove(pages));
        or_abort(areas.views.remove(pages));
        areas.restricted.forget(pages);
        drop(areas);
        self.end_grants(pages, visit.signals());
        self.end_all(pages, End::Unmap, visit);
        self.end_unused_aliases(visit.signals());
    }

    /// An unmapping as it was told. Of doubtful pages the kernel is asked: where there is a registered
    /// area it is the one that moved there, and the unmapping is from before, or made room for what is
    /// told next.
    fn apply_told_unmapped(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        let mut areas = EngineVec::new(self.memory.clone());
        let mut disbelieved = EngineVec::new(self.memory.clone());
        let mut asked = false;
        let mut rest = pages;
        while !rest.is_empty() {
            let (part, doubtful) = { self.gate.share(visit.signals()).doubts.leading(rest) };
            rest = PageRange::new(part.end(), rest.end());
            if doubtful && !asked {
                asked = true;
                if self.look_up(pages, &mut areas).is_err() {
                    // Where the system does not tell, the unmapping is believed.
                    areas.clear();
                }
            }
            let mut at = part.start();
            for area in areas.iter().filter(|area| doubtful && area.registered) {
                let there = area.pages.intersection(part);
                if !there.is_empty() {
                    self.apply_unmapped(PageRange::new(at, there.start()), visit);
                    at = there.end();
                    or_abort(disbelieved.try_push(there));
                    self.counters.changes_outdated.add(1);
                }
            }
            self.apply_unmapped(PageRange::new(at, part.end()), visit);
        }
        let mut known = self.gate.alone(visit.signals());
        or_abort(known.doubts.settle(pages));
        // What was disbelieved before made room for nothing that is there still.
        known.open_disbelieved(pages);
        for &part in disbelieved.iter() {
            or_abort(known.doubts.disbelieve(part));
            known.close(part);
        }
    }

    /// Applies an unmapping where it was disbelieved: there it made room for a remapping that was told now.
    fn believe(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        self.apply_unmapped(pages, visit);
        let mut known = self.gate.alone(visit.signals());
        while let Some(part) = known.doubts.take(pages) {
            known.open(part);
            // Of what lies before it nothing is known yet.
            let before = PageRange::new(part.start(), pages.start().max(part.start()));
            if !before.is_empty() {
                or_abort(known.doubts.disbelieve(before));
                known.close(before);
            }
        }
        drop(known);
        self.mm.wake(pages);
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
