//! The program's instructions: loads, stores, and what else touches pages.

use thiserror::Error;

use super::{
    BAD_ADDRESS, Held, INVALID, Model, NO_MEMORY, POISONED, State, areas::Span, pages::PageState,
};
use crate::{
    mm::{Access, AccessorNumber, Backing, Errno, PopulateFailure},
    sync::thread_id,
    units::{BlockNumber, PageNumber, PageRange},
};

/// How an access ends that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Signal {
    /// no area there, or its protection forbids the access
    #[error("segmentation fault at {0:#x}")]
    Segv(usize),
    /// the page is marked as poisoned, or lies beyond the end of its file
    #[error("bus error at {0:#x}")]
    Bus(usize),
    /// no memory is left for the page, and nobody gives any back
    #[error("out of memory at {0:#x}")]
    OutOfMemory(usize),
}

impl Model {
    /// Loads bytes, as instructions of the calling thread would: waits on trapped holes until they
    /// are served.
    ///
    /// # Errors
    /// The signal that the thread would get; what precedes is loaded.
    pub fn load(&self, address: usize, out: &mut [u8]) -> Result<(), Signal> {
        self.load_for(None, address, out)
    }

    /// Loads bytes, through an accessor where one is given.
    pub(super) fn load_for(
        &self,
        accessor: Option<AccessorNumber>,
        address: usize,
        out: &mut [u8],
    ) -> Result<(), Signal> {
        let mut out = out;
        for (page, offset, len) in self.parts(address, out.len()) {
            let at = self.shared.page_size.address_of(page) + offset;
            let (part, rest) = out.split_at_mut(len);
            self.access(accessor, page, Access::Read, at)?.pages.read(page, offset, part);
            out = rest;
        }
        Ok(())
    }

    /// Stores bytes, as instructions of the calling thread would: waits on trapped holes until they
    /// are served.
    ///
    /// # Errors
    /// The signal that the thread would get; what precedes is stored.
    pub fn store(&self, address: usize, data: &[u8]) -> Result<(), Signal> {
        self.store_for(None, address, data)
    }

    /// Stores bytes, through an accessor where one is given.
    pub(super) fn store_for(
        &self,
        accessor: Option<AccessorNumber>,
        address: usize,
        data: &[u8],
    ) -> Result<(), Signal> {
        let mut data = data;
        for (page, offset, len) in self.parts(address, data.len()) {
            let at = self.shared.page_size.address_of(page) + offset;
            let (part, rest) = data.split_at(len);
            self.access(accessor, page, Access::Write, at)?.pages.write(page, offset, part);
            data = rest;
        }
        Ok(())
    }

    /// Adds to the eight bytes at `address` as one atomic instruction would, and returns what was
    /// there.
    ///
    /// # Errors
    /// The signal that the thread would get.
    ///
    /// # Panics
    /// Where the address is not a multiple of eight.
    pub fn fetch_add(&self, address: usize, value: u64) -> Result<u64, Signal> {
        assert!(address.is_multiple_of(8), "an atomic access is aligned");
        let page = self.shared.page_size.page_of(address);
        let offset = address - self.shared.page_size.address_of(page);
        let mut held = self.access(None, page, Access::Write, address)?;
        let mut before = [0; 8];
        held.pages.read(page, offset, &mut before);
        let before = u64::from_ne_bytes(before);
        held.pages.write(page, offset, &before.wrapping_add(value).to_ne_bytes());
        Ok(before)
    }

    /// Loads bytes where that needs no fault, as a device does that maps the pages in place.
    /// Answers whether all could be loaded; none is where not.
    pub fn try_load(&self, address: usize, out: &mut [u8]) -> bool {
        let held = self.held();
        let parts = || self.parts(address, out.len());
        let there = parts().all(|(page, ..)| {
            held.areas.at(page).is_some_and(|area| permits(area, Access::Read))
                && matches!(
                    held.pages.at(page),
                    PageState::Own { .. } | PageState::Zero | PageState::Cached
                )
        });
        if there {
            let parts: Vec<_> = parts().collect();
            let mut out = out;
            for (page, offset, len) in parts {
                let (part, rest) = out.split_at_mut(len);
                held.pages.read(page, offset, part);
                out = rest;
            }
        }
        there
    }

    /// Stores bytes where that needs no fault, as a device does that maps the pages in place.
    /// Answers whether all could be stored; none is where not.
    pub fn try_store(&self, address: usize, data: &[u8]) -> bool {
        let mut held = self.held();
        let there = self.parts(address, data.len()).all(|(page, ..)| {
            held.areas.at(page).is_some_and(|area| permits(area, Access::Write))
                && matches!(held.pages.at(page), PageState::Own { shared: false, .. })
        });
        if there {
            let mut data = data;
            for (page, offset, len) in self.parts(address, data.len()) {
                let (part, rest) = data.split_at(len);
                held.pages.write(page, offset, part);
                data = rest;
            }
        }
        there
    }

