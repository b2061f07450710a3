//! Shared memory of a hugetlb pool goes to a device.
//!
//! It goes as other shared memory does: its content stays in its file, and the device reaches it by an alias.
//! But the system ends the program's view of it by address alone, whatever is there, and tells of it as of a
//! discard. So that is done with no lock held, by who is [undisturbed](crate::space), and the page of the
//! pool, which is a block, is closed in the gate from before that until it is recorded: who touches it waits.
//! All of such a page is away, or nothing.

use super::{
    aside::Ended,
    commit::Commit,
    pull::{Attempt, Pull, Seen},
    shared::OF_POOL,
};
use crate::{
    block::Residence,
    device::{DeviceState, Reservation},
    driver::FrameNumber,
    engine::{Eligibility, Engine, Visit},
    mm::{Errno, Mm},
    report::{Migration, StayCause},
    sync::{SignalsBlocked, atomic::Ordering::Acquire, yield_now},
    units::PageRange,
};

/// An attempt at a page of a pool.
pub(super) struct PoolPage<'a> {
    pub(super) device: &'a DeviceState,
    /// A block.
    pub(super) pages: PageRange,
    /// What the alias shows of the first.
    pub(super) first: FrameNumber,
    pub(super) why: Pull<'a>,
}

impl<M: Mm> Engine<M> {
    /// Moves a page of a pool to a device, nobody disturbing it.
    #[inline(never)]
    pub(super) fn pull_from_pool(&self, work: &PoolPage<'_>, report: &mut Migration) -> Ended {
        self.try_pull_from_pool(work, report).unwrap_or_else(|cause| {
            report.add_stayed(work.pages, cause);
            Ended::Dealt(work.pages.len())
        })
    }

    fn try_pull_from_pool(
        &self,
        work: &PoolPage<'_>,
        report: &mut Migration,
    ) -> Result<Ended, StayCause> {
        let pages = work.pages;
        let signals = SignalsBlocked::new();
        // What is closed must not wait for others, so this comes first.
        let mut visit = self.visit(&signals)?;
        Self::prepare_for(work.device, pages, &signals)?;
        // From here on no handler of a signal begins a thread.
        if !self.is_undisturbed(work.why) {
            return Err(OF_POOL);
        }
        {
            let mut areas = self.gate.alone(&signals);
            let seen = Eligibility::Eligible { alias: Some(work.first) };
            if work.device.leaving.load(Acquire) || areas.eligible(pages) != (pages, seen) {
                return Ok(Ended::Changing);
            }
            areas.close_aside(pages)?;
        }
        let ended = self.pull_closed_from_pool(work, report, &mut visit);
        self.open_aside(pages, &signals);
        ended
    }

    /// The part of it for which the page is closed.
    fn pull_closed_from_pool(
        &self,
        work: &PoolPage<'_>,
        report: &mut Migration,
        visit: &mut Visit<'_, M>,
    ) -> Result<Ended, StayCause> {
        let &PoolPage { device, pages, first, why } = work;
        let number = pages.start().block();
        let block = self.blocks.get(number).ok_or(StayCause::NoMemory)?;
        let places = 0..pages.len();
        {
            let mut held = visit.lock(block, number);
            let run = held.state().pages.run(&places);
            if run.residence != Residence::System || run.pages != places {
                return Ok(Ended::Changing);
            }
            held.end_in_place(&places, why.kind(device.index));
        }
        if self.mm.changing() {
            return Ok(Ended::Changing);
        }
        // SAFETY: the alias shows the pages, so they are of shared memory, and who is undisturbed knows that
        // nobody changes what is mapped there.
        unsafe { self.mm.vacate_undisturbed(pages) }.map_err(|errno| match errno {
            Errno(libc::EINVAL) => StayCause::Locked,
            errno => StayCause::System(errno),
        })?;
        loop {
            let mut reservation = Reservation::new(device, visit.signals());
            let mut attempt = Attempt::new();
            let result = Commit {
                held: visit.lock(block, number),
                device,
                reservation: &mut reservation,
                report: &mut *report,
                why,
                attempt: &mut attempt,
                seen: Seen {
                    part: pages,
                    version: 0,
                    unshared_until: pages.start(),
                    heeded_until: pages.start(),
                    alias: Some(first),
                    aside: None,
                    vacated: true,
                },
            }
            .pull();
            if !attempt.changing || attempt.dealt > 0 {
                let rest = PageRange::new(pages.start().plus(attempt.dealt), pages.end());
                return match result {
                    Err(cause) if !rest.is_empty() => {
                        report.add_stayed(rest, cause);
                        Ok(Ended::Dealt(pages.len()))
                    }
                    // What is permitted has changed, and is found out about anew.
                    _ => Ok(Ended::Dealt(attempt.dealt)),
                };
            }
            // A change elsewhere that nobody has read yet.
            self.counters.commits_retried.add(1);
            yield_now();
        }
    }
}
