//! Pages go to a device.
//!
//! Optimistic: a run of pages is taken with one call, and only where that stops is it looked at
//! why. Frames and the device's table are made ready before the block is locked, room in the block's
//! record before each call.

use core::ops::Range;

use super::{
    BLOCKS_WITHOUT_SIGNALS, Faulted,
    aside::{Aside, Ended, Unwritable},
    to_system::AwayRun,
};
use crate::{
    block::{Block, Residence},
    device::{DeviceIndex, DeviceState, FrameNumber, FrameRun, Place, Reservation},
    events::{Began, Holder, Latency, MoveCause, What},
    mirror::{Entries, InvalidationKind},
    mm::{Access, Backing, Look, Mm, Stop},
    policy,
    report::{Migration, StayCause},
    space::{Areas, Eligibility, Engine, Locked, Visit},
    sync::{SignalsBlocked, atomic::Ordering::Acquire},
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
    view::Held,
};

/// Why pages go to a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pull<'a> {
    /// The device faulted on some of the pages, all of one block, and of the others its neighbours are to
    /// come.
    Fault(&'a Faulted),
    /// The program asked.
    Request,
    /// The program asked, and promises that nobody changes meanwhile what is mapped there.
    Undisturbed,
    /// The device is to be the only one that may access them, until somebody else does.
    Exclusive,
}

impl Pull<'_> {
    /// What other devices are told of pages that go to this one.
    pub(super) const fn kind(self, device: DeviceIndex) -> InvalidationKind {
        let owner = Some(device);
        match self {
            Self::Exclusive => InvalidationKind::Exclusive { owner },
            Self::Fault(..) | Self::Request | Self::Undisturbed => {
                InvalidationKind::Migrate { owner }
            }
        }
    }

    /// The first run of `places` of a block that is to come; none, at their end, where none is.
    fn next(self, places: &Range<usize>) -> Range<usize> {
        match self {
            Self::Fault(faulted) => faulted.next(places),
            Self::Request | Self::Undisturbed | Self::Exclusive => places.clone(),
        }
    }

    /// How many of `places` of a block are to come.
    fn wants(self, places: &Range<usize>) -> usize {
        match self {
            Self::Fault(faulted) => faulted.count(places),
            Self::Request | Self::Undisturbed | Self::Exclusive => places.len(),
        }
    }

    /// As [`next`](Self::next), of pages of one block.
    pub(super) fn next_pages(self, pages: PageRange) -> PageRange {
        let first = pages.start().in_block();
        let next = self.next(&(first..first + pages.len()));
        PageRange::of(pages.start().plus(next.start - first), next.len())
    }

    /// Reports that of `pages`, within one block, those stay that were to come. Answers how many pages that
    /// deals with: all of them.
    fn report_stayed(self, pages: PageRange, cause: StayCause, report: &mut Migration) -> usize {
        let mut rest = pages;
        while !rest.is_empty() {
            let next = self.next_pages(rest);
            report.add_stayed(next, cause);
            rest = PageRange::new(next.end(), rest.end());
        }
        pages.len()
    }
}

/// What was found of the areas of some pages, to be looked at anew where they have changed since.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pages: PageRange,
    eligibility: Eligibility,
    /// The version of the areas then.
    version: u64,
    openings: u32,
}

impl Found {
    /// What that says of the first of `pages`, and of those behind it that are alike.
    pub(crate) fn within(self, pages: PageRange) -> Option<Self> {
        if !self.pages.contains(pages.start()) {
            return None;
        }
        let before = pages.start().since(self.pages.start());
        let eligibility = match self.eligibility {
            Eligibility::Eligible { alias } => {
                Eligibility::Eligible { alias: alias.map(|first| first.plus(before)) }
            }
            other => other,
        };
        Some(Self { pages: self.pages.intersection(pages), eligibility, ..self })
    }
}

/// Pages of one block that were seen to be eligible.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) part: PageRange,
    /// That of the areas then.
    pub(super) version: u64,
    /// Those before it were unshared already. Of what lies aside: there.
    pub(super) unshared_until: PageNumber,
    /// Those before it were looked at for what is permitted, and what was not has ended.
    pub(super) heeded_until: PageNumber,
    /// Of shared memory: what the alias shows of the first.
    pub(super) alias: Option<FrameNumber>,
    /// Where they lie aside, by now, closed by who sees them.
    pub(super) aside: Option<Aside>,
}

