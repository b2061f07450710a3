//! What cannot be known yet of the order in which changes happened.
//!
//! The target of a remapping that came while other changes were under way is *doubtful*: an unmapping
//! of it that is told next may be one from before. Where the kernel has a registered area it is taken
//! for that, and *disbelieved* as far as the area goes. There is one other way to such an area: the
//! unmapping made room for a remapping that is yet to be told, and then it is believed after all where
//! that goes. Both end when no change is under way.

use super::{Areas, Engine};
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::Mm,
    range_set::RangeSet,
    units::PageRange,
};

#[derive(Debug)]
pub(crate) struct Doubts {
    /// Where pages were moved to while other changes were under way.
    targets: RangeSet,
    /// Parts of unmappings that were taken for ones from before, where an area is.
    disbelieved: EngineVec<PageRange>,
}

impl Doubts {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { targets: RangeSet::new(memory), disbelieved: EngineVec::new(memory.clone()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.disbelieved.is_empty()
    }

    /// How many disbelieved parts there are, each of which keeps its range closed.
    pub(crate) fn disbelieved(&self) -> usize {
        self.disbelieved.len()
    }

    /// No change is under way: whatever is told next happens next, and what was disbelieved, one of
    /// which this takes at a time, was from before.
    pub(crate) fn end(&mut self) -> Option<PageRange> {
        self.targets.clear();
        self.disbelieved.pop()
    }

    /// Pages were moved to `target` while other changes were under way.
    pub(crate) fn add(&mut self, target: PageRange) -> Result<(), EngineMemoryError> {
        self.targets.add(target)
    }

    /// The longest part of `pages` from its start on that is doubtful, or is not, and which it is.
    pub(crate) fn leading(&self, pages: PageRange) -> (PageRange, bool) {
        self.targets.leading(pages)
    }

    /// An unmapping of `pages` was told: there is no doubt about them any more.
    pub(crate) fn settle(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        self.targets.remove(pages)
    }

    /// Takes a disbelieved part of which some pages are among `pages`.
    pub(crate) fn take(&mut self, pages: PageRange) -> Option<PageRange> {
        let place = self.disbelieved.iter().position(|other| other.overlaps(pages))?;
        self.disbelieved.remove(place)
    }

    /// An unmapping of `pages` was taken for one from before, as an area is there.
    pub(crate) fn disbelieve(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        self.disbelieved.try_push(pages)
    }

    /// A part whose unmapping was disbelieved and made room for a remapping to `target`, which may have
    /// grown: then its area goes on behind the target, and nothing tells of that.
    pub(crate) fn room_for(&self, target: PageRange) -> Option<PageRange> {
        let part = self.disbelieved.iter().find(|other| other.overlaps(target))?;
        Some(PageRange::new(part.start().max(target.start()), part.end()))
    }

    /// Whether the unmapping of all of `pages` was disbelieved.
    pub(crate) fn disbelieves(&self, pages: PageRange) -> bool {
        let mut rest = pages;
        while !rest.is_empty() {
            let part = self.disbelieved.iter().find(|part| part.contains(rest.start()));
            let Some(part) = part else { return false };
            rest = PageRange::new(part.end().min(rest.end()), rest.end());
        }
        true
    }
}

impl<M: Mm> Engine<M> {
    /// Ends the doubts about the order of changes if none is under way, nor read and to be applied yet.
    /// Answers whether there are none any more.
    pub(crate) fn settle_doubts(&self, areas: &mut Areas) -> bool {
        if areas.doubts.is_empty() && areas.left_lately.is_empty() {
            return true;
        }
        if areas.has_unapplied() || self.mm.changing() {
            return false;
        }
        areas.left_lately.clear();
        while let Some(disbelieved) = areas.doubts.end() {
            areas.open(disbelieved);
        }
        self.gate.tell_opened();
        true
    }
}
