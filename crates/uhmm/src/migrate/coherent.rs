//! Pages go to coherent memory, which the CPU maps, and come back.
//!
//! There: a run moves from the CPU into transit, which takes it from the CPU all at once, is copied from
//! there into frames, which are pages that are there already, and the frames move to where the program has
//! the pages. Between the two moves a thread that touches a page waits for the block. What was copied and
//! cannot move is away, recorded as on any device: it is mapped at the next attempt, or comes back as it is
//! touched. What the device is to have alone is not mapped, and stays away.
//!
//! Back: the frames move out of the program's pages into their places in staging, and are away from then
//! on; so they come back as from any device, always by a copy, as the frames are the device's: their pages
//! stay in their places, for what comes next. What the CPU does not let go of, as it is pinned or protected,
//! the program keeps: the page stays what it is and counts as system memory, and the frame gets a page of its
//! own anew when it is needed next.

use core::ops::Range;

use super::{
    by_copy::TakenIntoTransit,
    commit::Commit,
    pull::Pull,
    to_system::{AwayRun, Obstacle, ReturnCause, Returned, ended},
};
use crate::{
    block::Residence,
    clock::Began,
    device::{Coherent, DeviceState, FrameRun, Place},
    driver::{Entries, FrameNumber, Translation},
    engine::{Areas, Engine, Locked, Permitted, Visit},
    events::Holder,
    mm::{Done, Mm, Stop},
    report::StayCause,
    units::{BLOCK_PAGES, PageNumber},
    view::Held,
};

impl<M: Mm> Commit<'_, '_, M> {
    /// Whether the CPU is to map what goes to the device.
    pub(super) fn is_to_be_mapped(&self) -> bool {
        self.device.is_coherent() && !matches!(self.why, Pull::Exclusive)
    }

    /// Takes pages that are in system memory into `frames` of coherent memory. False where the attempt
    /// ends here.
    #[inline(never)]
    pub(super) fn take_to_coherent(
        &mut self,
        coherent: &Coherent,
        areas: &Areas,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
    ) -> Result<bool, StayCause> {
        let (engine, signals) = (self.held.engine, self.held.signals);
        let (mm, transit) = (&engine.mm, &coherent.transit);
        let frames_are_huge = || engine.is_huge(coherent.page(frames.first), frames.frames);
        if engine.is_huge(from, frames.frames)
            && !frames_are_huge()
            && !self.frames_made_huge(coherent, frames)?
        {
            return Ok(false);
        }
        let TakenIntoTransit { there, stop, began } =
            self.take_into_transit(transit, from, start, frames)?;
        let used = there.frames;
        if used > 0 {
            coherent.copy_in(transit.page(there.first), frames.split(used).0, mm);
            transit.give_back(there, true, mm, signals);
            engine.counters.copied_in.add(used);
            let places = start..start + used;
            let goes_on = self.arrived_in_frames(coherent, &places, frames.first, began);
            if !matches!(goes_on, Ok(true)) {
                self.unused(frames, used);
                return goes_on;
            }
        }
        match stop {
            Some(Stop::Hole) => {
                self.make_coherent(coherent, from.plus(used), start + used, frames.behind(used))
            }
            stop => self.ended(areas, from, frames, used, stop),
        }
    }

    /// A huge page is to go into `frames`, which are a block of small pages: has them be one huge page, if
    /// that is to be had. False where the attempt ends here, the frames being given back.
    ///
    /// # Errors
    /// The system has no memory for them any more; they are given back.
    #[cold]
    fn frames_made_huge(
        &mut self,
        coherent: &Coherent,
        frames: FrameRun,
    ) -> Result<bool, StayCause> {
        let (mm, signals) = (&self.held.engine.mm, self.held.signals);
        // As long as a change is unread nothing is made.
        let made = if mm.changing() {
            self.unused(frames, 0);
            Done { pages: 0, stop: Some(Stop::Changing) }
        } else {
            let made = coherent.make_huge(frames, mm);
            if made.stop.is_some() {
                let (full, holes) = frames.split(made.pages);
                self.device.give_back(full, true, signals);
                self.device.give_back(holes, false, signals);
            }
            made
        };
        match made.stop {
            None => Ok(true),
            Some(Stop::Changing) => {
                self.attempt.changing = true;
                Ok(false)
            }
            Some(stop) => Err(StayCause::of(stop)),
        }
    }

