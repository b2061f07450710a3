//! Pages of one block go to a device, under its lock.
//!
//! What was found eligible without the lock is looked at again, then run by run each page is taken from
//! where it is: system memory, another device, or this one already.

use core::ops::Range;

use super::{
    pull::{Attempt, Pull, Seen},
    to_system::AwayRun,
};
use crate::{
    block::Residence,
    clock::Began,
    device::{DeviceState, FrameRun, Place, Reservation},
    driver::{Entries, FrameNumber, InvalidationKind},
    engine::{Areas, Eligibility, Locked, Permitted},
    events::{Holder, MoveCause, What},
    latency::Latency,
    mm::{Access, Look, Mm, Stop},
    report::{Migration, StayCause},
    sync::atomic::Ordering::Acquire,
    units::{BLOCK_PAGES, PageNumber, PageRange},
    view::Held,
};

/// A migration of a part of one block under its lock.
pub(super) struct Commit<'v, 'a, M: Mm> {
    pub(super) reservation: &'v mut Reservation<'a>,
    pub(super) held: Locked<'v, M>,
    pub(super) device: &'a DeviceState,
    pub(super) report: &'v mut Migration,
    pub(super) why: Pull<'v>,
    pub(super) attempt: &'v mut Attempt,
    pub(super) seen: Seen,
}

