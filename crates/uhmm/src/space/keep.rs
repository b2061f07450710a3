//! Pages that are to stay in system memory whatever is adopted: stacks above all.
//!
//! What is kept is made present, too, and then stays so. The kernel writes to a stack as it delivers a
//! signal, and where faults of system calls do not come to us the signal ends the process if it meets a
//! page that is away, or that was never touched in an area that is trapped. And a thread that works in the
//! engine can step onto such a page of its stack with a lock held that serving the fault needs.

use super::AdoptError;
use crate::{
    block::Fault,
    engine::{Engine, ServeFaults},
    mm::{Access, Mm, PopulateFailure},
    report::{Migration, StayCause},
    sync::{SignalsBlocked, yield_now},
    units::{AddressRange, PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// Has pages stay, brings back what of them is away, and makes them present.
    pub(crate) fn keep(&self, range: AddressRange) -> Result<Migration, AdoptError> {
        let pages = range.pages(self.mm.page_size())?;
        if pages.end() > self.mm.page_limit() {
            return Err(AdoptError::BeyondLimit { range });
        }
        self.gate.settle();
        {
            let signals = SignalsBlocked::new();
            self.gate.alone(&signals).kept.add(pages)?;
        }
        // A commit that found them eligible before looks again, or has ended by now.
        let mut report = self.bring_back_on_request(pages, None);
        self.make_present(pages, &mut report);
        Ok(report)
    }

    /// Makes pages present that are kept. What cannot be is in the report.
    pub(super) fn make_present(&self, pages: PageRange, report: &mut Migration) {
        let mut rest = pages;
        // A page that was served and cannot be populated still is not tried a third time.
        let mut served = None;
        while !rest.is_empty() {
            let area = match self.mm.mapping_at(rest.start()) {
                Ok(Some(area)) if area.protection.write => area.pages.intersection(rest),
                Ok(found) => {
                    let cause = found.map_or(StayCause::NoArea, |_| StayCause::Protection);
                    report.add_stayed(rest, cause);
                    return;
                }
                Err(errno) => return report.add_stayed(rest, StayCause::System(errno)),
            };
            let done = self.mm.populate(area, Access::Write);
            rest = PageRange::new(rest.start().plus(done.pages), rest.end());
            match done.failure {
                None => {}
                // A hole that faults to us is told so.
                Some(PopulateFailure::Other(_)) if served != Some(rest.start()) => {
                    match self.touch(rest.start()) {
                        Ok(true) => served = Some(rest.start()),
                        // The address space is changing.
                        Ok(false) => yield_now(),
                        Err(cause) => return report.add_stayed(rest, cause),
                    }
                }
                Some(failure) => return report.add_stayed(rest, StayCause::of_populate(failure)),
            }
        }
    }

    /// Serves a page as if it had been touched. False where the address space is changing.
    fn touch(&self, page: PageNumber) -> Result<bool, StayCause> {
        let openings = self.gate.openings();
        let number = page.block();
        // It stands in no line, so it needs no thread and no number.
        let began = self.recorder.begin();
        let fault = Fault { page, access: Access::Write, thread: 0, read: 0, began };
        let served = {
            let signals = SignalsBlocked::new();
            let block = self.blocks.get_or_make(number)?.ok_or(StayCause::NoMemory)?;
            let mut visit = self.visit(&signals)?;
            visit.lock(block, number).serve(fault)
        };
        if !served {
            self.gate.wait_opened(openings);
        }
        Ok(served)
    }
}
