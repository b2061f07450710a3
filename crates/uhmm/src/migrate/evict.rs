//! A device's memory is short: pages that it has not used lately go back to system memory.

use core::ops::Range;

use super::to_system::{AwayRun, Obstacle, ReturnCause};
use crate::{
    block::{Residence, Run},
    device::DeviceState,
    mirror::{Invalidation, InvalidationKind},
    mm::Mm,
    policy,
    space::{Areas, Engine, Locked, Visit},
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
        {
            let _ = held.bring_part_back(device, 0..BLOCK_PAGES, &section, false, &mut step);
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
            let part = start..run.pages.end.min((start / unit + 1) * unit);
            let pages = held.pages(&part);
            let spared = pages.overlaps(spare) && round != Round::Any;
            let usage = device.device.take_use(pages);
            let closed = section.is_closed(pages);
            step.changing |= closed;
            if !spared && !closed && (usage.lately == 0 || round != Round::Unused) {
                device.reach.learn(part.len(), usage.ever, device.frames);
                going.add(part.clone());
            }
            next = if part.end < run.pages.end {
                Some(run.without_first(part.len()))
            } else {
                held.next_in_frames(part.end..BLOCK_PAGES, device)
            };
        }
        held.bring_parts_back(device, &going, &section, &mut step);
        step
    }
}

/// How many parts of a block are given up under one lock at most.
const PARTS: usize = 64;

/// Parts of a block that are to be given up, all of it in frames of one device, in their order.
struct Going {
    parts: [Range<usize>; PARTS],
    count: usize,
    pages: usize,
}

impl Going {
    fn new() -> Self {
        Self { parts: [const { 0..0 }; PARTS], count: 0, pages: 0 }
    }

    /// Whether there is no room for another part.
    fn is_full(&self) -> bool {
        self.count == PARTS
    }

    /// Adds a part behind the others, for which there is room.
    fn add(&mut self, part: Range<usize>) {
        self.pages += part.len();
        if let Some(last) = self.count.checked_sub(1)
            && self.parts[last].end == part.start
        {
            self.parts[last].end = part.end;
        } else {
            self.parts[self.count] = part;
            self.count += 1;
        }
    }

    fn parts(&self) -> &[Range<usize>] {
        &self.parts[..self.count]
    }
}

impl<M: Mm> Locked<'_, M> {
    /// Brings back parts that are on the device, until one does not come.
    fn bring_parts_back(
        &mut self,
        device: &DeviceState,
        going: &Going,
        areas: &Areas,
        step: &mut Step,
    ) {
        let told = self.end_at_once(device, going);
        for part in going.parts() {
            if !self.bring_part_back(device, part.clone(), areas, told, step) {
                return;
            }
        }
    }

    /// Brings back what of `part` is on the device. False where not all of it came. `told` says that its
    /// translations have ended.
    fn bring_part_back(
        &mut self,
        device: &DeviceState,
        part: Range<usize>,
        areas: &Areas,
        told: bool,
        step: &mut Step,
    ) -> bool {
        let mut place = part.start;
        while place < part.end
            && let Some(run) = self.next_in_frames(place..part.end, device)
        {
            place = run.pages.end;
            let wanted = run.pages.len();
            let done = if told {
                self.bring_back_told(run, ReturnCause::Eviction, areas)
            } else {
                self.bring_back(run, ReturnCause::Eviction, areas)
            };
            step.freed += done.pages;
            if done.pages < wanted {
                step.changing |= done.obstacle.is_some_and(Obstacle::is_change);
                return false;
            }
        }
        true
    }

    /// Ends the device's translations of all parts, which costs one wait for its accesses, where nobody
    /// else has any and it has none of them alone. Answers whether it was done.
    fn end_at_once(&mut self, device: &DeviceState, going: &Going) -> bool {
        if self.block.is_translated() || going.pages < 2 {
            return false;
        }
        let kind = InvalidationKind::Migrate { owner: None };
        let nothing = Invalidation { pages: self.pages(&(0..0)), kind };
        let mut ends = [nothing; PARTS];
        for (part, end) in going.parts().iter().zip(&mut ends) {
            let is_exclusive =
                |run: Run| matches!(run.residence, Residence::Away { exclusive, .. } if exclusive);
            if self.state().pages.runs(part.clone()).any(is_exclusive) {
                return false;
            }
            end.pages = self.pages(part);
        }
        self.engine.counters.invalidations.add(going.count);
        device.device.invalidate_all(&ends[..going.count]);
        true
    }

    /// The first run in `within` that is in frames of the device: shared memory takes none.
    fn next_in_frames(&mut self, within: Range<usize>, device: &DeviceState) -> Option<AwayRun> {
        let mut rest = within;
        loop {
            let run = self.next_away(rest.clone(), Some(device.index))?;
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
