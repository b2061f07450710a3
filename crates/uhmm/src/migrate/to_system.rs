//! Pages come back to system memory.

use core::ops::Range;

use super::BLOCKS_WITHOUT_SIGNALS;
use crate::{
    block::{Residence, Run},
    clock::Began,
    device::{DeviceState, FrameRun, Place},
    driver::{DeviceIndex, FrameNumber, InvalidationKind, TransferError},
    engine::{Areas, Engine, Locked},
    engine_memory::{EngineMemoryError, Urgent},
    events::{Holder, MoveCause, What},
    latency::Latency,
    mm::{Done, Look, Mm, Stop},
    policy::COPY_PAGES,
    report::{Migration, StayCause},
    sync::{Patience, SignalsBlocked, atomic::Ordering::Relaxed},
    units::{PageNumber, PageRange},
    view::Held,
};

/// Why pages come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnCause {
    /// The CPU faulted on them.
    Fault,
    /// They lie behind a page that the CPU faulted on.
    Neighbour,
    /// Their device's memory is short.
    Eviction,
    /// Another device is to use them in main memory.
    Coherence,
    /// The program asked, or their device or the address space closes.
    Request,
    /// The process is about to fork.
    Fork,
}

/// Why pages do not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The system stopped at a page.
    System(Stop),
    /// The device could not copy it out.
    Device(TransferError),
}

impl Obstacle {
    /// Whether a change of the address space is on its way that moves or ends the page.
    pub(crate) const fn is_change(self) -> bool {
        matches!(self, Self::System(Stop::Changing | Stop::NoArea))
    }

    /// Why the page stays where it is.
    pub(super) const fn cause(self) -> StayCause {
        match self {
            Self::System(stop) => StayCause::of(stop),
            Self::Device(error) => StayCause::of_transfer(error),
        }
    }
}

/// How far a return came: so many pages from the first on, and why no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) pages: usize,
    pub(crate) obstacle: Option<Obstacle>,
}

impl Returned {
    /// One that has to wait for a change of the address space.
    const CHANGING: Self = Self { pages: 0, obstacle: Some(Obstacle::System(Stop::Changing)) };
}

impl From<Done> for Returned {
    fn from(done: Done) -> Self {
        Self { pages: done.pages, obstacle: done.stop.map(Obstacle::System) }
    }
}

/// By what a page is put into system memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    /// By a copy; else by a move.
    pub(super) copying: bool,
    /// Because the other was refused.
    pub(super) turned: bool,
}

/// Pages on one device in consecutive frames: away, unless the CPU maps the frames.
#[derive(Clone, Debug)]
pub(crate) struct AwayRun {
    pub(crate) pages: Range<usize>,
    pub(crate) device: DeviceIndex,
    pub(crate) frame: FrameNumber,
    pub(crate) exclusive: bool,
    /// Whether the CPU maps the frames, which are of coherent memory.
    pub(crate) mapped: bool,
}

impl ReturnCause {
    /// Whether a thread waits for the page.
    pub(super) const fn is_waited_for(self) -> bool {
        matches!(self, Self::Fault | Self::Neighbour)
    }
}

impl AwayRun {
    /// The run that a record has; the places alone where that is in system memory.
    pub(super) fn of(run: Run) -> Result<Self, Range<usize>> {
        let Run { pages, residence } = run;
        match residence {
            Residence::System => Err(pages),
            Residence::Away { device, frame, exclusive } => {
                Ok(Self { pages, device, frame, exclusive, mapped: false })
            }
            Residence::Mapped { device, frame } => {
                Ok(Self { pages, device, frame, exclusive: false, mapped: true })
            }
        }
    }

    /// Where its pages are, if the first is in `frame`.
    pub(crate) const fn residence(&self, frame: FrameNumber) -> Residence {
        let Self { device, exclusive, .. } = *self;
        if self.mapped {
            Residence::Mapped { device, frame }
        } else {
            Residence::Away { device, frame, exclusive }
        }
    }

