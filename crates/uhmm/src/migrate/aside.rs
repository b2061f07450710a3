//! Pages of areas that cannot be written go to a device.
//!
//! The system moves no page out of such an area, but by address and all at once, which only somebody may do
//! who is [undisturbed](crate::space). So the pages are taken out first and lie aside, as the engine's own;
//! from there they go to the device as any do. The range is closed in the gate from before that until it is
//! over: who faults on it waits, and so does whoever works on it. What does not go to the device goes back
//! by the way it came, as the same page: somebody may hold it.

use super::{
    commit::Commit,
    pull::{Attempt, Pull, Seen},
};
use crate::{
    block::Residence,
    device::{DeviceState, Reservation},
    engine::{Eligibility, Engine, Permitted, Visit},
    engine_memory::Urgent,
    mm::{Errno, Look, Mm, Stop},
    report::{Migration, StayCause},
    sync::{Patience, SignalsBlocked, atomic::Ordering::Acquire, yield_now},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// Pages that lie aside.
#[derive(Clone, Copy)]
pub(super) struct Aside {
    /// Where the first of the part lies.
    pub(super) first: PageNumber,
    /// What may be done with them where they are from.
    pub(super) permitted: Permitted,
}

/// How an attempt at pages that cannot be written ended.
pub(super) enum Ended {
    /// So many from the first on are dealt with.
    Dealt(usize),
    /// The address space was changing.
    Changing,
}

/// An attempt at pages of one block that cannot be written, and lie in one area.
pub(super) struct Unwritable<'a> {
    pub(super) device: &'a DeviceState,
    pub(super) pages: PageRange,
    /// Those before it were looked at for what is permitted, and what was not has ended.
    pub(super) heeded_until: PageNumber,
    pub(super) why: Pull<'a>,
}

impl<M: Mm> Engine<M> {
    /// Whether the system's memory is not changed by anybody else while pages go for this cause.
    pub(super) fn is_undisturbed(&self, why: Pull<'_>) -> bool {
        match why {
            Pull::Undisturbed => true,
            Pull::Request => self.is_alone(),
            // The program goes on meanwhile.
            Pull::Fault(..) | Pull::Exclusive => false,
        }
    }

    /// Moves pages to a device that cannot be written, nobody disturbing it.
    #[inline(never)]
    pub(super) fn pull_unwritable(&self, work: &Unwritable<'_>, report: &mut Migration) -> Ended {
        self.try_pull_unwritable(work, report).unwrap_or_else(|cause| {
            report.add_stayed(work.pages, cause);
            Ended::Dealt(work.pages.len())
        })
    }

    fn try_pull_unwritable(
        &self,
        work: &Unwritable<'_>,
        report: &mut Migration,
    ) -> Result<Ended, StayCause> {
        let signals = SignalsBlocked::new();
        let (permitted, pages) = match self.look_at_unwritable(work.pages, report)? {
            (Some(permitted), pages) => (permitted, pages),
            (None, pages) => return Ok(Ended::Dealt(pages.len())),
        };
        self.blocks.get_or_make(pages.start().block())?.ok_or(StayCause::NoMemory)?;
        let mut visit = self.visit(&signals)?;
        // What is closed must not wait for others, so this comes first.
        let mut reservation = Reservation::new(work.device, &signals);
        Self::prepare_for(work.device, pages, visit.signals())?;
        if !self.take_ahead(work.device, pages, pages.len(), &mut reservation, &mut visit)? {
            return Ok(Ended::Dealt(0));
        }
        let pages = PageRange::of(pages.start(), pages.len().min(reservation.len()));
        // From here on no handler of a signal begins a thread.
        if !self.is_undisturbed(work.why) {
            return Ok(Ended::Dealt(0));
        }
        {
            let mut areas = self.gate.alone(&signals);
            if work.device.leaving.load(Acquire)
                || areas.eligible(pages) != (pages, Eligibility::Eligible { alias: None })
            {
                return Ok(Ended::Changing);
            }
            let known =
                areas.restricted.knows(pages, permitted) || pages.start() < work.heeded_until;
            if !known || !areas.restricted.allows(pages, permitted) {
                // It changed since it was heeded.
                return Ok(Ended::Dealt(0));
            }
            areas.close_aside(pages)?;
        }
        let work = Unwritable { pages, ..*work };
        let ended = self.pull_closed(&work, permitted, reservation, &signals, report, &mut visit);
        self.open_aside(pages, &signals);
        ended
    }

