//! The range fault itself: a loop over blocks, and three steps for each.

use core::ops::Range;

use super::{Override, PageEntry, PageState, RangeFaultError, RangeReport, Request, Want};
use crate::{
    block::{Block, Fault, Hint, Residence},
    device::FrameRun,
    driver::{DeviceIndex, Entries, Export, FrameNumber, Translation},
    engine::{Areas, Engine, Locked, Mappable, Permitted, ServeFaults},
    engine_memory::EngineMemory,
    events::What,
    migrate::{AwayRun, ReturnCause},
    mirror::Subscriber,
    mm::{Access, Backing, Errno, Look, Mapping, Mm, PopulateFailure, Populated, Presence, Stop},
    report::PageError,
    sync::SignalsBlocked,
    units::{AddressRange, HUGE_ORDER, PageNumber, PageRange},
};

/// How many runs of pages that are alike one attempt at a part of a block takes: what its stack has
/// room for.
const RUNS: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };

/// What is told to who asked.
pub(super) struct Answer<'a> {
    memory: &'a EngineMemory,
    report: RangeReport,
    entries: Option<&'a mut [PageEntry]>,
    first: PageNumber,
}

impl<'a> Answer<'a> {
    const fn new(
        memory: &'a EngineMemory,
        first: PageNumber,
        entries: Option<&'a mut [PageEntry]>,
    ) -> Self {
        Self { memory, report: RangeReport::new(), entries, first }
    }

    fn tell(&mut self, pages: PageRange, entry: PageEntry) {
        if let Some(entries) = &mut self.entries {
            entries[pages.start().since(self.first)..pages.end().since(self.first)].fill(entry);
        }
    }

    pub(super) fn entered(&mut self, pages: PageRange, entry: PageEntry) {
        self.report.add_entered(pages.len());
        self.tell(pages, entry);
    }

    fn absent(&mut self, pages: PageRange) {
        self.report.add_absent(pages.len());
        self.tell(pages, PageEntry::default());
    }

    pub(super) fn failed(&mut self, pages: PageRange, error: PageError) {
        if !pages.is_empty() {
            self.report.add_failed(pages, error, self.memory);
            self.tell(pages, PageEntry { state: PageState::Error(error), ..Default::default() });
        }
    }
}

/// How an attempt at some pages ended.
pub(super) enum Step {
    /// So many pages from the first on are dealt with.
    Dealt(usize),
    /// What was found is not so any more: look anew.
    Anew,
    /// A change of the address space is being applied: wait, and look anew.
    Changing,
}

/// An attempt at pages of one block, in one area, of which the same is wanted.
struct Attempt<'a> {
    who: &'a Subscriber,
    pages: PageRange,
    want: Want,
    mapping: Mapping,
    /// How often changes of protection were told before the mapping was looked up.
    told: u64,
    trapped: bool,
    pins: bool,
}

impl Attempt<'_> {
    const fn access(&self) -> Access {
        match self.want {
            Want::Present | Want::Read => Access::Read,
            Want::Write => Access::Write,
        }
    }

    const fn permitted(&self) -> Permitted {
        Permitted::by(self.mapping.protection)
    }

    /// Whether a page has to be made present, or the process's own, before it can be mapped. Holes
    /// of a trapped area are filled under the lock of their block.
    fn is_missing(&self, presence: Presence) -> bool {
        let absent = match presence.look {
            Look::Hole => !self.trapped,
            Look::Swapped => true,
            Look::Present | Look::PresentHuge | Look::Zero | Look::Poisoned => false,
        };
        match self.want {
            Want::Present => false,
            Want::Read => absent,
            Want::Write => absent || self.may_be_shared(presence),
        }
    }

    /// Whether a page that is there may not be the process's own.
    fn may_be_shared(&self, presence: Presence) -> bool {
        let of_file = presence.file && self.mapping.backing == Backing::PrivateFile;
        presence.look == Look::Zero || of_file || self.pins && presence.look != Look::Hole
    }

    /// Whether that is so of every page, whatever is there.
    fn all_are_missing(&self) -> bool {
        self.want == Want::Write && self.pins && !self.trapped
    }

    const fn order(&self, presence: Presence) -> u8 {
        if self.mapping.page_order > 0 {
            self.mapping.page_order
        } else if matches!(presence.look, Look::PresentHuge) {
            HUGE_ORDER
        } else {
            0
        }
    }
}

