//! A batch of a device's faults is served: block by block, under one lock what of a block can come
//! together, and page by page what is left.

use super::Attachment;
use crate::{
    clock::Began,
    driver::{Device, FaultAccess},
    engine_memory::EngineMemoryError,
    events::DeviceFaultOutcome,
    faults::{FaultBatch, FaultBuffer, FaultFailure, FaultedPage, Replayed, SortedFaults},
    migrate::{Faulted, Found, Pull},
    mm::{Access, Mm},
    policy,
    range::{Override, Want},
    report::{Migration, StayCause},
    sync::SignalsBlocked,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

/// How a page that a device missed is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It comes to the device's memory, with neighbours, as by [`Attachment::fault`].
    Migrate,
    /// As [`Migrate`](Self::Migrate); what cannot come is mapped where it is, where that is possible
    /// ([`StayCause::may_be_mapped`]).
    MigrateOrMap,
    /// It is mapped where it is, as by [`Attachment::map`].
    Map,
    /// It comes to the device's memory, and the device alone may access it, as by
    /// [`Attachment::make_exclusive`].
    Exclusive,
}

/// Most entries of a batch, whatever the device's memory.
const MOST: usize = 256;

/// For how many blocks the areas are looked up at once.
const BLOCKS: usize = 8;

/// Pages of a block that come to the device together, and the places of the block's faults in the batch.
#[derive(Clone, Copy)]
struct Together {
    pages: Faulted,
    first: usize,
    end: usize,
}

/// Blocks of which pages are to come.
struct Blocks {
    list: [Together; BLOCKS],
    count: usize,
}

impl Blocks {
    fn new() -> Self {
        let none = Together { pages: Faulted::in_block(BlockNumber(0)), first: 0, end: 0 };
        Self { list: [none; BLOCKS], count: 0 }
    }

    /// Adds a block. Answers whether there is room for another.
    fn add(&mut self, together: Together) -> bool {
        self.list[self.count] = together;
        self.count += 1;
        self.count < BLOCKS
    }
}

/// What of a batch is being served.
struct Serving<'s, 'b> {
    faults: &'s mut SortedFaults<'b>,
    how: &'s dyn Fn(PageNumber, FaultAccess) -> Service,
    /// Where a page's neighbours may come from.
    within: &'s dyn Fn(PageNumber) -> PageRange,
    /// How many frames there are for each page of the batch.
    frames: usize,
    began: Began,
}

impl<D: Device, M: Mm> Attachment<D, M> {
    /// A fault buffer of `entries` entries for `queues` queues of this device. Batches are so small that what
    /// is brought for one does not push out what was brought for another.
    ///
    /// # Errors
    /// [`EngineMemoryError`] where there is no memory for it.
    pub fn fault_buffer(
        &self,
        queues: usize,
        entries: usize,
    ) -> Result<FaultBuffer, EngineMemoryError> {
        let batch = (self.frames() / 8).clamp(1, MOST);
        FaultBuffer::new(self.engine_memory(), self.page_size(), queues, entries, batch)
    }

    /// Serves a batch of this device's faults, and has its queues go on: what the device has by now
    /// ([`Device::has`]) is left, the rest is brought as `how` says of each page and the strongest access to
    /// it. Where that cannot be had, those that asked for it are cancelled, and the next weaker is tried.
    pub fn serve_faults(
        &self,
        batch: FaultBatch<'_>,
        how: impl Fn(PageNumber, FaultAccess) -> Service,
    ) -> Replayed {
        let all = self.engine().all_pages();
        self.serve_faults_within(batch, how, |_| all)
    }

    /// As [`serve_faults`](Self::serve_faults), but of a page's neighbours those come alone that `within` says
    /// of it: for a device that is not to have others.
    pub fn serve_faults_within(
        &self,
        batch: FaultBatch<'_>,
        how: impl Fn(PageNumber, FaultAccess) -> Service,
        within: impl Fn(PageNumber) -> PageRange,
    ) -> Replayed {
        let mut faults = batch.sort();
        let pages =
            core::iter::successors(faults.page_at(0), |page| faults.page_at(page.faults.end));
        let pages = pages.count();
        let counters = &self.engine().counters;
        counters.fault_batches.add(1);
        counters.faults_merged.add(faults.len() - pages);
        let began = self.engine().recorder.begin();
        let frames = self.frames() / pages.max(1);
        let mut serving =
            Serving { faults: &mut faults, how: &how, within: &within, frames, began };
        let mut blocks = Blocks::new();
        let mut next = 0;
        while let Some(first) = serving.faults.page_at(next) {
            let together = self.serve_block(&mut serving, first.page.block(), next);
            next = together.end;
            if !together.pages.span().is_empty() && !blocks.add(together) {
                self.bring_blocks(&mut serving, &mut blocks);
            }
        }
        self.bring_blocks(&mut serving, &mut blocks);
        let replayed = faults.replay();
        counters.faults_held_back.add(replayed.held_back);
        counters.faults_stale.add(replayed.dropped);
        counters.queues_cancelled.add(replayed.cancelled);
        replayed
    }