/// How one attempt at a part of a block ended.
pub(super) struct Attempt {
    /// Pages from the start of the part on that are dealt with: moved, there already, or reported.
    pub(super) dealt: usize,
    /// Pages among them that a child shares, or that are pinned: worth another look once they were
    /// unshared. Of what lies aside: there.
    pub(super) busy: Option<PageRange>,
    /// Whether the address space was changing.
    pub(super) changing: bool,
    /// Pages of which less is permitted than devices may have translations for, or more than is known.
    pub(super) heed: Option<PageRange>,
    /// Pages that cannot be written, and are to be taken out of their area with no lock held.
    pub(super) unwritable: Option<PageRange>,
}

impl Attempt {
    pub(super) const fn new() -> Self {
        Self { dealt: 0, busy: None, changing: false, heed: None, unwritable: None }
    }
}

impl<M: Mm> Engine<M> {
    /// Moves what can move of `pages` to a device. What cannot stays, and is reported with its
    /// cause.
    pub(crate) fn pull(
        &self,
        device: &DeviceState,
        pages: PageRange,
        why: Pull<'_>,
        report: &mut Migration,
    ) {
        self.pull_found(device, pages, why, None, report);
    }

    /// Looks at the areas of some runs of pages, in their order: once at each, however many lie there.
    pub(crate) fn find_areas(&self, pages: &[PageRange], found: &mut [Option<Found>]) {
        let Some(end) = pages.last().map(|last| last.end()) else { return };
        let openings = self.gate.openings();
        let signals = SignalsBlocked::new();
        let section = self.gate.share(&signals);
        let version = section.version();
        let mut last: Option<Found> = None;
        for (&pages, found) in pages.iter().zip(found) {
            *found = last.and_then(|last| last.within(pages));
            if found.is_some() {
                continue;
            }
            self.counters.fault_areas.add(1);
            let (area, eligibility) = section.eligible(PageRange::new(pages.start(), end));
            // What is changing is waited for with each run alone.
            last = (eligibility != Eligibility::Changing).then_some(Found {
                pages: area,
                eligibility,
                version,
                openings,
            });
            *found = last.and_then(|last| last.within(pages));
        }
    }

    /// As [`pull`](Self::pull), where something was found of the areas of the first pages.
    pub(crate) fn pull_found(
        &self,
        device: &DeviceState,
        pages: PageRange,
        why: Pull<'_>,
        mut found: Option<Found>,
        report: &mut Migration,
    ) {
        let stayed_before = report.stayed();
        // Blocking signals costs as much as moving a few pages, so it is done for some blocks at a
        // time, and undone wherever this waits.
        let mut signals = None;
        for (number, part) in pages.by_block().enumerate() {
            if number % BLOCKS_WITHOUT_SIGNALS == 0 {
                signals = None;
            }
            let mut rest = part;
            // Each area is tried to be trapped once, each page that is first of some unshared once.
            let mut trapped_until = part.start();
            let mut unshared_until = part.start();
            let mut heeded_until = part.start();
            loop {
                // The areas between are looked at where there is something to come.
                rest = PageRange::new(why.next_pages(rest).start(), rest.end());
                if rest.is_empty() {
                    break;
                }
                let blocked = signals.get_or_insert_with(SignalsBlocked::new);
                let here = match found.take().and_then(|found| found.within(rest)) {
                    Some(found) => found,
                    None => self.find(rest, blocked),
                };
                let Found { pages: leading, eligibility, version, openings } = here;
                let (leading, eligibility) = match device.refusal() {
                    Some(cause) => (rest, Eligibility::Stays(cause)),
                    None => (leading, eligibility),
                };
                let dealt = match eligibility {
                    // Content that stays in its file cannot be copied to a device.
                    // Nor does the CPU map what is away.
                    Eligibility::Eligible { alias: Some(_) }
                        if device.copying().is_some()
                            || device.is_coherent() && !matches!(why, Pull::Exclusive) =>
                    {
                        why.report_stayed(leading, self.stays_in_file(leading), report)
                    }
                    Eligibility::Eligible { alias } => {
                        let seen = Seen {
                            part: leading,
                            version,
                            unshared_until,
                            heeded_until,
                            alias,
                            aside: None,
                        };
                        let attempt = self.pull_part(device, seen, why, report, blocked);
                        if attempt.changing {
                            signals = None;
                            self.wait_changed(openings);
                        }
                        if let Some(pages) = attempt.heed {
                            signals = None;
                            self.heed(pages);
                            heeded_until = pages.end();
                        }
                        if let Some(busy) = attempt.busy {
                            signals = None;
                            unshared_until = self.unshare(busy);
                        }
                        let unwritable = attempt.unwritable.map_or(0, |pages| {
                            signals = None;
                            let work = Unwritable { device, pages, heeded_until, why };
                            match self.pull_unwritable(&work, report) {
                                Ended::Dealt(dealt) => dealt,
                                Ended::Changing => self.wait_changed(openings),
                            }
                        });
                        attempt.dealt + unwritable
                    }
                    Eligibility::Changing => {
                        signals = None;
                        self.wait_changed(openings)
                    }
                    Eligibility::Untrapped if leading.start() >= trapped_until => {
                        signals = None;
                        let (tried, cause) = self.trap(leading, self.is_undisturbed(why));
                        trapped_until = tried.end();
                        match cause {
                            None => 0,
                            Some(cause) => why.report_stayed(tried, cause, report),
                        }
                    }
                    // It was trapped a moment ago and is gone: an unmapping was faster.
                    Eligibility::Untrapped => why.report_stayed(leading, StayCause::NoArea, report),
                    Eligibility::Discarding => {
                        let present = self.see_discarded(leading);
                        why.report_stayed(present, StayCause::Discarded, report)
                    }
                    Eligibility::Stays(cause) => why.report_stayed(leading, cause, report),
                };
                rest = PageRange::new(rest.start().plus(dealt), rest.end());
            }
        }
        self.counters.stayed.add(report.stayed() - stayed_before);
        for stayed in report.causes() {
            self.view.note_stayed(stayed.pages, stayed.cause);
        }
    }