/// What was known of protection before an area was looked at.
#[derive(Clone, Copy)]
struct Protections {
    /// How often changes were told.
    told: u64,
    /// Whether nothing was known of the pages.
    clear: bool,
}

/// What was known of an area before it was looked at.
#[derive(Clone, Copy)]
struct Known {
    trapped: bool,
    protection: Protections,
}

/// Pages, as runs that are alike.
struct Runs {
    pages: PageRange,
    list: [(PageRange, Presence); RUNS],
    count: usize,
}

impl Runs {
    fn iter(&self) -> impl Iterator<Item = (PageRange, Presence)> {
        self.list[..self.count].iter().copied()
    }
}

/// The places of pages in their block.
pub(super) fn places(pages: PageRange) -> Range<usize> {
    let first = pages.start().in_block();
    first..first + pages.len()
}

/// How often a page is served for a system call before that fails: it may go to a device again meanwhile.
const SERVED_AT_MOST: usize = 16;

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
        for part in pages.by_block() {
            if answer.entries.is_none() && !request.is_anew() && self.has_all(who, part, request) {
                answer.report.add_held(part.len());
            } else {
                began.get_or_insert_with(|| self.recorder.begin());
                self.fault_part(who, part, request, &mut answer);
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
    ) {
        let mut rest = part;
        let mut watched_until = part.start();
        let mut heeded_until = part.start();
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
                    self.fault_told(who, pages, want, area, &mut heeded_until, answer)
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
    }

    /// One attempt at pages of one block of whose changes we are told, with no lock held: look, make
    /// present, make the device ready, commit.
    fn fault_told(
        &self,
        who: &Subscriber,
        pages: PageRange,
        want: Want,
        known: Known,
        heeded_until: &mut PageNumber,
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
            && self.is_to_be_heeded(mapping.pages, permitted, pages.start() < *heeded_until)
        {
            *heeded_until = mapping.pages.end();
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

/// Enters translations of pages of a block, whose lock is held.
pub(super) fn enter(
    block: &Block,
    who: &Subscriber,
    pages: PageRange,
    translation: Translation,
    entry: PageEntry,
    answer: &mut Answer<'_>,
) {
    block.note_translated(true);
    who.holds.touch(pages.start().block(), entry.write);
    who.table().commit(&Entries { pages, translation, write: entry.write, order: entry.order });
    answer.entered(pages, entry);
}

/// Translations are entered for pages of one block, under its lock, in a section that found them
/// open.
struct Commit<'c, 'v, 'a, 'e, M: Mm> {
    held: &'c mut Locked<'v, M>,
    areas: &'c Areas,
    attempt: &'c Attempt<'a>,
    runs: Runs,
    /// Whether some of the pages are being discarded, and the device would hold on to them.
    discarding: bool,
    /// Of pages in coherent memory: the device, and the frame of a page, the others following.
    coherent: Option<(DeviceIndex, FrameNumber, PageNumber)>,
    /// The page after the last that is dealt with.
    dealt: PageNumber,
    /// Whether all that is dealt with was entered.
    complete: bool,
    answer: &'c mut Answer<'e>,
}

impl<M: Mm> Commit<'_, '_, '_, '_, M> {
    fn enter_all(&mut self, pages: PageRange) -> Step {
        while self.dealt < pages.end() {
            let rest = PageRange::new(self.dealt, pages.end());
            let run = self.held.state().pages.run(&places(rest));
            let part = PageRange::of(self.dealt, run.pages.len());
            let step = match run.residence {
                Residence::System => self.enter_system(part),
                Residence::Mapped { device, frame } => {
                    self.coherent = Some((device, frame, part.start()));
                    let step = self.enter_system(part);
                    self.coherent = None;
                    step
                }
                Residence::Away { device, frame, exclusive }
                    if Some(device) == self.attempt.who.device() =>
                {
                    self.enter_own(part, device, frame, exclusive)
                }
                Residence::Away { device, frame, exclusive } => {
                    let away =
                        AwayRun { pages: run.pages, device, frame, exclusive, mapped: false };
                    self.enter_peer(part, &away)
                }
            };
            match step {
                Step::Dealt(_) => {}
                step => return step,
            }
        }
        Step::Dealt(pages.len())
    }

    fn fail(&mut self, pages: PageRange, error: PageError) {
        self.complete = false;
        self.answer.failed(pages, error);
        self.dealt = pages.end();
    }

    /// Enters translations of `pages`, which follow what is dealt with.
    fn enter(&mut self, pages: PageRange, translation: Translation, entry: PageEntry) {
        enter(self.held.block, self.attempt.who, pages, translation, entry, self.answer);
        self.dealt = pages.end();
    }

    /// How large the frames are that the block's pages are in.
    fn frame_order(&mut self) -> u8 {
        if self.held.is_huge_frame() { HUGE_ORDER } else { 0 }
    }

    /// Pages that the device has in its own memory, or that are on their way there or back.
    fn enter_own(
        &mut self,
        pages: PageRange,
        device: DeviceIndex,
        frame: FrameNumber,
        exclusive: bool,
    ) -> Step {
        let own = self.held.own_translation(self.held.device(device), frame);
        let Some(translation) = own else {
            let away = AwayRun { pages: places(pages), device, frame, exclusive, mapped: false };
            return self.enter_returned(pages, away);
        };
        // What is in a file can have gone from there.
        let there = match translation {
            Translation::Alias { .. } => {
                let engine = self.held.engine;
                let alias = PageRange::of(engine.aliases.page_of(frame), pages.len());
                engine.mm.populate_alias(alias)
            }
            _ => Populated { pages: pages.len(), failure: None },
        };
        let write = self.attempt.permitted().write;
        let order = self.frame_order();
        let state = PageState::Own;
        let entry = PageEntry { state, write, exclusive, order, ..Default::default() };
        let (pages, behind) = (
            PageRange::of(pages.start(), there.pages),
            PageRange::new(pages.start().plus(there.pages), pages.end()),
        );
        if !pages.is_empty() {
            if write {
                let frames = FrameRun { first: frame, frames: pages.len() };
                self.held.device(device).note_writable(frames, self.held.signals);
            }
            self.enter(pages, translation, entry);
        }
        match there.failure {
            Some(failure) => {
                self.fail(PageRange::of(behind.start(), 1), failure.into());
                Step::Dealt(pages.len() + 1)
            }
            None => Step::Dealt(pages.len()),
        }
    }

    /// Pages on another device: mapped there where it lets us, else brought back first.
    fn enter_peer(&mut self, pages: PageRange, away: &AwayRun) -> Step {
        let write = self.attempt.want == Want::Write;
        let asked = self.held.ask_peer(away, self.attempt.who.importer(), write);
        let (pages, asked) = match asked {
            Some((answered, export)) => (answered, Some(export)),
            None => (pages, None),
        };
        let away = AwayRun { pages: places(pages), ..*away };
        match (asked, self.held.pointer_to(away.device, away.frame)) {
            (Some(Export::Map), Some(memory)) => {
                let state = PageState::Peer(away.device);
                let order = self.frame_order();
                let entry = PageEntry { state, write, order, ..Default::default() };
                let engine = self.held.engine;
                engine.counters.mapped_from_peer.add(pages.len());
                engine.view.note_mapped(self.held.number, self.attempt.who.importer().device);
                let translation = if away.frame.is_shared() {
                    Translation::Alias { memory }
                } else {
                    Translation::Peer { device: away.device, memory }
                };
                self.enter(pages, translation, entry);
                Step::Dealt(pages.len())
            }
            (Some(Export::Refuse), _) => {
                self.fail(pages, PageError::PeerRefuses);
                Step::Dealt(pages.len())
            }
            (Some(Export::Map | Export::SystemMemory) | None, _) => {
                self.enter_returned(pages, away)
            }
        }
    }

    /// Pages that are away and come back first.
    fn enter_returned(&mut self, pages: PageRange, away: AwayRun) -> Step {
        let write = self.attempt.want == Want::Write;
        let device = self.held.device(away.device);
        let done = self.held.bring_back(away, ReturnCause::Coherence, self.areas);
        if (write || device.is_lost()) && done.pages > 0 {
            // They are there, and may be the page of zeros, or shared with a child; or there are
            // marks in their place.
            return Step::Anew;
        }
        if done.pages > 0 {
            self.enter_in_place(
                PageRange::of(pages.start(), done.pages),
                Presence { look: Look::Present, file: false },
            );
        }
        match done.obstacle {
            None => Step::Dealt(done.pages),
            Some(obstacle) if obstacle.is_change() => Step::Changing,
            Some(obstacle) => {
                let next = PageRange::of(pages.start().plus(done.pages), 1);
                self.fail(next, obstacle.into());
                Step::Dealt(done.pages + 1)
            }
        }
    }

    /// Pages in system memory, or nowhere yet.
    fn enter_system(&mut self, pages: PageRange) -> Step {
        for index in 0..self.runs.count {
            let (run, presence) = self.runs.list[index];
            let run = run.intersection(pages);
            if run.is_empty() {
                continue;
            }
            match presence.look {
                Look::Poisoned => self.fail(run, PageError::Poisoned),
                Look::Hole if self.attempt.want == Want::Present => {
                    self.complete = false;
                    self.answer.absent(run);
                    self.dealt = run.end();
                }
                Look::Hole if self.attempt.trapped => match self.fill(run) {
                    Step::Dealt(_) => {}
                    step => return step,
                },
                // It was there a moment ago; who holds on to pages needs it to be there now.
                Look::Hole if self.attempt.pins => return Step::Anew,
                Look::Hole | Look::Swapped => {
                    self.enter_in_place(run, Presence { look: Look::Present, ..presence });
                }
                _ if self.discarding => self.fail(run, PageError::Discarded),
                _ => self.enter_in_place(run, presence),
            }
        }
        Step::Dealt(pages.len())
    }

    /// Fills holes of a trapped area, as the first touch of each would.
    fn fill(&mut self, holes: PageRange) -> Step {
        let access = self.attempt.access();
        let mut rest = holes;
        while !rest.is_empty() {
            let done = self.held.engine.mm.zero(rest.start(), rest.len(), access);
            let filled = PageRange::of(rest.start(), done.pages);
            if !filled.is_empty() {
                // Nothing was there, so no frame is any more.
                self.held.replaced(places(filled));
                self.coherent = None;
                let look = match access {
                    Access::Read => Look::Zero,
                    Access::Write => Look::Present,
                };
                self.enter_in_place(filled, Presence { look, file: false });
            }
            let next = PageRange::new(filled.end(), rest.end());
            let (one, behind) =
                (PageRange::of(next.start(), 1), PageRange::new(next.start().plus(1), next.end()));
            rest = match done.stop {
                None => next,
                Some(Stop::Changing | Stop::NoArea) => return Step::Changing,
                Some(Stop::Present) => {
                    // A thread of the program was faster.
                    self.enter_in_place(one, Presence { look: Look::Present, file: false });
                    behind
                }
                Some(stop) => {
                    // The file of shared memory has been cut short.
                    let beyond = stop == Stop::Other(Errno(libc::EFAULT));
                    self.fail(one, if beyond { PageError::BeyondEnd } else { stop.into() });
                    behind
                }
            };
        }
        Step::Dealt(holes.len())
    }

    fn enter_in_place(&mut self, pages: PageRange, presence: Presence) {
        let zero = presence.look == Look::Zero;
        let write = self.attempt.want == Want::Write && !zero;
        let entry = PageEntry {
            state: PageState::InPlace,
            write,
            zero,
            exclusive: false,
            coherent: self.coherent.map(|(device, ..)| device),
            order: self.attempt.order(presence),
        };
        let engine = self.held.engine;
        engine.counters.mapped_in_place.add(pages.len());
        engine.view.note_mapped(self.held.number, self.attempt.who.importer().device);
        let translation = match self.coherent {
            Some((device, frame, first)) if Some(device) == self.attempt.who.device() => {
                let frame = frame.plus(pages.start().since(first)).0 as usize;
                Translation::Coherent { frame }
            }
            _ => Translation::InPlace { zero },
        };
        self.enter(pages, translation, entry);
    }
}
