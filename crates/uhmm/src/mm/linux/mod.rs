//! Linux: memory management by userfaultfd, `madvise` and the files of `/proc`.
//!
//! One descriptor serves the program's areas and staging alike. That is what makes a move from the
//! one to the other answer `EAGAIN` while a change of the program's areas is unread, so that no
//! page is taken from an address that changed hands.
//!
//! The kernel's own replies are not always the truth; `bulk` says how they are made so. What this
//! back end relies on is shown by the tests in `tests/kernel_facts`.

mod abi;
mod areas;
mod aside;
mod available;
mod backing;
mod bulk;
mod children;
mod descriptor;
mod exclusions;
mod file_end;
mod forks;
mod from_file;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod in_place;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[path = "in_place/absent.rs"]
mod in_place;
mod messages;
mod numa;
mod pagemap;
mod pool;
mod populate;
mod probe;
mod registration;
mod shared;
mod smaps;
mod staging;
mod whole;

use core::{ops::ControlFlow, ptr::NonNull, time::Duration};

use rustix::{event::EventfdFlags, fd::OwnedFd, io::Errno as E};

use self::{
    areas::Areas,
    children::Spare,
    descriptor::Descriptor,
    exclusions::ThreadBlocks,
    forks::Forks,
    in_place::Accessors,
    pagemap::{Cached, Pagemap},
    staging::Zeros,
    whole::Workbench,
};
use super::{
    Access, Accessor, AccessorNumber, Area, Backing, Child, Done, Errno, Exclusion, Look, Mapping,
    Message, Mm, Populated, Presence, Refused, TrapError, Width,
};
use crate::units::{NumaNode, PageNumber, PageRange, PageSize};

pub use self::probe::{Feature, FeatureSet, OpenError, probe};

/// Bits of an address that a program gets from the system without asking for more: on x86-64 the
/// kernel keeps to 47 even where the processor has 56, unless a hint lies above; on arm64 to 48 at
/// most (`Documentation/arch/x86/x86_64/5level-paging.rst`, `Documentation/arch/arm64/memory.rst`).
/// The other 64-bit systems stay below 47.
const ADDRESS_BITS: u32 = if cfg!(target_arch = "aarch64") { 48 } else { 47 };

/// The memory management of the Linux kernel, for this process.
///
/// Dropping it closes the descriptor: every area is then as if never registered, and a hole whose
/// content is elsewhere reads as zeros. Who owns it brings all content back first.
#[derive(Debug)]
pub struct Linux {
    descriptor: Descriptor,
    pagemap: Pagemap,
    areas: Areas,
    kick: OwnedFd,
    zeros: Zeros,
    thread_blocks: ThreadBlocks,
    accessors: Accessors,
    workbench: Workbench,
    /// Room for a child's descriptor.
    spare: Spare,
    /// What holds forks until their children are filled; only where they are told.
    forks: Option<Forks>,
    page: PageSize,
}

