//! A system whose calls fail when a test asks for it.
//!
//! It stands between the core and another system, Linux or the model, counts the calls of the seam
//! that can fail, and has chosen ones answer as if the system had refused. What it lets through is the
//! other's.
#![expect(clippy::disallowed_types, reason = "for tests; failures are taken out without freeing")]

use core::{
    ops::ControlFlow,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Access, Accessor, AccessorNumber, Area, Child, Done, Errno, Exclusion, Look, Mapping, Message,
    Mm, PopulateFailure, Populated, Presence, Refused, Stop, TrapError, Width,
};
use crate::units::{BLOCK_PAGES, NumaNode, PageNumber, PageRange, PageSize};

/// The calls of the seam that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Mm::take`].
    Take,
    /// [`Mm::give`].
    Give,
    /// [`Mm::copy`].
    Copy,
    /// [`Mm::copy_block`].
    CopyBlock,
    /// [`Mm::zero`].
    Zero,
    /// [`Mm::zero_block`].
    ZeroBlock,
    /// [`Mm::poison`].
    Poison,
    /// [`Mm::trap`].
    Trap,
    /// [`Mm::untrap`].
    Untrap,
    /// [`Mm::mapping_at`].
    MappingAt,
    /// [`Mm::area_from`].
    AreaFrom,
    /// [`Mm::watch`].
    Watch,
    /// [`Mm::populate`].
    Populate,
    /// [`Mm::scan`].
    Scan,
    /// [`Mm::may_write`].
    MayWrite,
    /// [`Mm::areas`].
    Areas,
    /// [`Mm::exclusions`].
    Exclusions,
    /// [`Mm::look`].
    Look,
    /// [`Mm::unshare`].
    Unshare,
    /// [`Mm::map_staging`].
    MapStaging,
    /// [`Mm::bind_staging`].
    BindStaging,
    /// [`Mm::empty_staging`].
    EmptyStaging,
    /// [`Mm::reserve_addresses`].
    ReserveAddresses,
    /// [`Mm::reserve_aliases`].
    ReserveAliases,
    /// [`Mm::alias`].
    Alias,
    /// [`Mm::is_alias`].
    IsAlias,
    /// [`Mm::end_alias`].
    EndAlias,
    /// [`Mm::populate_alias`].
    PopulateAlias,
    /// [`Mm::vacate`].
    Vacate,
    /// [`Mm::vacate_undisturbed`].
    VacateUndisturbed,
    /// [`Mm::is_alone`].
    IsAlone,
    /// [`Mm::set_aside`].
    SetAside,
    /// [`Mm::put_back`].
    PutBack,
    /// [`Mm::end_aside`].
    EndAside,
    /// [`Mm::make_anonymous`].
    MakeAnonymous,
    /// [`Mm::open_accessor`].
    OpenAccessor,
    /// [`Mm::renew_accessor`].
    RenewAccessor,
    /// [`Mm::tell_forks`].
    TellForks,
    /// [`Mm::set_inherited`].
    SetInherited,
    /// [`Mm::copy_to_child`] and [`Mm::poison_in_child`].
    FillChild,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 40] = [
        Self::Take,
        Self::Give,
        Self::Copy,
        Self::CopyBlock,
        Self::Zero,
        Self::ZeroBlock,
        Self::Poison,
        Self::Trap,
        Self::Untrap,
        Self::MappingAt,
        Self::AreaFrom,
        Self::Watch,
        Self::Populate,
        Self::Scan,
        Self::MayWrite,
        Self::Areas,
        Self::Exclusions,
        Self::Look,
        Self::Unshare,
        Self::MapStaging,
        Self::BindStaging,
        Self::EmptyStaging,
        Self::ReserveAddresses,
        Self::ReserveAliases,
        Self::Alias,
        Self::IsAlias,
        Self::EndAlias,
        Self::PopulateAlias,
        Self::Vacate,
        Self::VacateUndisturbed,
        Self::IsAlone,
        Self::SetAside,
        Self::PutBack,
        Self::EndAside,
        Self::MakeAnonymous,
        Self::OpenAccessor,
        Self::RenewAccessor,
        Self::TellForks,
        Self::SetInherited,
        Self::FillChild,
    ];

    /// Whether the call does page after page and reports how far it came.
    pub const fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::Take
                | Self::Give
                | Self::Copy
                | Self::Zero
                | Self::ZeroBlock
                | Self::Poison
                | Self::FillChild
        )
    }
}

