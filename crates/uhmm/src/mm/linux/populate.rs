//! Making pages present, as a load or a store would: `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`.
//!
//! The kernel goes page by page and stops at the first that it cannot make present, but says neither
//! which that is nor quite why. Which is found by halving: parts that were not tried alone yet are
//! populated, until one page is left that fails by itself. Looking at the page tables instead would
//! not do, as they do not say whether a page that is there can be written. Failures are rare, and
//! what is there already costs little to populate again.
//!
//! The errors are those of `madvise_populate` in `mm/madvise.c` of Linux 6.12; what each can mean
//! is found out by looking at the area and the page.

use rustix::{io::Errno as E, mm::Advice};

use super::{
    Linux,
    file_end::{self, Keeper},
};
use crate::{
    mm::{Access, Backing, Look, PopulateFailure, Populated},
    units::{PageNumber, PageRange},
};

/// How often pages are tried again that a file has by the time it is asked.
const PATIENCE: u32 = 32;

impl Linux {
    /// `Mm::populate`
    pub(super) fn populate_pages(&self, pages: PageRange, access: Access) -> Populated {
        match self.advise_populate(pages, access) {
            Ok(()) => Populated { pages: pages.len(), failure: None },
            Err(_) => self.populate_in_parts(pages, access),
        }
    }

    /// One call of the kernel, again while it is interrupted.
    pub(super) fn advise_populate(&self, pages: PageRange, access: Access) -> Result<(), E> {
        if pages.is_empty() {
            return Ok(());
        }
        let advice = match access {
            Access::Read => Advice::LinuxPopulateRead,
            Access::Write => Advice::LinuxPopulateWrite,
        };
        let (start, len) = self.bytes(pages);
        rustix::io::retry_on_intr(|| {
            let start = core::ptr::without_provenance_mut(start);
            // SAFETY: it does what a load of each page, or a store of each page's own bytes, would
            // do, without the signals.
            unsafe { rustix::mm::madvise(start, len, advice) }
        })
    }

    /// Populates `pages`, all of which together failed, up to the first that fails by itself.
    #[cold]
    fn populate_in_parts(&self, pages: PageRange, access: Access) -> Populated {
        // What precedes `done` is present; from there up to `failed` some page failed.
        let (mut done, mut failed) = (0, pages.len());
        let mut patience = PATIENCE;
        while done < failed {
            let tried = (failed - done).div_ceil(2);
            let part = PageRange::of(pages.start().plus(done), tried);
            match self.advise_populate(part, access) {
                Err(error) if tried == 1 => {
                    let failure = self.populate_failure(part.start(), access, error);
                    // The page lay beyond its file's end, which has moved since; or there is no room for
                    // it, and then there is none the next time.
                    let may_pass = error == E::FAULT && failure == PopulateFailure::NoMemory;
                    if !may_pass || patience == 0 {
                        return Populated { pages: done, failure: Some(failure) };
                    }
                    patience -= 1;
                }
                Err(_) => failed = done + tried,
                Ok(()) => {
                    done += tried;
                    // Where all of them can be had by now, what follows is to be tried.
                    if done == failed {
                        failed = pages.len();
                    }
                }
            }
        }
        Populated { pages: done, failure: None }
    }

    /// Why `page` cannot be made present, for which the kernel's error is `error`.
    fn populate_failure(&self, page: PageNumber, access: Access, error: E) -> PopulateFailure {
        let other = PopulateFailure::Other(error.into());
        if error == E::HWPOISON {
            return PopulateFailure::Poisoned;
        }
        let mapping = match self.areas.at(page) {
            Ok(Some(mapping)) => mapping,
            Ok(None) => return PopulateFailure::NoArea,
            Err(_) => return other,
        };
        let permitted = match access {
            Access::Read => mapping.protection.read,
            Access::Write => mapping.protection.write,
        };
        match error {
            E::INVAL | E::FAULT if mapping.backing == Backing::Special => PopulateFailure::Special,
            E::INVAL | E::FAULT if !permitted => PopulateFailure::Protection,
            // Special memory that its name does not give away.
            E::INVAL => PopulateFailure::Special,
            E::NOMEM => PopulateFailure::NoMemory,
            E::FAULT => match self.look_at(page) {
                // A mark that says no poison, as that has its own error: a guard.
                Look::Poisoned => PopulateFailure::Protection,
                Look::Hole if mapping.backing != Backing::PrivateAnonymous => {
                    match file_end::has_page(&self.areas, page) {
                        Some((true, Keeper::Memory)) => PopulateFailure::NoMemory,
                        Some((true, Keeper::Medium)) => other,
                        // Mapping a file of a pool such that it can be written makes it long enough.
                        None if mapping.backing.is_of_pool() => PopulateFailure::NoMemory,
                        Some((false, _)) | None => PopulateFailure::BeyondEnd,
                    }
                }
                _ => other,
            },
            _ => other,
        }
    }

    /// What is at one page; nothing where that cannot be told.
    fn look_at(&self, page: PageNumber) -> Look {
        let mut look = [Look::Hole];
        let _ = self.pagemap.look(page, &mut look);
        let [look] = look;
        look
    }
}
