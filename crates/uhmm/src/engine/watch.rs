//! Which pages devices may map where they are, and the watching of their areas when one first does.
//!
//! An area is watched as a whole, as the program made it, from a device's first translation on: its
//! changes are told. An area that is trapped is watched by that.

use super::{Areas, Engine};
use crate::{
    mm::{Backing, Mm, TrapError},
    report::PageError,
    sync::SignalsBlocked,
    units::PageRange,
};

/// Whether pages may be mapped by devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mappable {
    /// We are told of their changes.
    Told {
        /// Whether their holes fault to us, too.
        trapped: bool,
    },
    /// Only a device backs them.
    Reserved,
    /// We are not told of their changes yet.
    Untold,
    /// A change of the address space hits them that is not applied yet.
    Changing,
    /// The address space is closing.
    Closed,
}

impl Areas {
    /// The first of `pages`, up to where the answer changes, and the answer.
    pub(crate) fn mappable(&self, pages: PageRange) -> (PageRange, Mappable) {
        if self.closing {
            return (pages, Mappable::Closed);
        }
        if self.is_closed(pages) {
            return (pages, Mappable::Changing);
        }
        let (pages, reserved) = self.reserved.leading(pages);
        if reserved {
            return (pages, Mappable::Reserved);
        }
        let (pages, trapped) = self.trapped.leading(pages);
        if trapped {
            return (pages, Mappable::Told { trapped });
        }
        let (pages, watched) = self.watched.leading(pages);
        (pages, if watched { Mappable::Told { trapped: false } } else { Mappable::Untold })
    }
}

impl<M: Mm> Engine<M> {
    /// Watches the area at the first of `pages`. Answers the part of `pages` that this decided, and
    /// why it may not be mapped, if so.
    pub(crate) fn watch(&self, pages: PageRange) -> (PageRange, Option<PageError>) {
        loop {
            let openings = self.gate.openings();
            match self.try_watch(pages) {
                Ok(Some(answer)) => return answer,
                // The area changed between the looks at it, or a change is not read yet.
                Ok(None) => self.gate.wait_opened(openings),
                Err(error) => return (pages, Some(error)),
            }
        }
    }

    fn try_watch(
        &self,
        pages: PageRange,
    ) -> Result<Option<(PageRange, Option<PageError>)>, PageError> {
        let signals = SignalsBlocked::new();
        // Alone inside the gate no message is read, so what is found and what is watched are of one
        // moment unless a change is unread, and then the last step finds that out.
        let mut gate = self.gate.alone(&signals);
        if gate.closing {
            return Ok(Some((pages, Some(PageError::Closed))));
        }
        if gate.is_closed(pages) {
            return Ok(None);
        }
        if !self.settle_doubts(&mut gate) {
            return Ok(None);
        }
        let found = self.mm.mapping_at(pages.start()).map_err(PageError::System)?;
        let Some(mapping) = found else {
            return Ok(Some((self.gap_at(pages), Some(PageError::NoArea))));
        };
        let part = mapping.pages.intersection(pages);
        if self.memory_overlaps(mapping.pages) {
            return Ok(Some((part, Some(PageError::Engine))));
        }
        if mapping.backing == Backing::Special {
            return Ok(Some((part, Some(PageError::Special))));
        }
        match self.watch_whole(mapping.pages) {
            Ok(true) => {}
            Ok(false) | Err(TrapError::NoArea(_)) => return Ok(None),
            Err(error) => return Ok(Some((part, Some(error.into())))),
        }
        // Between the look and the watch another thread may have put another area there. From the
        // watch on we are told of changes, so a second look that sees the same settles it. The area
        // may have joined a neighbour that was watched before.
        let same =
            self.mm.mapping_at(pages.start()).map_err(PageError::System)?.is_some_and(|now| {
                now.pages.covers(mapping.pages) && now.backing == mapping.backing
            });
        if !same || self.mm.changing() {
            return Ok(None);
        }
        gate.watched.add(mapping.pages)?;
        Ok(Some((part, None)))
    }

    /// The first of `pages`, where nothing is mapped, up to the next area.
    pub(super) fn gap_at(&self, pages: PageRange) -> PageRange {
        // By now there may be an area.
        let first = PageRange::of(pages.start(), 1);
        let end = match self.first_area(pages) {
            Ok(next) => next.map_or(pages.end(), |next| next.pages.start()),
            Err(_) => first.end(),
        };
        if end <= first.end() {
            return first;
        }
        PageRange::new(pages.start(), end)
    }
}