/// What a call answers instead of doing all its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A bulk call does at most `after` pages and then stops so, unless it stops by itself before.
    Stop {
        /// Pages that it still does.
        after: usize,
        /// Why it goes no further.
        stop: Stop,
    },
    /// The call does nothing; a bulk call reports it as [`Stop::Other`], [`Mm::populate`] and
    /// [`Mm::populate_alias`] as [`PopulateFailure::Other`].
    Errno(Errno),
    /// [`Mm::populate`] or [`Mm::populate_alias`] makes at most `after` pages present and then fails so, unless it fails by
    /// itself before.
    Populate {
        /// Pages that it still makes present.
        after: usize,
        /// Why it goes no further.
        failure: PopulateFailure,
    },
}

/// One kind of call.
#[derive(Debug, Default)]
struct Kind {
    calls: AtomicUsize,
    /// Each fires when the count reaches the number.
    once: Mutex<Vec<(usize, Failure)>>,
}

/// The failures to come, and how many calls there were. A handle: clones are the same.
#[derive(Clone, Debug)]
pub struct Injections(Arc<[Kind; Call::ALL.len()]>);

impl Default for Injections {
    fn default() -> Self {
        Self(Arc::new(core::array::from_fn(|_| Kind::default())))
    }
}

impl Injections {
    /// Has the `nth` call of the kind from now on fail, the next being the first.
    ///
    /// # Panics
    /// Where `nth` is 0, or a failure is asked for that the call does not have.
    pub fn inject(&self, call: Call, nth: usize, failure: Failure) {
        assert!(nth > 0, "the next call is the first");
        let fits = match failure {
            Failure::Errno(_) => true,
            Failure::Stop { .. } => call.is_bulk(),
            Failure::Populate { .. } => matches!(call, Call::Populate | Call::PopulateAlias),
        };
        assert!(fits, "{call:?} does not fail so: give it an error number");
        let kind = &self.0[call as usize];
        kind.once().push((kind.calls.load(Relaxed) + nth, failure));
    }

    /// Forgets the failures that have not come yet. Answers how many those were.
    pub fn clear(&self) -> usize {
        let forget = |kind: &Kind| core::mem::take(&mut *kind.once()).len();
        self.0.iter().map(forget).sum()
    }

    /// How many calls of the kind there were.
    pub fn calls(&self, call: Call) -> usize {
        self.0[call as usize].calls.load(Relaxed)
    }

    /// Counts a call and answers how it fails.
    fn count(&self, call: Call) -> Option<Failure> {
        let kind = &self.0[call as usize];
        let number = kind.calls.fetch_add(1, Relaxed) + 1;
        let mut once = kind.once();
        let place = once.iter().position(|&(due, _)| due == number)?;
        Some(once.swap_remove(place).1)
    }

    /// Counts a call that fails by an error number or not at all.
    fn enter(&self, call: Call) -> Result<(), Errno> {
        match self.count(call) {
            Some(Failure::Errno(errno)) => Err(errno),
            Some(Failure::Stop { .. } | Failure::Populate { .. }) | None => Ok(()),
        }
    }

    /// Counts a bulk call and does as much of it as is wanted, by `call_of` a number of pages.
    fn bulk(&self, call: Call, pages: usize, call_of: impl FnOnce(usize) -> Done) -> Done {
        let (limit, cut) = match self.count(call) {
            None | Some(Failure::Populate { .. }) => return call_of(pages),
            Some(Failure::Errno(errno)) => (0, Stop::Other(errno)),
            Some(Failure::Stop { after, stop }) => (after.min(pages), stop),
        };
        if limit == 0 {
            return Done { pages: 0, stop: Some(cut) };
        }
        let done = call_of(limit);
        Done { stop: done.stop.or((limit < pages).then_some(cut)), ..done }
    }

