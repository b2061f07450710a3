//! The seam, as the core sees it.

use core::{ops::ControlFlow, ptr::NonNull, time::Duration};

use super::{
    BAD_ADDRESS, INVALID, Model, NO_MEMORY, Shared, State,
    areas::{Attributes, Span},
    pages::PageState,
    world,
};
use crate::{
    mm::{
        Access, Accessor, AccessorNumber, Area, Backing, Child, Done, Errno, Exclusion, Look,
        Mapping, Message, Mm, PopulateFailure, Populated, Presence, Refused, TrapError, Width,
    },
    units::{BLOCK_PAGES, NumaNode, PageNumber, PageRange, PageSize},
};

impl Model {
    /// Registers `pages`, all of them or none.
    fn register(
        &self,
        pages: PageRange,
        takes: impl Fn(&Attributes) -> bool,
        change: impl FnMut(&mut Attributes),
    ) -> Result<(), TrapError> {
        self.check(pages).map_err(|errno| TrapError::Other(pages, errno))?;
        let mut held = self.held();
        if let Some(gap) = held.areas.gap_in(pages) {
            return Err(TrapError::NoArea(gap));
        }
        for area in held.areas.overlapping(pages) {
            let part = area.pages.intersection(pages);
            if !takes(&area.attributes) {
                return Err(TrapError::Unsupported(part));
            }
            if area.attributes.foreign {
                return Err(TrapError::Foreign(part));
            }
        }
        held.change(pages, change);
        Ok(())
    }

    /// Makes one page present.
    fn populate_page(&self, page: PageNumber, access: Access) -> Result<(), PopulateFailure> {
        let area = self.held().areas.at(page).copied().ok_or(PopulateFailure::NoArea)?;
        if area.attributes.backing == Backing::Special {
            return Err(PopulateFailure::Special);
        }
        // Stricter than an access, which the processor lets pass where stores or execution are
        // allowed.
        if access == Access::Read && !area.attributes.protection.read {
            return Err(PopulateFailure::Protection);
        }
        self.fault_in(page, access).map(drop)
    }
}

impl Mm for Model {
    fn page_size(&self) -> PageSize {
        self.shared.page_size
    }

    fn page_limit(&self) -> PageNumber {
        self.shared.program.end()
    }

    fn memory_pages(&self) -> usize {
        // Of memory without a bound no share is worth keeping.
        0
    }

    fn pages_available(&self, _: Option<NumaNode>) -> Option<usize> {
        // What there is not is refused.
        None
    }

    fn keeps(&self, _pages: PageRange) -> bool {
        false
    }

    fn serves_system_calls(&self) -> bool {
        true
    }

