//! A CPU fault is served: by the handler that read it, or by whoever held the block as its turn
//! came.

use core::ops::Range;

use super::to_system::{AwayRun, Obstacle, ReturnCause};
use crate::{
    block::{Fault, Residence},
    device::Place,
    engine::{Areas, Engine, Locked, Section, ServeFaults, Visit},
    events::{CpuFaultOutcome, What},
    latency::Latency,
    mm::{Errno, Mm, Stop},
    units::{BLOCK_PAGES, HUGE_ORDER, PageRange},
};

/// How a call ends at a page that the file of shared memory does not have.
const BEYOND_END: Stop = Stop::Other(Errno(libc::EFAULT));

impl<M: Mm> ServeFaults<M> for Locked<'_, M> {
    fn serve(&mut self, fault: Fault) -> bool {
        let engine = self.engine;
        let section = engine.gate.share(self.signals);
        let one = PageRange::of(fault.page, 1);
        if section.is_closed(one) {
            return false;
        }
        let place = fault.page.in_block();
        match self.state().pages.residence(place) {
            Residence::System | Residence::Mapped { .. } => self.first_touch(fault, place, section),
            Residence::Away { .. } => self.bring_for(fault, place, &section),
        }
    }

    fn serve_without_record(engine: &Engine<M>, fault: Fault, visit: &Visit<'_, M>) {
        let section = engine.gate.share(visit.signals());
        let closed = section.is_closed(PageRange::of(fault.page, 1));
        let served = !closed && engine.zero_for(fault, 1).is_some();
        drop(section);
        if !served {
            engine.retry_later(fault, visit.signals());
        }
    }
}

impl<M: Mm> Locked<'_, M> {
    /// A trapped page without a record was never touched, or somebody else was faster. The page
    /// itself is open; those behind it that a change hits, which is not applied yet, are holes
    /// perhaps because their records are yet to come.
    fn first_touch(&mut self, fault: Fault, place: usize, areas: Section<'_>) -> bool {
        let (number, engine) = (self.number, self.engine);
        let window = self.state().stream.first_touch(place, number, &engine.scans);
        let mut pages = self.state().pages.run(&(place..window.end)).pages.len();
        while pages > 1 && areas.is_closed(PageRange::of(fault.page, pages)) {
            pages /= 2;
        }
        let discarding = areas.discarding.overlaps(PageRange::of(fault.page, pages));
        let filled = self.engine.zero_for(fault, pages);
        let additions = areas.discarding.additions();
        drop(areas);
        if let Some(filled @ 1..) = filled {
            self.replaced(place..place + filled);
        }
        if let Some(filled @ 1..) = filled
            && discarding
        {
            // These were holes, so their discarding is over, unless they were discarded again in
            // between. Without memory to note it they stay until they are seen to be holes again.
            let filled = PageRange::of(fault.page, filled);
            let mut areas = self.engine.gate.alone(self.signals);
            if !areas.discarding.added_since(additions, filled) {
                let _ = areas.discarding.remove(filled);
            }
        }
        filled.is_some()
    }

    fn bring_for(&mut self, fault: Fault, place: usize, areas: &Areas) -> bool {
        let engine = self.engine;
        engine.counters.cpu_faults.add(1);
        let mut window = self.window(place);
        if areas.is_closed(self.pages(&window)) {
            // Neighbours may have moved away from these addresses, which others may have by now.
            window = place..place + 1;
        }
        let mut next = window.start;
        while let Some(run) = self.next_away(next..window.end, None) {
            let cause = if run.pages.contains(&place) {
                ReturnCause::Fault
            } else {
                ReturnCause::Neighbour
            };
            next = run.pages.end;
            let wanted = run.pages.len();
            let start = run.pages.start;
            let done = self.bring_back(run, cause, areas);
            if done.pages == wanted {
                continue;
            }
            if start + done.pages > place {
                // The page itself is back; its neighbours can wait.
                break;
            }
            return match done.obstacle {
                Some(Obstacle::System(Stop::Changing)) => false,
                // The area is gone or has changed hands, and the change is on its way to us.
                Some(Obstacle::System(Stop::NoArea)) => {
                    engine.mm.wake(PageRange::of(fault.page, 1));
                    engine.tell_fault(fault, CpuFaultOutcome::Stale);
                    true
                }
                _ => {
                    engine.fail_access(fault);
                    true
                }
            };
        }
        engine.tell_fault(fault, CpuFaultOutcome::BroughtBack);
        true
    }

    /// What to bring back for a fault at `place`: the stream's window, or all of a huge page.
    fn window(&mut self, place: usize) -> Range<usize> {
        let (number, engine) = (self.number, self.engine);
        let window = self.state().stream.window(place, number, &engine.scans);
        if window.len() < BLOCK_PAGES && self.is_huge_frame() {
            return 0..BLOCK_PAGES;
        }
        window
    }

    /// The order of what the block's pages on a device are in: a huge page's where all of it is one there.
    pub(crate) fn frame_order(&mut self) -> u8 {
        if self.is_huge_frame() { HUGE_ORDER } else { 0 }
    }

    /// Whether all of the block is away, and one huge page on its device.
    fn is_huge_frame(&mut self) -> bool {
        if self.state().pages.is_whole()
            && let Some(AwayRun { device, frame, .. }) = self.next_away(0..1, None)
        {
            if frame.is_shared() {
                return self.engine.mm.is_huge(self.engine.aliases.page_of(frame));
            }
            let device = self.device(device);
            return match device.place_of(frame) {
                Place::Staging(page) => self.engine.mm.is_huge(page),
                Place::Copying(copying, frame) => copying.is_huge(frame),
            };
        }
        false
    }
}