    /// Counts a call that populates and does as much of it as is wanted.
    fn populate(
        &self,
        call: Call,
        pages: PageRange,
        call_of: impl FnOnce(PageRange) -> Populated,
    ) -> Populated {
        let (limit, cut) = match self.count(call) {
            None | Some(Failure::Stop { .. }) => return call_of(pages),
            Some(Failure::Errno(errno)) => (0, PopulateFailure::Other(errno)),
            Some(Failure::Populate { after, failure }) => (after.min(pages.len()), failure),
        };
        if limit == 0 {
            return Populated { pages: 0, failure: Some(cut) };
        }
        let done = call_of(PageRange::of(pages.start(), limit));
        Populated { failure: done.failure.or((limit < pages.len()).then_some(cut)), ..done }
    }
}

impl Kind {
    fn once(&self) -> MutexGuard<'_, Vec<(usize, Failure)>> {
        self.once.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The system `M`, whose calls fail when asked to.
#[derive(Debug)]
pub struct Injected<M> {
    mm: M,
    injections: Injections,
}

impl<M: Mm> Injected<M> {
    /// Stands before `mm`. Nothing fails yet.
    pub fn new(mm: M) -> Self {
        Self { mm, injections: Injections::default() }
    }

    /// The handle by which calls are made to fail.
    pub fn injections(&self) -> Injections {
        self.injections.clone()
    }
}

impl<M: Mm> Mm for Injected<M> {
    fn page_size(&self) -> PageSize {
        self.mm.page_size()
    }

    fn page_limit(&self) -> PageNumber {
        self.mm.page_limit()
    }

    fn memory_pages(&self) -> usize {
        self.mm.memory_pages()
    }

    fn pages_available(&self, node: Option<NumaNode>) -> Option<usize> {
        self.mm.pages_available(node)
    }

    fn keeps(&self, pages: PageRange) -> bool {
        self.mm.keeps(pages)
    }

    fn serves_system_calls(&self) -> bool {
        self.mm.serves_system_calls()
    }

    fn areas(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        self.injections.enter(Call::Areas)?;
        self.mm.areas(within, visit)
    }

    fn exclusions(
        &self,
        all: bool,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno> {
        self.injections.enter(Call::Exclusions)?;
        self.mm.exclusions(all, visit)
    }

    fn trap(&self, pages: PageRange) -> Result<(), TrapError> {
        let refused = |errno| TrapError::Other(pages, errno);
        self.injections.enter(Call::Trap).map_err(refused)?;
        self.mm.trap(pages)
    }

    fn untrap(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::Untrap)?;
        self.mm.untrap(pages)
    }

    fn mapping_at(&self, page: PageNumber) -> Result<Option<Mapping>, Errno> {
        self.injections.enter(Call::MappingAt)?;
        self.mm.mapping_at(page)
    }

    fn area_from(&self, page: PageNumber) -> Result<Option<PageRange>, Errno> {
        self.injections.enter(Call::AreaFrom)?;
        self.mm.area_from(page)
    }

    fn watch(&self, pages: PageRange) -> Result<(), TrapError> {
        let refused = |errno| TrapError::Other(pages, errno);
        self.injections.enter(Call::Watch).map_err(refused)?;
        self.mm.watch(pages)
    }

    fn populate(&self, pages: PageRange, access: Access) -> Populated {
        self.injections.populate(Call::Populate, pages, |pages| self.mm.populate(pages, access))
    }

