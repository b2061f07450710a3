//! Where the system does not tell of forks, children do not have what is trapped.
//!
//! A child has an area or has it not: so one that touches what could have been away ends by SIGSEGV,
//! as loud as can be. Areas are kept as a whole, from their trapping on. Keeping only the blocks of
//! which something is away would split areas at each of them, so that the program's own `mremap` of
//! one fails half-way, and would be a call of the system for each block that goes or comes back. What
//! is trapped joins no area that is not trapped anyway, so keeping it splits nothing.
//!
//! While libc forks nothing is away, and children may have it all.

use super::{Areas, Engine};
use crate::{
    mm::{Area, Errno, Mm},
    report::StayCause,
    sync::SignalsBlocked,
    units::PageRange,
};

impl<M: Mm> Engine<M> {
    /// Keeps an area, which was trapped just now, from children, unless the program does so itself.
    /// Answers false where it has changed meanwhile; nothing is kept then.
    pub(crate) fn withhold(&self, areas: &mut Areas, area: &Area) -> Result<bool, StayCause> {
        if self.mm.tells_forks() {
            return Ok(true);
        }
        if !area.inherited {
            // Ours, then, if a part was: what an area grows by in place is like the rest of it.
            if areas.withheld.overlaps(area.pages) {
                areas.withheld.add(area.pages)?;
            }
            return Ok(true);
        }
        areas.withheld.add(area.pages)?;
        let kept = self.mm.set_inherited(area.pages, false);
        let same = !self.mm.changing();
        if same && kept.is_ok() {
            return Ok(true);
        }
        // By now the addresses may be others'.
        let undone = self.mm.set_inherited(area.pages, true);
        areas.withheld.remove(area.pages)?;
        match (kept, undone) {
            (Err(errno), _) if same => Err(StayCause::System(errno)),
            _ => Ok(false),
        }
    }

    /// Lets children have all that was kept from them, for good. Nothing is away, nor goes.
    pub(crate) fn give_to_children(&self, signals: &SignalsBlocked) -> Result<(), Errno> {
        let mut areas = self.gate.alone(signals);
        self.inherit_withheld(&areas)?;
        areas.withheld.clear();
        Ok(())
    }

    /// Lets children have all that is kept from them.
    pub(crate) fn inherit_withheld(&self, areas: &Areas) -> Result<(), Errno> {
        areas.withheld.iter().try_for_each(|pages| self.set_areas_inherited(pages, true))
    }

    /// Says of whole areas, what they have grown by among it, whether children have them.
    pub(crate) fn set_areas_inherited(
        &self,
        pages: PageRange,
        inherited: bool,
    ) -> Result<(), Errno> {
        let mut next = pages.start();
        while next < pages.end() {
            let mapping = self.mm.mapping_at(next)?;
            let part = mapping.map_or(PageRange::new(next, pages.end()), |found| found.pages);
            match self.mm.set_inherited(part, inherited) {
                // What is not mapped any more is told yet.
                Ok(()) | Err(Errno(libc::ENOMEM)) => next = part.end(),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