impl Linux {
    /// Opens what the back end needs. Nothing is watched or trapped yet. Forks are not told.
    ///
    /// # Errors
    /// [`OpenError`], which says what is missing and how to allow it.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_with(false)
    }

    /// Opens what the back end needs, with [forks told](Mm::tells_forks) where this process may be
    /// told of them (`CAP_SYS_PTRACE`), from [`Mm::tell_forks`] on. A fork then waits until its message
    /// is read.
    ///
    /// # Errors
    /// [`OpenError`], which says what is missing and how to allow it.
    pub fn open_telling_forks() -> Result<Self, OpenError> {
        Self::open_with(true)
    }

    fn open_with(forks: bool) -> Result<Self, OpenError> {
        let page = page_size();
        let (descriptor, hold) = probe::agreed_descriptor(forks)?;
        let kick =
            EventfdFlags::CLOEXEC.union(EventfdFlags::NONBLOCK).union(EventfdFlags::SEMAPHORE);
        let kick = rustix::event::eventfd(0, kick).map_err(|e| OpenError::Wakeups(e.into()))?;
        let pagemap = probe::working_pagemap(page).map_err(OpenError::Pagemap)?;
        let zeros = Zeros::map(page).map_err(OpenError::Memory)?;
        let accessors = Accessors::new().map_err(OpenError::Memory)?;
        let workbench = Workbench::map(page).map_err(OpenError::Memory)?;
        let (areas, thread_blocks) = (Areas::open(page), ThreadBlocks::find());
        let forks = hold.map(|hold| Forks::new(hold, page)).transpose();
        let forks = forks.map_err(OpenError::Memory)?;
        let spare = Spare::default();
        spare.refill();
        let mut linux = Self {
            descriptor,
            pagemap,
            areas,
            kick,
            zeros,
            thread_blocks,
            accessors,
            workbench,
            spare,
            forks,
            page,
        };
        linux.learn_mark().map_err(OpenError::Memory)?;
        Ok(linux)
    }

    /// Shows the pagemap reader what a poison mark looks like, on a page of staging.
    fn learn_mark(&mut self) -> Result<(), Errno> {
        let staging = self.map_staging(1)?;
        if self.poison(staging.start(), 1).pages == 1 {
            self.pagemap.learn_mark(staging.start());
        }
        // SAFETY: it was mapped above and nobody knows of it.
        unsafe { self.unmap_staging(staging) };
        Ok(())
    }

    /// Which of `pages` belong to the page cache. Where their area changes meanwhile, what is at them
    /// changes too.
    fn cached(&self, pages: PageRange) -> Cached {
        if pages.len() < WORTH_ASKING {
            return Cached::Look;
        }
        let Ok(Some(mapping)) = self.areas.at(pages.start()) else { return Cached::Look };
        match mapping.backing {
            _ if !mapping.pages.covers(pages) => Cached::Look,
            Backing::PrivateAnonymous => Cached::None,
            Backing::SharedAnonymous | Backing::SharedFile => Cached::All,
            // Those that were written are this process's own.
            Backing::PrivateFile
            | Backing::PrivateHugetlb
            | Backing::SharedHugetlb
            | Backing::Special => Cached::Look,
        }
    }

    /// The first byte of `pages`, and how many bytes they have.
    fn bytes(&self, pages: PageRange) -> (usize, usize) {
        (self.page.address_of(pages.start()), self.page.bytes_in(pages.len()))
    }
}

/// From so many pages on, asking for their area costs less than having the kernel look whether each
/// belongs to the page cache.
const WORTH_ASKING: usize = 64;

/// The system's page size.
fn page_size() -> PageSize {
    match PageSize::new(rustix::param::page_size()) {
        Some(size) => size,
        None => crate::abort::abort(b"the system's page size is not a power of two"),
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        self.end_forks();
    }
}

impl From<E> for Errno {
    fn from(error: E) -> Self {
        Self(error.raw_os_error())
    }
}

impl Mm for Linux {
    fn page_size(&self) -> PageSize {
        self.page
    }

    fn page_limit(&self) -> PageNumber {
        self.page.page_of(1 << ADDRESS_BITS)
    }

    fn memory_pages(&self) -> usize {
        // SAFETY: it asks for a number. Where that is not known it is negative.
        let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
        usize::try_from(pages).unwrap_or(0)
    }

    fn pages_available(&self, node: Option<NumaNode>) -> Option<usize> {
        available::bytes(node).map(|bytes| bytes / self.page.bytes())
    }

    fn keeps(&self, pages: PageRange) -> bool {
        // The rest cannot be written, and is refused for that.
        self.accessors.range().is_some_and(|range| range.pages_touched(self.page).overlaps(pages))
            || self.workbench.pages().overlaps(pages)
    }

    fn serves_system_calls(&self) -> bool {
        !self.descriptor.user_mode_only()
    }

    fn areas(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        Ok(self.areas.visit(within, visit)?)
    }

