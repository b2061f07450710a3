//! The range fault itself: a loop over blocks, and three steps for each.

use super::{
    Override, PageEntry, RangeFaultError, RangeReport, Request, Want,
    answer::Answer,
    attempt::{Attempt, Known, Protections, RUNS, Runs},
    commit::{Commit, Step, places},
};
use crate::{
    block::{Block, Fault, Hint},
    engine::{Engine, Mappable, Permitted, ServeFaults},
    events::What,
    mirror::Subscriber,
    mm::{Access, Backing, Errno, Mm, PopulateFailure, Presence},
    report::PageError,
    sync::SignalsBlocked,
    units::{AddressRange, PageNumber, PageRange},
};

/// How often a page is served for a system call before that fails: it may go to a device again meanwhile.
const SERVED_AT_MOST: usize = 16;

/// Of what areas permit was heeded on the way through a part: translations that it forbids have ended.
struct Heeded {
    /// Up to where.
    until: PageNumber,
    /// Whether translations of pages may have ended that precede where it was met.
    before: bool,
}

impl<M: Mm> Engine<M> {
    /// The pages of a range that is within a subscription, one entry for each if there are entries.
    pub(super) fn pages_for(
        &self,
        who: &Subscriber,
        range: AddressRange,
        entries: Option<usize>,
    ) -> Result<PageRange, RangeFaultError> {
        let pages = range.pages(self.mm.page_size())?;
        if !who.pages.covers(pages) {
            return Err(RangeFaultError::Outside { range, mirror: who.pages });
        }
        match entries {
            Some(entries) if entries != pages.len() => {
                Err(RangeFaultError::Entries { entries, pages: pages.len() })
            }
            _ => Ok(pages),
        }
    }

    /// Makes a range accessible to a subscription's device.
    pub(crate) fn range_fault(
        &self,
        who: &Subscriber,
        request: &Request<'_>,
        entries: Option<&mut [PageEntry]>,
    ) -> Result<RangeReport, RangeFaultError> {
        let pages = self.pages_for(who, request.range(), entries.as_deref().map(<[_]>::len))?;
        let mut answer = Answer::new(&self.memory, pages.start(), entries);
        self.counters.range_faults.add(1);
        self.gate.settle();
        let mut began = None;
        let mut parts = pages.by_block();
        let mut looks_for_held = answer.entries.is_none() && !request.is_anew();
        while let Some(part) = parts.next() {
            if looks_for_held && self.has_all(who, part, request) {
                answer.report.add_held(part.len());
                continue;
            }
            began.get_or_insert_with(|| self.recorder.begin());
            let heeded = self.fault_part(who, part, request, &mut answer);
            if heeded.before && answer.report.held() > 0 {
                // What was found held may have ended for that, so all is entered anew.
                looks_for_held = false;
                answer.report = RangeReport::new();
                parts = pages.by_block();
            }
        }
        if let Some(began) = began {
            let what = What::RangeFault { device: who.importer().device };
            self.recorder.tell(began, pages, what);
        }
        Ok(answer.report)
    }

    /// Enters translations of what is wanted, and of those pages around it that are there, whatever the
    /// device is believed to have. What is wanted and cannot be had is in the report. The window is below
    /// the limit of pages.
    pub(crate) fn map_for(
        &self,
        who: &Subscriber,
        window: PageRange,
        wanted: &[Override],
    ) -> RangeReport {
        let Ok(range) = AddressRange::of_pages(window, self.mm.page_size()) else {
            return RangeReport::new();
        };
        let request = Request::present(range).overriding(wanted);
        let mut answer = Answer::new(&self.memory, window.start(), None);
        self.gate.settle();
        for part in window.by_block() {
            self.fault_part(who, part, &request, &mut answer);
        }
        answer.report
    }

    /// Whether the device has translations of all of `part`, as good as is asked.
    fn has_all(&self, who: &Subscriber, part: PageRange, request: &Request<'_>) -> bool {
        let number = part.start().block();
        self.blocks.get(number).is_some_and(|block| {
            let write = request.most(part) == Want::Write;
            who.holds.covers(number, &places(part), write, || block.hint().generation)
        })
    }