    /// Makes pages that were never touched in the first of `frames`, of zeros. False where the attempt
    /// ends here.
    fn make_coherent(
        &mut self,
        coherent: &Coherent,
        from: PageNumber,
        start: usize,
        frames: FrameRun,
    ) -> Result<bool, StayCause> {
        let engine = self.held.engine;
        let began = engine.recorder.begin();
        let holes = self.holes_at(from, frames.frames);
        if !self.may_be_made(holes) {
            self.unused(frames, 0);
            return Ok(true);
        }
        let places = start..start + holes;
        let (device, frame) = (self.device.index, frames.first);
        let away = Residence::Away { device, frame, exclusive: self.is_exclusive() };
        if let Err(error) = self.held.reserve(&places, away) {
            self.unused(frames, 0);
            return Err(error.into());
        }
        coherent.zero(frames.split(holes).0, &engine.mm);
        if engine.mm.changing() {
            // No call of the system was made since the holes were seen that would have said so.
            self.unused(frames, 0);
            self.attempt.changing = true;
            return Ok(false);
        }
        engine.counters.made_on_device.add(holes);
        let goes_on = self.arrived_in_frames(coherent, &places, frame, began);
        self.unused(frames, holes);
        goes_on
    }

    /// Records pages that are in frames now, from `frame` on, and has the CPU map them, if it is to. Room was
    /// made for the former. False where the attempt ends here.
    ///
    /// # Errors
    /// As of [`map`](Self::map).
    fn arrived_in_frames(
        &mut self,
        coherent: &Coherent,
        places: &Range<usize>,
        frame: FrameNumber,
        began: Began,
    ) -> Result<bool, StayCause> {
        if !self.is_to_be_mapped() {
            self.arrived(places.clone(), frame, true);
            self.tell_moved(began, places, Holder::System);
            return Ok(true);
        }
        let device = self.device.index;
        self.held.state().pages.record_away(places, device, frame, false);
        self.held.engine.view.note_held(self.held.pages(places), Held::device(device, false));
        self.held.block.changed(places.len(), 0);
        self.held.enter_clock(self.device);
        self.count_arrived(places);
        self.tell_moved(began, places, Holder::System);
        let pages = places.clone();
        let run = AwayRun { pages, device, frame, exclusive: false, mapped: false };
        self.map(coherent, run, self.permitted_of_new(), false)
    }

    /// Has the CPU map frames of the device, which are recorded as away: `already` before this attempt.
    /// What cannot be mapped is on the device all the same, as far as it is permitted. False where the
    /// attempt ends here.
    ///
    /// # Errors
    /// There is no memory to record it.
    fn map(
        &mut self,
        coherent: &Coherent,
        run: AwayRun,
        permitted: Permitted,
        already: bool,
    ) -> Result<bool, StayCause> {
        let engine = self.held.engine;
        let mut rest = run;
        if !permitted.write {
            // The system moves no page into such an area.
            self.dealt_with(rest.pages.len(), already);
            self.enter_permitted(rest.pages, rest.frame, permitted);
            return Ok(true);
        }
        while !rest.pages.is_empty() {
            let mapped = Residence::Mapped { device: rest.device, frame: rest.frame };
            self.held.reserve(&rest.pages, mapped)?;
            let to = self.held.page(rest.pages.start);
            let done = engine.mm.give(coherent.page(rest.frame), to, rest.pages.len());
            if done.pages > 0 {
                let places = rest.pages.start..rest.pages.start + done.pages;
                self.held.state().pages.record_at(&places, mapped);
                self.held.block.changed(0, 0);
                self.enter_mapped(&places, rest.frame, true);
                self.dealt_with(done.pages, already);
                rest = rest.without_first(done.pages);
            }
            match done.stop {
                None => {}
                Some(Stop::Changing | Stop::NoArea) => {
                    self.attempt.changing = true;
                    return Ok(false);
                }
                Some(Stop::Present) => {
                    // As for any page that comes back: what the system has there is newer.
                    let one = rest.pages.start..rest.pages.start + 1;
                    self.held.reserve(&one, Residence::System)?;
                    self.held.came_back(&rest, 1, true);
                    self.held.count_superseded(1);
                    self.stay(1, StayCause::of(Stop::Present));
                    rest = rest.without_first(1);
                }
                Some(_) => {
                    let one = rest.pages.start..rest.pages.start + 1;
                    self.enter(one, rest.frame, true);
                    self.dealt_with(1, already);
                    rest = rest.without_first(1);
                }
            }
        }
        Ok(true)
    }