    /// Looks at pages that cannot be written before anything is done: what may be done with the first of
    /// them, and how many there are alike that may go. Without an answer they are dealt with.
    fn look_at_unwritable(
        &self,
        pages: PageRange,
        report: &mut Migration,
    ) -> Result<(Option<Permitted>, PageRange), StayCause> {
        let Some(area) = self.mm.mapping_at(pages.start()).map_err(StayCause::System)? else {
            return Err(StayCause::NoArea);
        };
        let permitted = Permitted::by(area.protection);
        let mut part = area.pages.intersection(pages);
        if part == area.pages && part.len() > 1 {
            // An area that has lost all its pages at once is to the system one that was never touched, and
            // may be joined to its neighbours no more.
            part = PageRange::of(part.start(), part.len() - 1);
        }
        if permitted.write {
            return Ok((None, PageRange::of(pages.start(), 0)));
        }
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..part.len()];
        self.mm.look(part.start(), looks).map_err(StayCause::System)?;
        // Of what nobody can read nothing is made.
        let is_bare = |look: &Look| !permitted.read && *look == Look::Hole;
        let alike = looks.iter().take_while(|look| is_bare(look) == is_bare(&looks[0])).count();
        let part = PageRange::of(part.start(), alike);
        if is_bare(&looks[0]) {
            report.add_stayed(part, StayCause::Protection);
            return Ok((None, part));
        }
        Ok((Some(permitted), part))
    }

    /// The part of it for which the pages are closed.
    fn pull_closed<'a>(
        &self,
        work: &Unwritable<'a>,
        permitted: Permitted,
        mut reservation: Reservation<'a>,
        signals: &'a SignalsBlocked,
        report: &mut Migration,
        visit: &mut Visit<'_, M>,
    ) -> Result<Ended, StayCause> {
        let pages = work.pages;
        let number = pages.start().block();
        let block = self.blocks.get(number).ok_or(StayCause::NoMemory)?;
        {
            let mut held = visit.lock(block, number);
            let places = pages.start().in_block()..pages.start().in_block() + pages.len();
            let run = held.state().pages.run(&places);
            if run.residence != Residence::System || run.pages != places {
                return Ok(Ended::Changing);
            }
            held.end_in_place(&places, work.why.kind(work.device.index));
        }
        if self.mm.changing() {
            return Ok(Ended::Changing);
        }
        // SAFETY: who is undisturbed knows that nobody changes what is mapped there, and libc's forks wait
        // for what is noted to lie aside.
        let aside = unsafe { self.mm.set_aside(pages) }.map_err(|errno| match errno {
            Errno(libc::ENOMEM) => StayCause::NoRoomForAreas,
            Errno(libc::EPERM) => StayCause::Locked,
            errno => StayCause::System(errno),
        })?;
        let mut dealt = 0;
        let mut unshared_until = aside.start();
        let result = loop {
            let part = PageRange::new(pages.start().plus(dealt), pages.end());
            if part.is_empty() {
                break Ok(());
            }
            let seen = Seen {
                part,
                version: 0,
                unshared_until,
                heeded_until: work.heeded_until,
                alias: None,
                aside: Some(Aside { first: aside.start().plus(dealt), permitted }),
                vacated: false,
            };
            if reservation.len() == 0 {
                // What was not used of them is with the device again. What is closed waits for nobody.
                reservation = Reservation::new(work.device, signals);
                reservation.fill_if_free(part.len(), &self.mm);
                match reservation.refused() {
                    Some(Stop::Changing) if reservation.len() == 0 => {
                        self.counters.commits_retried.add(1);
                        yield_now();
                        continue;
                    }
                    Some(stop) if reservation.len() == 0 => break Err(StayCause::of(stop)),
                    Some(_) | None => {}
                }
            }
            let mut attempt = Attempt::new();
            let result = Commit {
                held: visit.lock(block, number),
                device: work.device,
                reservation: &mut reservation,
                report: &mut *report,
                why: work.why,
                attempt: &mut attempt,
                seen,
            }
            .pull();
            dealt += attempt.dealt;
            if let Err(cause) = result {
                break Err(cause);
            }
            if let Some(busy) = attempt.busy {
                unshared_until = match self.mm.unshare(busy) {
                    Ok(()) => busy.end(),
                    Err(_) => busy.start().plus(1),
                };
            } else if attempt.changing {
                // A change elsewhere that nobody has read yet, or its echo.
                self.counters.commits_retried.add(1);
                yield_now();
            } else if attempt.dealt == 0 {
                break Err(StayCause::NoFrames);
            }
        };
        reservation.end();
        if let Err(cause) = result {
            report.add_stayed(PageRange::new(pages.start().plus(dealt), pages.end()), cause);
        }
        self.put_all_back(aside, pages);
        Ok(Ended::Dealt(pages.len()))
    }

    /// Puts back what lies aside still, and ends the rest.
    fn put_all_back(&self, aside: PageRange, pages: PageRange) {
        let _urgent = Urgent::new();
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..aside.len()];
        self.look_aside(aside.start(), looks);
        let mut done = 0;
        for run in looks.chunk_by(|one, next| (*one == Look::Hole) == (*next == Look::Hole)) {
            let there = PageRange::of(aside.start().plus(done), run.len());
            let back = PageRange::of(pages.start().plus(done), run.len());
            done += run.len();
            if run[0] == Look::Hole || !self.put_run_back(there, back) {
                // SAFETY: nobody but this call knows of what lies aside. Where the system refuses, addresses
                // are lost, and what a copy has left there.
                let _ = unsafe { self.mm.end_aside(there) };
            }
        }
    }

    /// What lies aside.
    fn look_aside(&self, start: PageNumber, looks: &mut [Look]) {
        let mut patience = Patience::new();
        while self.mm.look(start, looks).is_err() {
            if !patience.wait() {
                crate::abort::abort(b"the system does not tell which pages lie aside");
            }
        }
    }

    /// Puts back pages that are no holes. False where that was done by copying them.
    fn put_run_back(&self, aside: PageRange, to: PageRange) -> bool {
        let mut patience = Patience::new();
        let mut copied = 0;
        loop {
            if copied == 0 {
                // SAFETY: as they were taken out, and they are there and no holes.
                if unsafe { self.mm.put_back(aside.start(), to) }.is_ok() {
                    return true;
                }
                let mut looks = [Look::Hole; BLOCK_PAGES];
                let looks = &mut looks[..aside.len()];
                self.look_aside(aside.start(), looks);
                if looks.iter().all(|look| *look == Look::Hole) {
                    // They are back, and not trapped. They are when they are wanted the next time.
                    let signals = SignalsBlocked::new();
                    // Without memory to note it they are refused one by one.
                    let _ = self.gate.alone(&signals).trapped.remove(to);
                    return true;
                }
            }
            let left = to.len() - copied;
            let done = self.mm.copy(aside.start().plus(copied), to.start().plus(copied), left);
            copied += done.pages;
            match done.stop {
                None => return false,
                Some(Stop::Changing) => yield_now(),
                Some(_) if patience.wait() => {}
                Some(_) => crate::abort::abort(
                    b"pages that cannot be written could go neither to a device nor back",
                ),
            }
        }
    }
}
