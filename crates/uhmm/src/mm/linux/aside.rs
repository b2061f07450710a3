//! Pages are taken out of an area that cannot be written.
//!
//! `UFFDIO_MOVE` refuses such areas on either side. What takes pages out of any area of private memory, all
//! at once, is `mremap` with `MREMAP_DONTUNMAP`: the pages lie elsewhere then, aside, and leave holes that
//! are trapped as the area is. Aside they are given to be written, by the engine alone, and move like any.
//!
//! It goes by the address alone: no word of the kernel's says that another area came to lie there a moment
//! ago. So it is for who knows that none does.

use core::{ffi::c_void, ops::ControlFlow};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno as E,
    mm::{MprotectFlags, MremapFlags},
};

use super::{Linux, staging};
use crate::{
    mm::Protection,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

impl Linux {
    /// `Mm::is_alone`
    pub(super) fn has_no_other_threads(own: usize) -> Result<bool, E> {
        // The kernel counts them in the links of the directory, beside its own two.
        let links = rustix::fs::stat(c"/proc/self/task")?.st_nlink;
        Ok(usize::try_from(links).is_ok_and(|links| links <= own + 3))
    }

    /// `Mm::set_aside`
    ///
    /// # Safety
    /// As of `Mm::set_aside`.
    pub(super) unsafe fn move_aside(&self, pages: PageRange) -> Result<PageRange, E> {
        // The whole area would be locked no more.
        if any_locked()? && self.is_locked(pages)? {
            return Err(E::PERM);
        }
        let hint = self.room_aside(pages)?;
        let (_, len) = self.bytes(pages);
        // Not to a fixed address: that would unmap what is there, and could then fail. Where somebody
        // mapped something there meanwhile the kernel takes another, and a huge page comes apart.
        // SAFETY: the caller's promise; the pages come to lie where nothing is.
        let there = unsafe {
            libc::mremap(
                self.pointer(pages.start()),
                len,
                len,
                libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP,
                self.pointer(hint),
            )
        };
        if there == libc::MAP_FAILED {
            // SAFETY: libc's error number of this thread is always readable.
            return Err(E::from_raw_os_error(unsafe { *libc::__errno_location() }));
        }
        let aside = PageRange::of(self.page.page_of(there.expose_provenance()), pages.len());
        // It is registered as the area is, and would be told of.
        let prepared = self
            .descriptor
            .unregister(self.page.address_of(aside.start()), len)
            .and_then(|()| self.protect(aside, MprotectFlags::READ | MprotectFlags::WRITE));
        if let Err(error) = prepared {
            // SAFETY: the caller's promise, and nobody knows of the pages aside.
            if unsafe { self.move_back(aside.start(), pages) }.is_err() {
                crate::abort::abort(
                    b"pages that were taken out of their area could not be put back (mremap)",
                );
            }
            return Err(error);
        }
        Ok(aside)
    }

    /// Whether the area of `pages` is locked into memory. Telling that takes the system a while.
    fn is_locked(&self, pages: PageRange) -> Result<bool, E> {
        let mut locked = false;
        self.areas.visit(PageRange::of(pages.start(), 1), &mut |area| {
            locked = area.locked;
            ControlFlow::Break(())
        })?;
        Ok(locked)
    }

    /// Addresses that are free just now for `pages`, such that huge pages can stay whole.
    fn room_aside(&self, pages: PageRange) -> Result<PageNumber, E> {
        let room = staging::reserve(self.page, pages.len() + BLOCK_PAGES)?;
        // SAFETY: it was reserved just now, and nobody knows of it.
        unsafe { staging::unmap_pages(self.page, room) }?;
        let ahead =
            (pages.start().in_block() + BLOCK_PAGES - room.start().in_block()) % BLOCK_PAGES;
        Ok(room.start().plus(ahead))
    }

    /// `Mm::put_back`
    ///
    /// # Safety
    /// As of `Mm::put_back`.
    pub(super) unsafe fn move_back(&self, from: PageNumber, to: PageRange) -> Result<(), E> {
        let aside = PageRange::of(from, to.len());
        let Some(area) = self.areas.at(to.start())? else { return Err(E::FAULT) };
        self.protect(aside, flags(area.protection))?;
        let len = self.page.bytes_in(to.len());
        // SAFETY: the caller's promise: the pages aside are nobody's, and where they go are holes of theirs.
        let moved = unsafe {
            rustix::mm::mremap_fixed(
                self.pointer(from),
                len,
                len,
                MremapFlags::MAYMOVE,
                self.pointer(to.start()),
            )
        };
        if let Err(error) = moved {
            self.protect(aside, MprotectFlags::READ | MprotectFlags::WRITE)?;
            return Err(error);
        }
        // What was moved over was trapped, and what lies there now is not yet.
        self.trap_holes(to).map_err(|_| E::NOMEM)
    }

    /// Changes what may be done with pages that lie aside.
    fn protect(&self, aside: PageRange, protection: MprotectFlags) -> Result<(), E> {
        let (_, len) = self.bytes(aside);
        // SAFETY: nobody but the engine knows of pages that lie aside.
        unsafe { rustix::mm::mprotect(self.pointer(aside.start()), len, protection) }
    }

    pub(super) fn pointer(&self, page: PageNumber) -> *mut c_void {
        core::ptr::with_exposed_provenance_mut(self.page.address_of(page))
    }
}

/// Whether the process has any memory that is locked.
fn any_locked() -> Result<bool, E> {
    const LINE: &[u8] = b"\nVmLck:";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/status", flags, Mode::empty())?;
    let mut text = [0; 4096];
    let len = rustix::io::read(&file, &mut text)?;
    let text = &text[..len];
    // Without the line it is not known.
    let Some(at) = text.windows(LINE.len()).position(|part| part == LINE) else { return Ok(true) };
    let rest = &text[at + LINE.len()..];
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or(rest);
    Ok(line.iter().any(|byte| (b'1'..=b'9').contains(byte)))
}

pub(super) fn flags(protection: Protection) -> MprotectFlags {
    let mut flags = MprotectFlags::empty();
    flags.set(MprotectFlags::READ, protection.read);
    flags.set(MprotectFlags::WRITE, protection.write);
    flags.set(MprotectFlags::EXEC, protection.execute);
    flags
}
