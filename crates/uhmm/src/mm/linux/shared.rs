//! Shared memory: its alias, and the end of the program's mapping of it.
//!
//! An alias is made by a `mremap` of the program's view with an old length of 0, which maps the same
//! pages of the same file once more and leaves the view as it is. That takes no descriptor of the
//! file, no path and no privilege.
//!
//! The program's mapping is ended by `MADV_PAGEOUT`. `MADV_DONTNEED` would do so in a twentieth of the
//! time, but it destroys what is private: between the look at the area and the call, a thread of the
//! program can unmap the area and another put memory of its own there. Paging out is harmless whatever
//! is mapped. Where there is no swap, shared memory has nowhere to go, and all that comes of it is
//! that the page is mapped no more (`mm/vmscan.c`, `shrink_folio_list`: unmapped first, then found to
//! have no place). Where there is swap the page is written to it besides, and the alias shows it again
//! once that is done.

use rustix::{
    io::Errno as E,
    mm::{Advice, MapFlags, MremapFlags, ProtFlags},
};

use super::{Linux, abi, staging};
use crate::{
    mm::MOST_ALIASES,
    units::{PageNumber, PageRange, PageSize},
};

/// The fewest addresses that are worth reserving, in pages.
const LEAST_ALIASES: usize = 1 << 16;

/// Reserves addresses for aliases: fewer where the process may not have so many.
pub(super) fn reserve(page: PageSize) -> Result<PageRange, E> {
    let mut pages = MOST_ALIASES;
    loop {
        match staging::reserve(page, pages) {
            Err(E::NOMEM) if pages > LEAST_ALIASES => pages /= 2,
            reserved => return reserved,
        }
    }
}

/// Makes addresses of an alias reserved ones again.
///
/// # Safety
/// `pages` are reserved for aliases, and nobody uses their memory.
pub(super) unsafe fn unmap(page: PageSize, pages: PageRange) -> Result<(), E> {
    if pages.is_empty() {
        return Ok(());
    }
    let start = core::ptr::with_exposed_provenance_mut(page.address_of(pages.start()));
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    // SAFETY: the caller's promise.
    unsafe {
        rustix::mm::mmap_anonymous(start, page.bytes_in(pages.len()), ProtFlags::empty(), flags)
    }
    .map(drop)
}

impl Linux {
    /// `Mm::alias`
    ///
    /// # Safety
    /// As of `Mm::alias`.
    pub(super) unsafe fn map_alias(&self, pages: PageRange, at: PageNumber) -> Result<(), E> {
        let (start, len) = self.bytes(pages);
        let alias = PageRange::of(at, pages.len());
        let to = core::ptr::with_exposed_provenance_mut(self.page.address_of(at));
        let from = core::ptr::with_exposed_provenance_mut(start);
        // SAFETY: with an old length of 0 nothing moves and nothing ends at `from`: shared memory there
        // is mapped once more, all else is refused. The addresses at `to` are reserved for that.
        match unsafe { rustix::mm::mremap_fixed(from, 0, len, MremapFlags::MAYMOVE, to) } {
            Ok(_) => {}
            Err(E::INVAL | E::FAULT) if self.is_of_pool(pages.start()) => {
                // SAFETY: the caller's promise.
                unsafe { self.map_alias_by_file(pages, at)? };
            }
            Err(error) => return Err(error),
        }
        // Where the view is registered, so is the alias now, and its changes would be told.
        let prepared = self.descriptor.unregister(self.page.address_of(at), len).and_then(|()| {
            // SAFETY: advice on the new mapping, which nobody knows of.
            unsafe {
                rustix::mm::madvise(to, len, Advice::LinuxDontFork)?;
                // The program's view is in core dumps.
                rustix::mm::madvise(to, len, Advice::LinuxDontDump)
            }
        });
        if prepared.is_err() {
            // SAFETY: as above.
            unsafe { unmap(self.page, alias)? };
        }
        prepared
    }

    /// `Mm::is_alias`
    pub(super) fn shows_the_same(&self, pages: PageRange, at: PageNumber) -> Result<bool, E> {
        let [view, alias] = [pages, PageRange::of(at, pages.len())].map(|pages| {
            let query = match self.areas.ask(pages.start(), 0, &mut []) {
                Ok(query) => query,
                Err(E::NOENT) => return Ok(None),
                Err(error) => return Err(error),
            };
            let (start, len) = self.bytes(pages);
            let shows_all = abi::bytes(query.end) >= start + len;
            let shared = query.kind & abi::area::SHARED != 0 && query.inode != 0;
            let offset = start - abi::bytes(query.start) + abi::bytes(query.offset);
            Ok((shows_all && shared).then_some((query.device, query.inode, offset)))
        });
        let (view, alias) = (view?, alias?);
        Ok(view.is_some() && view == alias)
    }

    /// `Mm::vacate`
    pub(super) fn vacate_pages(&self, pages: PageRange, alias: PageNumber) -> Result<(), E> {
        let (start, len) = self.bytes(pages);
        // The alias's mapping is the engine's to end; it comes back when it is used. It counts as one
        // elsewhere.
        advise(self.page.address_of(alias), len, Advice::LinuxDontNeed)?;
        advise(start, len, Advice::LinuxPageOut)?;
        if self.pagemap.is_mapped_once(pages)? && put_into_lists() {
            advise(start, len, Advice::LinuxPageOut)?;
        }
        Ok(())
    }
}

/// Advice that drops no content: to page out whatever it is, or to unmap an alias, which is of shared
/// memory.
fn advise(start: usize, len: usize, advice: Advice) -> Result<(), E> {
    rustix::io::retry_on_intr(|| {
        let start = core::ptr::with_exposed_provenance_mut(start);
        // SAFETY: no content changes, as above.
        unsafe { rustix::mm::madvise(start, len, advice) }
    })
}

/// Has all processors put their new pages into the kernel's lists. Answers whether they did.
fn put_into_lists() -> bool {
    /// `MPOL_MF_MOVE` of `linux/mempolicy.h`: pages of this process alone.
    const MOVE: i32 = 1 << 1;
    let none = [0_usize];
    let none = none.as_ptr();
    // SAFETY: of no pages nothing is read or written; that the lists are not null has the call begin.
    unsafe { libc::syscall(libc::SYS_move_pages, 0, 0_usize, none, none, none, MOVE) == 0 }
}