    /// Serves the faults on one block, which begin at `first`, but for the pages that are to come to the device
    /// together, which it answers.
    fn serve_block(
        &self,
        serving: &mut Serving<'_, '_>,
        block: BlockNumber,
        first: usize,
    ) -> Together {
        let engine = self.engine();
        let of_block = |faults: &SortedFaults<'_>, place| {
            faults.page_at(place).filter(|page| page.page.block() == block)
        };
        let mut together = Faulted::in_block(block);
        let mut maps = Maps::default();
        let mut next = first;
        while let Some(page) = of_block(serving.faults, next) {
            next = page.faults.end;
            if page.page >= engine.mm.page_limit() {
                let failure = FaultFailure::Stays(StayCause::NoArea);
                serving.faults.failed(page.faults, failure);
                self.count(serving, page.page, page.access, DeviceFaultOutcome::Refused);
            } else if self.device().has(page.page, page.access) {
                engine.counters.faults_stale.add(page.faults.len());
                serving.faults.served(page.faults);
            } else {
                match (serving.how)(page.page, page.access) {
                    Service::Migrate | Service::MigrateOrMap => {
                        self.add_with_neighbours(&mut together, &page, serving);
                    }
                    Service::Map => {
                        if !maps.add(&page) {
                            self.map_together(serving, &mut maps);
                            maps.add(&page);
                        }
                    }
                    Service::Exclusive => self.serve_page(serving, page),
                }
            }
        }
        self.map_together(serving, &mut maps);
        Together { pages: together, first, end: next }
    }

    /// Adds a page to those that come together, and of its neighbours as many as are used to come.
    fn add_with_neighbours(
        &self,
        together: &mut Faulted,
        page: &FaultedPage,
        serving: &Serving<'_, '_>,
    ) {
        let engine = self.engine();
        if !together.wants(page.page)
            && let Some(block) = engine.blocks.get(page.page.block())
        {
            let window = self.state().window(page.page, &block.device_stream, serving.frames);
            together.add_neighbours(window.intersection((serving.within)(page.page)));
        }
        together.add(page.page, page.access.access());
    }

    /// Brings the pages of some blocks: one look at each of their areas, then block by block.
    fn bring_blocks(&self, serving: &mut Serving<'_, '_>, blocks: &mut Blocks) {
        let mut spans = [PageRange::of(PageNumber(0), 0); BLOCKS];
        let mut found = [None; BLOCKS];
        let count = core::mem::take(&mut blocks.count);
        let blocks = &blocks.list[..count];
        for (span, together) in spans.iter_mut().zip(blocks) {
            *span = together.pages.span();
        }
        self.engine().find_areas(&spans[..count], &mut found);
        for (together, found) in blocks.iter().zip(found) {
            self.bring_together(serving, together, found);
        }
    }

    /// Brings pages of a block, and neighbours, to the device: under one lock where there is room for all.
    fn bring_together(
        &self,
        serving: &mut Serving<'_, '_>,
        together: &Together,
        found: Option<Found>,
    ) {
        let (engine, state) = (self.engine(), self.state());
        let Together { pages: together, first, end } = together;
        let why = Pull::Fault(together);
        let mut report = Migration::new(&engine.memory);
        let wanted = together.count(&(0..BLOCK_PAGES));
        if state.free(&SignalsBlocked::new()) >= wanted {
            engine.pull_found(state, together.span(), why, found, &mut report);
        } else {
            // What is evicted for the one may lie among the others.
            for window in together.windows() {
                let found = found.and_then(|found| found.within(window));
                engine.pull_found(state, window, why, found, &mut report);
            }
        }
        let listed: usize = report.causes().map(|stayed| stayed.pages.len()).sum();
        let all_listed = listed == report.stayed();
        let mut next = *first;
        while next < *end
            && let Some(page) = serving.faults.page_at(next)
        {
            next = page.faults.end;
            if !together.has_missed(page.page) {
                continue;
            }
            let stayed = report.causes().any(|stayed| stayed.pages.contains(page.page));
            if stayed || !all_listed {
                // The neighbours are welcome, the page is wanted.
                self.serve_page(serving, page);
            } else {
                self.count(serving, page.page, page.access, DeviceFaultOutcome::Migrated);
                serving.faults.served(page.faults);
            }
        }
    }

    /// Maps pages that lie close to each other where they are.
    fn map_together(&self, serving: &mut Serving<'_, '_>, maps: &mut Maps) {
        let Some(window) = maps.window() else { return };
        let engine = self.engine();
        let report = engine.map_for(self.subscriber(), window, maps.wanted());
        for page in core::mem::take(maps).pages.into_iter().flatten() {
            let failed = report.failures().any(|failure| failure.pages.contains(page.page));
            if failed {
                self.serve_page(serving, page);
            } else {
                self.count(serving, page.page, page.access, DeviceFaultOutcome::Mapped);
                serving.faults.served(page.faults);
            }
        }
    }

    /// Serves the faults on one page alone, from the strongest access on. Those for what cannot be had fail.
    fn serve_page(&self, serving: &mut Serving<'_, '_>, page: FaultedPage) {
        let mut rest = page.faults;
        while !rest.is_empty() {
            let fault = *serving.faults.fault(rest.start);
            let how = (serving.how)(page.page, fault.access);
            let failure = match self.serve_alone(serving, page.page, fault.access, how) {
                Ok(()) => return serving.faults.served(rest),
                Err(failure) => failure,
            };
            // Who cannot read it cannot have it read ahead.
            let weaker = |place: &usize| {
                let access = serving.faults.fault(*place).access;
                access < fault.access && !access.is_hint()
            };
            let end = rest.clone().find(weaker).unwrap_or(rest.end);
            serving.faults.failed(rest.start..end, failure);
            rest.start = end;
        }
    }

    fn serve_alone(
        &self,
        serving: &Serving<'_, '_>,
        page: PageNumber,
        access: FaultAccess,
        how: Service,
    ) -> Result<(), FaultFailure> {
        let (engine, state) = (self.engine(), self.state());
        if how != Service::Map {
            let one = Faulted::on(page, access.access());
            let why = match how {
                Service::Exclusive => Pull::Exclusive,
                _ => Pull::Fault(&one),
            };
            let mut report = Migration::new(&engine.memory);
            engine.pull(state, one.span(), why, &mut report);
            if report.stayed() == 0 {
                self.count(serving, page, access, DeviceFaultOutcome::Migrated);
                return Ok(());
            }
            self.count(serving, page, access, DeviceFaultOutcome::Refused);
            // Where there was no memory to list it, that is why.
            let cause = report.causes().next().map_or(StayCause::NoMemory, |stayed| stayed.cause);
            if how != Service::MigrateOrMap || !cause.may_be_mapped() {
                return Err(FaultFailure::Stays(cause));
            }
        }
        self.map_page(page, access.access()).map_err(FaultFailure::NotMapped)
    }

    fn count(
        &self,
        serving: &Serving<'_, '_>,
        page: PageNumber,
        access: FaultAccess,
        outcome: DeviceFaultOutcome,
    ) {
        self.engine().counters.device_faults.add(1);
        self.tell_fault(serving.began, page, access.access(), outcome);
    }
}