impl<M: Mm> Engine<M> {
    /// Fills the page of a fault, and up to `pages` in all that are holes, with zeros. Answers how
    /// many were filled; none where the fault must be looked up anew.
    fn zero_for(&self, fault: Fault, pages: usize) -> Option<usize> {
        let done = self.mm.zero(fault.page, pages, fault.access);
        if done.pages > 0 {
            self.counters.cpu_first_touches.add(1);
            self.tell_fault(fault, CpuFaultOutcome::FirstTouch);
            return Some(done.pages);
        }
        match done.stop {
            Some(Stop::Changing) => return None,
            stop @ (Some(Stop::Present | Stop::NoArea | Stop::Hole | BEYOND_END) | None) => {
                self.counters.cpu_faults_stale.add(1);
                // The area is gone, or has changed hands, or its file was cut short.
                if matches!(stop, Some(Stop::NoArea | Stop::Hole | BEYOND_END)) {
                    self.mm.wake(PageRange::of(fault.page, 1));
                }
                self.tell_fault(fault, CpuFaultOutcome::Stale);
            }
            // Woken, the thread would come again, and again.
            Some(Stop::NoMemory | Stop::Busy | Stop::Refused | Stop::Other(_)) => {
                self.fail_access(fault);
            }
        }
        Some(0)
    }

    fn tell_fault(&self, fault: Fault, outcome: CpuFaultOutcome) {
        let what = What::CpuFault { access: fault.access, outcome };
        self.recorder.tell_timed(
            fault.began,
            PageRange::of(fault.page, 1),
            what,
            Latency::CpuFault,
        );
    }

    /// Ends the access of a fault with an error, as its page cannot be had. A page that is away
    /// stays there, and comes back when it can.
    fn fail_access(&self, fault: Fault) {
        self.counters.failed_for_memory.add(1);
        let done = self.mm.poison(fault.page, 1);
        if done.stop == Some(BEYOND_END) {
            // The access finds that out for itself.
            self.mm.wake(PageRange::of(fault.page, 1));
        } else if done.pages == 0 && !matches!(done.stop, Some(Stop::Present | Stop::NoArea)) {
            crate::abort::abort(
                b"a page cannot come back for want of memory, nor can its access be failed",
            );
        }
        self.tell_fault(fault, CpuFaultOutcome::Failed);
    }
}
