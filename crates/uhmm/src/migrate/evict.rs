//! A device's memory is short: pages that it has not used lately go back to system memory.

use core::ops::Range;

use super::to_system::{AwayRun, Obstacle, ReturnCause};
use crate::{
    device::DeviceState,
    driver::{Invalidation, InvalidationKind},
    engine::{Areas, Engine, Locked, Visit},
    mm::Mm,
    policy,
    units::{BLOCK_PAGES, BlockNumber, PageRange},
};

/// How many places of a block one step of the clock looks at, under one lock: all, so that what goes
/// goes with one wait for the device.
const EVICT_STEP: usize = BLOCK_PAGES;

/// How hard an eviction looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Passes over what was used since the hand came by last, and over what is to be spared.
    Unused,
    /// Passes over what is to be spared.
    Used,
    /// Passes over nothing.
    Any,
}

impl<M: Mm> Engine<M> {
    /// Frees at least one frame of a device and about `want`, sparing the pages `spare` where
    /// others will do.
    ///
    /// It ends for certain: each step moves the hand of the clock, and the hand goes round once for
    /// each [`Round`] but the last, which goes through all blocks.
    #[inline(never)]
    pub(crate) fn evict(
        &self,
        device: &DeviceState,
        want: usize,
        spare: PageRange,
        visit: &mut Visit<'_, M>,
    ) -> Evicted {
        let mut evicted = Evicted { freed: 0, changing: false };
        for round in [Round::Unused, Round::Used] {
            let blocks = device.clock.lock(visit.signals()).len();
            let mut places_left = (blocks + 1) * BLOCK_PAGES;
            while evicted.freed < want && places_left > 0 {
                let at = device.clock.lock(visit.signals()).advance(EVICT_STEP);
                let Some((number, places)) = at else { break };
                let want = want - evicted.freed;
                let step = self.evict_at(device, number, places, spare, round, want, visit);
                evicted.add(&step);
                places_left = places_left.saturating_sub(step.passed.max(1));
            }
            if evicted.freed > 0 {
                return evicted;
            }
        }
        // Others move the hand too, so it may have passed all that is there without being seen here.
        let everything = self.all_pages();
        for (block, part) in self.blocks.existing(everything) {
            if evicted.freed >= want {
                break;
            }
            if block.hint().away > 0 {
                let (number, places) = (part.start().block(), 0..BLOCK_PAGES);
                let want = want - evicted.freed;
                let step = self.evict_at(device, number, places, spare, Round::Any, want, visit);
                evicted.add(&step);
            }
        }
        evicted
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `evict`")]
    fn evict_at(
        &self,
        device: &DeviceState,
        number: BlockNumber,
        places: Range<usize>,
        spare: PageRange,
        round: Round,
        want: usize,
        visit: &mut Visit<'_, M>,
    ) -> Step {
        let mut step = Step { freed: 0, passed: places.len(), changing: false };
        let Some(block) = self.blocks.get(number) else { return step };
        let mut held = visit.lock(block, number);
        let Some(next) = held.next_in_frames(places.start..BLOCK_PAGES, device) else {
            // Nothing of the rest of the block is there, perhaps nothing at all.
            device.clock.lock(held.signals).skip(number);
            if held.next_in_frames(0..places.start, device).is_none() {
                held.leave_clock(device);
            }
            step.passed = BLOCK_PAGES - places.start;
            return step;
        };
        let section = self.gate.share(held.signals);
        // A block that lies there as a whole goes as a whole if nothing of it was used: that keeps
        // a huge page whole. Else each unit under the hand is judged by itself.
        let all = held.pages(&(0..BLOCK_PAGES));
        if held.state().pages.is_whole()
            && round == Round::Unused
            && !spare.overlaps(all)
            && !section.is_closed(all)
            && device.device.take_use(all).lately == 0
            && let Some(whole) = held.next_in_frames(0..BLOCK_PAGES, device)
        {
            let mut going = Going::new();
            going.add(whole);
            held.bring_all_of(device, &going, &section, &mut step);
            return step;
        }
        // Each page is judged by itself where the device makes no use of neighbours, else those that came
        // together are.
        let unit = policy::evict_unit(device.frames).min(device.reach.pages());
        let mut going = Going::new();
        let mut next = Some(next);
        while let Some(run) = next {
            let start = run.pages.start;
            if start >= places.end {
                break;
            }
            if going.pages >= want || going.is_full() {
                device.clock.lock(held.signals).resume(number, start);
                step.passed = start - places.start;
                break;
            }
            let end = run.pages.end.min((start / unit + 1) * unit);
            let (part, rest) = run.split(end - start);
            let pages = held.pages(&part.pages);
            let spared = pages.overlaps(spare) && round != Round::Any;
            let usage = device.device.take_use(pages);
            let closed = section.is_closed(pages);
            step.changing |= closed;
            if !spared && !closed && (usage.lately == 0 || round != Round::Unused) {
                device.reach.learn(part.pages.len(), usage.ever, device.frames);
                going.add(part);
            }
            next = if rest.pages.is_empty() {
                held.next_in_frames(end..BLOCK_PAGES, device)
            } else {
                Some(rest)
            };
        }
        held.bring_all_of(device, &going, &section, &mut step);
        step
    }
}

/// How many runs of a block are given up under one lock at most.
const RUNS: usize = 64;

/// Runs of a block that are to be given up, in their order, all of it in frames of one device. While the
/// lock is held they are as they were found: what happens to one changes nothing of those behind it.
struct Going {
    runs: [Option<AwayRun>; RUNS],
    count: usize,
    pages: usize,
}

impl Going {
    fn new() -> Self {
        Self { runs: [const { None }; RUNS], count: 0, pages: 0 }
    }

