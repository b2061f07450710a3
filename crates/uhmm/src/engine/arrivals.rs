//! Where pages moved to of late, and what the kernel has there before a message is read.
//!
//! Who unmaps or moves pages waits in the kernel until that is read. So what the kernel has as a message
//! waits to be read is what it had when that change was made, or what others made of it since; once it is
//! read, its thread may have put something else there. So a look is taken before each message.

use super::change::Occupant;
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::Mm,
    range_set::RangeSet,
    units::{PageNumber, PageRange},
};

/// How many arrivals are looked at, the last ones: a look is taken for each message.
const LOOKED_AT: usize = 16;
/// How many areas of one arrival are looked at.
const AREAS: usize = 8;

/// The target of a remapping of which it is not known whether all that was before it was told.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    pages: PageRange,
    /// Where the area that moved there starts, as the remapping was read; `None` where it had gone by then.
    area: Option<PageNumber>,
    /// Whether the remapping is to be applied yet.
    awaited: bool,
}

impl Arrival {
    /// Whether what moved there became no part of an area that was there.
    fn is_apart(&self) -> bool {
        self.area == Some(self.pages.start())
    }
}

/// What there is at pages by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An area whose changes are told.
    Told,
    /// Another area.
    Other,
    Nothing,
}

/// Arrivals, and what was found where they are.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// In the order in which they were read.
    list: EngineVec<Arrival>,
    /// Where an end was told of pages that are awaited still, that of what moved there last.
    told: RangeSet,
    /// Where awaited pages moved on from, of which it is yet to be told that nothing is left there, if
    /// nothing is.
    moved_on: EngineVec<PageRange>,
    /// Where what arrived is no more.
    gone: RangeSet,
    /// Where an area is that starts where what arrived did.
    apart: RangeSet,
    /// Where a look has been taken.
    looked_at: RangeSet,
}

impl Arrivals {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        Self {
            list: EngineVec::new(memory.clone()),
            told: RangeSet::new(memory),
            moved_on: EngineVec::new(memory.clone()),
            gone: RangeSet::new(memory),
            apart: RangeSet::new(memory),
            looked_at: RangeSet::new(memory),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there is one whose remapping was applied.
    pub(super) fn any_applied(&self) -> bool {
        self.list.iter().any(|arrival| !arrival.awaited)
    }

    /// Whether a remapping to a page of `pages` is to be applied yet.
    pub(crate) fn awaits(&self, pages: PageRange) -> bool {
        self.list.iter().any(|arrival| arrival.awaited && arrival.pages.overlaps(pages))
    }

    /// A remapping to `target` was read.
    pub(crate) fn expect(
        &mut self,
        target: PageRange,
        mm: &impl Mm,
    ) -> Result<(), EngineMemoryError> {
        let area = mm.area_from(target.start()).ok().flatten();
        let area = area.filter(|area| area.contains(target.start())).map(PageRange::start);
        // What ended was there before this.
        self.told.remove(target)?;
        self.list.try_push(Arrival { pages: target, area, awaited: true })
    }

    /// A remapping to `target` was applied. It stays an arrival where it is `doubtful` whether all that was
    /// before it was told.
    pub(crate) fn arrived(
        &mut self,
        target: PageRange,
        doubtful: bool,
    ) -> Result<(), EngineMemoryError> {
        let is_it = |arrival: &Arrival| arrival.awaited && arrival.pages == target;
        if let Some(place) = self.list.iter().position(is_it) {
            if doubtful {
                self.list[place].awaited = false;
            } else {
                self.list.remove(place);
            }
        }
        if !self.awaits(target) {
            self.told.remove(target)?;
            while let Some(place) = self.moved_on.iter().position(|from| from.overlaps(target)) {
                self.moved_on.remove(place);
            }
        }
        Ok(())
    }

    /// An unmapping or a remapping of `pages` was applied: nothing is left of an arrival all of which they are.
    pub(crate) fn ended(&mut self, pages: PageRange) {
        let is_over = |arrival: &Arrival| !arrival.awaited && pages.covers(arrival.pages);
        while let Some(place) = self.list.iter().position(is_over) {
            self.list.remove(place);
        }
    }

    /// Whatever is told next happened after all of them.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.told.clear();
        self.moved_on.clear();
        self.gone.clear();
        self.apart.clear();
    }

    /// Looks at what the kernel has where the last ones are. Where several have arrived it is seen whether
    /// the last is there.
    pub(crate) fn look(&mut self, mm: &impl Mm) -> Result<(), EngineMemoryError> {
        self.gone.clear();
        self.apart.clear();
        self.looked_at.clear();
        let first = self.list.len().saturating_sub(LOOKED_AT);
        for place in (first..self.list.len()).rev() {
            let arrival = self.list[place];
            let mut rest = arrival.pages;
            while !rest.is_empty() {
                let (part, seen) = self.looked_at.leading(rest);
                if !seen {
                    self.look_at(arrival, part, mm)?;
                }
                rest = PageRange::new(part.end(), rest.end());
            }
            self.looked_at.add(arrival.pages)?;
        }
        Ok(())
    }