    /// Pins `page`, as direct input and output does: until unpinned as often it does not move.
    ///
    /// # Errors
    /// `ENOMEM` where no area is, or no memory is left, `EINVAL` where the protection forbids it,
    /// `EHWPOISON` at a poisoned page, `EFAULT` beyond the end of a file.
    pub fn pin(&self, page: PageNumber) -> Result<(), Errno> {
        let mut held = self.touch(page, Access::Write)?;
        if let PageState::Own { pins, shared, huge } = held.pages.at(page) {
            held.pages.set(page, PageState::Own { pins: pins + 1, shared, huge });
        }
        Ok(())
    }

    /// Ends one pin of `page`; none where the page has gone meanwhile.
    pub fn unpin(&self, page: PageNumber) {
        let mut held = self.held();
        if let PageState::Own { pins, shared, huge } = held.pages.at(page) {
            let pins = pins.saturating_sub(1);
            held.pages.set(page, PageState::Own { pins, shared, huge });
        }
    }

    /// Shares the private pages of `pages` with a child that never touches them: until written,
    /// or unshared, they do not move. What is pinned the child has as a copy.
    pub fn share_by_fork(&self, pages: PageRange) {
        self.held().share(pages);
    }

    /// Writes `page` out to swap. Answers whether it could: pinned and locked pages stay.
    pub fn swap_out(&self, page: PageNumber) -> bool {
        let mut held = self.held();
        let locked = held.areas.at(page).is_none_or(|area| area.attributes.locked);
        match held.pages.at(page) {
            PageState::Own { pins: 0, shared, .. } if !locked => {
                held.pages.set(page, PageState::Swapped { shared });
                true
            }
            _ => false,
        }
    }

    /// Makes a block one huge page. Answers whether it could: all of it must be pages of one
    /// private anonymous area that nobody else holds.
    pub fn make_huge(&self, block: BlockNumber) -> bool {
        let mut held = self.held();
        let pages = block.pages();
        let one_area = held.areas.at(pages.start()).is_some_and(|area| {
            area.pages.covers(pages) && area.attributes.backing == Backing::PrivateAnonymous
        });
        let all_own = pages.pages().all(|page| {
            matches!(held.pages.at(page), PageState::Own { pins: 0, shared: false, .. })
        });
        let could = one_area && all_own;
        if could {
            held.pages.make_huge(pages);
        }
        could
    }

