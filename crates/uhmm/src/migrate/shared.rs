//! Pages of shared memory go to a device, and come back.
//!
//! Their content stays where it is, in the file. What ends is the CPU's mapping; the device gets a
//! translation to the alias of their area. So nothing is copied or moved, no frame is taken, and
//! whoever else reaches the file sees what the device does.

use core::ops::Range;

use super::{
    commit::Commit,
    pull::{ByAddress, Pull},
    to_system::{AwayRun, Obstacle, ReturnCause, Returned, ended},
};
use crate::{
    block::Residence,
    driver::FrameNumber,
    engine::Locked,
    events::Holder,
    mm::{Access, Backing, Errno, Look, Mm, Stop},
    report::StayCause,
    units::{BLOCK_PAGES, PageRange},
};

/// Why a page of a pool stays.
pub(super) const OF_POOL: StayCause = StayCause::Backing(Backing::SharedHugetlb);

impl<M: Mm> Commit<'_, '_, M> {
    /// Takes pages of shared memory that are in system memory, the first of which the alias shows at
    /// `first`. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn take_shared(
        &mut self,
        places: &Range<usize>,
        first: FrameNumber,
        write: bool,
    ) -> Result<bool, StayCause> {
        if first.is_of_pool() && !self.seen.vacated {
            return Ok(self.is_to_be_vacated(places, first));
        }
        let engine = self.held.engine;
        let began = engine.recorder.begin();
        let (device, exclusive) = (self.device.index, self.is_exclusive());
        self.held.reserve(places, Residence::Away { device, frame: first, exclusive })?;
        self.held.end_in_place(places, self.kind());
        let pages = self.held.pages(places);
        let alias = engine.aliases.page_of(first);
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..places.len()];
        engine.mm.look(pages.start(), looks).map_err(StayCause::System)?;
        let mut cause = StayCause::Busy;
        if !self.seen.vacated && looks.iter().any(|look| *look != Look::Hole) {
            // Under the lock nothing is mapped anew: who touches a page waits.
            if let Err(errno) = engine.mm.vacate(pages, alias) {
                cause = match errno {
                    // The area was locked after it was trapped.
                    Errno(libc::EINVAL) => StayCause::Locked,
                    errno => StayCause::System(errno),
                };
            }
            engine.mm.look(pages.start(), looks).map_err(StayCause::System)?;
        }
        let alike = looks.iter().take_while(|look| **look == looks[0]).count();
        match looks[0] {
            Look::Hole => {}
            Look::Poisoned => {
                self.stay(alike, StayCause::Poisoned);
                return Ok(true);
            }
            Look::Present | Look::PresentHuge | Look::Zero | Look::Swapped => {
                self.stay(alike, cause);
                return Ok(true);
            }
        }
        let populated = engine.mm.populate_alias(PageRange::of(alias, alike));
        // No call above is refused while a change is unread. Within the section none is read, so where
        // there is none now all that is known was so until now.
        if engine.mm.changing() {
            self.attempt.changing = true;
            return Ok(false);
        }
        if first.is_of_pool() && populated.pages < places.len() {
            // All of it goes, or nothing.
            let cause = populated.failure.map_or(StayCause::Busy, StayCause::of_populate);
            self.stay(places.len(), cause);
            return Ok(true);
        }
        if populated.pages > 0 {
            let places = places.start..places.start + populated.pages;
            self.arrived(places.clone(), first, write);
            self.tell_moved(began, &places, Holder::System);
        }
        if let Some(failure) = populated.failure {
            self.stay(1, StayCause::of_populate(failure));
        }
        Ok(true)
    }

    /// Notes that the view of a pool's page is to be ended first, where all of it is wanted by who may be
    /// undisturbed. False where the attempt ends here; else it stays.
    fn is_to_be_vacated(&mut self, places: &Range<usize>, first: FrameNumber) -> bool {
        if places.len() == BLOCK_PAGES && matches!(self.why, Pull::Request | Pull::Undisturbed) {
            self.attempt.by_address = Some(ByAddress::OfPool(self.held.pages(places), first));
            return false;
        }
        self.stay(places.len(), OF_POOL);
        true
    }

    /// Of faults of the device on pages that it has, at those places: the place of the first that the file of
    /// shared memory has lost, and why it cannot be had any more.
    pub(super) fn lost_of_file(
        &self,
        places: &Range<usize>,
        first: FrameNumber,
    ) -> Option<(usize, StayCause)> {
        let Pull::Fault(faulted) = self.why else { return None };
        if !first.is_shared() {
            return None;
        }
        let engine = self.held.engine;
        let mut missed = places.clone().filter(|&place| faulted.has_missed(self.held.page(place)));
        missed.find_map(|place| {
            let alias = engine.aliases.page_of(first.plus(place - places.start));
            let failure = engine.mm.populate_alias(PageRange::of(alias, 1)).failure?;
            Some((place, StayCause::of_populate(failure)))
        })
    }

    /// Takes pages of shared memory over from another device. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn take_over_shared(
        &mut self,
        away: &AwayRun,
        write: bool,
    ) -> Result<bool, StayCause> {
        let began = self.held.engine.recorder.begin();
        let (device, exclusive) = (self.device.index, self.is_exclusive());
        self.held.reserve(&away.pages, Residence::Away { device, frame: away.frame, exclusive })?;
        let other = self.held.device(away.device);
        self.held.end_away(other, &away.pages, self.kind_after(away));
        let engine = self.held.engine;
        if engine.mm.changing() {
            self.attempt.changing = true;
            return Ok(false);
        }
        let pages = away.pages.len();
        self.held.block.changed(0, pages);
        self.arrived(away.pages.clone(), away.frame, write);
        self.tell_moved(began, &away.pages, Holder::Device(other.index));
        other.shared_left(pages);
        engine.counters.between_devices.add(pages);
        Ok(true)
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Brings back a run of pages of shared memory, for whose record there is room. Their device may
    /// be lost; their content is not.
    pub(super) fn map_back(&mut self, run: AwayRun, cause: ReturnCause) -> Returned {
        if run.frame.is_of_pool() {
            return self.map_whole_back(&run, cause);
        }
        self.map_run_back(run, cause)
    }

    /// Brings back the page of a pool that a run is a part of: all of it, as the system maps no part alone.
    #[inline(never)]
    fn map_whole_back(&mut self, run: &AwayRun, cause: ReturnCause) -> Returned {
        let all = 0..BLOCK_PAGES;
        if self.reserve(&all, Residence::System).is_err() {
            return Returned { pages: 0, obstacle: Some(Obstacle::System(Stop::NoMemory)) };
        }
        // Whatever is mapped first, the rest is with it.
        let mut rest = all.clone();
        while let Some(part) = self.next_away(rest.clone(), None) {
            rest.start = part.pages.end;
            self.end_away(self.device(part.device), &part.pages, ended(&part));
        }
        rest = all;
        while let Some(part) = self.next_away(rest.clone(), None) {
            rest.start = part.pages.end;
            let done = self.map_run_back(part, cause);
            if done.obstacle.is_some() {
                return Returned { pages: 0, ..done };
            }
        }
        Returned { pages: run.pages.len(), obstacle: None }
    }

    fn map_run_back(&mut self, run: AwayRun, cause: ReturnCause) -> Returned {
        let wanted = run.pages.len();
        let device = self.device(run.device);
        let began = self.engine.recorder.begin();
        let all = run.clone();
        self.end_away(device, &run.pages, ended(&run));
        let mut rest = run;
        let stop = loop {
            if rest.pages.is_empty() {
                break None;
            }
            let to = self.page(rest.pages.start);
            let done = self.engine.mm.zero(to, rest.pages.len(), Access::Write);
            if done.pages > 0 {
                self.came_back(&rest, done.pages, false);
                rest = rest.without_first(done.pages);
            }
            match done.stop {
                None => continue,
                // It is mapped already, by a call that we were not told of.
                Some(Stop::Present) => {}
                Some(Stop::Changing | Stop::NoArea) => break done.stop,
                // The file ends before: the access finds that out for itself.
                Some(Stop::Other(Errno(libc::EFAULT))) => {
                    self.engine.mm.wake(PageRange::of(to, 1));
                }
                Some(_) if cause.is_waited_for() => break done.stop,
                // It is in system memory, though not mapped, and is when it is touched.
                Some(_) => {}
            }
            self.came_back(&rest, 1, false);
            rest = rest.without_first(1);
        };
        let pages = wanted - rest.pages.len();
        self.tell_came_back(began, &all, pages, cause, false);
        self.count_returned(cause, pages);
        Returned { pages, obstacle: stop.map(Obstacle::System) }
    }
}