    fn dealt_with(&mut self, pages: usize, already: bool) {
        if already {
            self.report.add_already(pages);
        } else {
            self.report.add_moved(pages);
        }
        self.attempt.dealt += pages;
    }

    fn enter_mapped(&self, places: &Range<usize>, frame: FrameNumber, write: bool) {
        let translation = Translation::Coherent { frame: frame.0 as usize };
        let pages = self.held.pages(places);
        self.device.device.commit(&Entries { pages, translation, write, order: 0 });
    }

    /// Pages in coherent memory are wanted: of this device, or of another. False where the attempt ends
    /// here.
    #[inline(never)]
    pub(super) fn pull_mapped(&mut self, run: AwayRun, write: bool, areas: &Areas) -> bool {
        if run.device != self.device.index {
            return self.return_first(run, areas);
        }
        if matches!(self.why, Pull::Exclusive) {
            // Out of the CPU's hands; then they are made exclusive as what is away is.
            let taken = self.held.take_from_cpu(&run);
            return match taken.obstacle {
                Some(obstacle) if obstacle.is_change() => {
                    self.attempt.changing = true;
                    false
                }
                Some(obstacle) if taken.pages == 0 => {
                    self.stay(1, obstacle.cause());
                    true
                }
                _ => true,
            };
        }
        self.enter_mapped(&run.pages, run.frame, write);
        self.dealt_with(run.pages.len(), true);
        true
    }