impl<M: Mm> Commit<'_, '_, M> {
    #[unsafe(link_section = ".text.hot.moving")]
    pub(super) fn pull(&mut self) -> Result<(), StayCause> {
        let part = self.seen.part;
        let first_place = part.start().in_block();
        let places = first_place..first_place + part.len();
        let engine = self.held.engine;
        let section = engine.gate.share(self.held.signals);
        let aside = self.seen.aside;
        if aside.is_some() || self.seen.vacated {
            if self.device.leaving.load(Acquire) {
                return Err(StayCause::Closed);
            }
        // What was found eligible without the lock may have changed; then it is looked up anew.
        } else if self.device.leaving.load(Acquire)
            || section.version() != self.seen.version
                && section.eligible(part)
                    != (part, Eligibility::Eligible { alias: self.seen.alias })
        {
            self.attempt.changing = section.is_closed(part);
            return Ok(());
        }
        while self.attempt.dealt < places.len() && self.attempt.busy.is_none() {
            let rest = self.why.next(&(places.start + self.attempt.dealt..places.end));
            self.attempt.dealt = rest.start - places.start;
            if rest.is_empty() {
                break;
            }
            let mut run = self.held.state().pages.run(&rest);
            let mut write = true;
            // The system moves pages out of areas only that can be read and written. Of what is on a
            // device already it has to be asked.
            let known = match run.residence {
                Residence::System if aside.is_some() => true,
                Residence::System if self.seen.alias.is_none() => {
                    section.restricted.is_clear(self.held.pages(&run.pages))
                }
                Residence::System | Residence::Away { .. } | Residence::Mapped { .. } => false,
            };
            if !known {
                let pages = self.held.pages(&run.pages);
                let Some((pages, permitted)) =
                    engine.permitted(pages).map_err(StayCause::System)?
                else {
                    // It is gone, and the message is on its way.
                    self.attempt.changing = true;
                    break;
                };
                run.pages.end = run.pages.start + pages.len();
                if self.is_to_be_heeded(&section, pages, permitted) {
                    break;
                }
                if !self.may_go(&run.pages, run.residence, permitted) {
                    if self.is_to_go_aside(run.residence, pages) {
                        break;
                    }
                    self.stay(pages.len(), StayCause::Protection);
                    continue;
                }
                write = permitted.write && section.restricted.allows(pages, permitted);
            }
            let goes_on = match AwayRun::of(run) {
                Ok(away) => self.pull_from_device(away, write, &section)?,
                Err(places) if let Some(first) = self.seen.alias => {
                    let first = first.plus(self.attempt.dealt);
                    self.take_shared(&places, first, write)?
                }
                Err(places) => {
                    let first = aside.map_or(part.start(), |aside| aside.first);
                    let from = first.plus(self.attempt.dealt);
                    self.take(&section, from, places)?
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Pages that are on a device, perhaps on this one, are wanted. False where the attempt ends here.
    #[inline(never)]
    fn pull_from_device(
        &mut self,
        run: AwayRun,
        write: bool,
        areas: &Areas,
    ) -> Result<bool, StayCause> {
        if self.held.device(run.device).is_in_transit(run.frame) {
            return Ok(self.return_first(run, areas));
        }
        if run.mapped {
            return Ok(self.pull_mapped(run, write, areas));
        }
        if self.is_to_be_mapped() && !run.exclusive && !run.frame.is_shared() {
            return self.pull_to_be_mapped(run, write, areas);
        }
        if run.device == self.device.index {
            // A fault of the device, or another of its threads, may have been faster, or
            // the page's address changed since it came.
            if matches!(self.why, Pull::Exclusive) && !run.exclusive {
                self.make_exclusive(&run.pages, run.frame)?;
            }
            let lost = self.lost_of_file(&run.pages, run.frame);
            let places = run.pages.start..lost.map_or(run.pages.end, |(place, _)| place);
            if !places.is_empty() {
                self.enter(places.clone(), run.frame, write);
                self.report.add_already(places.len());
                self.attempt.dealt += places.len();
            }
            if let Some((_, cause)) = lost {
                self.stay(1, cause);
            }
            return Ok(true);
        }
        if run.frame.is_shared() {
            self.take_over_shared(&run, write)
        } else {
            self.take_over(&run, write)
        }
    }

    /// Takes pages that are in system memory, as many as one run of frames holds. False where the
    /// attempt ends here.
    fn take(
        &mut self,
        areas: &Areas,
        from: PageNumber,
        places: Range<usize>,
    ) -> Result<bool, StayCause> {
        let Some(frames) = self.take_frames(&places)? else { return Ok(false) };
        if let Some(coherent) = self.device.coherent() {
            return self.take_to_coherent(coherent, areas, from, places.start, frames);
        }
        let to = match self.device.place_of(frames.first) {
            Place::Staging(to) => to,
            Place::Copying(copying, _) => {
                return self.take_by_copy(copying, areas, from, places.start, frames);
            }
        };
        let engine = self.held.engine;
        let began = engine.recorder.begin();
        self.held.end_in_place(&(places.start..places.start + frames.frames), self.kind());
        let done = engine.mm.take(from, to, frames.frames);
        if done.pages > 0 {
            let places = places.start..places.start + done.pages;
            self.arrived(places.clone(), frames.first, true);
            self.tell_moved(began, &places, Holder::System);
        }
        match done.stop {
            None => Ok(true),
            Some(stop) => self.take_on(areas, from, to, frames, done.pages, stop),
        }
    }

    /// Goes on where a call that took pages into frames stopped, after `used` of them. False where the
    /// attempt ends here.
    #[inline(never)]
    fn take_on(
        &mut self,
        areas: &Areas,
        from: PageNumber,
        to: PageNumber,
        frames: FrameRun,
        used: usize,
        stop: Stop,
    ) -> Result<bool, StayCause> {
        let engine = self.held.engine;
        match stop {
            Stop::Hole => {
                let began = engine.recorder.begin();
                let holes = self.holes_at(from.plus(used), frames.frames - used);
                if !self.may_be_made(holes) {
                    self.unused(frames, used);
                    return Ok(true);
                }
                let made = engine.mm.zero(to.plus(used), holes, Access::Write);
                if made.pages > 0 {
                    let place = from.in_block() + used;
                    let places = place..place + made.pages;
                    self.arrived(places.clone(), frames.first.plus(used), true);
                    self.tell_moved(began, &places, Holder::System);
                    engine.counters.made_on_device.add(made.pages);
                }
                self.unused(frames, used + made.pages);
                match made.stop {
                    None => Ok(true),
                    Some(stop) => self.stopped(stop, from.plus(used + made.pages)),
                }
            }
            Stop::Present => {
                // The frame was believed to be a hole and is not. It is set apart for emptying.
                let full = FrameRun { first: frames.first.plus(used), frames: 1 };
                self.device.give_back(full, true, self.held.signals);
                self.unused(frames, used + 1);
                Ok(true)
            }
            stop => self.ended(areas, from, frames, used, Some(stop)),
        }
    }

    /// A call that took pages from `from` on into the first `used` of `frames` is over, or stopped for what is
    /// no hole. False where the attempt ends here.
    pub(super) fn ended(
        &mut self,
        areas: &Areas,
        from: PageNumber,
        frames: FrameRun,
        used: usize,
        stop: Option<Stop>,
    ) -> Result<bool, StayCause> {
        self.unused(frames, used);
        match stop {
            None | Some(Stop::Present) => Ok(true),
            Some(Stop::Refused) => {
                self.refused(areas, PageRange::of(from.plus(used), frames.frames - used))
            }
            Some(stop) => self.stopped(stop, from.plus(used)),
        }
    }

    /// What other devices are told of pages that go to this one.
    pub(super) fn kind(&self) -> InvalidationKind {
        self.why.kind(self.device.index)
    }

    /// What another device is told of pages that it has and that go to this one.
    pub(super) fn kind_after(&self, away: &AwayRun) -> InvalidationKind {
        if away.exclusive && !self.is_exclusive() {
            // Nobody has them alone any more.
            InvalidationKind::Exclusive { owner: None }
        } else {
            self.kind()
        }
    }

    /// Whether the device is to have the pages alone.
    pub(super) fn is_exclusive(&self) -> bool {
        matches!(self.why, Pull::Exclusive)
    }

    /// Makes pages that are on the device, and may be mapped there by its peers, exclusive to it.
    #[inline(never)]
    fn make_exclusive(
        &mut self,
        places: &Range<usize>,
        frame: FrameNumber,
    ) -> Result<(), StayCause> {
        let device = self.device.index;
        self.held.reserve(places, Residence::Away { device, frame, exclusive: true })?;
        // For this device nothing changes, but one that is told of an end needs to be given a
        // translation anew, and gets it next.
        self.held.end_away(self.device, places, self.kind());
        self.held.state().pages.record_away(places, device, frame, true);
        let pages = self.held.pages(places);
        self.held.engine.view.note_held(pages, Held::device(device, true));
        self.held.block.changed(0, 0);
        self.held.engine.counters.made_exclusive.add(places.len());
        Ok(())
    }

    /// Takes pages over from another device, frame to frame. False where the attempt ends here.
    #[inline(never)]
    fn take_over(&mut self, away: &AwayRun, write: bool) -> Result<bool, StayCause> {
        let other = self.held.device(away.device);
        if other.is_lost() {
            self.stay(away.pages.len(), StayCause::Poisoned);
            return Ok(true);
        }
        let Some(frames) = self.take_frames(&away.pages)? else { return Ok(false) };
        let pages = away.pages.start..away.pages.start + frames.frames;
        let kind = self.kind_after(away);
        let places = (other.place_of(away.frame), self.device.place_of(frames.first));
        // Frames of coherent memory are the device's, and are not given away.
        let by_copy = other.is_coherent() || self.device.is_coherent();
        let (Place::Staging(from), Place::Staging(to), false) = (places.0, places.1, by_copy)
        else {
            return self.take_over_by_copy(other, away, frames, kind, write);
        };
        let began = self.held.engine.recorder.begin();
        self.held.end_away(other, &pages, self.kind_after(away));
        let engine = self.held.engine;
        let done = engine.mm.take(from, to, frames.frames);
        if done.pages > 0 {
            let left = FrameRun { first: away.frame, frames: done.pages };
            self.held.block.changed(0, done.pages);
            let places = pages.start..pages.start + done.pages;
            self.arrived(places.clone(), frames.first, write);
            self.tell_moved(began, &places, Holder::Device(other.index));
            other.give_back(left, false, self.held.signals);
            engine.counters.between_devices.add(done.pages);
        }
        self.unused(frames, done.pages);
        match done.stop {
            None => Ok(true),
            Some(stop) => self.stopped(stop, self.held.page(pages.start + done.pages)),
        }
    }

    /// Takes a run of the frames that were reserved, for the first of `places`, and makes room to
    /// record that they are there. None where no frame is left.
    #[unsafe(link_section = ".text.hot.moving")]
    fn take_frames(&mut self, places: &Range<usize>) -> Result<Option<FrameRun>, StayCause> {
        let Some(frames) = self.reservation.take(places.len()) else { return Ok(None) };
        let (device, frame) = (self.device.index, frames.first);
        let there =
            Residence::Away { device, frame, exclusive: matches!(self.why, Pull::Exclusive) };
        let places = places.start..places.start + frames.frames;
        if let Err(error) = self.held.reserve(&places, there) {
            self.unused(frames, 0);
            return Err(error.into());
        }
        Ok(Some(frames))
    }

    /// Records pages that are in frames of the device now, or in an alias, and tells the device.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(super) fn arrived(&mut self, places: Range<usize>, first: FrameNumber, write: bool) {
        let pages = places.len();
        let index = self.device.index;
        let exclusive = matches!(self.why, Pull::Exclusive);
        self.held.state().pages.record_away(&places, index, first, exclusive);
        let held = Held::device(index, exclusive);
        self.held.engine.view.note_held(self.held.pages(&places), held);
        self.held.block.changed(pages, 0);
        if first.is_shared() {
            self.device.shared_came(pages);
        } else {
            self.held.enter_clock(self.device);
        }
        let permitted = self.permitted_of_new();
        let write = write && permitted.write;
        self.enter_permitted(places.clone(), first, Permitted { write, ..permitted });
        self.report.add_moved(pages);
        self.attempt.dealt += pages;
        self.count_arrived(&places);
    }

    /// Counts pages that came to the device.
    #[inline]
    pub(super) fn count_arrived(&self, places: &Range<usize>) {
        let pages = places.len();
        let counters = &self.held.engine.counters;
        match self.why {
            Pull::Fault(faulted) => {
                let missed = faulted.missed(places);
                counters.to_device_fault.add(missed);
                counters.to_device_neighbour.add(pages - missed);
            }
            Pull::Request | Pull::Undisturbed => counters.to_device_request.add(pages),
            Pull::Exclusive => {
                counters.to_device_request.add(pages);
                counters.made_exclusive.add(pages);
            }
        }
    }

    /// Tells that pages went to the device.
    pub(super) fn tell_moved(&self, began: Began, places: &Range<usize>, from: Holder) {
        let pages = self.held.pages(places);
        let cause = match self.why {
            Pull::Fault(faulted) if faulted.missed(places) > 0 => MoveCause::Fault,
            Pull::Fault(_) => MoveCause::Neighbour,
            Pull::Request | Pull::Undisturbed => MoveCause::Request,
            Pull::Exclusive => MoveCause::Exclusive,
        };
        let what = What::Moved { from, to: Holder::Device(self.device.index), cause };
        self.held.engine.recorder.tell_timed(began, pages, what, Latency::ToDevice);
    }

    /// Enters pages of which no more is permitted than that.
    pub(super) fn enter_permitted(
        &mut self,
        places: Range<usize>,
        first: FrameNumber,
        permitted: Permitted,
    ) {
        if permitted.read {
            self.enter(places, first, permitted.write);
        }
    }

    pub(super) fn enter(&mut self, places: Range<usize>, first: FrameNumber, write: bool) {
        let pages = self.held.pages(&places);
        // Of frames there is one.
        if let Some(translation) = self.held.own_translation(self.device, first) {
            if write {
                let frames = FrameRun { first, frames: places.len() };
                self.device.note_writable(frames, self.held.signals);
            }
            let order = self.order_as_told(&places);
            self.device.device.commit(&Entries { pages, translation, write, order });
        }
    }

    /// The order that the device is told of pages that are recorded. Copying memory knows how large a page
    /// is; of other frames the system would have to be asked, for a fourth of what a huge page's move takes.
    fn order_as_told(&mut self, places: &Range<usize>) -> u8 {
        let is_known = places.len() == BLOCK_PAGES && self.device.copying().is_some();
        if is_known { self.held.frame_order() } else { 0 }
    }

    /// Gives back what a run of frames has behind its first `used`, which is as it was handed out.
    pub(super) fn unused(&self, frames: FrameRun, used: usize) {
        if used < frames.frames {
            self.device.give_back_unused(frames.behind(used), self.held.signals);
        }
    }

    /// How many pages from `start` on are holes of one area, at least one and at most `limit`. The
    /// system found the first to be in an area that can be read and written.
    #[inline(never)]
    pub(super) fn holes_at(&self, start: PageNumber, limit: usize) -> usize {
        if limit == 1 {
            return 1;
        }
        let limit = match self.held.engine.permitted(PageRange::of(start, limit)) {
            Ok(Some((pages, _))) => pages.len(),
            Ok(None) | Err(_) => return 1,
        };
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..limit];
        match self.held.engine.mm.look(start, looks) {
            Ok(()) => looks.iter().position(|look| *look != Look::Hole).unwrap_or(limit).max(1),
            Err(_) => 1,
        }
    }

    /// A call stopped at `page`. False where the attempt ends here.
    #[inline(never)]
    pub(super) fn stopped(&mut self, stop: Stop, page: PageNumber) -> Result<bool, StayCause> {
        match stop {
            Stop::NoArea if self.seen.aside.is_some() => Err(StayCause::NoArea),
            Stop::Changing | Stop::NoArea => {
                self.attempt.changing = true;
                Ok(false)
            }
            Stop::Busy if page >= self.seen.unshared_until => {
                // What a child shares it mostly shares in runs, so all that is left is unshared.
                let part = self.seen.part;
                let first = self.seen.aside.map_or(part.start(), |aside| aside.first);
                let left = PageRange::new(page, first.plus(part.len()));
                // Of what lies aside all is wanted.
                let aside = self.seen.aside.is_some();
                self.attempt.busy = Some(if aside { left } else { self.why.next_pages(left) });
                Ok(false)
            }
            Stop::NoMemory => Err(StayCause::NoMemory),
            stop => {
                self.stay(1, StayCause::of(stop));
                Ok(true)
            }
        }
    }

    /// The next pages stay.
    pub(super) fn stay(&mut self, pages: usize, cause: StayCause) {
        let first = self.seen.part.start().plus(self.attempt.dealt);
        self.report.add_stayed(PageRange::of(first, pages), cause);
        self.attempt.dealt += pages;
    }
}
