//! Pages go to a device.
//!
//! Optimistic: a run of pages is taken with one call, and only where that stops is it looked at
//! why. Frames and the device's table are made ready before the block is locked, room in the block's
//! record before each call.

use core::ops::Range;

use super::{
    BLOCKS_WITHOUT_SIGNALS,
    aside::{Ended, Unwritable},
    commit::Commit,
    pool::PoolPage,
    pull::{Attempt, ByAddress, Found, Pull, Seen},
};
use crate::{
    block::{Block, Residence},
    device::{DeviceState, Reservation},
    engine::{Eligibility, Engine, Visit},
    mm::{Access, Backing, Look, Mm, Stop},
    policy,
    report::{Migration, StayCause},
    sync::SignalsBlocked,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

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
    #[unsafe(link_section = ".text.hot.moving")]
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
                            vacated: false,
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
                        let by_address = attempt.by_address.map_or(0, |what| {
                            signals = None;
                            let ended =
                                self.pull_by_address(device, what, heeded_until, why, report);
                            match ended {
                                Ended::Dealt(dealt) => dealt,
                                Ended::Changing => self.wait_changed(openings),
                            }
                        });
                        attempt.dealt + by_address
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

    /// Moves pages that the system takes from the program by their addresses alone.
    fn pull_by_address(
        &self,
        device: &DeviceState,
        what: ByAddress,
        heeded_until: PageNumber,
        why: Pull<'_>,
        report: &mut Migration,
    ) -> Ended {
        match what {
            ByAddress::Unwritable(pages) => {
                self.pull_unwritable(&Unwritable { device, pages, heeded_until, why }, report)
            }
            ByAddress::OfPool(pages, first) => {
                self.pull_from_pool(&PoolPage { device, pages, first, why }, report)
            }
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
        let has_frames = if is_one && reservation.fill_if_free(1, &self.mm) {
            match self.has_frames(&reservation, 1) {
                Err(_)
                    if Self::frames_for(device, block, number, &places, why, &mut visit) == 0 =>
                {
                    true
                }
                has_frames => has_frames?,
            }
        } else {
            let want = match seen.alias {
                Some(_) => 0,
                None => Self::frames_for(device, block, number, &places, why, &mut visit),
            };
            self.take_ahead(device, part, want, &mut reservation, &mut visit)?
        };
        if !has_frames {
            return Ok(());
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

    /// Takes up to `want` frames ahead. False where others were faster, or the address space was changing: the
    /// next try finds more.
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
        self.has_frames(reservation, want)
    }

    /// Whether a reservation has frames, if any are wanted; else the next try may find some.
    #[inline]
    fn has_frames(&self, reservation: &Reservation<'_>, want: usize) -> Result<bool, StayCause> {
        if want == 0 || reservation.len() > 0 {
            return Ok(true);
        }
        match reservation.refused() {
            None => Ok(false),
            Some(Stop::Changing) => {
                self.wait_changed(self.gate.openings());
                Ok(false)
            }
            Some(stop) => Err(StayCause::of(stop)),
        }
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
            let evicted = self.evict(device, ahead.max(want - free), spare, visit);
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