    fn areas(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let mut next = within.start();
        while next < within.end() {
            // One area at a time, as the kernel answers: the table can change in between, and the
            // visitor may call the model.
            let area = self.held().areas.describe_from(next);
            let Some(mut area) = area.filter(|area| area.pages.start() < within.end()) else {
                break;
            };
            area.huge &= self.shared.huge_pages;
            next = area.pages.end();
            if visit(&area).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn exclusions(
        &self,
        all: bool,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno> {
        let exclusions = self.held().exclusions.clone();
        for (pages, exclusion) in exclusions {
            if all || exclusion == Exclusion::ThreadControlBlock {
                visit(pages, exclusion);
            }
        }
        Ok(())
    }

    fn trap(&self, pages: PageRange) -> Result<(), TrapError> {
        self.register(pages, Attributes::trappable, |area| {
            (area.trapped, area.watched) = (true, false);
        })
    }

    fn untrap(&self, pages: PageRange) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        if held.areas.overlapping(pages).any(|area| area.attributes.foreign) {
            return Err(INVALID);
        }
        held.change(pages, |area| (area.trapped, area.watched) = (false, false));
        self.wake_waiters(&mut held, pages);
        Ok(())
    }

    fn mapping_at(&self, page: PageNumber) -> Result<Option<Mapping>, Errno> {
        let held = self.held();
        Ok(held.areas.at(page).map(|Span { pages, attributes }| attributes.mapping(*pages)))
    }

    fn area_from(&self, page: PageNumber) -> Result<Option<PageRange>, Errno> {
        Ok(self.held().areas.describe_from(page).map(|area| area.pages))
    }

    fn watch(&self, pages: PageRange) -> Result<(), TrapError> {
        let takes = |area: &Attributes| area.backing != Backing::Special;
        self.register(pages, takes, |area| area.watched = !area.trapped)
    }

    fn populate(&self, pages: PageRange, access: Access) -> Populated {
        for (done, page) in pages.pages().enumerate() {
            if let Err(failure) = self.populate_page(page, access) {
                return Populated { pages: done, failure: Some(failure) };
            }
        }
        Populated { pages: pages.len(), failure: None }
    }

    fn scan(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno> {
        let mut next = pages.start();
        while next < pages.end() {
            // A run at a time, as the visitor may call the model.
            let (run, presence) = self.held().run_from(PageRange::new(next, pages.end()));
            next = run.end();
            visit(run, presence);
        }
        Ok(())
    }

    fn may_write(
        &self,
        page: PageNumber,
        pages: usize,
        out: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Errno> {
        for index in 0..pages {
            let may = self.held().is_exclusive(page.plus(index));
            out(index, may);
        }
        Ok(())
    }

    fn take(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(to, pages, |state, done, left| {
            state.step_move(from.plus(done), to.plus(done), left)
        })
    }

    fn give(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(to, pages, |state, done, left| {
            state.step_move(from.plus(done), to.plus(done), left)
        })
    }

    fn copy(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(to, pages, |state, done, _| state.step_copy(from.plus(done), to.plus(done)))
    }

    fn copy_block(&self, from: PageNumber, to: PageNumber) -> Done {
        self.bulk(to, BLOCK_PAGES, |state, done, left| {
            state.step_copy_whole(from.plus(done), to.plus(done), left)
        })
    }

    fn zero_block(&self, to: PageNumber, _: Option<NumaNode>) -> Done {
        self.bulk(to, BLOCK_PAGES, |state, _, _| state.step_zero_whole(to))
    }

    unsafe fn remake_block(&self, to: PageNumber, _: Option<NumaNode>) -> Done {
        let done = self.bulk(to, BLOCK_PAGES, |state, _, _| state.step_remake_whole(to));
        // What it had no memory for is as it was.
        if done.pages == 0 { Done { pages: BLOCK_PAGES, ..done } } else { done }
    }

    fn split_block(&self, _: PageNumber) {
        // What moves of one parts it.
    }

    fn zero(&self, to: PageNumber, pages: usize, access: Access) -> Done {
        self.bulk(to, pages, |state, done, _| state.step_zero(to.plus(done), access))
    }

    fn poison(&self, to: PageNumber, pages: usize) -> Done {
        self.bulk(to, pages, |state, done, _| state.step_poison(to.plus(done)))
    }

    fn wake(&self, pages: PageRange) {
        let mut held = self.held();
        self.wake_waiters(&mut held, pages);
    }

    fn changing(&self) -> bool {
        self.held().messages.changing()
    }

    fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno> {
        let held = self.held();
        for (index, place) in out.iter_mut().enumerate() {
            *place = held.pages.at(start.plus(index)).look();
        }
        Ok(())
    }

    fn unshare(&self, pages: PageRange) -> Result<(), Errno> {
        for page in pages.pages() {
            drop(self.touch(page, Access::Write)?);
        }
        Ok(())
    }

    fn map_staging(&self, pages: usize) -> Result<PageRange, Errno> {
        let mut held = self.held();
        let range = held.areas.room(self.shared.staging, pages, BLOCK_PAGES).ok_or(NO_MEMORY)?;
        held.areas.insert(range, Attributes::staging());
        Ok(range)
    }

    /// The model has one node, with the number 0.
    fn bind_staging(&self, pages: PageRange, node: NumaNode) -> Result<(), Errno> {
        debug_assert!(self.shared.staging.covers(pages), "not staging: {pages}");
        if node == NumaNode(0) { Ok(()) } else { Err(INVALID) }
    }

    unsafe fn unmap_staging(&self, pages: PageRange) {
        let mut held = self.held();
        debug_assert!(self.shared.staging.covers(pages), "not staging: {pages}");
        held.areas.remove(pages);
        for page in pages.pages() {
            held.pages.drop_page(page);
        }
    }

    unsafe fn empty_staging(&self, pages: PageRange) -> Result<(), Errno> {
        let mut held = self.held();
        if !self.shared.staging.covers(pages) || held.areas.gap_in(pages).is_some() {
            return Err(NO_MEMORY);
        }
        for page in pages.pages() {
            held.pages.drop_page(page);
        }
        Ok(())
    }

    fn reserve_addresses(&self, pages: usize) -> Result<PageRange, Errno> {
        let mut held = self.held();
        let range = held.areas.room(self.shared.program, pages, 1).ok_or(NO_MEMORY)?;
        let none = crate::mm::Protection { read: false, write: false, execute: false };
        held.areas.insert(range, Attributes::new(none, Backing::PrivateAnonymous));
        Ok(range)
    }

    unsafe fn release_addresses(&self, pages: PageRange) {
        self.held().areas.remove(pages);
    }

    fn reserve_aliases(&self) -> Result<PageRange, Errno> {
        Ok(self.shared.aliases)
    }

    unsafe fn release_aliases(&self, pages: PageRange) {
        // SAFETY: the caller's promise.
        let _ = unsafe { self.end_alias(pages) };
    }

    unsafe fn alias(&self, pages: PageRange, at: PageNumber) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let area = held.areas.at(pages.start()).copied().ok_or(BAD_ADDRESS)?;
        let one_alias = pages.pages().all(|page| held.pages.alias_of(page).is_none());
        if !area.attributes.shared() || !area.pages.covers(pages) || !one_alias {
            return Err(INVALID);
        }
        for (index, page) in pages.pages().enumerate() {
            held.pages.make_alias(page, at.plus(index));
        }
        if area.attributes.registered() {
            let from = PageRange::of(pages.start(), 0);
            drop(self.tell(held, &[Message::Remapped { from, to: at }]));
        }
        Ok(())
    }

    fn is_alias(&self, pages: PageRange, at: PageNumber) -> Result<bool, Errno> {
        let held = self.held();
        let same = |(index, page)| held.pages.alias_of(page) == Some(at.plus(index));
        Ok(pages.pages().enumerate().all(same))
    }

    unsafe fn end_alias(&self, pages: PageRange) -> Result<(), Errno> {
        let mut held = self.held();
        for page in pages.pages() {
            held.pages.end_alias(page);
        }
        Ok(())
    }

    fn populate_alias(&self, pages: PageRange) -> Populated {
        let mut held = self.held();
        for (done, alias) in pages.pages().enumerate() {
            if let Err(failure) = held.populate_alias(alias) {
                return Populated { pages: done, failure: Some(failure) };
            }
        }
        Populated { pages: pages.len(), failure: None }
    }

    fn vacate(&self, pages: PageRange, _alias: PageNumber) -> Result<(), Errno> {
        let of_pool =
            self.mapping_at(pages.start())?.is_some_and(|mapping| mapping.backing.is_of_pool());
        if of_pool {
            return Err(INVALID);
        }
        self.held().unmap_of_files(pages);
        Ok(())
    }

    unsafe fn vacate_undisturbed(&self, pages: PageRange) -> Result<(), Errno> {
        let mut held = self.held();
        held.unmap_of_files(pages);
        let registered =
            held.areas.at(pages.start()).is_some_and(|area| area.attributes.registered());
        if registered {
            drop(self.tell(held, &[Message::Discarded(pages)]));
        }
        Ok(())
    }

    fn is_alone(&self, _own: usize) -> Result<bool, Errno> {
        Ok(self.held().alone)
    }

    unsafe fn set_aside(&self, pages: PageRange) -> Result<PageRange, Errno> {
        self.move_aside(pages)
    }

    unsafe fn put_back(&self, from: PageNumber, to: PageRange) -> Result<(), Errno> {
        self.move_back(from, to);
        Ok(())
    }

    unsafe fn end_aside(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: what lies aside is where staging is, and ends as that does.
        unsafe { self.unmap_staging(pages) };
        Ok(())
    }

    unsafe fn make_anonymous(&self, pages: PageRange) -> Result<(), Errno> {
        self.copy_over(pages)
    }

    fn staging_pointer(&self, page: PageNumber) -> NonNull<u8> {
        let Shared { staging, aliases, .. } = &*self.shared;
        assert!(staging.contains(page) || aliases.contains(page), "not staging: {page:?}");
        self.shared.bytes.pointer(page)
    }

    /// Under the schedule explorer and the interpreter a timeout is over as soon as others ran
    /// once.
    fn wait(&self, timeout: Option<Duration>) {
        let mut held = self.held();
        let Some(timeout) = timeout else {
            while !held.messages.readable() && !held.messages.take_kick() {
                held = self.let_go(held);
            }
            return;
        };
        let shared = &self.shared;
        let mut held =
            world::wait_at_most(&shared.changed, &shared.state, held, timeout, |state| {
                !state.messages.readable() && !state.messages.kicked()
            });
        if !held.messages.readable() {
            held.messages.take_kick();
        }
    }

    fn readable(&self) -> bool {
        self.held().messages.readable()
    }

    fn read(&self, out: &mut [Message]) -> usize {
        let mut held = self.held();
        let refused = !out.is_empty() && held.messages.refuse(|_| true);
        let count = held.messages.read(out);
        if refused || count > 0 {
            self.shared.changed.notify_all();
        }
        count
    }

    fn kick(&self) {
        self.held().messages.kick();
        self.shared.changed.notify_all();
    }

    fn tells_forks(&self) -> bool {
        self.shared.tells_forks
    }

    fn forks_under_way(&self) -> bool {
        self.held().forks_under_way > 0
    }

    // What is not trapped is not told.
    fn tell_forks(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn stop_telling_forks(&self) {}

    fn end_forks(&self) {}

    fn set_inherited(&self, pages: PageRange, inherited: bool) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        held.change(pages, |area| area.inherited = inherited);
        held.areas.gap_in(pages).map_or(Ok(()), |_| Err(NO_MEMORY))
    }

    unsafe fn copy_to_child(
        &self,
        child: Child,
        from: PageNumber,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        self.fill_child(child, Some(from), to, pages)
    }

    unsafe fn poison_in_child(&self, child: Child, to: PageNumber, pages: usize) -> Done {
        self.fill_child(child, None, to, pages)
    }

    unsafe fn end_child(&self, child: Child) {
        self.let_child_go(child);
    }

    fn open_accessor(&self) -> Result<Accessor, Errno> {
        let mut held = self.held();
        held.accessors += 1;
        Ok(Accessor::new(AccessorNumber(held.accessors)))
    }

    fn renew_accessor(&self, _: &Accessor) -> Result<(), Errno> {
        // No program of the model has handlers.
        Ok(())
    }

    fn close_accessor(&self, accessor: Accessor) {
        accessor.into_number();
    }

    fn refuse(&self, accessor: AccessorNumber) {
        if self.held().messages.refuse(|other| other == accessor) {
            self.shared.changed.notify_all();
        }
    }

    unsafe fn load_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
    ) -> Result<u64, Refused> {
        self.change_in_place(accessor, address, width, Access::Read, |_| None)
    }

    unsafe fn store_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<(), Refused> {
        self.change_in_place(accessor, address, width, Access::Write, |_| Some(value)).map(drop)
    }

    unsafe fn compare_exchange_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let expected = width.part_of(expected);
        let before = self.change_in_place(accessor, address, width, Access::Write, |before| {
            (before == expected).then_some(new)
        })?;
        Ok(if before == expected { Ok(before) } else { Err(before) })
    }

    unsafe fn fetch_add_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<u64, Refused> {
        self.change_in_place(accessor, address, width, Access::Write, |before| {
            Some(before.wrapping_add(value))
        })
    }

    unsafe fn copy_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let address = self.address_in_place(address);
        self.load_for(Some(accessor.number()), address, out).map_err(|_signal| Refused)
    }

