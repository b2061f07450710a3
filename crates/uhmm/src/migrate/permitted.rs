//! What is permitted of pages that are to go to a device.

use core::ops::Range;

use super::{
    commit::Commit,
    pull::{ByAddress, Pull},
};
use crate::{
    block::Residence,
    engine::{Areas, Permitted},
    mm::{Look, Mm, Stop},
    report::StayCause,
    units::{PageNumber, PageRange},
};

impl<M: Mm> Commit<'_, '_, M> {
    /// Whether what is permitted is to be heeded before anything is entered: where more is than is
    /// known, and where less is, once.
    pub(super) fn is_to_be_heeded(
        &mut self,
        areas: &Areas,
        pages: PageRange,
        permitted: Permitted,
    ) -> bool {
        let known =
            areas.restricted.knows(pages, permitted) || pages.start() < self.seen.heeded_until;
        let heed = !known || !areas.restricted.allows(pages, permitted);
        if heed {
            self.attempt.heed = Some(pages);
        }
        heed
    }

    /// Whether what is permitted suffices for what is asked, of pages that are at `residence`.
    pub(super) fn may_go(
        &self,
        places: &Range<usize>,
        residence: Residence,
        permitted: Permitted,
    ) -> bool {
        match residence {
            Residence::System => permitted.read && permitted.write,
            Residence::Mapped { device, .. } if device.0 != self.device.index.0 => {
                permitted.read && permitted.write
            }
            Residence::Away { .. } | Residence::Mapped { .. } => match self.why {
                Pull::Fault(faulted) if faulted.writes(places) => permitted.write,
                Pull::Exclusive => permitted.write,
                Pull::Fault(_) | Pull::Request | Pull::Undisturbed => permitted.read,
            },
        }
    }

    /// What is permitted of pages that come from system memory: the system moves pages out of areas only
    /// that can be read and written, or they lay aside.
    pub(super) fn permitted_of_new(&self) -> Permitted {
        let all = Permitted { read: true, write: true };
        self.seen.aside.map_or(all, |aside| aside.permitted)
    }

    /// Whether pages of the system that cannot be written are to be taken out of their area, with no lock
    /// held. They are noted then.
    #[cold]
    pub(super) fn is_to_go_aside(&mut self, residence: Residence, pages: PageRange) -> bool {
        let goes = residence == Residence::System
            && self.seen.alias.is_none()
            && self.held.engine.is_undisturbed(self.why);
        if goes {
            self.attempt.by_address = Some(ByAddress::Unwritable(pages));
        }
        goes
    }

    /// Whether pages that were never touched may be made on the device, `holes` being the next; where not
    /// they stay.
    pub(super) fn may_be_made(&mut self, holes: usize) -> bool {
        let made = self.seen.aside.is_none_or(|aside| aside.permitted.read);
        if !made {
            self.stay(holes, StayCause::Protection);
        }
        made
    }

    /// Whether there is a mark in place of the page's content.
    fn is_lost(&self, page: PageNumber) -> bool {
        let mut look = [Look::Hole];
        self.held.engine.mm.look(page, &mut look).is_ok() && look == [Look::Poisoned]
    }

    /// The system refused to move the first of `pages`. False where the attempt ends here.
    #[cold]
    pub(super) fn refused(&mut self, areas: &Areas, pages: PageRange) -> Result<bool, StayCause> {
        if self.seen.aside.is_some() {
            let lost = self.is_lost(pages.start());
            self.stay(1, if lost { StayCause::Poisoned } else { StayCause::of(Stop::Refused) });
            return Ok(true);
        }
        let engine = self.held.engine;
        match engine.permitted(pages).map_err(StayCause::System)? {
            None => {
                self.attempt.changing = true;
                return Ok(false);
            }
            Some((pages, permitted)) if self.is_to_be_heeded(areas, pages, permitted) => {
                return Ok(false);
            }
            Some((pages, Permitted { write: false, .. }))
                if self.is_to_go_aside(Residence::System, pages) =>
            {
                return Ok(false);
            }
            Some((pages, Permitted { write: false, .. })) => {
                self.stay(pages.len(), StayCause::Protection);
            }
            Some((pages, _)) if self.is_lost(pages.start()) => self.stay(1, StayCause::Poisoned),
            Some(_) => self.stay(1, StayCause::of(Stop::Refused)),
        }
        Ok(true)
    }
}
