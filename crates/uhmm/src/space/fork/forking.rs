//! While libc forks nothing is away, and nothing goes: the child has it all.

use crate::{
    engine::{Areas, Engine},
    engine_memory::{EngineMemoryError, Urgent},
    migrate::ReturnCause,
    mm::Mm,
    report::Migration,
    sync::SignalsBlocked,
    units::{PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
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