    /// Makes pages the process's own. Answers the page before which that is done, as far as it goes.
    #[inline(never)]
    fn unshare(&self, pages: PageRange) -> PageNumber {
        // A page that cannot be written ends it, those before it being done. Where the first cannot be
        // unshared the second look says why it stays.
        match self.mm.unshare(pages) {
            Ok(()) => pages.end(),
            Err(_) => pages.start().plus(1),
        }
    }

    /// Waits for a change of the address space, after which nothing is dealt with.
    #[inline(never)]
    fn wait_changed(&self, openings: u32) -> usize {
        self.counters.commits_retried.add(1);
        self.gate.wait_opened(openings);
        0
    }

    /// Why pages stay that are content of a file, which cannot be copied to a device.
    #[inline(never)]
    fn stays_in_file(&self, pages: PageRange) -> StayCause {
        let mapping = self.mm.mapping_at(pages.start()).ok().flatten();
        let backing = mapping.map(|mapping| mapping.backing);
        let backing = backing.filter(|backing| backing.is_shared());
        StayCause::Backing(backing.unwrap_or(Backing::SharedAnonymous))
    }

    /// Looks at the area of the first of `pages`.
    #[inline]
    fn find(&self, pages: PageRange, signals: &SignalsBlocked) -> Found {
        let openings = self.gate.openings();
        let section = self.gate.share(signals);
        let version = section.version();
        let (pages, eligibility) = section.eligible(pages);
        Found { pages, eligibility, version, openings }
    }