    fn scan(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno> {
        self.injections.enter(Call::Scan)?;
        self.mm.scan(pages, visit)
    }

    fn may_write(
        &self,
        page: PageNumber,
        pages: usize,
        out: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Errno> {
        self.injections.enter(Call::MayWrite)?;
        self.mm.may_write(page, pages, out)
    }

    fn take(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.injections.bulk(Call::Take, pages, |pages| self.mm.take(from, to, pages))
    }

    fn give(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.injections.bulk(Call::Give, pages, |pages| self.mm.give(from, to, pages))
    }

    fn copy(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.injections.bulk(Call::Copy, pages, |pages| self.mm.copy(from, to, pages))
    }

    fn copy_block(&self, from: PageNumber, to: PageNumber) -> Done {
        self.injections.bulk(Call::CopyBlock, BLOCK_PAGES, |pages| {
            if pages == BLOCK_PAGES {
                self.mm.copy_block(from, to)
            } else {
                self.mm.copy(from, to, pages)
            }
        })
    }

    unsafe fn remake_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done {
        let mut is_refused = true;
        let done = self.injections.bulk(Call::ZeroBlock, BLOCK_PAGES, |pages| {
            is_refused = false;
            // SAFETY: the caller's promise, which is the same.
            unsafe {
                if pages == BLOCK_PAGES {
                    self.mm.remake_block(to, node)
                } else {
                    let _ = self.mm.empty_staging(PageRange::of(to, BLOCK_PAGES));
                    self.mm.zero(to, pages, Access::Write)
                }
            }
        });
        if is_refused { Done { pages: BLOCK_PAGES, ..done } } else { done }
    }

    fn split_block(&self, page: PageNumber) {
        self.mm.split_block(page);
    }

    fn zero(&self, to: PageNumber, pages: usize, access: Access) -> Done {
        self.injections.bulk(Call::Zero, pages, |pages| self.mm.zero(to, pages, access))
    }

    fn zero_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done {
        self.injections.bulk(Call::ZeroBlock, BLOCK_PAGES, |pages| {
            if pages == BLOCK_PAGES {
                self.mm.zero_block(to, node)
            } else {
                self.mm.zero(to, pages, Access::Write)
            }
        })
    }

    fn poison(&self, to: PageNumber, pages: usize) -> Done {
        self.injections.bulk(Call::Poison, pages, |pages| self.mm.poison(to, pages))
    }

    fn wake(&self, pages: PageRange) {
        self.mm.wake(pages);
    }

    fn changing(&self) -> bool {
        self.mm.changing()
    }

    fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno> {
        self.injections.enter(Call::Look)?;
        self.mm.look(start, out)
    }

    fn unshare(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::Unshare)?;
        self.mm.unshare(pages)
    }

    fn map_staging(&self, pages: usize) -> Result<PageRange, Errno> {
        self.injections.enter(Call::MapStaging)?;
        self.mm.map_staging(pages)
    }

    fn bind_staging(&self, pages: PageRange, node: NumaNode) -> Result<(), Errno> {
        self.injections.enter(Call::BindStaging)?;
        self.mm.bind_staging(pages, node)
    }

    unsafe fn unmap_staging(&self, pages: PageRange) {
        // SAFETY: as the caller says.
        unsafe { self.mm.unmap_staging(pages) };
    }

    unsafe fn empty_staging(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::EmptyStaging)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.empty_staging(pages) }
    }

    fn reserve_addresses(&self, pages: usize) -> Result<PageRange, Errno> {
        self.injections.enter(Call::ReserveAddresses)?;
        self.mm.reserve_addresses(pages)
    }

    unsafe fn release_addresses(&self, pages: PageRange) {
        // SAFETY: as the caller says.
        unsafe { self.mm.release_addresses(pages) };
    }

    fn reserve_aliases(&self) -> Result<PageRange, Errno> {
        self.injections.enter(Call::ReserveAliases)?;
        self.mm.reserve_aliases()
    }

    unsafe fn release_aliases(&self, pages: PageRange) {
        // SAFETY: as the caller says.
        unsafe { self.mm.release_aliases(pages) };
    }