    /// Looks at `pages` of an arrival.
    fn look_at(
        &mut self,
        arrival: Arrival,
        pages: PageRange,
        mm: &impl Mm,
    ) -> Result<(), EngineMemoryError> {
        let mut rest = pages;
        let mut asked = 0;
        while !rest.is_empty() && asked < AREAS {
            asked += 1;
            // Where the system does not tell nothing is known.
            let Ok(found) = mm.area_from(rest.start()) else { break };
            let area = found.unwrap_or(PageRange::of(rest.end(), 0));
            let start = area.start().clamp(rest.start(), rest.end());
            let there = PageRange::new(start, area.end().clamp(start, rest.end()));
            self.gone.add(PageRange::new(rest.start(), start))?;
            if arrival.is_apart() && area.start() < arrival.pages.start() {
                // One that was before it has grown over it.
                self.gone.add(there)?;
            } else if arrival.is_apart() && area.start() == arrival.pages.start() {
                self.apart.add(there)?;
            }
            rest = PageRange::new(there.end(), rest.end());
        }
        Ok(())
    }

    /// Whose end an unmapping of `whole`, which was read, is: the longest part of `pages` of it from their
    /// start on of which the same is known, and what. What is told of awaited pages is noted.
    pub(super) fn unmapping_of(
        &mut self,
        pages: PageRange,
        whole: PageRange,
    ) -> Result<(PageRange, Occupant), EngineMemoryError> {
        let (part, arrival) = self.leading(pages);
        let Some(awaited) = arrival else { return Ok((part, Occupant::Only)) };
        if self.moved_on.contains(&whole) {
            return Ok((part, Occupant::Last));
        }
        let (part, gone) = self.gone.leading(part);
        match (gone, awaited) {
            (true, false) => Ok((part, Occupant::Only)),
            (true, true) if self.all_gone(part.start(), whole) => self.end_of_awaited(part),
            _ => Ok((part, Occupant::Unknown)),
        }
    }

    /// It was told that nothing is left where pages moved on from.
    pub(super) fn left(&mut self, pages: PageRange) {
        if let Some(place) = self.moved_on.iter().position(|from| *from == pages) {
            self.moved_on.remove(place);
        }
    }

    /// The same of one of which it was not known: there were areas, and by now `found` is what there is.
    pub(super) fn unmapping_found(
        &mut self,
        pages: PageRange,
        found: Found,
    ) -> Result<(PageRange, Occupant), EngineMemoryError> {
        let (part, arrival) = self.leading(pages);
        match (found, arrival) {
            (_, None) | (Found::Other | Found::Nothing, Some(false)) => Ok((part, Occupant::Only)),
            // What there was may have been what arrived, which has left since.
            (Found::Told, _) | (Found::Nothing, Some(true)) => Ok((part, Occupant::Earlier)),
            (Found::Other, Some(true)) => self.end_of_awaited(part),
        }
    }

    /// Whose end a remapping from `whole`, which was read, is; as of [`unmapping_of`](Self::unmapping_of).
    pub(super) fn remapping_of(
        &mut self,
        pages: PageRange,
        whole: PageRange,
    ) -> Result<(PageRange, Occupant), EngineMemoryError> {
        let (part, arrival) = self.leading(pages);
        let Some(awaited) = arrival else { return Ok((part, Occupant::Only)) };
        if awaited && self.all_gone(part.start(), whole) {
            let (part, of) = self.end_of_awaited(part)?;
            if of == Occupant::Last && !self.moved_on.contains(&whole) {
                self.moved_on.try_push(whole)?;
            }
            return Ok((part, of));
        }
        let (part, apart) = self.apart.leading(part);
        // A remapping is of one area, and this one began before what arrived.
        let last = self.list.iter().rev().find(|arrival| arrival.pages.contains(part.start()));
        let began_before = |arrival: &Arrival| whole.start() < arrival.pages.start();
        let earlier = apart && last.is_some_and(began_before);
        Ok((part, if earlier { Occupant::Earlier } else { Occupant::Unknown }))
    }

    /// Whether all that was awaited at `page` is gone as far as a change of `whole` hits it. What is left
    /// of it would have gone with the rest, were it the change's.
    fn all_gone(&self, page: PageNumber, whole: PageRange) -> bool {
        let awaited = |arrival: &&Arrival| arrival.awaited && arrival.pages.contains(page);
        let mut hit = self.list.iter().filter(awaited);
        hit.all(|arrival| self.gone.covers(arrival.pages.intersection(whole)))
    }

    /// An end of awaited pages was read, and they are gone: of them, if it is the first.
    fn end_of_awaited(
        &mut self,
        pages: PageRange,
    ) -> Result<(PageRange, Occupant), EngineMemoryError> {
        let (part, told) = self.told.leading(pages);
        if told {
            return Ok((part, Occupant::Earlier));
        }
        self.told.add(part)?;
        Ok((part, Occupant::Last))
    }

    /// The longest part of `pages` from its start on that is of the same arrivals, and whether one of them
    /// is awaited; `None` where it is of none.
    fn leading(&self, pages: PageRange) -> (PageRange, Option<bool>) {
        let mut end = pages.end();
        let mut found = None;
        for arrival in self.list.iter() {
            if arrival.pages.contains(pages.start()) {
                found = Some(found.unwrap_or(false) || arrival.awaited);
                end = end.min(arrival.pages.end());
            } else if arrival.pages.start() > pages.start() {
                end = end.min(arrival.pages.start());
            }
        }
        (PageRange::new(pages.start(), end), found)
    }
}

#[cfg(all(test, not(shuttle)))]
#[expect(clippy::disallowed_types, reason = "tests have a heap")]
mod tests;
