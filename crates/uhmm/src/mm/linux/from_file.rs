//! Anonymous memory takes the place of a private mapping of a file.

use core::ptr;

use rustix::{
    io::Errno as E,
    mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags},
};

use super::{Linux, aside::flags, staging};
use crate::units::PageRange;

impl Linux {
    /// `Mm::make_anonymous`
    ///
    /// # Safety
    /// As of `Mm::make_anonymous`.
    pub(super) unsafe fn copy_over(&self, pages: PageRange) -> Result<(), E> {
        let Some(area) = self.areas.at(pages.start())? else { return Err(E::FAULT) };
        let (_, len) = self.bytes(pages);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let copy = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE)?
        };
        let there = PageRange::of(self.page.page_of(copy.expose_provenance()), pages.len());
        // SAFETY: the new mapping has that many bytes, which nobody knows of.
        let copied = unsafe { self.copy_bytes(pages, copy.cast(), len) }.and_then(|()| {
            let protection: MprotectFlags = flags(area.protection);
            // SAFETY: the new mapping, which nobody knows of.
            unsafe { rustix::mm::mprotect(copy, len, protection) }?;
            let to = self.pointer(pages.start());
            // SAFETY: the caller's promise. What was there and what comes are the same.
            unsafe { rustix::mm::mremap_fixed(copy, len, len, MremapFlags::MAYMOVE, to) }.map(drop)
        });
        if let Err(error) = copied {
            if self.areas.at(pages.start())?.is_none_or(|now| now.pages != area.pages) {
                crate::abort::abort(
                    b"memory that was to take the place of a file's mapping cannot",
                );
            }
            // SAFETY: it is where it was mapped, and nobody knows of it.
            let _ = unsafe { staging::unmap_pages(self.page, there) };
            return Err(error);
        }
        Ok(())
    }

    /// Copies the bytes of `pages` to `to`, by the kernel: what cannot be read is an error.
    ///
    /// # Safety
    /// `to` is valid for writes of `len` bytes, as many as the pages have.
    unsafe fn copy_bytes(&self, pages: PageRange, to: *mut u8, len: usize) -> Result<(), E> {
        let mut done = 0;
        while done < len {
            let rest = len - done;
            let local = libc::iovec { iov_base: to.wrapping_add(done).cast(), iov_len: rest };
            let from = self.pointer(pages.start()).wrapping_byte_add(done);
            let remote = libc::iovec { iov_base: from, iov_len: rest };
            // SAFETY: the caller's promise of the local bytes; the kernel checks the others.
            let copied = unsafe {
                libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
            };
            match usize::try_from(copied) {
                Ok(copied) if copied > 0 => done += copied,
                _ => return Err(E::FAULT),
            }
        }
        Ok(())
    }
}
