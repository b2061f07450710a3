//! Which pages of transit are holes, which are full, and what was lent of them.

use super::RESERVE;
use crate::{
    device::{Bits, FramePool, FrameRun, bits::CHUNK, frames::place, twins::Twins},
    driver::FrameNumber,
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
};

/// The pages that are lent to nobody, and that no record names.
pub(super) struct Pool {
    /// Holes, which are ready for what comes, and full pages that are nobody's twins, which the pool calls stale.
    pub(super) pages: FramePool,
    pub(super) twins: Twins,
    /// For each chunk whether a huge page came into it, of which nothing has gone.
    huge: EngineBox<[bool]>,
}

impl Pool {
    /// One of so many pages, all holes, where `frames` frames may have twins.
    pub(super) fn new(
        pages: usize,
        frames: usize,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            pages: FramePool::new(pages, memory)?,
            twins: Twins::new(frames, pages, memory)?,
            huge: EngineBox::try_zeroed(memory, pages.div_ceil(CHUNK))?,
        })
    }

    /// How many pages are holes or full.
    pub(super) const fn free(&self) -> usize {
        self.pages.free() + self.twins.len()
    }

    /// How many pages are full.
    pub(super) const fn full(&self) -> usize {
        self.pages.stale() + self.twins.len()
    }

    /// Takes pages back, full ones that are nobody's, or holes.
    pub(super) fn give_back(&mut self, run: FrameRun, full: bool) {
        if !full && run.frames > 0 {
            let (first, last) = (place(run.first).0, place(run.first.plus(run.frames - 1)).0);
            self.huge[first..=last].fill(false);
        }
        self.pages.give_back(run, full);
    }

    /// Takes back lent pages with the content that they were lent with, from the one at `place` of the loan on:
    /// twins as twins.
    pub(super) fn take_back(&mut self, loan: &Borrowed, pages: FrameRun, place: usize) {
        match loan.twins_of {
            Some(frame) => {
                let missing = |page| loan.missing.has(place + page);
                self.twins.add(pages, frame.plus(place), missing);
            }
            None => self.give_back(pages, true),
        }
    }

    /// Takes full pages back as the twins of frames from `first` on, which may be one huge page.
    pub(super) fn give_back_twins(&mut self, run: FrameRun, first: FrameNumber, is_huge: bool) {
        if is_huge {
            self.note_huge(run);
        }
        self.twins.add(run, first, |_| false);
    }

    /// Notes that pages, which are lent, are one huge page.
    pub(super) fn note_huge(&mut self, run: FrameRun) {
        if run.frames == CHUNK {
            self.huge[place(run.first).0] = true;
        }
    }

    /// Takes out full pages that are one huge page and nobody's twins, if there are some and enough are left.
    pub(super) fn take_huge(&mut self) -> Option<FrameRun> {
        if self.full() < RESERVE + CHUNK {
            return None;
        }
        let can = |&chunk: &usize| self.huge[chunk] && self.pages.stale_in(chunk) == CHUNK;
        let chunk = (0..self.pages.chunks()).find(can)?;
        self.pages.take_stale_in(chunk)
    }

    /// Takes out up to `want` full pages that are nobody's twins and no huge page, if there are some.
    pub(super) fn take_small(&mut self, want: usize) -> Option<FrameRun> {
        // A whole chunk goes last but to who wants one.
        for want in [want, want.min(CHUNK - 1)] {
            let run = self.pages.take_stale(want)?;
            if !self.huge[place(run.first).0] {
                return Some(run);
            }
            self.pages.give_back(run, true);
        }
        None
    }

    /// Whether full pages can move away at the cost of their number. One page out of a huge one is a
    /// costly move.
    pub(super) fn move_well(&self, run: FrameRun) -> bool {
        run.frames == CHUNK || !self.huge[place(run.first).0]
    }

    /// How many pages of a chunk are full.
    fn full_in(&self, chunk: usize) -> usize {
        self.pages.stale_in(chunk) + self.twins.in_chunk(chunk)
    }

    /// The chunk that can be made all holes, so that enough full pages are left, for the least twins, if
    /// there is one.
    pub(super) fn chunk_to_empty(&self) -> Option<usize> {
        let most = self.full().checked_sub(RESERVE)?;
        let can = |&chunk: &usize| {
            let full = self.full_in(chunk);
            full <= most && full + self.pages.ready_in(chunk) == CHUNK
        };
        let costs = |&chunk: &usize| (self.twins.in_chunk(chunk), self.pages.stale_in(chunk));
        (0..self.pages.chunks()).filter(can).min_by_key(costs)
    }

    /// Takes some full pages of a chunk out, twins last.
    pub(super) fn take_full_in(&mut self, chunk: usize) -> Option<FrameRun> {
        self.pages.take_stale_in(chunk).or_else(|| self.twins.take_any_in(chunk))
    }

    /// Takes up to `want` consecutive full pages out. Twins go last; but where a chunk is wanted that is
    /// `whole`, and only twins are one, those.
    pub(super) fn take_full(&mut self, want: usize, whole: bool) -> Option<FrameRun> {
        let whole = whole && want >= CHUNK;
        if whole && !self.pages.has_whole_stale() && self.twins.have_whole() {
            return self.twins.take_any(want);
        }
        self.pages.take_stale(want).or_else(|| self.twins.take_any(want))
    }
}

/// Full pages, lent for content to go back by them: they have it, or it is to be copied out to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Borrowed {
    pub(crate) run: FrameRun,
    /// Whether they may move away; else they are to be copied from.
    pub(crate) may_move: bool,
    /// Which of them have not the content.
    pub(crate) missing: Bits,
    /// They are the twins of frames from this one on.
    pub(super) twins_of: Option<FrameNumber>,
}

impl Borrowed {
    /// Nobody's, without content.
    pub(super) fn of_nobody(run: FrameRun, may_move: bool) -> Self {
        Self { run, may_move, missing: Bits::ALL, twins_of: None }
    }

    /// Notes that those from `place` on were given what others were lent with.
    pub(crate) fn give(&mut self, place: usize, others: &Self) {
        for page in 0..others.run.frames {
            if !others.missing.has(page) {
                self.missing.clear(place + page, 1);
            }
        }
    }

    /// How many of the first `pages` had the content as they were lent, or were given it since.
    pub(crate) fn had(&self, pages: usize) -> usize {
        (0..pages).filter(|&page| !self.missing.has(page)).count()
    }
}