    /// Its first `pages` pages, and the rest.
    pub(super) fn split(self, pages: usize) -> (Self, Self) {
        let first = Self { pages: self.pages.start..self.pages.start + pages, ..self };
        (first, self.without_first(pages))
    }

    /// Whether another run is the next pages in the next frames, and alike.
    pub(super) fn goes_on_in(&self, next: &Self) -> bool {
        self.pages.end == next.pages.start
            && self.frame.plus(self.pages.len()) == next.frame
            && (self.device, self.exclusive, self.mapped)
                == (next.device, next.exclusive, next.mapped)
    }

    pub(super) fn without_first(self, pages: usize) -> Self {
        Self {
            pages: self.pages.start + pages..self.pages.end,
            frame: self.frame.plus(pages),
            ..self
        }
    }
}

/// What devices are told of pages that come back: where one had them alone, that nobody has any more.
pub(super) const fn ended(run: &AwayRun) -> InvalidationKind {
    if run.exclusive {
        InvalidationKind::Exclusive { owner: None }
    } else {
        InvalidationKind::Migrate { owner: None }
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Brings a run back: by copying where it is short, else by moving, and by the other where the
    /// one is refused. A section of the gate, of `areas`, is held that found the pages open.
    ///
    /// Answers what was done; pages that were superseded by the CPU's own count as done.
    pub(crate) fn bring_back(
        &mut self,
        run: AwayRun,
        cause: ReturnCause,
        areas: &Areas,
    ) -> Returned {
        self.bring_back_as(run, cause, areas, false)
    }

    /// As [`bring_back`](Self::bring_back), of a run whose translations have ended, under this lock.
    pub(super) fn bring_back_told(
        &mut self,
        run: AwayRun,
        cause: ReturnCause,
        areas: &Areas,
    ) -> Returned {
        self.bring_back_as(run, cause, areas, true)
    }

    fn bring_back_as(
        &mut self,
        run: AwayRun,
        cause: ReturnCause,
        areas: &Areas,
        told: bool,
    ) -> Returned {
        if run.mapped {
            return self.bring_back_mapped(&run, cause, areas);
        }
        if self.reserve(&run.pages, Residence::System).is_ok() {
            return self.bring_back_recorded(run, cause, told);
        }
        // Without memory to record what stays before them they come back with it.
        let first = self.state().pages.whole_from(run.pages.start);
        let before = first..run.pages.start;
        let is_closed = areas.is_closed(self.pages(&before));
        match self.next_away(first..run.pages.end, None) {
            Some(run) if !is_closed => {
                let done = self.bring_back_recorded(run, cause, false);
                Returned { pages: done.pages.saturating_sub(before.len()), ..done }
            }
            _ => Returned::CHANGING,
        }
    }

    /// Brings a run back for whose record there is room. `told` says that its translations have ended.
    #[unsafe(link_section = ".text.hot.moving")]
    fn bring_back_recorded(&mut self, run: AwayRun, cause: ReturnCause, told: bool) -> Returned {
        if run.frame.is_shared() {
            return self.map_back(run, cause);
        }
        let wanted = run.pages.len();
        let device = self.device(run.device);
        let began = self.engine.recorder.begin();
        let all = run.clone();
        if !told {
            self.end_away(device, &run.pages, ended(&run));
        }
        self.ask_written(device, &run);
        let waited_for = matches!(cause, ReturnCause::Fault | ReturnCause::Neighbour);
        // Frames of coherent memory are the device's, and are not given away.
        let copying = waited_for && wanted <= COPY_PAGES || device.is_coherent();
        let mut how = How { copying, turned: false };
        let (mut came, mut any_lost) = (0, false);
        let mut rest = run;
        let obstacle = loop {
            if rest.pages.is_empty() {
                break None;
            }
            let to = self.page(rest.pages.start);
            let left = rest.pages.len();
            let lost = device.is_lost() && device.is_of_device(rest.frame);
            let (done, full) = if lost {
                (self.engine.mm.poison(to, left).into(), true)
            } else {
                self.put_back(device, &rest, how)
            };
            if done.pages > 0 {
                self.came_back(&rest, done.pages, full);
                any_lost |= lost;
                if lost {
                    let marked = rest.pages.start..rest.pages.start + done.pages;
                    self.engine.view.note_held(self.pages(&marked), Held::LOST);
                    self.engine.counters.poisoned.add(done.pages);
                    device.lost_pages.fetch_add(done.pages, Relaxed);
                } else {
                    came += done.pages;
                    self.engine.counters.copied_back.add(if full { done.pages } else { 0 });
                }
                rest = rest.without_first(done.pages);
                how.turned = false;
            }
            match done.obstacle {
                None => {}
                Some(Obstacle::Device(_)) if device.is_lost() => {}
                Some(Obstacle::System(Stop::Present)) => {
                    if !how.copying && !lost && self.is_marked(to) {
                        // A mark of ours, put there when the page could not come back. A copy
                        // replaces it.
                        how.copying = true;
                        continue;
                    }
                    // The system has a page there of which it told nothing, put there by a call
                    // that replaces content. It is the newer one.
                    self.came_back(&rest, 1, true);
                    self.engine.counters.superseded.add(1);
                    came += usize::from(!lost);
                    rest = rest.without_first(1);
                }
                Some(Obstacle::System(
                    Stop::Refused | Stop::Busy | Stop::NoMemory | Stop::Other(_),
                )) if !how.turned && !lost => {
                    how = How { copying: !how.copying, turned: true };
                }
                Some(Obstacle::System(Stop::Hole)) => {
                    crate::abort::abort(b"a device's frame has lost the content of its page");
                }
                obstacle => break obstacle,
            }
        };
        self.tell_came_back(began, &all, wanted - rest.pages.len(), cause, any_lost);
        self.count_returned(cause, came);
        Returned { pages: wanted - rest.pages.len(), obstacle }
    }

    /// Puts the content of a run where the CPU has it. Answers whether its frames still hold what they
    /// held, and are no holes.
    fn put_back(&self, device: &DeviceState, run: &AwayRun, how: How) -> (Returned, bool) {
        let (to, pages) = (self.page(run.pages.start), run.pages.len());
        match device.place_of(run.frame) {
            Place::Staging(_)
                if how.copying
                    && !how.turned
                    && device.is_of_device(run.frame)
                    && let Some(coherent) = device.coherent() =>
            {
                (self.copy_back_coherent(coherent, run), true)
            }
            Place::Staging(from)
                if how.copying && !how.turned && self.engine.is_huge(from, pages) =>
            {
                (self.engine.mm.copy_block(from, to).into(), true)
            }
            Place::Staging(from) if how.copying => {
                (self.engine.mm.copy(from, to, pages).into(), true)
            }
            Place::Staging(from) => (self.engine.mm.give(from, to, pages).into(), false),
            Place::Copying(copying, first) => {
                self.copy_back(device, copying, FrameRun { first, frames: pages }, to, how)
            }
        }
    }

    /// Tells that the first `pages` of a run are with the device no more.
    pub(super) fn tell_came_back(
        &self,
        began: Began,
        run: &AwayRun,
        pages: usize,
        cause: ReturnCause,
        lost: bool,
    ) {
        if pages == 0 {
            return;
        }
        let from = Holder::Device(run.device);
        let (to, cause) = match cause {
            _ if lost => (Holder::Nobody, MoveCause::Lost),
            ReturnCause::Fault => (Holder::System, MoveCause::Fault),
            ReturnCause::Neighbour => (Holder::System, MoveCause::Neighbour),
            ReturnCause::Eviction => (Holder::System, MoveCause::Eviction),
            ReturnCause::Coherence => (Holder::System, MoveCause::Coherence),
            ReturnCause::Request | ReturnCause::Fork => (Holder::System, MoveCause::Request),
        };
        let pages = PageRange::of(self.page(run.pages.start), pages);
        let what = What::Moved { from, to, cause };
        self.engine.recorder.tell_timed(began, pages, what, Latency::ToSystem);
    }

    /// Whether an access to the page was failed for want of memory, and the mark is there still.
    fn is_marked(&self, page: PageNumber) -> bool {
        let mut look = [Look::Hole];
        // An ordinary user cannot tell a mark from a swapped page, on which a copy stops again.
        self.engine.counters.failed_for_memory.get() > 0
            && self.engine.mm.look(page, &mut look).is_ok()
            && matches!(look, [Look::Poisoned | Look::Swapped])
    }

    pub(super) fn count_returned(&self, cause: ReturnCause, pages: usize) {
        let counters = &self.engine.counters;
        match cause {
            ReturnCause::Fault => {
                counters.to_system_fault.add(pages.min(1));
                counters.to_system_neighbour.add(pages.saturating_sub(1));
            }
            ReturnCause::Neighbour => counters.to_system_neighbour.add(pages),
            ReturnCause::Eviction => counters.to_system_eviction.add(pages),
            ReturnCause::Coherence => counters.to_system_coherence.add(pages),
            ReturnCause::Request | ReturnCause::Fork => {
                counters.to_system_request.add(pages);
            }
        }
    }

    /// Makes room to record that the first of `places` is where `first` says, and the others behind
    /// it; see [`Pages::reserve`](crate::block::Pages::reserve). It lasts until the lock is let go.
    pub(crate) fn reserve(
        &mut self,
        places: &Range<usize>,
        first: Residence,
    ) -> Result<(), EngineMemoryError> {
        let memory = &self.engine.memory;
        self.state().pages.reserve(memory, places, first)
    }

    /// Records that the first `pages` of a run are in system memory, and frees their frames, where they
    /// have some. Room was made for it.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn came_back(&mut self, run: &AwayRun, pages: usize, full: bool) {
        let places = run.pages.start..run.pages.start + pages;
        self.state().pages.record_system(&places);
        self.engine.view.note_held(self.pages(&places), Held::SYSTEM);
        let device = self.device(run.device);
        self.pages_left(pages, device);
        if run.frame.is_shared() {
            return device.shared_left(pages);
        }
        let frames = FrameRun { first: run.frame, frames: pages };
        device.give_back(frames, full, self.signals);
    }

    /// The first run in `within` that is away, on `device` if one is named.
    pub(crate) fn next_away(
        &mut self,
        within: Range<usize>,
        only: Option<DeviceIndex>,
    ) -> Option<AwayRun> {
        let away = |run: &AwayRun| !run.mapped && only.is_none_or(|only| only == run.device);
        self.next_of(within, away)
    }

    /// The first run in `within` that is away or in coherent memory, of `device` if one is named.
    pub(crate) fn next_on_device(
        &mut self,
        within: Range<usize>,
        only: Option<DeviceIndex>,
    ) -> Option<AwayRun> {
        let there = |run: &AwayRun| only.is_none_or(|only| only == run.device);
        self.next_of(within, there)
    }

    /// The first run in `within` that is on a device and is `wanted`.
    fn next_of(
        &mut self,
        mut within: Range<usize>,
        wanted: impl Fn(&AwayRun) -> bool,
    ) -> Option<AwayRun> {
        let pages = &self.state().pages;
        loop {
            let run = pages.next_run(&within)?;
            within.start = run.pages.end;
            if let Ok(run) = AwayRun::of(run)
                && wanted(&run)
            {
                return Some(run);
            }
        }
    }
}