/// Pages that are mapped in one go: of one window.
struct Maps {
    pages: [Option<FaultedPage>; policy::MAP_PAGES],
    wanted: [Override; policy::MAP_PAGES],
    count: usize,
}

impl Default for Maps {
    fn default() -> Self {
        let none = Override { pages: PageRange::of(PageNumber(0), 0), want: Want::Present };
        Self { pages: Default::default(), wanted: [none; policy::MAP_PAGES], count: 0 }
    }
}

impl Maps {
    /// Adds a page behind the others. False where it is not of their window.
    fn add(&mut self, page: &FaultedPage) -> bool {
        let window = window_of(page.page);
        if self.window().is_some_and(|all| all != window) {
            return false;
        }
        self.wanted[self.count] = wanted(page.page, page.access.access());
        self.pages[self.count] = Some(page.clone());
        self.count += 1;
        true
    }

    fn window(&self) -> Option<PageRange> {
        self.pages[0].as_ref().map(|page| window_of(page.page))
    }

    fn wanted(&self) -> &[Override] {
        &self.wanted[..self.count]
    }
}

/// The pages that are mapped with one, if they are there.
pub(super) fn window_of(page: PageNumber) -> PageRange {
    let places = policy::aligned_around(page.in_block(), policy::MAP_PAGES);
    PageRange::of(page.block().first_page().plus(places.start), places.len())
}

/// What is wanted of a page that is to be mapped.
pub(super) fn wanted(page: PageNumber, access: Access) -> Override {
    let want = match access {
        Access::Read => Want::Read,
        Access::Write => Want::Write,
    };
    Override { pages: PageRange::of(page, 1), want }
}
