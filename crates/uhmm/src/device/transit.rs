//! Transit: pages of staging through which content goes to and from a device's copying or coherent memory.
//!
//! A page that goes to such a device moves from the CPU into a hole of transit, all at once, and is
//! copied from there. What the copy leaves is a *full* page, whose content is nobody's. It is kept, up
//! to a number, as a page that comes back needs one: the device copies out to it, and it moves to the
//! CPU. So a page that goes there and back costs two moves and two copies, and nothing is allocated or
//! freed. A few full pages are kept for copies that cannot wait for memory.
//!
//! Pages are taken and given back under the lock of one block, for as long as a copy takes, and who
//! holds them waits for nobody but the device. So waiting for them ends. Where a copy to the device
//! failed and the page cannot go back either, its content stays here: the block's record names the
//! page, by a number past the device's frames.

mod pool;

pub(crate) use pool::Borrowed;
use pool::Pool;

use super::{Bits, FrameRun, GivenBack, twins::TwinRun};
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemory, EngineMemoryError},
    mm::{Access, Done, Mm, Stop},
    sync::{
        Lock, LockGuard, SignalsBlocked,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// How many blocks may be on their way at least: as many as a few threads move at a time. As many full
/// ones are kept in any case.
const BLOCKS: usize = if cfg!(any(shuttle, miri)) { 1 } else { 8 };

/// What part of the system's memory is kept in full pages at most.
const SHARE: usize = 16;

/// How many full pages are not given away, so that a copy out needs no memory.
const RESERVE: usize = if cfg!(any(shuttle, miri)) { 4 } else { 64 };

/// The pages of transit of one device.
pub(crate) struct Transit {
    pub(super) pages: PageRange,
    /// How many full pages are kept at most, but for those of one block more.
    kept: usize,
    pool: Lock<Pool>,
    /// Who waits for pages.
    given_back: GivenBack,
    /// Pages that records of blocks name.
    recorded: AtomicUsize,
}

impl Transit {
    /// How many pages of staging it takes for a device of `frames` frames, on a system with so much
    /// memory: full ones are kept for all that the device can hold, if that is no large part of it.
    pub(super) fn pages_for(frames: usize, memory_pages: usize) -> usize {
        let kept = frames.min(memory_pages / SHARE).div_ceil(BLOCK_PAGES);
        (kept.max(BLOCKS) + BLOCKS) * BLOCK_PAGES
    }

    /// Transit in `pages` of staging, all holes, where `frames` frames may have twins.
    pub(super) fn new(
        pages: PageRange,
        frames: usize,
        memory: &EngineMemory,
    ) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            pages,
            kept: pages.len() - BLOCKS * BLOCK_PAGES + RESERVE,
            pool: Lock::new(Pool::new(pages.len(), frames, memory)?),
            given_back: GivenBack::default(),
            recorded: AtomicUsize::new(0),
        })
    }

    /// The page of staging that has this number.
    pub(crate) fn page(&self, number: FrameNumber) -> PageNumber {
        self.pages.start().plus(number.0 as usize)
    }

    /// Takes up to `want` consecutive holes, and waits where others have all; none where they are
    /// taken for longer.
    pub(crate) fn holes<M: Mm>(
        &self,
        want: usize,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Option<FrameRun> {
        loop {
            let times = self.given_back.times();
            let mut pool = self.pool.lock(signals);
            let mut run = pool.pages.take(want);
            // A huge page stays one in as many holes alone, so others are emptied for it.
            if want == BLOCK_PAGES
                && run.is_none_or(|run| run.frames < want)
                && let Some(chunk) = pool.chunk_to_empty()
            {
                if let Some(run) = run {
                    pool.give_back(run, false);
                }
                drop(pool);
                self.empty_chunk(chunk, mm, signals);
                pool = self.pool.lock(signals);
                run = pool.pages.take(want);
            }
            while run.is_none() && pool.full() > RESERVE {
                let keep = pool.full().saturating_sub(BLOCK_PAGES).max(RESERVE);
                drop(pool);
                let emptied = self.empty(keep, mm, signals);
                pool = self.pool.lock(signals);
                run = pool.pages.take(want);
                if !emptied {
                    break;
                }
            }
            if run.is_some() {
                return run;
            }
            let in_use = self.pages.len() - pool.free() - self.recorded.load(Relaxed);
            drop(pool);
            if in_use == 0 {
                return None;
            }
            self.given_back.wait(times);
        }
    }

    /// Borrows the twins of the first of some frames, no more than a block's, as many as are alike.
    /// Otherwise says for how many from the first on other pages are to be [borrowed](Self::borrow).
    pub(crate) fn borrow_twins(
        &self,
        frames: FrameRun,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, usize> {
        let mut pool = self.pool.lock(signals);
        let TwinRun { pages, written } = pool.twins.leading(frames)?;
        let movable = pool.full().saturating_sub(RESERVE);
        let (run, _) = pages.split(if movable > 0 { movable } else { pages.frames });
        if movable > 0 && pool.move_well(run) {
            pool.twins.take(run);
            let twins_of = Some(frames.first);
            return Ok(Borrowed { run, may_move: true, missing: written, twins_of });
        }
        // They would be copied from. What was written is spared that by pages that may move.
        let alike = written.next(0, !written.has(0)).min(run.frames);
        let (run, _) = run.split(alike);
        pool.twins.take(run);
        if written.has(0) {
            pool.give_back(run, true);
            return Err(alike);
        }
        let twins_of = Some(frames.first);
        Ok(Borrowed { run, may_move: false, missing: Bits::NONE, twins_of })
    }

    /// Borrows up to `want` full pages for a copy out, at least one.
    ///
    /// # Errors
    /// There is none, nor memory for one.
    pub(crate) fn borrow<M: Mm>(
        &self,
        want: usize,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Stop> {
        loop {
            let times = self.given_back.times();
            let mut pool = self.pool.lock(signals);
            let movable = pool.full().saturating_sub(RESERVE);
            let some = if movable > 0 { want.min(movable) } else { want.min(RESERVE) };
            if let Some(run) = pool.take_full(some, true) {
                let may_move = movable > 0 && pool.move_well(run);
                let run = if movable > 0 && !may_move {
                    let (some, rest) = run.split(RESERVE);
                    pool.give_back(rest, true);
                    some
                } else {
                    run
                };
                return Ok(Borrowed::of_nobody(run, may_move));
            }
            let in_use = self.pages.len() - pool.free() - self.recorded.load(Relaxed);
            let hole = if in_use == 0 { pool.pages.take(want.min(RESERVE)) } else { None };
            drop(pool);
            if in_use > 0 {
                self.given_back.wait(times);
                continue;
            }
            let Some(run) = hole else { return Err(Stop::NoMemory) };
            return self.fill(run, mm, signals);
        }
    }

    /// Borrows a block of full pages, one huge page as far as is known, for a copy out of as many frames: one that
    /// is nobody's, or one that is made. None where the frames have twins that are as many and lie together, or
    /// where there is no huge page to be had.
    pub(crate) fn borrow_huge<M: Mm>(
        &self,
        frames: FrameRun,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Option<Borrowed> {
        let mut pool = self.pool.lock(signals);
        if pool.twins.leading(frames).is_ok_and(|twins| twins.pages.frames == frames.frames) {
            return None;
        }
        if let Some(run) = pool.take_huge() {
            return Some(Borrowed::of_nobody(run, true));
        }
        let run = pool.pages.take(BLOCK_PAGES)?;
        let block = PageRange::of(self.page(run.first), run.frames);
        if block.len() < BLOCK_PAGES || block.start().in_block() > 0 {
            pool.give_back(run, false);
            return None;
        }
        drop(pool);
        // SAFETY: the pages were taken by this call alone, and are holes.
        if unsafe { mm.empty_staging(block) }.is_err() {
            self.give_back(run, false, mm, signals);
            return None;
        }
        let there = self.filled(run, mm.zero_block(block.start(), None), mm, signals).ok()?;
        if there.frames < BLOCK_PAGES {
            self.give_back(there, true, mm, signals);
            return None;
        }
        self.pool.lock(signals).note_huge(there);
        Some(Borrowed::of_nobody(there, true))
    }

    /// Borrows full pages that are nobody's for what comes back of memory that does without: up to `want`
    /// small ones, or a huge page, if there are some. All may move.
    pub(crate) fn borrow_spare(
        &self,
        want: usize,
        huge: bool,
        signals: &SignalsBlocked,
    ) -> Option<Borrowed> {
        let mut pool = self.pool.lock(signals);
        let run = if huge { pool.take_huge()? } else { pool.take_small(want)? };
        Some(Borrowed::of_nobody(run, true))
    }

    /// Ends a loan but for the first `pages`.
    pub(crate) fn shorten(
        &self,
        borrowed: Borrowed,
        pages: usize,
        signals: &SignalsBlocked,
    ) -> Borrowed {
        let (run, rest) = borrowed.run.split(pages);
        self.pool.lock(signals).take_back(&borrowed, rest, pages);
        Borrowed { run, ..borrowed }
    }

    /// Ends a loan. The content of the first `gone` pages has gone: as the pages themselves where they
    /// `moved`. What is left is as it was, so twins are twins.
    pub(crate) fn end_loan<M: Mm>(
        &self,
        borrowed: &Borrowed,
        gone: usize,
        moved: bool,
        mm: &M,
        signals: &SignalsBlocked,
    ) {
        let (gone, rest) = borrowed.run.split(gone);
        let mut pool = self.pool.lock(signals);
        pool.take_back(borrowed, rest, gone.frames);
        pool.give_back(gone, !moved);
        self.gave_back(pool, mm, signals);
    }

    /// Gives back full pages that were copied into as many frames from `first` on, as their twins. They may
    /// be one huge page.
    pub(crate) fn give_back_twins<M: Mm>(
        &self,
        run: FrameRun,
        first: FrameNumber,
        is_huge: bool,
        mm: &M,
        signals: &SignalsBlocked,
    ) {
        let mut pool = self.pool.lock(signals);
        pool.give_back_twins(run, first, is_huge);
        self.gave_back(pool, mm, signals);
    }

    /// Gives back full pages that are nobody's. They may be one huge page.
    pub(crate) fn give_back_full<M: Mm>(
        &self,
        run: FrameRun,
        is_huge: bool,
        mm: &M,
        signals: &SignalsBlocked,
    ) {
        let mut pool = self.pool.lock(signals);
        if is_huge {
            pool.note_huge(run);
        }
        pool.give_back(run, true);
        self.gave_back(pool, mm, signals);
    }

    /// Notes that the device may write frames from here on.
    pub(crate) fn note_writable(&self, frames: FrameRun, signals: &SignalsBlocked) {
        self.pool.lock(signals).twins.note_writable(frames);
    }

    /// Notes that the device may have written frames, so that their twins are not like them.
    pub(crate) fn note_written(&self, frames: FrameRun, signals: &SignalsBlocked) {
        self.pool.lock(signals).twins.note_written(frames);
    }

    /// Frames are free, or filled anew: their twins are nobody's.
    pub(super) fn part_twins(&self, frames: FrameRun, signals: &SignalsBlocked) {
        let mut pool = self.pool.lock(signals);
        if pool.twins.len() == 0 {
            return;
        }
        let mut rest = frames;
        while rest.frames > 0 {
            let passed = match pool.twins.leading(rest) {
                Err(without) => without,
                Ok(TwinRun { pages, .. }) => {
                    pool.twins.take(pages);
                    pool.give_back(pages, true);
                    pages.frames
                }
            };
            rest = rest.behind(passed);
        }
    }

    /// Makes holes full.
    fn fill<M: Mm>(
        &self,
        run: FrameRun,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Stop> {
        let done = mm.zero(self.page(run.first), run.frames, Access::Write);
        let there = self.filled(run, done, mm, signals)?;
        Ok(Borrowed::of_nobody(there, false))
    }

    /// A call was to make holes full: answers which are so, and gives back the others.
    fn filled<M: Mm>(
        &self,
        run: FrameRun,
        done: Done,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> Result<FrameRun, Stop> {
        let (filled, rest) = run.split(done.pages);
        let (there, rest) = rest.split(usize::from(done.stop == Some(Stop::Present)));
        self.give_back(there, true, mm, signals);
        self.give_back(rest, false, mm, signals);
        if filled.frames == 0 {
            return Err(done.stop.unwrap_or(Stop::NoMemory));
        }
        Ok(filled)
    }

    /// Fills the reserve, as far as there is memory for it.
    pub(crate) fn fill_reserve<M: Mm>(&self, mm: &M, signals: &SignalsBlocked) {
        let run = self.pool.lock(signals).pages.take(RESERVE);
        if let Some(run) = run
            && let Ok(full) = self.fill(run, mm, signals)
        {
            self.give_back(full.run, true, mm, signals);
        }
    }

    /// Gives pages back, full ones or holes.
    pub(crate) fn give_back<M: Mm>(
        &self,
        run: FrameRun,
        full: bool,
        mm: &M,
        signals: &SignalsBlocked,
    ) {
        if run.frames == 0 {
            return;
        }
        let mut pool = self.pool.lock(signals);
        pool.give_back(run, full);
        self.gave_back(pool, mm, signals);
    }

    /// Some were given back: what is more than is to be kept is emptied.
    fn gave_back<M: Mm>(&self, pool: LockGuard<'_, Pool>, mm: &M, signals: &SignalsBlocked) {
        let full = pool.full();
        drop(pool);
        if full >= self.kept + BLOCK_PAGES {
            // What cannot be emptied stays, and is tried again with the next.
            let _ = self.empty(self.kept, mm, signals);
        }
        self.given_back.tell();
    }

    /// Notes that records name pages that were taken.
    pub(crate) fn note_recorded(&self, pages: usize) {
        self.recorded.fetch_add(pages, Relaxed);
    }

    /// Gives pages back that records have named, whose content is nobody's any more. Without a system
    /// at hand full ones are kept, whatever their number; the next to give some back empties them.
    pub(super) fn give_back_recorded(&self, run: FrameRun, full: bool, signals: &SignalsBlocked) {
        // In this order: for a moment they count as in use, not as there twice.
        self.recorded.fetch_sub(run.frames, Relaxed);
        self.pool.lock(signals).give_back(run, full);
        self.given_back.tell();
    }

    /// How many pages records name.
    pub(crate) fn recorded(&self) -> usize {
        self.recorded.load(Relaxed)
    }

    /// Makes holes of full pages until `keep` or fewer are left, or none can be taken, twins last. False
    /// where the system refuses.
    fn empty<M: Mm>(&self, keep: usize, mm: &M, signals: &SignalsBlocked) -> bool {
        let surplus = |pool: &Pool| pool.full().saturating_sub(keep).min(BLOCK_PAGES);
        let take = |pool: &mut Pool| pool.take_full(surplus(pool), false);
        self.empty_each(take, mm, signals)
    }

    /// Makes holes of all full pages of a chunk.
    fn empty_chunk<M: Mm>(&self, chunk: usize, mm: &M, signals: &SignalsBlocked) -> bool {
        self.empty_each(|pool| pool.take_full_in(chunk), mm, signals)
    }

    /// Makes holes of full pages as long as some are taken. False where the system refuses.
    fn empty_each<M: Mm>(
        &self,
        take: impl Fn(&mut Pool) -> Option<FrameRun>,
        mm: &M,
        signals: &SignalsBlocked,
    ) -> bool {
        loop {
            let Some(run) = take(&mut self.pool.lock(signals)) else { return true };
            let pages = PageRange::of(self.page(run.first), run.frames);
            // SAFETY: the pages were taken by this call alone, and their content is nobody's.
            let emptied = unsafe { mm.empty_staging(pages) }.is_ok();
            self.pool.lock(signals).give_back(run, !emptied);
            self.given_back.tell();
            if !emptied {
                return false;
            }
        }
    }
}

#[cfg(all(test, not(any(shuttle, miri))))]
mod tests;
