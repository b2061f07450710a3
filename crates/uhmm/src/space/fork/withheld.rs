//! Where the system does not tell of forks, children do not have what is trapped.
//!
//! A child has an area or has it not: so one that touches what could have been away ends by SIGSEGV,
//! as loud as can be. Areas are kept as a whole, from their trapping on. Keeping only the blocks of
//! which something is away would split areas at each of them, so that the program's own `mremap` of
//! one fails half-way, and would be a call of the system for each block that goes or comes back. What
//! is trapped joins no area that is not trapped anyway, so keeping it splits nothing.
//!
//! While libc forks nothing is away, and children may have it all.

use crate::{
    engine_memory::{EngineMemoryError, Urgent},
    migrate::ReturnCause,
    mm::{Area, Errno, Mm},
    report::{Migration, StayCause},
    space::{Areas, Engine},
    sync::SignalsBlocked,
    units::{PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// Keeps an area, which was trapped just now, from children, unless the program does so itself.
    /// Answers false where it has changed meanwhile; nothing is kept then.
    pub(in crate::space) fn withhold(
        &self,
        areas: &mut Areas,
        area: &Area,
    ) -> Result<bool, StayCause> {
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
    pub(in crate::space) fn give_to_children(&self, signals: &SignalsBlocked) -> Result<(), Errno> {
        let mut areas = self.gate.alone(signals);
        self.inherit_withheld(&areas)?;
        areas.withheld.clear();
        Ok(())
    }

    /// Lets children have all that is kept from them.
    fn inherit_withheld(&self, areas: &Areas) -> Result<(), Errno> {
        areas.withheld.iter().try_for_each(|pages| self.set_areas_inherited(pages, true))
    }

    /// Says of whole areas, what they have grown by among it, whether children have them.
    fn set_areas_inherited(&self, pages: PageRange, inherited: bool) -> Result<(), Errno> {
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

    /// What a fork that is seen before needs: nothing is away, nothing goes until
    /// [`after_fork`](Self::after_fork), and children have everything.
    #[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "libc's hooks are not there"))]
    pub(super) fn before_fork(&self) {
        self.gate.alone(&SignalsBlocked::new()).forking = true;
        self.wait_for_asides();
        let mut report = Migration::new(&self.memory);
        self.bring_everything_back(None, ReturnCause::Fork, &mut report);
        if report.stayed() > 0 {
            crate::abort::abort(
                b"pages that are on a device could not be brought back before a fork: the child \
                  would read zeros",
            );
        }
        let signals = SignalsBlocked::new();
        let areas = self.gate.alone(&signals);
        if self.inherit_withheld(&areas).is_err() {
            crate::abort::abort(b"an area could not be given to a child before a fork (madvise)");
        }
    }

    /// Keeps what was kept before from children again, and lets pages go.
    #[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "libc's hooks are not there"))]
    pub(super) fn after_fork(&self) {
        let _urgent = Urgent::new();
        let mut next = PageNumber(0);
        // What moves meanwhile may move to where this has been.
        let mut since = self.gate.openings();
        loop {
            let openings = self.gate.openings();
            let signals = SignalsBlocked::new();
            let mut areas = self.gate.alone(&signals);
            let Some(range) = areas.withheld.iter().find(|range| range.end() > next) else {
                if self.gate.openings() != since {
                    (next, since) = (PageNumber(0), self.gate.openings());
                    continue;
                }
                areas.forking = false;
                break;
            };
            if !areas.is_closed(range) && !self.mm.changing() {
                let kept = self.set_areas_inherited(range, false);
                if !self.mm.changing() {
                    if kept.is_err() && forget(&mut areas, range).is_err() {
                        crate::abort::abort(
                            b"an area could not be kept from children after a fork (madvise)",
                        );
                    }
                    next = range.end();
                    continue;
                }
                // By now the addresses may be others', which children are to have. Where it fails
                // they have them.
                let _ = self.set_areas_inherited(range, true);
            }
            drop(areas);
            drop(signals);
            self.gate.wait_opened(openings);
        }
        self.gate.tell_opened();
    }
}

/// Counts on an area no more that could not be kept from children: it is trapped anew, or that is
/// refused, before something of it goes away.
fn forget(areas: &mut Areas, pages: PageRange) -> Result<(), EngineMemoryError> {
    areas.withheld.remove(pages)?;
    areas.trapped.remove(pages)
}
