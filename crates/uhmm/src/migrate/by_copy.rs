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
    device::{Borrowed, Copying, DeviceState, FrameRun, Place, Transit},
    driver::{InvalidationKind, TransferError},
    engine::{Areas, Engine, Locked},
    events::Holder,
    mm::{Child, Done, Errno, Mm, Stop},
    policy, processor,
    report::StayCause,
    sync::SignalsBlocked,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// Whether pages of staging are one huge page.
    pub(super) fn is_huge(&self, first: PageNumber, pages: usize) -> bool {
        pages == BLOCK_PAGES && first.in_block() == 0 && self.mm.is_huge(first)
    }

    /// Notes that a transfer failed, and what that says of the device.
    fn transfer_failed(&self, device: &DeviceState, error: TransferError) {
        self.counters.transfers_failed.add(1);
        if error == TransferError::Lost {
            device.lose();
        }
    }

    /// Has the content of frames of `device` in pages of transit, as many from the first on as there are:
    /// in their twins, where the device has not written since, else by copies out. The lock of the block
    /// that they are pages of is held, and the device was [asked](Locked::ask_written) what it has written.
    /// Where they are to move `to` a block, and are one huge page, they are one huge page of transit, if one is
    /// to be had.
    fn content_of(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        to: Option<PageNumber>,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let transit = &copying.transit;
        let is_huge = frames.frames == BLOCK_PAGES
            && to.is_some_and(|to| to.in_block() == 0)
            && copying.is_huge(frames.first);
        let pages = if is_huge && let Some(whole) = self.gathered(transit, frames, signals) {
            whole
        } else {
            match transit.borrow_twins(frames, signals) {
                Ok(twins) => twins,
                Err(without) => {
                    return self.copy_out(device, copying, frames.split(without).0, signals);
                }
            }
        };
        self.completed(device, copying, frames, pages, signals)
    }

    /// A huge page of transit for the content of frames that are one, with what their twins have of it. None
    /// where there is none to be had, or where the twins serve as well.
    #[inline(never)]
    fn gathered(
        &self,
        transit: &Transit,
        frames: FrameRun,
        signals: &SignalsBlocked,
    ) -> Option<Borrowed> {
        let mut whole = transit.borrow_huge(frames, &self.mm, signals)?;
        let pointer =
            |run: FrameRun, place| self.mm.staging_pointer(transit.page(run.first.plus(place)));
        let mut place = 0;
        while place < frames.frames {
            place += match transit.borrow_twins(frames.behind(place), signals) {
                Err(without) => without,
                Ok(twins) => {
                    let (count, size) = (twins.run.frames, self.mm.page_size());
                    let (from, to) = (pointer(twins.run, 0), pointer(whole.run, place));
                    // SAFETY: so many pages of transit on either side, full ones, lent to this call alone,
                    // and no page to both sides.
                    unsafe {
                        processor::copy(from.as_ptr(), to.as_ptr(), size.bytes_in(count));
                    }
                    whole.give(place, &twins);
                    transit.end_loan(&twins, 0, false, &self.mm, signals);
                    count
                }
            };
        }
        Some(whole)
    }

    /// Copies out of frames what pages of transit have not of their content. Answers as many of the pages, from
    /// the first on, as have it.
    fn completed(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        mut pages: Borrowed,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let transit = &copying.transit;
        let count = pages.run.frames;
        let mut place = pages.missing.next(0, true);
        while place < count {
            // As far as it does not pay to make two copies of it.
            let mut end = pages.missing.next(place, false).min(count);
            let mut next = pages.missing.next(end, true);
            while next < count && next - end < policy::LEAST_SPARED {
                end = pages.missing.next(next, false).min(count);
                next = pages.missing.next(end, true);
            }
            let from = frames.split(end).0.behind(place);
            let to = transit.page(pages.run.first.plus(place));
            if let Err(error) = copying.copy_out(from, to, &self.mm) {
                self.transfer_failed(device, error);
                if place > 0 {
                    return Ok(transit.shorten(pages, place, signals));
                }
                transit.end_loan(&pages, 0, false, &self.mm, signals);
                return Err(Obstacle::Device(error));
            }
            self.counters.copied_out.add(from.frames);
            pages.missing.set(place, from.frames);
            place = next;
        }
        Ok(pages)
    }

    /// Copies frames of `device` out to pages of transit, as many from the first on as there are. The
    /// lock of the block that they are pages of is held.
    fn copy_out(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let pages =
            copying.transit.borrow(frames.frames, &self.mm, signals).map_err(Obstacle::System)?;
        let from = frames.split(pages.run.frames).0;
        let to = copying.transit.page(pages.run.first);
        if let Err(error) = copying.copy_out(from, to, &self.mm) {
            copying.transit.end_loan(&pages, 0, false, &self.mm, signals);
            self.transfer_failed(device, error);
            return Err(Obstacle::Device(error));
        }
        self.counters.copied_out.add(from.frames);
        Ok(pages)
    }

    /// Copies frames out and to a child, as [`Mm::copy_to_child`] does. What the device cannot copy out
    /// stops it with an error of the system.
    ///
    /// # Safety
    /// As of [`Mm::copy_to_child`].
    pub(crate) unsafe fn copy_out_to_child(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        child: Child,
        to: PageNumber,
    ) -> Done {
        let signals = SignalsBlocked::new();
        // What is written meanwhile the child may have or not. Its twin is of before that.
        let pages = match self.copy_out(device, copying, frames, &signals) {
            Ok(borrowed) => borrowed,
            Err(Obstacle::System(stop)) => {
                // Changes of ours that are unread are no obstacle to the child.
                let stop = if stop == Stop::Changing { Stop::NoMemory } else { stop };
                return Done { pages: 0, stop: Some(stop) };
            }
            Err(Obstacle::Device(_)) => {
                return Done { pages: 0, stop: Some(Stop::Other(Errno(libc::EIO))) };
            }
        };
        let from = copying.transit.page(pages.run.first);
        // SAFETY: as the caller says.
        let done = unsafe { self.mm.copy_to_child(child, from, to, pages.run.frames) };
        copying.transit.end_loan(&pages, pages.run.frames, false, &self.mm, &signals);
        done
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
            self.unused(frames, 0, false);
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
            self.unused(frames, 0, false);
            return Err(error.into());
        }
        let TakenIntoTransit { there, stop, began } =
            self.take_into_transit(transit, from, start, frames)?;
        let used = there.frames;
        if used > 0 {
            let into = frames.split(used).0;
            let is_huge = engine.is_huge(transit.page(there.first), used);
            if let Err(error) = copying.copy_in(transit.page(there.first), into, mm) {
                self.unused(frames, 0, false);
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
                Ok(self.make_by_copy(copying, areas, from, start, frames, used, began))
            }
            stop => self.ended(areas, from, frames, used, stop),
        }
    }

    /// Makes pages that were never touched in the frames behind the first `used`. False where the
    /// attempt ends here.
    fn make_by_copy(
        &mut self,
        copying: &Copying,
        areas: &Areas,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
        used: usize,
        began: Began,
    ) -> bool {
        let holes = self.holes_at(from, frames.frames - used);
        if !self.may_be_made(holes) {
            self.unused(frames, used, false);
            return true;
        }
        let into = frames.behind(used).split(holes).0;
        if let Err(error) = copying.zero(into) {
            self.held.engine.transfer_failed(self.device, error);
            self.unused(frames, used, false);
            self.stay(holes, StayCause::of_transfer(error));
            return true;
        }
        if self.held.engine.mm.changing() {
            // No call of the system was made since the holes were seen that would have said so.
            self.unused(frames, used, false);
            self.attempt.changing = true;
            return false;
        }
        // What the program had touched first would have been a huge page there.
        copying.note_huge(into, areas.huge.covers(self.held.pages(&(start..start + holes))));
        self.arrived(start..start + holes, into.first, true);
        self.tell_moved(began, &(start..start + holes), Holder::System);
        self.held.engine.counters.made_on_device.add(holes);
        self.unused(frames, used + holes, false);
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
    /// copies. False where the attempt ends here.
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
            Place::Staging(to) => Some(to),
            Place::Copying(..) => None,
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
                        self.unused(frames, 0, false);
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
            Place::Staging(to) if may_move => (mm.take(from, to, count).into(), true),
            Place::Staging(to) => (mm.copy(from, to, count).into(), false),
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
        self.unused(frames, done.pages, false);
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
