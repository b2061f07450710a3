//! Coherent memory: frames that the CPU maps where the program has the pages.
//!
//! A frame is a page of staging, which is set aside as the device is attached: it is there whether a page
//! of the program's is in it or not. A page goes there by a copy, by way of transit, and then the frame
//! itself moves to where the program has the page. So its place in staging is a hole for as long as the CPU
//! maps it, and nothing of the program's page tables is ours: a fork, a remapping or a discarding does to
//! it what it does to any page.
//!
//! A free frame is *full*: a page whose content is nobody's. Where the program has taken one along, as by a
//! fork, its place stays a hole, and it is free all the same: it is filled anew as it is needed.

use super::{FrameRun, Transit};
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemory, EngineMemoryError},
    mm::{Access, Done, Look, Mm, Stop},
    processor,
    units::{BLOCK_PAGES, NumaNode, PageNumber, PageRange},
};

/// What the core keeps of coherent memory.
pub(crate) struct Coherent {
    /// The places of the frames.
    frames: PageRange,
    pub(crate) transit: Transit,
    /// The NUMA node that the frames are of, if that is said.
    node: Option<NumaNode>,
}

impl core::fmt::Debug for Coherent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Coherent").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Coherent {
    /// How many pages of staging a memory of `frames` frames takes.
    pub(super) fn staging_for(frames: usize) -> usize {
        // What comes back can do without, so no more full pages are kept for that than there are in any case.
        Transit::pages_for(0, 0) + frames
    }

    /// The memory in `staging`, which is as long as [`staging_for`](Self::staging_for) says: transit, and
    /// behind it the frames, which begin as aligned as the staging does.
    pub(super) fn new(
        staging: PageRange,
        frames: usize,
        node: Option<NumaNode>,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        let frames = Self::frames_in(staging, frames);
        Ok(Self {
            frames,
            transit: Transit::new(PageRange::new(staging.start(), frames.start()), 0, memory)?,
            node,
        })
    }

    /// The places of `frames` frames in `staging`.
    pub(super) const fn frames_in(staging: PageRange, frames: usize) -> PageRange {
        PageRange::new(staging.start().plus(staging.len() - frames), staging.end())
    }

    /// The place of a frame.
    pub(crate) fn page(&self, frame: FrameNumber) -> PageNumber {
        self.frames.start().plus(frame.0 as usize)
    }

    /// All of its staging.
    pub(super) const fn staging(&self) -> PageRange {
        PageRange::new(self.transit.pages.start(), self.frames.end())
    }

    /// The places of a run of frames.
    fn pages(&self, run: FrameRun) -> PageRange {
        PageRange::of(self.page(run.first), run.frames)
    }

    /// Makes holes full, frames that are handed out to the caller. Where it stops the rest is holes, as
    /// far as is known.
    pub(super) fn fill<M: Mm>(&self, run: FrameRun, mm: &M) -> Done {
        let pages = self.pages(run);
        if pages.len() == BLOCK_PAGES && pages.start().in_block() == 0 {
            // What the system keeps of small pages there would split a huge one.
            // SAFETY: the frames are handed out to the caller alone, so no translation leads to them and their
            // content is nobody's (docs/invariants.md, a frame has one owner).
            let _ = unsafe { mm.empty_staging(pages) };
        }
        set_aside(pages, self.node, mm)
    }

    /// Has full frames, which are a block and handed out to the caller, be one huge page, if that is to be had;
    /// else they stay what they are. Answers as [`fill`](Self::fill).
    pub(crate) fn make_huge<M: Mm>(&self, run: FrameRun, mm: &M) -> Done {
        let pages = self.pages(run);
        // SAFETY: the frames are handed out to the caller alone, so no translation leads to them and their
        // content is nobody's (docs/invariants.md, a frame has one owner).
        let made = unsafe { mm.remake_block(pages.start(), self.node) };
        if made.stop.is_none() {
            mark(pages, mm);
        }
        if made.pages == pages.len() {
            return Done { stop: None, ..made };
        }
        let rest = PageRange::new(pages.start().plus(made.pages), pages.end());
        let more = set_aside(rest, self.node, mm);
        Done { pages: made.pages + more.pages, stop: more.stop }
    }

    /// Copies pages of staging, which are there, into frames, which are full and handed out to the caller.
    pub(crate) fn copy_in<M: Mm>(&self, from: PageNumber, to: FrameRun, mm: &M) {
        self.have_small(to, mm);
        copy(from, self.page(to.first), to.frames, mm);
    }

    /// Has frames, which are full and handed out to the caller, be small pages, where they are a part of a huge
    /// one: before they get content that is zeros, which the system would take the memory of as it parts them
    /// for a move.
    fn have_small<M: Mm>(&self, run: FrameRun, mm: &M) {
        let pages = self.pages(run);
        if run.frames < BLOCK_PAGES && mm.is_huge(pages.start()) {
            mark(pages, mm);
            mm.split_block(pages.start());
        }
    }

    /// Copies frames that pages are away in, under the lock of their block, to full pages of transit that are
    /// lent to the caller.
    pub(crate) fn copy_out<M: Mm>(&self, from: FrameRun, to: PageNumber, mm: &M) {
        copy(self.page(from.first), to, from.frames, mm);
    }

    /// Fills frames, which are full and handed out to the caller, with zeros.
    pub(crate) fn zero<M: Mm>(&self, run: FrameRun, mm: &M) {
        debug_assert!(are_there(self.pages(run), mm), "a frame that is handed out is no hole");
        self.have_small(run, mm);
        let bytes = mm.page_size().bytes_in(run.frames);
        let to = mm.staging_pointer(self.page(run.first));
        // SAFETY: so many pages of staging that are no holes, as they are full, and that nobody else uses
        // (docs/invariants.md, a frame has one owner).
        unsafe { to.write_bytes(0, bytes) };
    }
}