    fn exclusions(
        &self,
        all: bool,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno> {
        self.thread_blocks.visit(self.page, visit)?;
        if all {
            exclusions::objects(self.page, visit);
            exclusions::stacks(self.page, visit);
        }
        Ok(())
    }

    fn trap(&self, pages: PageRange) -> Result<(), TrapError> {
        self.trap_holes(pages)
    }

    fn untrap(&self, pages: PageRange) -> Result<(), Errno> {
        self.unregister(pages)
    }

    fn mapping_at(&self, page: PageNumber) -> Result<Option<Mapping>, Errno> {
        Ok(self.areas.at(page)?)
    }

    fn area_from(&self, page: PageNumber) -> Result<Option<PageRange>, Errno> {
        Ok(self.areas.from(page)?)
    }

    fn watch(&self, pages: PageRange) -> Result<(), TrapError> {
        self.watch_areas(pages)
    }

    fn populate(&self, pages: PageRange, access: Access) -> Populated {
        self.populate_pages(pages, access)
    }

    fn scan(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno> {
        Ok(self.pagemap.scan(pages, self.cached(pages), visit)?)
    }

    fn may_write(
        &self,
        page: PageNumber,
        pages: usize,
        out: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Errno> {
        let mut visit = |at: PageNumber, may: bool| out(at.since(page), may);
        Ok(self.pagemap.may_write(PageRange::of(page, pages), &mut visit)?)
    }

    #[inline]
    fn take(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(bulk::Work::Move { from, to }, pages)
    }

    #[inline]
    fn give(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(bulk::Work::Move { from, to }, pages)
    }

    #[inline]
    fn copy(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done {
        self.bulk(bulk::Work::Copy { from, to }, pages)
    }

    fn copy_block(&self, from: PageNumber, to: PageNumber) -> Done {
        self.copy_huge(from, to)
    }

    fn zero_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done {
        self.make_huge(to, node, |_| {})
    }

    unsafe fn remake_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done {
        // SAFETY: the caller's promise, which is the same.
        unsafe { self.remake_huge(to, node) }
    }

    fn split_block(&self, page: PageNumber) {
        staging::split(self.page, page);
    }

    fn zero(&self, to: PageNumber, pages: usize, access: Access) -> Done {
        match access {
            Access::Read => self.bulk(bulk::Work::Zero { to }, pages),
            Access::Write => self.own_zeros(to, pages),
        }
    }

    fn poison(&self, to: PageNumber, pages: usize) -> Done {
        self.bulk(bulk::Work::Poison { to }, pages)
    }

    fn wake(&self, pages: PageRange) {
        if !pages.is_empty() {
            let (start, len) = self.bytes(pages);
            self.descriptor.wake(start, len);
        }
    }

    fn changing(&self) -> bool {
        self.descriptor.changing()
    }

    fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno> {
        Ok(self.pagemap.look(start, out)?)
    }

    fn unshare(&self, pages: PageRange) -> Result<(), Errno> {
        Ok(self.advise_populate(pages, Access::Write)?)
    }

    fn map_staging(&self, pages: usize) -> Result<PageRange, Errno> {
        staging::map(&self.descriptor, self.page, pages)
    }

    fn bind_staging(&self, pages: PageRange, node: NumaNode) -> Result<(), Errno> {
        Ok(numa::bind(self.page, pages, Some(node))?)
    }

    unsafe fn unmap_staging(&self, pages: PageRange) {
        // SAFETY: the caller's promise, which is the same.
        unsafe { staging::unmap(&self.descriptor, self.page, pages) };
    }

    unsafe fn empty_staging(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise, which is the same.
        unsafe { staging::empty(&self.descriptor, self.page, pages) }
    }

    fn reserve_addresses(&self, pages: usize) -> Result<PageRange, Errno> {
        Ok(staging::reserve(self.page, pages)?)
    }

    unsafe fn release_addresses(&self, pages: PageRange) {
        // SAFETY: the caller's promise: what was reserved, which nobody can use.
        let _ = unsafe { staging::unmap_pages(self.page, pages) };
    }

    fn reserve_aliases(&self) -> Result<PageRange, Errno> {
        Ok(shared::reserve(self.page)?)
    }

    unsafe fn release_aliases(&self, pages: PageRange) {
        // SAFETY: the caller's promise; aliases are not registered.
        let _ = unsafe { staging::unmap_pages(self.page, pages) };
    }

    unsafe fn alias(&self, pages: PageRange, at: PageNumber) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.map_alias(pages, at) }?)
    }

    fn is_alias(&self, pages: PageRange, at: PageNumber) -> Result<bool, Errno> {
        Ok(self.shows_the_same(pages, at)?)
    }

    unsafe fn end_alias(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { shared::unmap(self.page, pages) }?)
    }

    fn populate_alias(&self, pages: PageRange) -> Populated {
        self.populate_pages(pages, Access::Write)
    }

    fn vacate(&self, pages: PageRange, alias: PageNumber) -> Result<(), Errno> {
        Ok(self.vacate_pages(pages, alias)?)
    }

