//! Looks at areas outside the gate, of which is known whether what they found still holds.
//!
//! All that the system tells of an area it tells in a walk over all areas before it: milliseconds in a
//! process with much memory. Nobody is to wait at the gate for that. So an area is watched first, and
//! from then on its changes are told; then it is looked at, with nothing held. A change that is read ends
//! the looks at what it hits, and of one that is not read yet the kernel knows
//! ([`Mm::changing`](crate::mm::Mm::changing)). Where a look has not ended, and none is unread, the area
//! is the one that was looked at.
//!
//! What was watched for a look alone stays so, until the address space closes: its changes are told for
//! nothing. To end the watching could end the trapping of what is moved there at that moment.

use super::{Change, Engine};
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::{Area, Errno, Mm, TrapError},
    report::StayCause,
    units::{PageNumber, PageRange},
};

/// A look that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looking {
    /// The area, as a whole.
    pub(super) area: PageRange,
    /// Whether its changes are told.
    pub(super) is_told: bool,
    /// Which it is of all looks.
    number: u64,
}

/// The looks that are under way, but for those that a change has ended.
#[derive(Debug)]
pub(crate) struct Looks {
    lasting: EngineVec<Looking>,
    /// How many there were so far.
    count: u64,
}

impl Looks {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        Self { lasting: EngineVec::new(memory.clone()), count: 0 }
    }

    /// Notes that a look at an area begins.
    pub(super) fn begin(
        &mut self,
        area: PageRange,
        is_told: bool,
    ) -> Result<Looking, EngineMemoryError> {
        let looking = Looking { area, is_told, number: self.count + 1 };
        self.lasting.try_push(looking)?;
        self.count += 1;
        Ok(looking)
    }

    /// Whether no change of the area was read since the look began.
    pub(super) fn lasts(&self, looking: Looking) -> bool {
        self.lasting.contains(&looking)
    }

    /// Ends the looks at areas that a change hits that was read. A discard leaves an area what it is, and
    /// so does a fork.
    pub(crate) fn end_of_changed(&mut self, change: &Change) {
        match change {
            Change::Unmapped { .. } | Change::Remapped { .. } => {}
            Change::Discarded(_) | Change::Forked { .. } => return,
        }
        let hit =
            |looking: &Looking| change.ranges().iter().any(|range| range.overlaps(looking.area));
        while let Some(at) = self.lasting.iter().position(hit) {
            self.lasting.swap_remove(at);
        }
    }

    /// Ends a look.
    pub(super) fn end(&mut self, looking: Looking) {
        if let Some(at) = self.lasting.iter().position(|other| *other == looking) {
            self.lasting.swap_remove(at);
        }
    }
}

impl<M: Mm> Engine<M> {
    /// All that the system tells of an area; `None` where there is another by now.
    pub(super) fn look_at(&self, looking: Looking) -> Result<Option<Area>, StayCause> {
        let first = PageRange::of(looking.area.start(), 1);
        let found = self.first_area(first).map_err(StayCause::System)?;
        Ok(found.filter(|area| area.pages == looking.area && (area.registered || !looking.is_told)))
    }

    /// Watches an area as a whole that was found just now, alone inside the gate. False where it has
    /// changed meanwhile.
    ///
    /// Where it has grown since it was found, or another is in its place, a part of that is split off, and
    /// the program's own `mremap` of all of it would fail half-way. So what was not beside it before is
    /// watched too, and the two join again.
    pub(super) fn watch_whole(&self, area: PageRange) -> Result<bool, TrapError> {
        let failed = |errno| TrapError::Other(area, errno);
        let before = self.beside(area).map_err(failed)?;
        if before.iter().flatten().any(|other| other.overlaps(area)) {
            return Ok(false);
        }
        self.mm.watch(area)?;
        let split_off = self.split_off(area, before).map_err(failed)?;
        for other in split_off.iter().flatten().filter(|other| !self.memory_overlaps(**other)) {
            // Where it is of another kind that may be refused, and nothing is lost.
            let _ = self.mm.watch(*other);
        }
        Ok(split_off == [None; 2])
    }

    /// The areas with the page before an area and with the page behind it.
    pub(super) fn beside(&self, area: PageRange) -> Result<[Option<PageRange>; 2], Errno> {
        let at = |page| self.mm.mapping_at(page).map(|found| found.map(|found| found.pages));
        let before = area.start().0.checked_sub(1).map(PageNumber);
        Ok([before.map_or(Ok(None), at)?, at(area.end())?])
    }

    /// What is beside an area and was not `before`, nor is one with it.
    pub(super) fn split_off(
        &self,
        area: PageRange,
        before: [Option<PageRange>; 2],
    ) -> Result<[Option<PageRange>; 2], Errno> {
        let [below, above] = self.beside(area)?;
        let new = |now: Option<PageRange>, before| {
            now.filter(|now| Some(*now) != before && !now.overlaps(area))
        };
        Ok([new(below, before[0]), new(above, before[1])])
    }
}