    unsafe fn alias(&self, pages: PageRange, at: PageNumber) -> Result<(), Errno> {
        self.injections.enter(Call::Alias)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.alias(pages, at) }
    }

    fn is_alias(&self, pages: PageRange, at: PageNumber) -> Result<bool, Errno> {
        self.injections.enter(Call::IsAlias)?;
        self.mm.is_alias(pages, at)
    }

    unsafe fn end_alias(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::EndAlias)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.end_alias(pages) }
    }

    fn populate_alias(&self, pages: PageRange) -> Populated {
        self.injections.populate(Call::PopulateAlias, pages, |pages| self.mm.populate_alias(pages))
    }

    fn vacate(&self, pages: PageRange, alias: PageNumber) -> Result<(), Errno> {
        self.injections.enter(Call::Vacate)?;
        self.mm.vacate(pages, alias)
    }

    unsafe fn vacate_undisturbed(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::VacateUndisturbed)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.vacate_undisturbed(pages) }
    }

    fn is_alone(&self, own: usize) -> Result<bool, Errno> {
        self.injections.enter(Call::IsAlone)?;
        self.mm.is_alone(own)
    }

    unsafe fn set_aside(&self, pages: PageRange) -> Result<PageRange, Errno> {
        self.injections.enter(Call::SetAside)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.set_aside(pages) }
    }

    unsafe fn put_back(&self, from: PageNumber, to: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::PutBack)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.put_back(from, to) }
    }

    unsafe fn end_aside(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::EndAside)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.end_aside(pages) }
    }

    unsafe fn make_anonymous(&self, pages: PageRange) -> Result<(), Errno> {
        self.injections.enter(Call::MakeAnonymous)?;
        // SAFETY: as the caller says.
        unsafe { self.mm.make_anonymous(pages) }
    }

    fn staging_pointer(&self, page: PageNumber) -> NonNull<u8> {
        self.mm.staging_pointer(page)
    }

    fn wait(&self, timeout: Option<Duration>) {
        self.mm.wait(timeout);
    }

    fn readable(&self) -> bool {
        self.mm.readable()
    }

    fn read(&self, out: &mut [Message]) -> usize {
        self.mm.read(out)
    }

    fn kick(&self) {
        self.mm.kick();
    }

    fn tells_forks(&self) -> bool {
        self.mm.tells_forks()
    }

    fn tell_forks(&self) -> Result<(), Errno> {
        self.injections.enter(Call::TellForks)?;
        self.mm.tell_forks()
    }

    fn stop_telling_forks(&self) {
        self.mm.stop_telling_forks();
    }

    fn forks_under_way(&self) -> bool {
        self.mm.forks_under_way()
    }

    fn end_forks(&self) {
        self.mm.end_forks();
    }

    fn set_inherited(&self, pages: PageRange, inherited: bool) -> Result<(), Errno> {
        self.injections.enter(Call::SetInherited)?;
        self.mm.set_inherited(pages, inherited)
    }

    unsafe fn copy_to_child(
        &self,
        child: Child,
        from: PageNumber,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        self.injections.bulk(Call::FillChild, pages, |pages| {
            // SAFETY: as the caller says.
            unsafe { self.mm.copy_to_child(child, from, to, pages) }
        })
    }

    unsafe fn poison_in_child(&self, child: Child, to: PageNumber, pages: usize) -> Done {
        self.injections.bulk(Call::FillChild, pages, |pages| {
            // SAFETY: as the caller says.
            unsafe { self.mm.poison_in_child(child, to, pages) }
        })
    }

    unsafe fn end_child(&self, child: Child) {
        // SAFETY: as the caller says.
        unsafe { self.mm.end_child(child) };
    }

    fn open_accessor(&self) -> Result<Accessor, Errno> {
        self.injections.enter(Call::OpenAccessor)?;
        self.mm.open_accessor()
    }

    fn renew_accessor(&self, accessor: &Accessor) -> Result<(), Errno> {
        self.injections.enter(Call::RenewAccessor)?;
        self.mm.renew_accessor(accessor)
    }

    fn close_accessor(&self, accessor: Accessor) {
        self.mm.close_accessor(accessor);
    }

    fn refuse(&self, accessor: AccessorNumber) {
        self.mm.refuse(accessor);
    }

    unsafe fn load_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
    ) -> Result<u64, Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.load_in_place(accessor, address, width) }
    }

    unsafe fn store_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<(), Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.store_in_place(accessor, address, width, value) }
    }

    unsafe fn compare_exchange_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.compare_exchange_in_place(accessor, address, width, expected, new) }
    }

    unsafe fn fetch_add_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<u64, Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.fetch_add_in_place(accessor, address, width, value) }
    }

    unsafe fn copy_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        out: &mut [u8],
    ) -> Result<(), Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.copy_in_place(accessor, address, out) }
    }

    unsafe fn write_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        // SAFETY: as the caller says.
        unsafe { self.mm.write_in_place(accessor, address, bytes) }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