    unsafe fn vacate_undisturbed(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.end_view(pages) }?)
    }

    fn is_alone(&self, own: usize) -> Result<bool, Errno> {
        Ok(Self::has_no_other_threads(own)?)
    }

    unsafe fn set_aside(&self, pages: PageRange) -> Result<PageRange, Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.move_aside(pages) }?)
    }

    unsafe fn put_back(&self, from: PageNumber, to: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.move_back(from, to) }?)
    }

    unsafe fn end_aside(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise; what lies aside is not registered.
        Ok(unsafe { staging::unmap_pages(self.page, pages) }?)
    }

    unsafe fn make_anonymous(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        Ok(unsafe { self.copy_over(pages) }?)
    }

    #[inline]
    fn staging_pointer(&self, page: PageNumber) -> NonNull<u8> {
        match core::num::NonZeroUsize::new(self.page.address_of(page)) {
            Some(address) => NonNull::with_exposed_provenance(address),
            None => crate::abort::abort(b"the first page of the address space is not staging"),
        }
    }

    fn wait(&self, timeout: Option<Duration>) {
        let forks = self.forks.as_ref();
        messages::wait(&self.descriptor, &self.kick, forks, &self.spare, timeout);
    }

    fn readable(&self) -> bool {
        messages::is_readable(&self.descriptor)
    }

    fn read(&self, out: &mut [Message]) -> usize {
        let count =
            messages::read(&self.descriptor, self.page, Some(&self.accessors), &self.spare, out);
        if let Some(forks) = &self.forks {
            forks.note(&out[..count]);
        }
        self.spare.refill();
        count
    }

    fn kick(&self) {
        messages::kick(&self.kick);
    }

    fn tells_forks(&self) -> bool {
        self.forks.is_some()
    }

    fn tell_forks(&self) -> Result<(), Errno> {
        self.forks.as_ref().map_or(Ok(()), |forks| forks.tell(&self.descriptor))
    }

    fn stop_telling_forks(&self) {
        if let Some(forks) = &self.forks {
            forks.stop(&self.descriptor);
        }
    }

    fn forks_under_way(&self) -> bool {
        self.forks.as_ref().is_some_and(Forks::under_way)
    }

    fn end_forks(&self) {
        if let Some(forks) = &self.forks {
            forks.end(&self.descriptor, &self.spare);
        }
    }

    fn set_inherited(&self, pages: PageRange, inherited: bool) -> Result<(), Errno> {
        let (start, len) = self.bytes(pages);
        Ok(children::set_inherited(start, len, inherited)?)
    }

    unsafe fn copy_to_child(
        &self,
        child: Child,
        from: PageNumber,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        // SAFETY: the caller's promise.
        unsafe { self.fill_child(child, Some(from), to, pages) }
    }

    unsafe fn poison_in_child(&self, child: Child, to: PageNumber, pages: usize) -> Done {
        // SAFETY: the caller's promise.
        unsafe { self.fill_child(child, None, to, pages) }
    }

    unsafe fn end_child(&self, child: Child) {
        // SAFETY: the caller's promise, by which nobody uses the number any more.
        unsafe { forks::close(child) };
        self.spare.refill();
        if let Some(forks) = &self.forks {
            forks.child_ended();
        }
    }

    fn open_accessor(&self) -> Result<Accessor, Errno> {
        self.accessors.open()
    }

    fn renew_accessor(&self, _: &Accessor) -> Result<(), Errno> {
        self.accessors.renew()
    }

    fn close_accessor(&self, accessor: Accessor) {
        self.accessors.close(accessor);
    }

    fn refuse(&self, accessor: AccessorNumber) {
        self.accessors.refuse(accessor);
    }

    unsafe fn load_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
    ) -> Result<u64, Refused> {
        // SAFETY: the caller's promise; an accessor stays on its thread.
        unsafe { in_place::load(self.accessors.busy(accessor), address, width) }
    }

    unsafe fn store_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<(), Refused> {
        // SAFETY: as in `load_in_place`.
        unsafe { in_place::store(self.accessors.busy(accessor), address, width, value) }
    }

    unsafe fn compare_exchange_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        let busy = self.accessors.busy(accessor);
        // SAFETY: as in `load_in_place`.
        let before = unsafe { in_place::compare_exchange(busy, address, width, expected, new)? };
        Ok(if before == width.part_of(expected) { Ok(before) } else { Err(before) })
    }

    unsafe fn fetch_add_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<u64, Refused> {
        // SAFETY: as in `load_in_place`.
        unsafe { in_place::fetch_add(self.accessors.busy(accessor), address, width, value) }
    }

    unsafe fn copy_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let from = core::ptr::with_exposed_provenance(address);
        let busy = self.accessors.busy(accessor);
        // SAFETY: as in `load_in_place`; `out` is valid for writes of its length.
        unsafe { in_place::copy(busy, out.as_mut_ptr(), from, out.len()) }
    }

    unsafe fn write_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        let to = core::ptr::with_exposed_provenance_mut(address);
        let busy = self.accessors.busy(accessor);
        // SAFETY: as in `load_in_place`; `bytes` is valid for reads of its length.
        unsafe { in_place::copy(busy, to, bytes.as_ptr(), bytes.len()) }
    }
}
