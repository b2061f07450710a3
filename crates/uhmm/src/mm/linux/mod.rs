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
mod bulk;
mod descriptor;
mod exclusions;
mod messages;
mod pagemap;
mod probe;
mod smaps;
mod staging;

use core::{ops::ControlFlow, ptr::NonNull, time::Duration};

use rustix::{
    event::EventfdFlags,
    fd::OwnedFd,
    io::Errno as E,
    mm::{Advice, MsyncFlags},
};

use self::{
    areas::Areas, descriptor::Descriptor, exclusions::ThreadBlocks, pagemap::Pagemap,
    staging::Zeros,
};
use super::{Access, Area, Done, Errno, Exclusion, Look, Message, Mm, TrapError};
use crate::units::{PageNumber, PageRange, PageSize};

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
    page: PageSize,
}

impl Linux {
    /// Opens what the back end needs. Nothing is watched or trapped yet.
    ///
    /// # Errors
    /// [`OpenError`], which says what is missing and how to allow it.
    pub fn open() -> Result<Self, OpenError> {
        let page = page_size();
        let (descriptor, _) = probe::agreed_descriptor()?;
        let kick =
            EventfdFlags::CLOEXEC.union(EventfdFlags::NONBLOCK).union(EventfdFlags::SEMAPHORE);
        let kick = rustix::event::eventfd(0, kick).map_err(|e| OpenError::Wakeups(e.into()))?;
        let pagemap = probe::working_pagemap(page).map_err(OpenError::Pagemap)?;
        let zeros = Zeros::map(page).map_err(OpenError::Memory)?;
        let (areas, thread_blocks) = (Areas::open(page), ThreadBlocks::find());
        let mut linux = Self { descriptor, pagemap, areas, kick, zeros, thread_blocks, page };
        linux.learn_mark().map_err(OpenError::Memory)?;
        Ok(linux)
    }

    /// Whether faults within system calls do not come to us: a system call that touches a trapped
    /// hole then fails with `EFAULT`, or ends early.
    pub fn user_mode_only(&self) -> bool {
        self.descriptor.user_mode_only()
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

    /// The first byte of `pages`, and how many bytes they have.
    fn bytes(&self, pages: PageRange) -> (usize, usize) {
        (self.page.address_of(pages.start()), self.page.bytes_in(pages.len()))
    }

    /// Whether every page of `pages` is in some area.
    fn is_mapped(&self, pages: PageRange) -> bool {
        let (start, len) = self.bytes(pages);
        // SAFETY: an asynchronous msync does nothing but look for gaps between areas (msync(2)).
        let result = unsafe {
            let start = core::ptr::without_provenance_mut(start);
            rustix::mm::msync(start, len, MsyncFlags::ASYNC)
        };
        result != Err(E::NOMEM)
    }
}

/// The system's page size.
fn page_size() -> PageSize {
    match PageSize::new(rustix::param::page_size()) {
        Some(size) => size,
        None => crate::abort::abort(b"the system's page size is not a power of two"),
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

    fn areas(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        Ok(self.areas.visit(within, visit)?)
    }

    fn exclusions(
        &self,
        objects: bool,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno> {
        self.thread_blocks.visit(self.page, visit)?;
        if objects {
            exclusions::objects(self.page, visit);
        }
        Ok(())
    }

    fn trap(&self, pages: PageRange) -> Result<(), TrapError> {
        if pages.is_empty() {
            return Ok(());
        }
        // The kernel registers across gaps without a word, so they are looked for first.
        if !self.is_mapped(pages) {
            return Err(TrapError::NoArea(pages));
        }
        let (start, len) = self.bytes(pages);
        self.descriptor.register(start, len).map_err(|error| match error {
            E::BUSY => TrapError::Foreign(pages),
            E::NOMEM => TrapError::NoRoom(pages),
            E::INVAL if !self.is_mapped(pages) => TrapError::NoArea(pages),
            E::INVAL | E::PERM => TrapError::Unsupported(pages),
            error => TrapError::Other(pages, error.into()),
        })
    }

    fn untrap(&self, pages: PageRange) -> Result<(), Errno> {
        if pages.is_empty() {
            return Ok(());
        }
        let (start, len) = self.bytes(pages);
        let result = match self.descriptor.unregister(start, len) {
            Err(E::INVAL) => self.untrap_areas(pages),
            result => result.map_err(Errno::from),
        };
        self.descriptor.wake(start, len);
        result
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
        if pages.is_empty() {
            return Ok(());
        }
        let (start, len) = self.bytes(pages);
        loop {
            let start = core::ptr::without_provenance_mut(start);
            // SAFETY: it does what a store of each page's own bytes would do.
            match unsafe { rustix::mm::madvise(start, len, Advice::LinuxPopulateWrite) } {
                Err(E::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn map_staging(&self, pages: usize) -> Result<PageRange, Errno> {
        staging::map(&self.descriptor, self.page, pages)
    }

    unsafe fn unmap_staging(&self, pages: PageRange) {
        // SAFETY: the caller's promise, which is the same.
        unsafe { staging::unmap(&self.descriptor, self.page, pages) };
    }

    unsafe fn empty_staging(&self, pages: PageRange) -> Result<(), Errno> {
        // SAFETY: the caller's promise, which is the same.
        unsafe { staging::empty(&self.descriptor, self.page, pages) }
    }

    #[inline]
    fn staging_pointer(&self, page: PageNumber) -> NonNull<u8> {
        match core::num::NonZeroUsize::new(self.page.address_of(page)) {
            Some(address) => NonNull::with_exposed_provenance(address),
            None => crate::abort::abort(b"the first page of the address space is not staging"),
        }
    }

    fn wait(&self, timeout: Option<Duration>) {
        messages::wait(&self.descriptor, &self.kick, timeout);
    }

    fn read(&self, out: &mut [Message]) -> usize {
        messages::read(&self.descriptor, self.page, out)
    }

    fn kick(&self) {
        messages::kick(&self.kick);
    }
}

impl Linux {
    /// Ends the registration of each registered area in `pages`: for a range that by now holds
    /// areas that cannot be registered, which the kernel refuses as a whole.
    fn untrap_areas(&self, pages: PageRange) -> Result<(), Errno> {
        let mut result = Ok(());
        self.areas.visit(pages, &mut |area| {
            let part = area.pages.intersection(pages);
            if area.registered && !part.is_empty() {
                let (start, len) = self.bytes(part);
                match self.descriptor.unregister(start, len) {
                    // By now unmapped, or another's.
                    Ok(()) | Err(E::INVAL) => {}
                    Err(error) => result = Err(error.into()),
                }
            }
            ControlFlow::Continue(())
        })?;
        result
    }
}
