//! Huge pages that are made, and copies of huge pages that are huge pages.
//!
//! The kernel's calls fill holes of registered memory with base pages. So a huge page is made on a block of
//! our own, which is not registered, so that the kernel makes a huge page there as it is touched; there it is
//! written, and then it moves to where it is wanted, as moves keep huge pages whole. Where the kernel has
//! none to give, or does not move it there, its own copying copies.

use super::{Linux, bulk::Work, numa, staging};
use crate::{
    mm::{Access, Done, Errno, Mm, Stop},
    sync::{Lock, SignalsBlocked},
    units::{BLOCK_PAGES, NumaNode, PageNumber, PageRange, PageSize},
};

/// A block on which one huge page at a time is made.
///
/// # Invariants
/// The block is mapped as long as this lives, and is used by who has the lock alone. It is all holes
/// while the lock is free, unless the system refused to empty it: then what is there is nobody's.
#[derive(Debug)]
pub(super) struct Workbench {
    block: PageRange,
    page: PageSize,
    /// The node that what is made there is of.
    node: Lock<Option<NumaNode>>,
}

impl Workbench {
    /// Maps the block, which takes no memory but while it is used.
    pub(super) fn map(page: PageSize) -> Result<Self, Errno> {
        let block = staging::map_unregistered(page, BLOCK_PAGES)?;
        // SAFETY: advice on a mapping that nobody knows of. Where there are no huge pages, none is found
        // there later.
        let _ = unsafe { staging::advise_huge(page, block) };
        Ok(Self { block, page, node: Lock::new(None) })
    }

    /// Where it lies.
    pub(super) const fn pages(&self) -> PageRange {
        self.block
    }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `map`, and nobody uses it any more.
        let _ = unsafe { staging::unmap_pages(self.page, self.block) };
    }
}

impl Linux {
    /// `Mm::copy_block`
    pub(super) fn copy_huge(&self, from: PageNumber, to: PageNumber) -> Done {
        let done = self.make_huge(to, None, |way| {
            let from = core::ptr::with_exposed_provenance(self.page.address_of(from));
            // SAFETY: `from` is a block of staging that can be read, as the caller of the seam says, and
            // `way` another, which nobody else uses.
            unsafe { crate::processor::copy(from, way, self.page.bytes_in(BLOCK_PAGES)) };
        });
        match done.stop {
            Some(Stop::Refused | Stop::Busy | Stop::Hole | Stop::NoMemory | Stop::Other(_)) => {
                let (pages, left) = (done.pages, BLOCK_PAGES - done.pages);
                let rest =
                    self.bulk(Work::Copy { from: from.plus(pages), to: to.plus(pages) }, left);
                Done { pages: pages + rest.pages, stop: rest.stop }
            }
            None | Some(Stop::Changing | Stop::NoArea | Stop::Present) => done,
        }
    }

    /// `Mm::remake_block`: what is at `to` is given up once there is a huge page for it.
    ///
    /// # Safety
    /// As the seam says.
    pub(super) unsafe fn remake_huge(&self, to: PageNumber, node: Option<NumaNode>) -> Done {
        let mut is_emptied = false;
        let done = self.make_huge(to, node, |_| {
            let block = PageRange::of(to, BLOCK_PAGES);
            // SAFETY: the caller's promise.
            let emptied = unsafe { staging::empty(&self.descriptor, self.page, block) };
            is_emptied = emptied.is_ok();
        });
        if is_emptied { done } else { Done { pages: BLOCK_PAGES, ..done } }
    }

    /// Makes a huge page of zeros on the workbench, if there is one to be had, of `node` if one is named,
    /// has it written, and moves it to `to`.
    pub(super) fn make_huge(
        &self,
        to: PageNumber,
        node: Option<NumaNode>,
        write: impl FnOnce(*mut u8),
    ) -> Done {
        let not_done = |stop| Done { pages: 0, stop: Some(stop) };
        let signals = SignalsBlocked::new();
        let block = self.workbench.block;
        let mut bound_to = self.workbench.node.lock(&signals);
        if *bound_to != node {
            if let Err(error) = numa::bind(self.page, block, node) {
                return not_done(Stop::Other(error.into()));
            }
            *bound_to = node;
        }
        let way = block.start();
        if let Err(error) = self.advise_populate(PageRange::of(way, 1), Access::Write) {
            return not_done(Stop::Other(error.into()));
        }
        let done = if self.is_huge(way) {
            write(core::ptr::with_exposed_provenance_mut(self.page.address_of(way)));
            self.bulk(Work::Move { from: way, to }, BLOCK_PAGES)
        } else {
            not_done(Stop::NoMemory)
        };
        if done.pages < BLOCK_PAGES {
            // What cannot be dropped is written over by the next.
            // SAFETY: the block is the workbench's, the lock of which is held, and what is left there is
            // nobody's.
            let _ = unsafe { staging::drop_pages(self.page, block) };
        }
        done
    }
}