impl<M: Mm> Engine<M> {
    /// Brings back all that is on devices, on `only` if one is named, to which nothing goes any more.
    pub(crate) fn bring_everything_back(
        &self,
        only: Option<&DeviceState>,
        cause: ReturnCause,
        report: &mut Migration,
    ) {
        let _urgent = Urgent::new();
        let everything = self.all_pages();
        let index = only.map(|device| device.index);
        loop {
            let openings = self.gate.openings();
            self.bring_all_back(everything, index, cause, report);
            if report.stayed() > 0 || !self.holds_frames(only) {
                return;
            }
            // Pages whose address changes just now are in no block's record, or in one that was
            // passed already; and a migration that began before gives its frames back.
            self.gate.wait_opened(openings);
        }
    }

    /// Brings back all as [`bring_everything_back`](Self::bring_everything_back) does, again and again
    /// for about a second where something stays: what the system is short of others may free. For who
    /// cannot answer an error. Answers whether all is back.
    pub(crate) fn bring_everything_back_in_time(&self, only: Option<&DeviceState>) -> bool {
        let mut patience = Patience::new();
        loop {
            let mut report = Migration::new(&self.memory);
            self.bring_everything_back(only, ReturnCause::Request, &mut report);
            if report.stayed() == 0 {
                return true;
            }
            if !patience.wait() {
                return false;
            }
        }
    }

