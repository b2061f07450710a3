//! Which areas the descriptor has: trapped, or watched.
//!
//! A watched area is registered for write protection (WP), which never happens, so that events are all
//! that comes of it. A trapped one is registered for its holes besides (MISSING; of shared memory also
//! where the file has the page, MINOR). Any kind of area can be watched,
//! if its pages could ever be written, where the descriptor has `WP_ASYNC` (Linux 6.7);
//! without, private anonymous memory can, and shared and hugetlb memory where the kernel keeps
//! marks for them.
//!
//! Registering replaces the mode that an area has, unless that has all of the new one. So what is
//! watched becomes trapped by one call, with no moment in which a change is missed; and to watch what is
//! trapped changes nothing, also where it was moved to the addresses at that moment. Where the processor
//! has no write protection for the kernel to offer, nothing is watched, and areas are trapped without.

use core::ops::ControlFlow;

use rustix::{io::Errno as E, mm::MsyncFlags};

use super::{
    Linux,
    abi::{REGISTER_MINOR, REGISTER_MISSING, REGISTER_WP},
};
use crate::{
    mm::{Backing, Errno, TrapError},
    units::PageRange,
};

impl Linux {
    /// `Mm::trap`
    pub(super) fn trap_holes(&self, pages: PageRange) -> Result<(), TrapError> {
        if pages.is_empty() {
            return Ok(());
        }
        // The kernel registers across gaps without a word, so they are looked for first.
        if !self.is_mapped(pages) {
            return Err(TrapError::NoArea(pages));
        }
        let (start, len) = self.bytes(pages);
        // Of shared memory MISSING alone would be too little: what the file has the kernel would map by
        // itself. Of private memory MINOR is refused. Where the area is another by now, so is the
        // answer, or the caller's next look.
        let mode = match self.areas.at(pages.start()) {
            Ok(Some(mapping)) if mapping.backing.is_shared() => REGISTER_MISSING | REGISTER_MINOR,
            Ok(_) => REGISTER_MISSING,
            Err(error) => return Err(TrapError::Other(pages, error.into())),
        };
        let registered = match self.descriptor.register(start, len, mode | REGISTER_WP) {
            Err(E::INVAL) => self.descriptor.register(start, len, mode),
            result => result,
        };
        registered.map_err(|error| self.trap_error(pages, error))
    }

    /// `Mm::watch`
    pub(super) fn watch_areas(&self, pages: PageRange) -> Result<(), TrapError> {
        let mut next = pages.start();
        while next < pages.end() {
            let rest = PageRange::new(next, pages.end());
            let mapping = match self.areas.at(next) {
                Ok(Some(mapping)) => mapping,
                Ok(None) => return Err(TrapError::NoArea(rest)),
                Err(error) => return Err(TrapError::Other(rest, error.into())),
            };
            let part = mapping.pages.intersection(rest);
            if mapping.backing == Backing::Special {
                return Err(TrapError::Unsupported(part));
            }
            let (start, len) = self.bytes(part);
            let registered = self.descriptor.register(start, len, REGISTER_WP);
            registered.map_err(|error| self.trap_error(part, error))?;
            next = part.end();
        }
        Ok(())
    }

    /// What it means that the kernel did not register `pages`.
    fn trap_error(&self, pages: PageRange, error: E) -> TrapError {
        match error {
            E::BUSY => TrapError::Foreign(pages),
            E::NOMEM => TrapError::NoRoom(pages),
            E::INVAL if !self.is_mapped(pages) => TrapError::NoArea(pages),
            E::INVAL | E::PERM => TrapError::Unsupported(pages),
            error => TrapError::Other(pages, error.into()),
        }
    }

    /// `Mm::untrap`
    pub(super) fn unregister(&self, pages: PageRange) -> Result<(), Errno> {
        if pages.is_empty() {
            return Ok(());
        }
        let (start, len) = self.bytes(pages);
        let result = match self.descriptor.unregister(start, len) {
            Err(E::INVAL) => self.unregister_areas(pages),
            result => result.map_err(Errno::from),
        };
        self.descriptor.wake(start, len);
        result
    }

    /// Ends the registration of each registered area in `pages`: for a range that by now holds
    /// areas that cannot be registered, which the kernel refuses as a whole.
    fn unregister_areas(&self, pages: PageRange) -> Result<(), Errno> {
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

    /// Whether every page of `pages` is in some area.
    pub(super) fn is_mapped(&self, pages: PageRange) -> bool {
        let (start, len) = self.bytes(pages);
        // SAFETY: an asynchronous msync does nothing but look for gaps between areas (msync(2)).
        let result = unsafe {
            let start = core::ptr::without_provenance_mut(start);
            rustix::mm::msync(start, len, MsyncFlags::ASYNC)
        };
        result != Err(E::NOMEM)
    }
}