/// Copies pages of staging, frames and of transit, which are there on either side and the caller's alone.
fn copy<M: Mm>(from: PageNumber, to: PageNumber, pages: usize, mm: &M) {
    debug_assert!(are_there(PageRange::of(from, pages), mm), "what is copied is no hole");
    debug_assert!(are_there(PageRange::of(to, pages), mm), "what is copied to is no hole");
    let (from, to) = (mm.staging_pointer(from), mm.staging_pointer(to));
    // SAFETY: so many pages of staging on either side, which are no holes, as the caller says. Either are
    // the caller's alone (docs/invariants.md, a frame has one owner, and a page of transit is lent to one
    // transfer), so none is on both sides.
    unsafe { processor::copy(from.as_ptr(), to.as_ptr(), mm.page_size().bytes_in(pages)) };
}

/// Whether pages are there, as far as the system tells: for debug builds.
fn are_there<M: Mm>(pages: PageRange, mm: &M) -> bool {
    pages.by_block().all(|part| {
        let mut looks = [Look::Hole; BLOCK_PAGES];
        let looks = &mut looks[..part.len()];
        mm.look(part.start(), looks).is_err()
            || !looks.iter().any(|look| matches!(look, Look::Hole | Look::Poisoned))
    })
}

/// Has pages of staging hold something else than zeros: the system gives the memory of a part of a huge page
/// that holds zeros to others as it parts that. They are there, and their content is nobody's.
fn mark<M: Mm>(pages: PageRange, mm: &M) {
    for page in pages.pages() {
        // SAFETY: a page of staging, which is aligned for it and no hole, as the caller says, and the caller's
        // alone (docs/invariants.md, a frame has one owner).
        unsafe { mm.staging_pointer(page).cast::<u64>().write(u64::MAX) };
    }
}

/// Has memory, of a NUMA node if one is named, at `pages` of staging: huge pages where the system has some,
/// else small ones. What is there already stays.
pub(crate) fn set_aside<M: Mm>(pages: PageRange, node: Option<NumaNode>, mm: &M) -> Done {
    let mut done = 0;
    for block in pages.by_block() {
        let mut filled = 0;
        if block.len() == BLOCK_PAGES {
            filled = mm.zero_block(block.start(), node).pages;
        }
        mark(PageRange::of(block.start(), filled), mm);
        while filled < block.len() {
            let made = mm.zero(block.start().plus(filled), block.len() - filled, Access::Write);
            filled += made.pages;
            match made.stop {
                None => {}
                Some(Stop::Present) => filled += 1,
                stop => return Done { pages: done + filled, stop },
            }
        }
        done += filled;
    }
    Done { pages: done, stop: None }
}
