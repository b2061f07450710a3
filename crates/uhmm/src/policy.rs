//! Policy: how much moves when one page is touched. Plain rules, apart from the mechanism.

use core::ops::Range;

use crate::units::BLOCK_PAGES;

/// Up to how many pages a return to the CPU copies; more are moved. Copying one page is cheaper
/// than moving it, as a move interrupts the other processors; from about ten on moving wins.
pub(crate) const COPY_PAGES: usize = 10;

/// How many pages a fault on a page never touched before fills.
pub(crate) const FIRST_TOUCH_PAGES: usize = 16;

/// How many pages a device's fault brings at least, aligned.
pub(crate) const DEVICE_FAULT_PAGES: usize = 16;

/// How many pages are given up at a time when a device's memory is short.
pub(crate) const EVICT_PAGES: usize = 64;

const LARGEST_WINDOW: u16 = 64;

/// The stream of CPU faults on one block, to tell a sequence from a random walk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultStream {
    /// The page after the last that was brought back.
    expected: u16,
    window: u16,
}

impl FaultStream {
    /// The pages to bring back for a fault on `page` of the block. A fault just behind what the
    /// last one brought doubles the window; any other ends it.
    pub(crate) fn window(&mut self, page: usize) -> Range<usize> {
        let page_number = u16::try_from(page).unwrap_or(u16::MAX);
        self.window = if page_number == self.expected && self.window > 0 {
            (self.window * 2).min(LARGEST_WINDOW)
        } else {
            1
        };
        let end = (page + usize::from(self.window)).min(BLOCK_PAGES);
        self.expected = u16::try_from(end).unwrap_or(u16::MAX);
        page..end
    }
}

/// The aligned pages around `page`, `pages` of them, within its block.
pub(crate) fn aligned_around(page: usize, pages: usize) -> Range<usize> {
    let pages = pages.min(BLOCK_PAGES);
    let start = page / pages * pages;
    start..(start + pages).min(BLOCK_PAGES)
}