    fn fault_part(
        &self,
        who: &Subscriber,
        part: PageRange,
        request: &Request<'_>,
        answer: &mut Answer<'_>,
    ) -> Heeded {
        let mut rest = part;
        let mut watched_until = part.start();
        let mut heeded = Heeded { until: part.start(), before: false };
        while !rest.is_empty() {
            let openings = self.gate.openings();
            let (leading, mappable, discarding, protection) = {
                let signals = SignalsBlocked::new();
                let areas = self.gate.share(&signals);
                let (leading, mappable) = areas.mappable(rest);
                let protection = Protections {
                    told: areas.restricted.told(),
                    clear: areas.restricted.is_clear(leading),
                };
                (leading, mappable, areas.discarding.overlaps(leading), protection)
            };
            let step = match mappable {
                Mappable::Told { trapped } => {
                    let (pages, want) = request.leading(leading);
                    if discarding {
                        // What is made present here is not what the program discards.
                        self.see_discarded(pages);
                    }
                    let area = Known { trapped, protection };
                    self.fault_told(who, pages, want, area, &mut heeded, answer)
                }
                Mappable::Reserved => {
                    let (pages, want) = request.leading(leading);
                    self.fault_reserved(who, pages, want, answer)
                }
                Mappable::Changing => Step::Changing,
                Mappable::Closed => {
                    answer.failed(leading, PageError::Closed);
                    Step::Dealt(leading.len())
                }
                Mappable::Untold if leading.start() >= watched_until => {
                    let (tried, error) = self.watch(leading);
                    watched_until = tried.end();
                    match error {
                        None => Step::Anew,
                        Some(error) => {
                            answer.failed(tried, error);
                            Step::Dealt(tried.len())
                        }
                    }
                }
                // It was watched a moment ago and is gone: an unmapping was faster.
                Mappable::Untold => {
                    answer.failed(leading, PageError::NoArea);
                    Step::Dealt(leading.len())
                }
            };
            match step {
                Step::Dealt(pages) => rest = PageRange::new(rest.start().plus(pages), rest.end()),
                Step::Anew => {}
                Step::Changing => {
                    self.counters.commits_retried.add(1);
                    self.gate.wait_opened(openings);
                }
            }
        }
        heeded
    }

    /// One attempt at pages of one block of whose changes we are told, with no lock held: look, make
    /// present, make the device ready, commit.
    fn fault_told(
        &self,
        who: &Subscriber,
        pages: PageRange,
        want: Want,
        known: Known,
        heeded: &mut Heeded,
        answer: &mut Answer<'_>,
    ) -> Step {
        let mut fail = |pages: PageRange, error| {
            answer.failed(pages, error);
            Step::Dealt(pages.len())
        };
        let mapping = match self.mm.mapping_at(pages.start()) {
            Ok(Some(mapping)) => mapping,
            // What was told of is gone, and the message is on its way.
            Ok(None) => return fail(PageRange::of(pages.start(), 1), PageError::NoArea),
            Err(errno) => return fail(pages, PageError::System(errno)),
        };
        let pages = pages.intersection(mapping.pages);
        if mapping.backing == Backing::Special {
            return fail(pages, PageError::Special);
        }
        let permitted = Permitted::by(mapping.protection);
        let Known { trapped, protection } = known;
        if !(protection.clear && permitted.read && permitted.write)
            && self.is_to_be_heeded(mapping.pages, permitted, pages.start() < heeded.until)
        {
            heeded.until = mapping.pages.end();
            heeded.before |= mapping.pages.start() < pages.start();
            self.heed(pages);
            return Step::Anew;
        }
        if !permitted.read || want == Want::Write && !permitted.write {
            return fail(pages, PageError::Protection);
        }
        let number = pages.start().block();
        if self.blocks.make(pages).and_then(|()| who.holds.prepare(number)).is_err() {
            return fail(pages, PageError::NoMemory);
        }
        let Some(block) = self.blocks.get(number) else {
            return fail(pages, PageError::NoMemory);
        };
        let pins = who.table().pins();
        let told = protection.told;
        let mut attempt = Attempt { who, pages, want, mapping, told, trapped, pins };
        let hint = block.hint();
        let mut seen = None;
        let (populated, stopped) = if attempt.all_are_missing() {
            (true, self.populate(&attempt, pages))
        } else {
            match self.runs(pages) {
                Ok(runs) => {
                    attempt.pages = runs.pages;
                    self.populate_missing(&attempt, seen.insert(runs))
                }
                Err(error) => return fail(pages, error),
            }
        };
        if let Some((page, error)) = stopped {
            if page == pages.start() {
                return fail(PageRange::of(page, 1), error);
            }
            // What precedes goes on; the page is met again, as the first.
            attempt.pages = PageRange::new(pages.start(), page);
        }
        let runs = match seen {
            Some(runs) if !populated => runs,
            _ => match self.runs(attempt.pages) {
                Ok(runs) => runs,
                Err(error) => return fail(attempt.pages, error),
            },
        };
        attempt.pages = runs.pages;
        if let Err(error) = who.table().prepare(attempt.pages, attempt.access()) {
            return fail(attempt.pages, error.into());
        }
        self.commit(&attempt, block, hint, runs, answer)
    }

    /// Whether what is permitted in an area is to be heeded before anything is entered: where more is
    /// than is known, and where less is, once.
    fn is_to_be_heeded(&self, area: PageRange, permitted: Permitted, heeded: bool) -> bool {
        let signals = SignalsBlocked::new();
        let restricted = &self.gate.share(&signals).restricted;
        !heeded && !restricted.knows(area, permitted) || !restricted.allows(area, permitted)
    }

