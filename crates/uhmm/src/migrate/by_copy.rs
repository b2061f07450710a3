//! Pages go into copying memory, and come out of it, by way of transit.
//!
//! There: a run moves from the CPU into transit, which takes it from the CPU all at once, is copied
//! from there, and is recorded once the copy is done. Where that fails the run moves back; where it
//! cannot, its content stays in transit, recorded, and comes back like any page that is away. Back: the
//! device's translations have ended, frames are copied out to transit, unless transit still has what was
//! copied in and the device says that it wrote nothing since; from there the pages move or are copied to
//! the CPU. Until they are, the frames keep the content.

use core::ops::Range;

use super::{
    commit::Commit,
    to_system::{AwayRun, How, Obstacle, Returned},
};
use crate::{
    block::Residence,
    clock::Began,
    device::{Copying, DeviceState, FrameRun, Place, Transit},
    driver::InvalidationKind,
    engine::{Areas, Engine, Locked},
    events::Holder,
    mm::{Mm, Stop},
    report::StayCause,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// Whether pages are a block and one huge page.
    pub(super) fn is_huge(&self, first: PageNumber, pages: usize) -> bool {
        pages == BLOCK_PAGES && first.in_block() == 0 && self.mm.is_huge(first)
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Puts the content of frames where the CPU has the pages, from `to` on. Answers how far that came, and
    /// whether the system copied.
    pub(super) fn copy_back(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        to: PageNumber,
        how: How,
    ) -> (Returned, bool) {
        let moves_to = (!how.copying).then_some(to);
        let content = self.engine.content_of(device, copying, frames, moves_to, self.signals);
        let pages = match content {
            Ok(pages) => pages,
            Err(obstacle) => return (Returned { pages: 0, obstacle: Some(obstacle) }, how.copying),
        };
        let by_copy = how.copying || !pages.may_move && !how.turned;
        let mm = &self.engine.mm;
        let (from, count) = (copying.transit.page(pages.run.first), pages.run.frames);
        let done = if by_copy { mm.copy(from, to, count) } else { mm.give(from, to, count) };
        copying.transit.end_loan(&pages, done.pages, !by_copy, mm, self.signals);
        self.engine.counters.returned_clean.add(pages.had(done.pages));
        (done.into(), by_copy)
    }

    /// Asks the device which pages of a run it has written, whose translations have ended under this lock.
    pub(super) fn ask_written(&self, device: &DeviceState, run: &AwayRun) {
        let Some(copying) = device.copying() else { return };
        if !device.is_of_device(run.frame) {
            return;
        }
        let all = self.pages(&run.pages);
        let mut rest = all;
        while !rest.is_empty() {
            let written = device.device.take_written(rest).intersection(rest);
            if written.is_empty() {
                break;
            }
            let first = run.frame.plus(written.start().since(all.start()));
            let frames = FrameRun { first, frames: written.len() };
            copying.transit.note_written(frames, self.signals);
            rest = PageRange::new(written.end(), rest.end());
        }
    }
}

/// Pages of system memory that a call took into transit.
pub(super) struct TakenIntoTransit {
    pub(super) there: FrameRun,
    /// Why they are no more.
    pub(super) stop: Option<Stop>,
    pub(super) began: Began,
}

impl<M: Mm> Commit<'_, '_, M> {
    /// Takes pages from `from` on, those of the block from place `start` on, into transit, as many as there
    /// are `frames` or as it has room for.
    pub(super) fn take_into_transit(
        &mut self,
        transit: &Transit,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
    ) -> Result<TakenIntoTransit, StayCause> {
        let (engine, signals) = (self.held.engine, self.held.signals);
        let mm = &engine.mm;
        let Some(way) = transit.holes(frames.frames, mm, signals) else {
            self.unused(frames, 0);
            return Err(StayCause::NoMemory);
        };
        let began = engine.recorder.begin();
        self.held.end_in_place(&(start..start + way.frames), self.kind());
        let done = mm.take(from, transit.page(way.first), way.frames);
        let (there, rest) = way.split(done.pages);
        let (present, rest) = rest.split(usize::from(done.stop == Some(Stop::Present)));
        // The page was believed to be a hole and is not.
        transit.give_back(present, true, mm, signals);
        transit.give_back(rest, false, mm, signals);
        Ok(TakenIntoTransit { there, stop: done.stop, began })
    }

    /// Takes pages that are in system memory, or lie aside at `from`, into `frames` by copying them: those
    /// from place `start` on. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn take_by_copy(
        &mut self,
        copying: &Copying,
        areas: &Areas,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
    ) -> Result<bool, StayCause> {
        let places = start..start + frames.frames;
        let (engine, signals) = (self.held.engine, self.held.signals);
        let (mm, transit) = (&engine.mm, &copying.transit);
        // Room to record pages as being in transit too: what goes on in no other run.
        let frame = self.device.number_of_nothing();
        let anywhere = Residence::Away { device: self.device.index, frame, exclusive: false };
        if let Err(error) = self.held.reserve(&places, anywhere) {
            self.unused(frames, 0);
            return Err(error.into());
        }
        let TakenIntoTransit { there, stop, began } =
            self.take_into_transit(transit, from, start, frames)?;
        let used = there.frames;
        if used > 0 {
            let into = frames.split(used).0;
            let is_huge = engine.is_huge(transit.page(there.first), used);
            if let Err(error) = copying.copy_in(transit.page(there.first), into, mm) {
                self.unused(frames, 0);
                engine.transfer_failed(self.device, error);
                let first = self.held.page(start);
                self.go_back(&copying.transit, there, first);
                self.stay(used, StayCause::of_transfer(error));
                return Ok(true);
            }
            copying.note_huge(into, is_huge);
            engine.counters.copied_in.add(used);
            transit.give_back_twins(there, into.first, is_huge, mm, signals);
            self.arrived(start..start + used, into.first, true);
            self.tell_moved(began, &(start..start + used), Holder::System);
        }
        match stop {
            Some(Stop::Hole) => {
                let (from, start) = (from.plus(used), start + used);
                Ok(self.make_by_copy(copying, areas, from, start, frames.behind(used), began))
            }
            stop => self.ended(areas, from, frames, used, stop),
        }
    }

    /// Makes pages that were never touched in the first of `frames`. False where the attempt ends here.
    fn make_by_copy(
        &mut self,
        copying: &Copying,
        areas: &Areas,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
        began: Began,
    ) -> bool {
        let holes = self.holes_at(from, frames.frames);
        if !self.may_be_made(holes) {
            self.unused(frames, 0);
            return true;
        }
        let into = frames.split(holes).0;
        if let Err(error) = copying.zero(into) {
            self.held.engine.transfer_failed(self.device, error);
            self.unused(frames, 0);
            self.stay(holes, StayCause::of_transfer(error));
            return true;
        }
        if self.held.engine.mm.changing() {
            // No call of the system was made since the holes were seen that would have said so.
            self.unused(frames, 0);
            self.attempt.changing = true;
            return false;
        }
        // What the program had touched first would have been a huge page there.
        copying.note_huge(into, areas.huge.covers(self.held.pages(&(start..start + holes))));
        self.arrived(start..start + holes, into.first, true);
        self.tell_moved(began, &(start..start + holes), Holder::System);
        self.held.engine.counters.made_on_device.add(holes);
        self.unused(frames, holes);
        true
    }

    /// Pages that are in transit could not be copied to the device: they go back to where they were.
    /// What cannot stays in transit, and is recorded as being there.
    pub(super) fn go_back(&mut self, transit: &Transit, pages: FrameRun, first: PageNumber) {
        let (engine, signals) = (self.held.engine, self.held.signals);
        let mm = &engine.mm;
        let (mut left, mut to) = (pages, first);
        let (mut by_copy, mut turned) = (false, false);
        while left.frames > 0 {
            let from = transit.page(left.first);
            let done = if by_copy {
                mm.copy(from, to, left.frames)
            } else {
                mm.give(from, to, left.frames)
            };
            let (back, rest) = left.split(done.pages);
            transit.give_back(back, by_copy, mm, signals);
            (left, to) = (rest, to.plus(done.pages));
            match done.stop {
                None => {}
                Some(Stop::Present) => {
                    // As for any page that comes back: what the system has there is newer.
                    let (superseded, rest) = left.split(1);
                    transit.give_back(superseded, true, mm, signals);
                    engine.counters.superseded.add(1);
                    (left, to) = (rest, to.plus(1));
                }
                Some(Stop::Refused | Stop::Busy | Stop::NoMemory | Stop::Other(_)) if !turned => {
                    (by_copy, turned) = (!by_copy, true);
                }
                Some(_) => break,
            }
        }
        if left.frames > 0 {
            let places = to.in_block()..to.in_block() + left.frames;
            let number = self.device.number_in_transit(left.first);
            self.held.state().pages.record_away(&places, self.device.index, number, false);
            self.held.block.changed(left.frames, 0);
            self.held.enter_clock(self.device);
            transit.note_recorded(left.frames);
            engine.counters.left_in_transit.add(left.frames);
            // They count as being there, and as coming back when they do.
            self.count_arrived(&places);
        }
    }

    /// Brings back pages that are on their way, or that go to another kind of memory, so that they can be
    /// taken like others. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn return_first(&mut self, run: AwayRun, areas: &Areas) -> bool {
        let done = self.held.bring_back(run, super::ReturnCause::Coherence, areas);
        match done.obstacle {
            Some(obstacle) if done.pages == 0 && obstacle.is_change() => {
                self.attempt.changing = true;
                return false;
            }
            Some(obstacle) if done.pages == 0 => self.stay(1, obstacle.cause()),
            _ => {}
        }
        true
    }

    /// Takes pages over from another device into `frames`, the memory of either being reached by
    /// copies, or coherent. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn take_over_by_copy(
        &mut self,
        other: &DeviceState,
        away: &AwayRun,
        frames: FrameRun,
        kind: InvalidationKind,
        write: bool,
    ) -> Result<bool, StayCause> {
        let pages = away.pages.start..away.pages.start + frames.frames;
        let engine = self.held.engine;
        let began = engine.recorder.begin();
        self.held.end_away(other, &pages, kind);
        self.held.ask_written(other, &AwayRun { pages: pages.clone(), ..*away });
        let mm = &engine.mm;
        let moves_to = match self.device.place_of(frames.first) {
            Place::Staging(to) if !self.device.is_coherent() => Some(to),
            Place::Staging(_) | Place::Copying(..) => None,
        };
        let (from, count, is_huge, borrowed) = match other.place_of(away.frame) {
            Place::Staging(page) => {
                (page, frames.frames, engine.is_huge(page, frames.frames), None)
            }
            Place::Copying(source, first) => {
                let run = FrameRun { first, frames: frames.frames };
                match engine.content_of(other, source, run, moves_to, self.held.signals) {
                    Ok(out) => {
                        let page = source.transit.page(out.run.first);
                        (page, out.run.frames, source.is_huge(first), Some((source, out)))
                    }
                    Err(obstacle) => {
                        self.unused(frames, 0);
                        return self.not_taken_over(other, &pages, obstacle);
                    }
                }
            }
        };
        let into = frames.split(count).0;
        let may_move = borrowed.is_some_and(|(_, out)| out.may_move);
        let (done, moved) = match self.device.place_of(frames.first) {
            Place::Copying(copying, _) => match copying.copy_in(from, into, mm) {
                Ok(()) => {
                    copying.note_huge(into, is_huge);
                    engine.counters.copied_in.add(count);
                    (Returned { pages: count, obstacle: None }, false)
                }
                Err(error) => {
                    self.held.engine.transfer_failed(self.device, error);
                    (Returned { pages: 0, obstacle: Some(Obstacle::Device(error)) }, false)
                }
            },
            Place::Staging(to) => match self.device.coherent() {
                Some(coherent) => {
                    coherent.copy_in(from, into, mm);
                    engine.counters.copied_in.add(count);
                    (Returned { pages: count, obstacle: None }, false)
                }
                None if may_move => (mm.take(from, to, count).into(), true),
                None if borrowed.is_none() && is_huge && to.in_block() == 0 => {
                    (mm.copy_block(from, to).into(), false)
                }
                None => (mm.copy(from, to, count).into(), false),
            },
        };
        if let Some((source, out)) = borrowed {
            source.transit.end_loan(&out, done.pages, moved, mm, self.held.signals);
            engine.counters.returned_clean.add(out.had(done.pages));
        }
        if done.pages > 0 {
            let left = FrameRun { first: away.frame, frames: done.pages };
            self.held.block.changed(0, done.pages);
            let arrived = pages.start..pages.start + done.pages;
            self.arrived(arrived.clone(), frames.first, write);
            self.tell_moved(began, &arrived, Holder::Device(other.index));
            other.give_back(left, true, self.held.signals);
            engine.counters.between_devices.add(done.pages);
        }
        self.unused(frames, done.pages);
        match done.obstacle {
            None => Ok(true),
            Some(obstacle) => {
                self.not_taken_over(self.device, &(pages.start + done.pages..pages.end), obstacle)
            }
        }
    }

    /// Pages could not be taken over, as something stopped at the first of them: the system, or `device`.
    fn not_taken_over(
        &mut self,
        device: &DeviceState,
        places: &Range<usize>,
        obstacle: Obstacle,
    ) -> Result<bool, StayCause> {
        match obstacle {
            Obstacle::System(stop) => self.stopped(stop, self.held.page(places.start)),
            Obstacle::Device(error) => {
                let source_is_lost = device.index != self.device.index && device.is_lost();
                let cause = if source_is_lost {
                    StayCause::Poisoned
                } else {
                    StayCause::of_transfer(error)
                };
                self.stay(places.len(), cause);
                Ok(true)
            }
        }
    }
}