    /// Looks at pages of one block that the program discards: those that are holes are done with,
    /// whoever touches them from here on. Answers the first of them that are not.
    #[inline(never)]
    pub(crate) fn see_discarded(&self, part: PageRange) -> PageRange {
        let signals = SignalsBlocked::new();
        let (Ok(()), Ok(mut visit)) = (self.blocks.make(part), self.visit(&signals)) else {
            return part;
        };
        let number = part.start().block();
        let Some(block) = self.blocks.get(number) else { return part };
        // Under the lock a hole stays one: first touches are served under it.
        let held = visit.lock(block, number);
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..part.len()];
        if self.mm.look(part.start(), looks).is_err() {
            return part;
        }
        let mut at = part.start();
        let mut areas = self.gate.alone(&signals);
        // Without memory to note it they wait for another look.
        let noted = looks.chunk_by(|one, next| one == next).try_for_each(|run| {
            let pages = PageRange::of(at, run.len());
            at = pages.end();
            if run[0] == Look::Hole { areas.discarding.remove(pages) } else { Ok(()) }
        });
        // Whoever filled holes noted that under the lock, so what is noted as discarded still is.
        let mut pages = part.pages().zip(looks.iter());
        let other = pages.position(|(page, look)| {
            *look == Look::Hole || !areas.discarding.overlaps(PageRange::of(page, 1))
        });
        let present = other.unwrap_or(part.len());
        drop(areas);
        drop(held);
        PageRange::of(part.start(), if noted.is_ok() { present } else { part.len() })
    }

    /// One attempt at eligible pages of one block.
    fn pull_part(
        &self,
        device: &DeviceState,
        seen: Seen,
        why: Pull<'_>,
        report: &mut Migration,
        signals: &SignalsBlocked,
    ) -> Attempt {
        let part = seen.part;
        let mut attempt = Attempt::new();
        match self.try_pull(device, seen, why, report, signals, &mut attempt) {
            Ok(()) => {}
            Err(cause) => {
                let rest = PageRange::new(part.start().plus(attempt.dealt), part.end());
                attempt.dealt += why.report_stayed(rest, cause, report);
            }
        }
        attempt
    }

    fn try_pull(
        &self,
        device: &DeviceState,
        seen: Seen,
        why: Pull<'_>,
        report: &mut Migration,
        signals: &SignalsBlocked,
        attempt: &mut Attempt,
    ) -> Result<(), StayCause> {
        let part = seen.part;
        let number = part.start().block();
        let places = part.start().in_block()..part.start().in_block() + part.len();
        let block = self.blocks.get_or_make(number)?.ok_or(StayCause::NoMemory)?;
        let mut visit = self.visit(signals)?;

        Self::prepare_for(device, part, signals)?;
        let mut reservation = Reservation::new(device, signals);
        // One page that is wanted is seldom there already, so where a frame is free nobody looks.
        let is_one = places.len() == 1 && seen.alias.is_none() && why.wants(&places) == 1;
        if !is_one || !reservation.fill_if_free(1, &self.mm) {
            let want = match seen.alias {
                Some(_) => 0,
                None => Self::frames_for(device, block, number, &places, why, &mut visit),
            };
            if !self.take_ahead(device, part, want, &mut reservation, &mut visit)? {
                return Ok(());
            }
        }
        let mut commit = Commit {
            held: visit.lock(block, number),
            device,
            reservation: &mut reservation,
            report,
            why,
            attempt,
            seen,
        };
        let result = commit.pull();
        // Before the lock is let go.
        commit.reservation.end();
        result
    }

    /// Has the device ready for pages of one block.
    #[inline]
    pub(super) fn prepare_for(
        device: &DeviceState,
        part: PageRange,
        signals: &SignalsBlocked,
    ) -> Result<(), StayCause> {
        device.device.prepare(part, Access::Write).map_err(StayCause::of_prepare)?;
        device.clock.lock(signals).reserve(1)?;
        Ok(())
    }

    /// Takes up to `want` frames ahead. False where others were faster: the next try finds more.
    #[inline]
    pub(super) fn take_ahead(
        &self,
        device: &DeviceState,
        part: PageRange,
        want: usize,
        reservation: &mut Reservation<'_>,
        visit: &mut Visit<'_, M>,
    ) -> Result<bool, StayCause> {
        if !reservation.fill_if_free(want, &self.mm) {
            if !self.have_frames(device, want, part, visit) {
                return Err(StayCause::NoFrames);
            }
            reservation.fill(want, &self.mm);
        }
        Ok(want == 0 || reservation.len() > 0)
    }

    /// How many frames a migration of the part needs, as far as can be told now: for the pages that
    /// are not on the device.
    fn frames_for(
        device: &DeviceState,
        block: &Block,
        number: BlockNumber,
        places: &Range<usize>,
        why: Pull<'_>,
        visit: &mut Visit<'_, M>,
    ) -> usize {
        if block.hint().away == 0 {
            return why.wants(places);
        }
        let mut held = visit.lock(block, number);
        let pages = &held.state().pages;
        pages
            .runs(places.clone())
            .filter(|run| match run.residence {
                Residence::Away { device: at, .. } | Residence::Mapped { device: at, .. } => {
                    at != device.index
                }
                Residence::System => true,
            })
            .map(|run| why.wants(&run.pages))
            .sum()
    }

    /// Makes sure that some frames are free, `want` if they can be had: by eviction, else by
    /// waiting for those that others hold for a migration under way. False where there are none.
    #[inline(never)]
    pub(crate) fn have_frames(
        &self,
        device: &DeviceState,
        want: usize,
        spare: PageRange,
        visit: &mut Visit<'_, M>,
    ) -> bool {
        let want = want.min(device.frames);
        loop {
            let times = device.times_given_back();
            let openings = self.gate.openings();
            let free = device.free(visit.signals());
            if free >= want {
                return true;
            }
            let ahead = policy::evict_ahead(device.frames);
            let evicted = self.evict(device, want - free + ahead, spare, visit);
            if evicted.freed > 0 {
                device.ahead.note_shortage();
            }
            if evicted.freed > 0 || free > 0 {
                return true;
            }
            // What is changing can be given up, or has ended, when the change is applied; pages
            // whose address changes are in no block's record meanwhile.
            if evicted.changing || self.gate.changed_since(openings, visit.signals()) {
                self.counters.commits_retried.add(1);
                self.gate.wait_opened(openings);
                continue;
            }
            if !device.wait_given_back(times) {
                return false;
            }
        }
    }
}

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
    pub(super) fn pull(&mut self) -> Result<(), StayCause> {
        let part = self.seen.part;
        let first_place = part.start().in_block();
        let places = first_place..first_place + part.len();
        let engine = self.held.engine;
        let section = engine.gate.share(self.held.signals);
        let aside = self.seen.aside;
        if aside.is_some() {
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
        if self.is_to_be_mapped()
            && let Some(coherent) = self.device.coherent()
        {
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
                    self.unused(frames, used, false);
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
                self.unused(frames, used + made.pages, false);
                match made.stop {
                    None => Ok(true),
                    Some(stop) => self.stopped(stop, from.plus(used + made.pages)),
                }
            }
            Stop::Present => {
                // The frame was believed to be a hole and is not. It is set aside for emptying.
                self.unused(FrameRun { first: frames.first.plus(used), frames: 1 }, 0, true);
                self.unused(frames, used + 1, false);
                Ok(true)
            }
            Stop::Refused => {
                self.unused(frames, used, false);
                self.refused(areas, PageRange::of(from.plus(used), frames.frames - used))
            }
            stop => {
                self.unused(frames, used, false);
                self.stopped(stop, from.plus(used))
            }
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
        let (Place::Staging(from), Place::Staging(to)) = places else {
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
        self.unused(frames, done.pages, false);
        match done.stop {
            None => Ok(true),
            Some(stop) => self.stopped(stop, self.held.page(pages.start + done.pages)),
        }
    }

    /// Takes a run of the frames that were reserved, for the first of `places`, and makes room to
    /// record that they are there. None where no frame is left.
    fn take_frames(&mut self, places: &Range<usize>) -> Result<Option<FrameRun>, StayCause> {
        let Some(frames) = self.reservation.take(places.len()) else { return Ok(None) };
        let (device, frame) = (self.device.index, frames.first);
        let there =
            Residence::Away { device, frame, exclusive: matches!(self.why, Pull::Exclusive) };
        let places = places.start..places.start + frames.frames;
        if let Err(error) = self.held.reserve(&places, there) {
            self.unused(frames, 0, false);
            return Err(error.into());
        }
        Ok(Some(frames))
    }

    /// Records pages that are in frames of the device now, or in an alias, and tells the device.
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
        match self.seen.aside {
            None => self.enter(places.clone(), first, write),
            Some(Aside { permitted, .. }) if permitted.read => {
                self.enter(places.clone(), first, false);
            }
            Some(_) => {}
        }
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

    pub(super) fn enter(&mut self, places: Range<usize>, first: FrameNumber, write: bool) {
        let pages = self.held.pages(&places);
        // Of frames there is one.
        if let Some(translation) = self.held.own_translation(self.device, first) {
            self.device.device.commit(&Entries { pages, translation, write, order: 0 });
        }
    }

    /// Gives back what a run of frames has behind its first `used`.
    pub(super) fn unused(&self, frames: FrameRun, used: usize, stale: bool) {
        if used < frames.frames {
            let rest = FrameRun { first: frames.first.plus(used), frames: frames.frames - used };
            self.device.give_back(rest, stale, self.held.signals);
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