    unsafe fn write_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        let address = self.address_in_place(address);
        self.store_for(Some(accessor.number()), address, bytes).map_err(|_signal| Refused)
    }
}

impl State {
    /// Ends the mappings of pages of shared memory that are there.
    fn unmap_of_files(&mut self, pages: PageRange) {
        for page in pages.pages() {
            let shared = self.areas.at(page).is_some_and(|area| area.attributes.shared());
            if shared && matches!(self.pages.at(page), PageState::Own { .. }) {
                self.pages.unmap_of_file(page);
            }
        }
    }

    /// Has the file have the page that a page of an alias shows.
    pub(super) fn populate_alias(&mut self, alias: PageNumber) -> Result<(), PopulateFailure> {
        let Some(page) = self.pages.page_of_alias(alias) else { return Ok(()) };
        match self.areas.at(page).copied() {
            Some(area) if self.ends_before(&area.attributes, page) => {
                Err(PopulateFailure::BeyondEnd)
            }
            _ if self.pages.at(page) != PageState::Hole || self.pages.is_in_file(page) => Ok(()),
            _ if !self.pages.room() => Err(PopulateFailure::NoMemory),
            _ => {
                self.pages.add_to_file(page);
                Ok(())
            }
        }
    }

    /// What is at a page.
    fn presence(&self, page: PageNumber) -> Presence {
        let state = self.pages.at(page);
        let shared = self.areas.at(page).is_some_and(|area| area.attributes.shared());
        let file = state == PageState::Cached || matches!(state, PageState::Own { .. }) && shared;
        Presence { look: state.look(), file }
    }

    /// The first pages of `pages`, which has some, that are alike.
    fn run_from(&self, pages: PageRange) -> (PageRange, Presence) {
        let presence = self.presence(pages.start());
        let alike = pages.pages().take_while(|&page| self.presence(page) == presence).count();
        (PageRange::of(pages.start(), alike), presence)
    }

    /// Whether a page is of this process alone.
    fn is_exclusive(&self, page: PageNumber) -> bool {
        matches!(self.pages.at(page), PageState::Own { shared: false, .. })
            && !self.presence(page).file
    }
}