    /// Whether frames are in use, or shared memory is away, of `only` if a device is named.
    fn holds_frames(&self, only: Option<&DeviceState>) -> bool {
        let signals = SignalsBlocked::new();
        match only {
            Some(device) => device.holds_pages(&signals),
            None => self.devices.attached(&signals).any(|device| device.holds_pages(&signals)),
        }
    }

    /// Ends what blocks know of a device on which nothing is, and to which nothing goes any more.
    /// Who reached the device through a block's entry is done with it then.
    pub(crate) fn forget(&self, device: &DeviceState) {
        let _urgent = Urgent::new();
        let signals = SignalsBlocked::new();
        let everything = self.all_pages();
        let Ok(mut visit) = self.visit(&signals) else {
            crate::abort::abort(b"engine memory is exhausted and a device cannot be detached");
        };
        for (block, part) in self.blocks.existing(everything) {
            let held = visit.lock(block, part.start().block());
            held.leave_clock(device);
        }
    }

    /// Brings back what the program asks for, of `only` if a device is named. What stays is in the
    /// report.
    pub(crate) fn bring_back_on_request(
        &self,
        pages: PageRange,
        only: Option<DeviceIndex>,
    ) -> Migration {
        let mut report = Migration::new(&self.memory);
        self.gate.settle();
        self.bring_all_back(pages, only, ReturnCause::Request, &mut report);
        report
    }