    /// Makes `page` one that the access can go on with; the error is that of `MADV_POPULATE_READ`
    /// and `MADV_POPULATE_WRITE`.
    pub(super) fn touch(&self, page: PageNumber, access: Access) -> Result<Held<'_>, Errno> {
        self.fault_in(page, access).map_err(|failure| match failure {
            PopulateFailure::NoArea | PopulateFailure::NoMemory => NO_MEMORY,
            PopulateFailure::Protection | PopulateFailure::Special => INVALID,
            PopulateFailure::Poisoned => POISONED,
            PopulateFailure::BeyondEnd => BAD_ADDRESS,
            PopulateFailure::Other(errno) => errno,
        })
    }

    /// Makes `page` one that the access to `address` in it can go on with.
    fn access(
        &self,
        accessor: Option<AccessorNumber>,
        page: PageNumber,
        access: Access,
        address: usize,
    ) -> Result<Held<'_>, Signal> {
        self.fault_in_for(accessor, page, access).map_err(|failure| match failure {
            PopulateFailure::Poisoned | PopulateFailure::BeyondEnd => Signal::Bus(address),
            PopulateFailure::NoMemory => Signal::OutOfMemory(address),
            _ => Signal::Segv(address),
        })
    }

    /// The content of a page of the program, without touching it; `None` where it has none.
    ///
    /// # Errors
    /// `EFAULT` for a page that is not the program's: staging is its users' alone.
    pub fn content(&self, page: PageNumber) -> Result<Option<Vec<u8>>, Errno> {
        if !self.shared.program.contains(page) {
            return Err(BAD_ADDRESS);
        }
        let held = self.held();
        Ok(match held.pages.at(page) {
            PageState::Hole if !held.pages.is_in_file(page) => None,
            PageState::Poison => None,
            PageState::Hole
            | PageState::Own { .. }
            | PageState::Zero
            | PageState::Cached
            | PageState::Swapped { .. } => {
                let mut content = vec![0; self.shared.page_size.bytes()];
                held.pages.read(page, 0, &mut content);
                Some(content)
            }
        })
    }

    /// Makes `page` one that an access of the program can go on with.
    pub(super) fn fault_in(
        &self,
        page: PageNumber,
        access: Access,
    ) -> Result<Held<'_>, PopulateFailure> {
        self.fault_in_for(None, page, access)
    }

    /// Makes `page` one that the access can go on with: the kernel's loop of a page fault. One that
    /// is made through an accessor ends at a trapped hole.
    pub(super) fn fault_in_for(
        &self,
        accessor: Option<AccessorNumber>,
        page: PageNumber,
        access: Access,
    ) -> Result<Held<'_>, PopulateFailure> {
        const REFUSED: PopulateFailure = PopulateFailure::Other(Errno(libc::EAGAIN));
        let mut held = self.held();
        if accessor.is_some() && self.shared.aliases.contains(page) {
            return held.populate_alias(page).map(|()| held);
        }
        loop {
            let area = held.areas.at(page).copied();
            // What lies aside is unshared there.
            let is_aside = |area: &Span| area.attributes.staging && !area.attributes.trapped;
            let may = |area: &Span| self.shared.program.contains(page) || is_aside(area);
            let Some(area) = area.filter(may) else {
                return Err(PopulateFailure::NoArea);
            };
            if !permits(&area, access) {
                return Err(PopulateFailure::Protection);
            }
            let private_file = area.attributes.backing == Backing::PrivateFile;
            match held.pages.at(page) {
                PageState::Own { shared: true, .. } if access == Access::Write => {
                    // The child keeps the page; ours is a copy with the same bytes.
                    let state =
                        if area.attributes.shared() { held.pages.at(page) } else { PageState::OWN };
                    held.pages.set(page, state);
                    return Ok(held);
                }
                PageState::Own { .. } => return Ok(held),
                PageState::Zero | PageState::Cached if access == Access::Read => return Ok(held),
                PageState::Poison => return Err(PopulateFailure::Poisoned),
                PageState::Hole if held.ends_before(&area.attributes, page) => {
                    return Err(PopulateFailure::BeyondEnd);
                }
                PageState::Hole if area.attributes.trapped => {
                    if accessor.is_some() && !self.shared.late_refusals {
                        return Err(REFUSED);
                    }
                    let ticket = held.messages.post_fault(page, access, thread_id(), accessor);
                    self.shared.changed.notify_all();
                    while held.messages.waits(ticket) {
                        held = self.let_go(held);
                    }
                    if held.messages.take_refused(ticket) {
                        return Err(REFUSED);
                    }
                }
                PageState::Hole if held.pages.is_in_file(page) => held.pages.map_of_file(page),
                PageState::Hole
                    if access == Access::Read
                        && area.attributes.backing == Backing::PrivateAnonymous =>
                {
                    held.pages.set_zeroed(page, PageState::Zero);
                }
                PageState::Hole if access == Access::Read && private_file => {
                    held.pages.set_zeroed(page, PageState::Cached);
                }
                _ if !held.pages.room() => return Err(PopulateFailure::NoMemory),
                PageState::Hole => held.pages.set_zeroed(page, PageState::OWN),
                PageState::Zero | PageState::Cached => held.pages.set(page, PageState::OWN),
                PageState::Swapped { shared } => {
                    held.pages.set(page, PageState::Own { pins: 0, shared, huge: false });
                }
            }
        }
    }

    /// The parts of an access, each within a page: the page, the offset in it, the length.
    fn parts(
        &self,
        address: usize,
        len: usize,
    ) -> impl Iterator<Item = (PageNumber, usize, usize)> + use<> {
        let size = self.shared.page_size;
        let mut next = address;
        let mut left = len;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let page = size.page_of(next);
            let offset = next - size.address_of(page);
            let part = left.min(size.bytes() - offset);
            left -= part;
            next += part;
            Some((page, offset, part))
        })
    }
}

/// Whether the area's protection allows the access. What may be stored to or executed can be
/// loaded too, as on most processors.
const fn permits(area: &Span, access: Access) -> bool {
    let protection = area.attributes.protection;
    match access {
        Access::Read => protection.read || protection.write || protection.execute,
        Access::Write => protection.write,
    }
}

impl State {
    /// Shares private pages with a child.
    pub(super) fn share(&mut self, pages: PageRange) {
        for page in pages.pages() {
            if self.areas.at(page).is_none_or(|area| area.attributes.shared()) {
                continue;
            }
            let state = match self.pages.at(page) {
                PageState::Own { pins: 0, huge, .. } => {
                    PageState::Own { pins: 0, shared: true, huge }
                }
                PageState::Swapped { .. } => PageState::Swapped { shared: true },
                state => state,
            };
            self.pages.set(page, state);
        }
    }
}
