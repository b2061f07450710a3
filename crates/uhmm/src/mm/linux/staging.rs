//! Staging, where pages taken from the CPU are, and the zeros that holes are filled with.
//!
//! Staging is registered with the descriptor like the program's areas, as a move needs that of its
//! destination; but nobody faults on it. To make a part of it holes again it is unregistered for
//! the moment of the dropping, so that no event is raised that somebody would have to read.

use core::ptr;

use rustix::{
    io::Errno as E,
    mm::{Advice, MapFlags, MprotectFlags, ProtFlags},
};

use super::{abi::REGISTER_MISSING, descriptor::Descriptor};
use crate::{
    mm::Errno,
    units::{BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

/// Maps `pages` pages, aligned to a block, all holes, registered.
pub(super) fn map(
    descriptor: &Descriptor,
    page: PageSize,
    pages: usize,
) -> Result<PageRange, Errno> {
    let kept = map_unregistered(page, pages)?;
    let (start, len) = (page.address_of(kept.start()), page.bytes_in(pages));
    if let Err(error) = descriptor.register(start, len, REGISTER_MISSING) {
        // SAFETY: the new mapping, which nobody knows of, and which is not registered.
        let _ = unsafe { unmap_pages(page, kept) };
        return Err(error.into());
    }
    Ok(kept)
}

/// Maps `pages` pages, aligned to a block, all holes.
pub(super) fn map_unregistered(page: PageSize, pages: usize) -> Result<PageRange, Errno> {
    let padded = pages.checked_add(BLOCK_PAGES).filter(|_| pages > 0).ok_or(E::INVAL)?;
    let len = padded.checked_mul(page.bytes()).ok_or(E::NOMEM)?;
    // Without access at first: in a program that locks all that it will map, memory with access
    // is populated at once and stays locked.
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe {
        let flags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
        rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?
    };
    let all = PageRange::of(page.page_of(start.expose_provenance()), padded);
    let first = PageNumber(all.start().0.next_multiple_of(BLOCK_PAGES));
    let kept = PageRange::of(first, pages);
    for surplus in
        [PageRange::new(all.start(), kept.start()), PageRange::new(kept.end(), all.end())]
    {
        // SAFETY: a part of the new mapping that nobody knows of.
        unsafe { unmap_pages(page, surplus)? };
    }
    // SAFETY: the new mapping, which nobody knows of.
    if let Err(error) = unsafe { prepare(page, kept) } {
        // SAFETY: as above.
        let _ = unsafe { unmap_pages(page, kept) };
        return Err(error.into());
    }
    Ok(kept)
}

/// Makes a new mapping accessible, not locked, not inherited, and such that its parts join again
/// after they were registered apart: for that one page must have been touched before.
///
/// # Safety
/// `pages` is a mapping that nobody uses.
unsafe fn prepare(page: PageSize, pages: PageRange) -> Result<(), E> {
    let start = ptr::with_exposed_provenance_mut::<u8>(page.address_of(pages.start()));
    let len = page.bytes_in(pages.len());
    // SAFETY: the caller's promise: only this unused mapping changes; once accessible, its first
    // byte can be written.
    unsafe {
        rustix::mm::munlock(start.cast(), len)?;
        rustix::mm::mprotect(start.cast(), len, MprotectFlags::READ.union(MprotectFlags::WRITE))?;
        rustix::mm::madvise(start.cast(), len, Advice::LinuxDontFork)?;
        start.write_volatile(1);
        rustix::mm::madvise(start.cast(), len, Advice::LinuxDontNeed)
    }
}

/// Ends staging.
///
/// # Safety
/// `pages` is staging, and nobody uses its memory.
pub(super) unsafe fn unmap(descriptor: &Descriptor, page: PageSize, pages: PageRange) {
    let len = page.bytes_in(pages.len());
    // Where it cannot be unregistered it stays mapped, lost: unmapping it would raise an event,
    // and the caller may be the one to read it.
    if descriptor.unregister(page.address_of(pages.start()), len).is_ok() {
        // SAFETY: the caller's promise.
        let _ = unsafe { unmap_pages(page, pages) };
    }
}

/// Makes `pages` holes again.
///
/// # Safety
/// `pages` is staging, and nobody uses its memory.
pub(super) unsafe fn empty(
    descriptor: &Descriptor,
    page: PageSize,
    pages: PageRange,
) -> Result<(), Errno> {
    if pages.is_empty() {
        return Ok(());
    }
    let (start, len) = (page.address_of(pages.start()), page.bytes_in(pages.len()));
    match descriptor.unregister(start, len) {
        // The process has as many areas as it may, and this would make more.
        Err(E::NOMEM) => {
            // SAFETY: the caller's promise.
            unsafe {
                advise(start, len, GUARD_INSTALL)?;
                advise(start, len, GUARD_REMOVE)?;
            }
            return Ok(());
        }
        result => result?,
    }
    // SAFETY: the caller's promise.
    let dropped = unsafe { advise(start, len, libc::MADV_DONTNEED) };
    descriptor.register(start, len, REGISTER_MISSING)?;
    Ok(dropped?)
}

/// Has the huge page that a page of staging is a part of be small pages, by an advice on that part alone
/// (`madvise_cold_or_pageout_pte_range` of `mm/madvise.c`).
pub(super) fn split(page: PageSize, part: PageNumber) {
    // SAFETY: the advice changes no content. Where it is refused the huge page stays one.
    let _ = unsafe { advise(page.address_of(part), page.bytes(), libc::MADV_COLD) };
}

/// Makes holes of pages that are not registered.
///
/// # Safety
/// Nobody uses their memory.
pub(super) unsafe fn drop_pages(page: PageSize, pages: PageRange) -> Result<(), E> {
    let (start, len) = (page.address_of(pages.start()), page.bytes_in(pages.len()));
    // SAFETY: the caller's promise.
    unsafe { advise(start, len, libc::MADV_DONTNEED) }
}

/// Asks for huge pages where all of one is touched.
///
/// # Safety
/// `pages` is a mapping of ours.
pub(super) unsafe fn advise_huge(page: PageSize, pages: PageRange) -> Result<(), E> {
    let (start, len) = (page.address_of(pages.start()), page.bytes_in(pages.len()));
    // SAFETY: the advice ends no use of the memory.
    unsafe { advise(start, len, libc::MADV_HUGEPAGE) }
}

/// Puts marks that end accesses in place of pages, and raises no event; Linux 6.13. It splits no
/// area, but leaves page tables behind, and takes longer for many pages.
const GUARD_INSTALL: i32 = 102;
/// Makes holes of such marks.
const GUARD_REMOVE: i32 = 103;

/// Gives an advice, again while it is interrupted.
///
/// # Safety
/// Nobody uses the memory in the way that the advice ends.
unsafe fn advise(start: usize, len: usize, advice: i32) -> Result<(), E> {
    loop {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the caller's promise. By libc, as rustix does not know all advices.
        if unsafe { libc::madvise(start, len, advice) } == 0 {
            return Ok(());
        }
        // SAFETY: libc's error number of this thread is always readable.
        match E::from_raw_os_error(unsafe { *libc::__errno_location() }) {
            E::INTR => {}
            error => return Err(error),
        }
    }
}

/// Reserves addresses, without access.
pub(super) fn reserve(page: PageSize, pages: usize) -> Result<PageRange, E> {
    let len = pages.checked_mul(page.bytes()).filter(|&len| len > 0).ok_or(E::NOMEM)?;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let start = unsafe {
        let flags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
        rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?
    };
    Ok(PageRange::of(page.page_of(start.expose_provenance()), pages))
}

/// Unmaps `pages`.
///
/// # Safety
/// Nobody uses their memory, and they are not registered.
pub(super) unsafe fn unmap_pages(page: PageSize, pages: PageRange) -> Result<(), E> {
    if pages.is_empty() {
        return Ok(());
    }
    let start = ptr::with_exposed_provenance_mut(page.address_of(pages.start()));
    // SAFETY: the caller's promise.
    unsafe { rustix::mm::munmap(start, page.bytes_in(pages.len())) }
}

/// A block of zeros that can be read, and behind it a page that cannot.
#[derive(Debug)]
pub(super) struct Zeros {
    pages: PageRange,
    page: PageSize,
}

impl Zeros {
    /// Maps the zeros. They cost no memory: all are the kernel's shared page of zeros.
    pub(super) fn map(page: PageSize) -> Result<Self, Errno> {
        let len = page.bytes_in(BLOCK_PAGES + 1);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let flags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?
        };
        let pages = PageRange::of(page.page_of(start.expose_provenance()), BLOCK_PAGES + 1);
        let zeros = Self { pages, page };
        let readable = page.bytes_in(BLOCK_PAGES);
        // SAFETY: a part of the new mapping.
        unsafe { rustix::mm::mprotect(start, readable, MprotectFlags::READ)? };
        // SAFETY: as above. Where the kernel cannot populate, the copying does.
        let _ = unsafe { rustix::mm::madvise(start, readable, Advice::LinuxPopulateRead) };
        Ok(zeros)
    }

    /// The first of the block of zeros.
    pub(super) const fn start(&self) -> PageNumber {
        self.pages.start()
    }

    /// The page that cannot be read.
    pub(super) const fn unreadable(&self) -> PageNumber {
        self.pages.start().plus(BLOCK_PAGES)
    }
}

impl Drop for Zeros {
    fn drop(&mut self) {
        // SAFETY: only calls on the owner, which is gone, used them.
        let _ = unsafe { unmap_pages(self.page, self.pages) };
    }
}
