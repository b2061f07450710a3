//! Pages go to coherent memory, which the CPU maps.
//!
//! A run moves from the CPU into transit, which takes it from the CPU all at once, is copied from
//! there into frames, which are pages that are there already, and the frames move to where the program has
//! the pages. Between the two moves a thread that touches a page waits for the block. What was copied and
//! cannot move is away, recorded as on any device: it is mapped at the next attempt, or comes back as it is
//! touched. What the device is to have alone is not mapped, and stays away.

use core::ops::Range;

use super::{by_copy::TakenIntoTransit, commit::Commit, pull::Pull, to_system::AwayRun};
use crate::{
    block::Residence,
    clock::Began,
    device::{Coherent, FrameRun},
    driver::{Entries, FrameNumber, Translation},
    engine::{Areas, Permitted},
    events::Holder,
    mm::{Done, Mm, Stop},
    report::StayCause,
    units::PageNumber,
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
        let is_huge = engine.is_huge(from, frames.frames);
        if is_huge
            && !engine.is_huge(coherent.page(frames.first), frames.frames)
            && !self.frames_made_huge(coherent, frames)?
        {
            return Ok(false);
        }
        let TakenIntoTransit { there, stop, began } =
            self.take_into_transit(transit, from, start, frames)?;
        let used = there.frames;
        if used > 0 {
            let way = transit.page(there.first);
            coherent.copy_in(way, frames.split(used).0, mm);
            transit.give_back_full(there, is_huge && engine.is_huge(way, used), mm, signals);
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