    /// Looks at the pages, as many from the first on as there is room for.
    fn runs(&self, pages: PageRange) -> Result<Runs, PageError> {
        let empty = (PageRange::of(pages.start(), 0), Presence::default());
        let mut found = Runs { pages, list: [empty; RUNS], count: 0 };
        self.mm
            .scan(pages, &mut |run, presence| {
                if let Some(place) = found.list.get_mut(found.count) {
                    *place = (run, presence);
                    found.count += 1;
                } else {
                    let end = found.pages.end().min(run.start());
                    found.pages = PageRange::new(pages.start(), end);
                }
            })
            .map_err(PageError::System)?;
        Ok(found)
    }

    /// Makes present what is missing. Answers whether there was any, and where and why it ended
    /// early.
    fn populate_missing(
        &self,
        attempt: &Attempt<'_>,
        runs: &Runs,
    ) -> (bool, Option<(PageNumber, PageError)>) {
        let mut any = false;
        for (run, presence) in runs.iter() {
            let run = run.intersection(attempt.pages);
            if run.is_empty() || !attempt.is_missing(presence) {
                continue;
            }
            any = true;
            let stopped = self.populate(attempt, run);
            if stopped.is_some() {
                return (any, stopped);
            }
        }
        (any, None)
    }

    /// Makes `pages` present. Answers where and why it ended early.
    fn populate(&self, attempt: &Attempt<'_>, pages: PageRange) -> Option<(PageNumber, PageError)> {
        let mut rest = pages;
        let mut left = SERVED_AT_MOST;
        loop {
            let done = self.mm.populate(rest, attempt.access());
            let failure = done.failure?;
            let page = rest.start().plus(done.pages);
            if done.pages > 0 {
                left = SERVED_AT_MOST;
            }
            let faulted = failure == PopulateFailure::Other(Errno(libc::EFAULT));
            // What an area has grown by in place is trapped with it, though we do not know.
            let unserved = faulted && !self.mm.serves_system_calls();
            if !unserved || left == 0 || !self.serve_here(page, attempt.access()) {
                return Some((page, failure.into()));
            }
            left -= 1;
            rest = PageRange::new(page, rest.end());
        }
    }

    /// Serves the fault of a system call of this thread on a trapped page, where such do not come to us.
    /// Answers false where it cannot.
    fn serve_here(&self, page: PageNumber, access: Access) -> bool {
        let openings = self.gate.openings();
        let served = {
            let signals = SignalsBlocked::new();
            let Ok(mut visit) = self.visit(&signals) else { return false };
            let number = page.block();
            let Some(block) = self.blocks.get(number) else { return false };
            // It is in no queue, where a thread's newer fault takes the place of the older.
            let began = self.recorder.begin();
            let fault = Fault { page, access, thread: 0, read: 0, began };
            visit.lock(block, number).serve(fault)
        };
        if !served {
            self.gate.wait_opened(openings);
        }
        true
    }

    /// Enters translations under the lock of their block.
    fn commit(
        &self,
        attempt: &Attempt<'_>,
        block: &Block,
        hint: Hint,
        runs: Runs,
        answer: &mut Answer<'_>,
    ) -> Step {
        let pages = attempt.pages;
        let number = pages.start().block();
        let signals = SignalsBlocked::new();
        let Ok(mut visit) = self.visit(&signals) else {
            answer.failed(pages, PageError::NoMemory);
            return Step::Dealt(pages.len());
        };
        // Let go of after the section: whoever lets go serves parked faults, and enters the gate.
        let mut held = visit.lock(block, number);
        let section = self.gate.share(&signals);
        let told = Mappable::Told { trapped: attempt.trapped };
        if section.mappable(pages) != (pages, told) {
            return if section.is_closed(pages) { Step::Changing } else { Step::Anew };
        }
        let restricted = &section.restricted;
        if restricted.told() != attempt.told || !restricted.allows(pages, attempt.permitted()) {
            return Step::Anew;
        }
        let runs = if block.hint().generation == hint.generation {
            runs
        } else {
            let runs = match self.runs(pages) {
                Ok(runs) => runs,
                Err(error) => {
                    answer.failed(pages, error);
                    return Step::Dealt(pages.len());
                }
            };
            // What came back from a device meanwhile may be the page of zeros.
            let shared = runs.iter().any(|(_, presence)| attempt.may_be_shared(presence));
            if attempt.want == Want::Write && shared {
                return Step::Anew;
            }
            runs
        };
        let pages = runs.pages;
        let discarding = attempt.pins && section.discarding.overlaps(pages);
        let mut commit = Commit {
            held: &mut held,
            areas: &section,
            attempt,
            runs,
            discarding,
            coherent: None,
            dealt: pages.start(),
            complete: true,
            answer,
        };
        let step = commit.enter_all(pages);
        let entered = PageRange::new(pages.start(), commit.dealt);
        let write = attempt.want == Want::Write;
        if commit.complete && !entered.is_empty() {
            let generation = block.hint().generation;
            attempt.who.holds.record(number, &places(entered), write, generation);
        }
        match step {
            Step::Dealt(_) | Step::Anew | Step::Changing if !entered.is_empty() => {
                Step::Dealt(entered.len())
            }
            step => step,
        }
    }
}
