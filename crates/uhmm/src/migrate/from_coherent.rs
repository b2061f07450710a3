//! Pages come back from coherent memory.
//!
//! The frames move out of the program's pages into their places in staging, and are away from then
//! on; so they come back as from any device, always by a copy, as the frames are the device's: their pages
//! stay in their places, for what comes next. What the CPU does not let go of, as it is pinned or protected,
//! the program keeps: the page stays what it is and counts as system memory, and the frame gets a page of its
//! own anew when it is needed next.

use core::ops::Range;

use super::to_system::{AwayRun, Obstacle, ReturnCause, Returned, ended};
use crate::{
    block::Residence,
    device::{Coherent, DeviceState, FrameRun, Place},
    driver::FrameNumber,
    engine::{Areas, Engine, Locked, Visit},
    mm::{Mm, Stop},
    policy::COPY_PAGES,
    units::{BLOCK_PAGES, PageNumber},
};

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

    /// Puts copies of frames that pages are away in where the CPU has the pages. Of many pages full ones of
    /// transit get the copies and move there, as long as there are some: they came there with other pages.
    pub(super) fn copy_back_coherent(&self, coherent: &Coherent, run: &AwayRun) -> Returned {
        let (engine, transit) = (self.engine, &coherent.transit);
        let mm = &engine.mm;
        let (frames, to) = (run.pages.len(), self.page(run.pages.start));
        let all = FrameRun { first: run.frame, frames };
        let is_huge = to.in_block() == 0 && engine.is_huge(coherent.page(run.frame), frames);
        let mut back = 0;
        while frames - back > COPY_PAGES {
            let rest = all.behind(back);
            let Some(spare) = transit.borrow_spare(rest.frames, is_huge, self.signals) else {
                break;
            };
            if spare.run.frames <= COPY_PAGES {
                // A move of so few costs more than to copy them.
                transit.end_loan(&spare, 0, true, mm, self.signals);
                break;
            }
            let way = transit.page(spare.run.first);
            coherent.copy_out(rest.split(spare.run.frames).0, way, mm);
            let done = mm.give(way, to.plus(back), spare.run.frames);
            transit.end_loan(&spare, done.pages, true, mm, self.signals);
            back += done.pages;
            match done.stop.map(Obstacle::System) {
                None => {}
                Some(obstacle) if obstacle.is_change() => {
                    return Returned { pages: back, obstacle: Some(obstacle) };
                }
                // A copy may do what a move does not.
                Some(_) => break,
            }
        }
        let (from, to) = (coherent.page(run.frame).plus(back), to.plus(back));
        let done = match frames - back {
            0 => return Returned { pages: frames, obstacle: None },
            _ if is_huge && back == 0 => mm.copy_block(from, to),
            left => mm.copy(from, to, left),
        };
        Returned { pages: back + done.pages, ..done.into() }
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
    pub(super) fn count_superseded(&self, pages: usize) {
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
