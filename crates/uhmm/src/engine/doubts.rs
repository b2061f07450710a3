//! What cannot be known yet of the order in which changes happened.
//!
//! While other changes are under way, an unmapping of where pages have [arrived](super::arrivals) may be one
//! from before. What the kernel had there before it was read says whether. Where an area is, the unmapping is
//! taken for an earlier one and *disbelieved* as far as the area goes. There is one other way to such an
//! area: the unmapping made room for a remapping that is yet to be told, and then it is believed after all
//! where that goes. Both end when no change is under way.

use super::{
    Areas, Change, Engine, Occupant,
    arrivals::{Arrivals, Found},
};
use crate::{
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::{Message, Mm},
    units::PageRange,
};

#[derive(Debug)]
pub(crate) struct Doubts {
    /// Where pages moved to while other changes were under way, or are to by remappings that wait.
    pub(crate) arrivals: Arrivals,
    /// Parts of unmappings that were taken for ones from before, where an area is.
    disbelieved: EngineVec<PageRange>,
}

impl Doubts {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { arrivals: Arrivals::new(memory), disbelieved: EngineVec::new(memory.clone()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.arrivals.any_applied() && self.disbelieved.is_empty()
    }

    /// How many disbelieved parts there are, each of which keeps its range closed.
    pub(crate) fn disbelieved(&self) -> usize {
        self.disbelieved.len()
    }

    /// No change is under way: whatever is told next happens next, and what was disbelieved, one of
    /// which this takes at a time, was from before.
    pub(crate) fn end(&mut self) -> Option<PageRange> {
        self.arrivals.clear();
        self.disbelieved.pop()
    }

    /// Tells of the changes that a message is about, which was read just now, each of one occupant of its
    /// addresses; of none for a fault.
    pub(crate) fn changes_of(
        &mut self,
        message: &Message,
        mm: &impl Mm,
        tell: &mut dyn FnMut(Change),
    ) -> Result<(), EngineMemoryError> {
        match *message {
            Message::Fault { .. } => {}
            Message::Unmapped(pages) => {
                let part = |rest| self.arrivals.unmapping_of(rest, pages);
                by_occupant(pages, part, |pages, of| tell(Change::Unmapped { pages, of }))?;
                self.arrivals.left(pages);
            }
            Message::Remapped { from, to } => {
                let part = |rest| self.arrivals.remapping_of(rest, from);
                let mut targets = EngineVec::new(self.disbelieved.memory().clone());
                let mut pushed = Ok(());
                by_occupant(from, part, |part, of| {
                    let to = to.plus(part.start().since(from.start()));
                    tell(Change::Remapped { from: part, to, of });
                    pushed = pushed.and(targets.try_push(PageRange::of(to, part.len())));
                })?;
                pushed?;
                for &target in targets.iter() {
                    self.arrivals.expect(target, mm)?;
                }
            }
            Message::Discarded(pages) => tell(Change::Discarded(pages)),
            Message::Forked(child) => tell(Change::Forked { child, looks: 0 }),
        }
        Ok(())
    }

    /// Tells of an unmapping of `pages`, of which it was not known whose end it is, by what is there now.
    pub(crate) fn unmapping_found(
        &mut self,
        pages: PageRange,
        found: Found,
        tell: &mut dyn FnMut(Change),
    ) -> Result<(), EngineMemoryError> {
        let part = |rest| self.arrivals.unmapping_found(rest, found);
        by_occupant(pages, part, |pages, of| tell(Change::Unmapped { pages, of }))
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

/// Parts `pages` by whose end a change is, which `part` says of the longest part from the start on.
fn by_occupant(
    pages: PageRange,
    mut part: impl FnMut(PageRange) -> Result<(PageRange, Occupant), EngineMemoryError>,
    mut tell: impl FnMut(PageRange, Occupant),
) -> Result<(), EngineMemoryError> {
    let mut rest = pages;
    let mut last: Option<(PageRange, Occupant)> = None;
    while !rest.is_empty() {
        let (next, of) = part(rest)?;
        rest = PageRange::new(next.end(), rest.end());
        last = Some(match last {
            Some((before, same)) if same == of => (PageRange::new(before.start(), next.end()), of),
            Some((before, other)) => {
                tell(before, other);
                (next, of)
            }
            None => (next, of),
        });
    }
    if let Some((pages, of)) = last {
        tell(pages, of);
    }
    Ok(())
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