    /// Whether there is no room for another run.
    fn is_full(&self) -> bool {
        self.count == RUNS
    }

    /// Adds a run behind the others, for which there is room.
    fn add(&mut self, run: AwayRun) {
        self.pages += run.pages.len();
        if let Some(last) = self.count.checked_sub(1).and_then(|last| self.runs[last].as_mut())
            && last.goes_on_in(&run)
        {
            last.pages.end = run.pages.end;
        } else {
            self.runs[self.count] = Some(run);
            self.count += 1;
        }
    }

    fn runs(&self) -> impl Iterator<Item = &AwayRun> {
        self.runs[..self.count].iter().flatten()
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Brings back runs that are on the device, until one does not come.
    fn bring_all_of(
        &mut self,
        device: &DeviceState,
        going: &Going,
        areas: &Areas,
        step: &mut Step,
    ) {
        let told = self.end_at_once(device, going);
        for run in going.runs() {
            let wanted = run.pages.len();
            let run = run.clone();
            let done = if told {
                self.bring_back_told(run, ReturnCause::Eviction, areas)
            } else {
                self.bring_back(run, ReturnCause::Eviction, areas)
            };
            step.freed += done.pages;
            if done.pages < wanted {
                step.changing |= done.obstacle.is_some_and(Obstacle::is_change);
                return;
            }
        }
    }

    /// Ends the device's translations of all runs, which costs one wait for its accesses, where nobody
    /// else has any and it has none of them alone. Answers whether it was done.
    fn end_at_once(&self, device: &DeviceState, going: &Going) -> bool {
        let alone = self.block.is_translated() || going.runs().any(|run| run.exclusive);
        if alone || going.count < 2 {
            return false;
        }
        let kind = InvalidationKind::Migrate { owner: None };
        let nothing = Invalidation { pages: self.pages(&(0..0)), kind };
        let mut ends = [nothing; RUNS];
        for (run, end) in going.runs().zip(&mut ends) {
            end.pages = self.pages(&run.pages);
        }
        self.engine.counters.invalidations.add(going.count);
        device.device.invalidate_all(&ends[..going.count]);
        true
    }

    /// The first run in `within` that is in frames of the device: shared memory takes none.
    fn next_in_frames(&mut self, within: Range<usize>, device: &DeviceState) -> Option<AwayRun> {
        let mut rest = within;
        loop {
            let run = self.next_on_device(rest.clone(), Some(device.index))?;
            if !run.frame.is_shared() {
                return Some(run);
            }
            rest.start = run.pages.end;
        }
    }
}

/// What an eviction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Frames that are free now.
    pub(crate) freed: usize,
    /// Whether pages were passed over because the address space was changing.
    pub(crate) changing: bool,
}

impl Evicted {
    fn add(&mut self, step: &Step) {
        self.freed += step.freed;
        self.changing |= step.changing;
    }
}

/// What one step of an eviction did.
struct Step {
    freed: usize,
    /// Whether pages were passed over because the address space was changing.
    changing: bool,
    /// How many places the hand passed.
    passed: usize,
}