    /// Pages that are away are to be in coherent memory. False where the attempt ends here.
    ///
    /// # Errors
    /// There is no memory to record it.
    #[inline(never)]
    pub(super) fn pull_to_be_mapped(
        &mut self,
        run: AwayRun,
        write: bool,
        areas: &Areas,
    ) -> Result<bool, StayCause> {
        match self.device.coherent() {
            Some(coherent) if run.device == self.device.index => {
                // They could not be mapped before.
                self.held.end_away(self.device, &run.pages, self.kind());
                self.map(coherent, run, Permitted { read: true, write }, true)
            }
            _ => Ok(self.return_first(run, areas)),
        }
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Brings back a run that the CPU maps in frames of a device.
    #[inline(never)]
    pub(super) fn bring_back_mapped(
        &mut self,
        run: &AwayRun,
        cause: ReturnCause,
        areas: &Areas,
    ) -> Returned {
        if cause == ReturnCause::Fork {
            return self.leave(run, cause);
        }
        let mut rest = run.clone();
        loop {
            let taken = self.take_from_cpu(&rest);
            let first = rest.pages.start;
            let mut came = first..first + taken.pages;
            // What was superseded is not away.
            while let Some(away) = self.next_away(came.clone(), Some(run.device)) {
                came.start = away.pages.end;
                let (start, wanted) = (away.pages.start, away.pages.len());
                let returned = self.bring_back(away, cause, areas);
                if returned.pages < wanted {
                    let pages = start + returned.pages - run.pages.start;
                    return Returned { pages, ..returned };
                }
                if came.is_empty() {
                    break;
                }
            }
            rest = rest.without_first(taken.pages);
            let pages = rest.pages.start - run.pages.start;
            match taken.obstacle {
                None => return Returned { pages, obstacle: None },
                Some(obstacle) if obstacle.is_change() => {
                    return Returned { pages, obstacle: Some(obstacle) };
                }
                // The CPU does not let go of this one.
                Some(_) => {
                    let one = rest.pages.start..rest.pages.start + 1;
                    let left = self.leave(&AwayRun { pages: one, ..rest.clone() }, cause);
                    if left.obstacle.is_some() {
                        return Returned { pages, ..left };
                    }
                    rest = rest.without_first(1);
                }
            }
            if rest.pages.is_empty() {
                return Returned { pages: run.pages.len(), obstacle: None };
            }
        }
    }

    /// Takes a run that the CPU maps from it, to the frames' places, and records it as away. Pages that
    /// the CPU has no more count as taken, and their frames are free.
    #[inline(never)]
    pub(super) fn take_from_cpu(&mut self, run: &AwayRun) -> Returned {
        let (engine, device) = (self.engine, self.device(run.device));
        let mut rest = run.clone();
        let away = |run: &AwayRun| AwayRun { mapped: false, ..run.clone() };
        self.end_away(device, &run.pages, ended(run));
        let obstacle = loop {
            if rest.pages.is_empty() {
                break None;
            }
            let residence = away(&rest).residence(rest.frame);
            if self.reserve(&rest.pages, residence).is_err() {
                break Some(Stop::NoMemory);
            }
            let (from, to) = (self.page(rest.pages.start), place_of(device, rest.frame));
            let done = engine.mm.take(from, to, rest.pages.len());
            if done.pages > 0 {
                let places = rest.pages.start..rest.pages.start + done.pages;
                self.state().pages.record_at(&places, residence);
                self.block.changed(0, 0);
                rest = rest.without_first(done.pages);
            }
            match done.stop {
                None => {}
                Some(Stop::Hole) => {
                    // The content has ended by a call that tells nobody.
                    let one = rest.pages.start..rest.pages.start + 1;
                    if self.reserve(&one, Residence::System).is_err() {
                        break Some(Stop::NoMemory);
                    }
                    self.came_back(&rest, 1, false);
                    self.count_superseded(1);
                    rest = rest.without_first(1);
                }
                Some(stop) => break Some(stop),
            }
        };
        Returned {
            pages: rest.pages.start - run.pages.start,
            obstacle: obstacle.map(Obstacle::System),
        }
    }

    /// Lets the program keep the frames of a run that the CPU maps, as system memory.
    fn leave(&mut self, run: &AwayRun, cause: ReturnCause) -> Returned {
        let pages = run.pages.len();
        if self.reserve(&run.pages, Residence::System).is_err() {
            return Returned { pages: 0, obstacle: Some(Obstacle::System(Stop::NoMemory)) };
        }
        let began = self.engine.recorder.begin();
        self.end_away(self.device(run.device), &run.pages, ended(run));
        self.came_back(run, pages, false);
        self.tell_came_back(began, run, pages, cause, false);
        self.count_returned(cause, pages);
        self.engine.counters.left_in_place.add(pages);
        Returned { pages, obstacle: None }
    }

    /// Counts pages that the device has no more, as the CPU's side has others.
    fn count_superseded(&self, pages: usize) {
        self.count_returned(ReturnCause::Coherence, pages);
        self.engine.counters.superseded.add(pages);
    }

    /// Pages were made anew where a frame was mapped, whose content has ended by a call that tells
    /// nobody. Without memory to note it the frames count as in use.
    #[inline(never)]
    pub(crate) fn replaced(&mut self, places: Range<usize>) {
        let mut rest = places;
        while let Some(run) = self.next_on_device(rest.clone(), None) {
            rest.start = run.pages.end;
            if run.mapped && self.reserve(&run.pages, Residence::System).is_ok() {
                let pages = run.pages.len();
                self.end_away(self.device(run.device), &run.pages, ended(&run));
                self.came_back(&run, pages, false);
                self.count_superseded(pages);
            }
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// The place of a frame of coherent memory.
fn place_of(device: &DeviceState, frame: FrameNumber) -> PageNumber {
    match device.place_of(frame) {
        Place::Staging(page) => page,
        Place::Copying(..) => {
            crate::abort::abort(b"the CPU is recorded to map memory that is reached by copies")
        }
    }
}

impl<M: Mm> Engine<M> {
    /// The process has forked, and all ranges are closed: frames that the CPU maps are shared with the
    /// child from then on, and whoever of the two writes first gets a page of system memory, untold. So
    /// they are the program's.
    #[inline(never)]
    pub(crate) fn leave_frames(&self, visit: &mut Visit<'_, M>) {
        for (block, part) in self.blocks.existing(self.all_pages()) {
            if block.hint().away == 0 {
                continue;
            }
            let mut held = visit.lock(block, part.start().block());
            let mut place = 0;
            while place < BLOCK_PAGES
                && let Some(run) = held.next_on_device(place..BLOCK_PAGES, None)
            {
                place = run.pages.end;
                if run.mapped && held.leave(&run, ReturnCause::Fork).obstacle.is_some() {
                    crate::abort::abort(
                        b"engine memory is exhausted and a fork cannot be followed",
                    );
                }
            }
        }
    }
}