    /// Brings all pages of `pages` back that are on devices, on `only` if one is named.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn bring_all_back(
        &self,
        pages: PageRange,
        only: Option<DeviceIndex>,
        cause: ReturnCause,
        report: &mut Migration,
    ) {
        let mut signals = None;
        for (number, (block, part)) in self.blocks.existing(pages).enumerate() {
            if number % BLOCKS_WITHOUT_SIGNALS == 0 {
                signals = None;
            }
            let mut place = part.start().in_block();
            let end = place + part.len();
            while place < end && block.hint().away > 0 {
                let blocked = signals.get_or_insert_with(SignalsBlocked::new);
                let Ok(mut visit) = self.visit(blocked) else {
                    report.add_stayed(part, StayCause::NoMemory);
                    break;
                };
                let openings = self.gate.openings();
                let mut held = visit.lock(block, part.start().block());
                let Some(run) = held.next_on_device(place..end, only) else { break };
                let section = self.gate.share(held.signals);
                let pages = held.pages(&run.pages);
                let start = run.pages.start;
                let done = if section.is_closed(pages) {
                    Returned::CHANGING
                } else {
                    held.bring_back(run, cause, &section)
                };
                drop(section);
                drop(held);
                drop(visit);
                report.add_moved(done.pages);
                place = start + done.pages;
                match done.obstacle {
                    None => {}
                    Some(obstacle) if obstacle.is_change() => {
                        // A change is on its way that moves or ends the pages.
                        self.counters.commits_retried.add(1);
                        signals = None;
                        self.gate.wait_opened(openings);
                    }
                    Some(obstacle) => {
                        let page = part.start().block().first_page().plus(place);
                        report.add_stayed(PageRange::of(page, 1), obstacle.cause());
                        place += 1;
                    }
                }
            }
        }
    }
}
