//! The bulk calls: page after page, until one refuses.

use super::{BAD_ADDRESS, Held, Model, State, Violation, areas::Span, pages::PageState};
use crate::{
    mm::{Access, Backing, Done, Stop},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

impl Model {
    /// Does `step` from each page on, until all are done or one refuses, and wakes who waits on
    /// the pages done and on one that was there already. `step` gets how many pages are done and
    /// how many are left, and answers how many it did.
    pub(super) fn bulk(
        &self,
        to: PageNumber,
        pages: usize,
        step: impl Fn(&mut State, usize, usize) -> Result<usize, Stop>,
    ) -> Done {
        let mut held = self.held();
        let done = if held.messages.changing() {
            Done { pages: 0, stop: Some(Stop::Changing) }
        } else {
            each(&mut held, pages, step)
        };
        let seen = done.pages + usize::from(done.stop == Some(Stop::Present));
        self.wake_waiters(&mut held, PageRange::of(to, seen));
        done
    }
}

fn each(
    held: &mut Held<'_>,
    pages: usize,
    step: impl Fn(&mut State, usize, usize) -> Result<usize, Stop>,
) -> Done {
    let mut done = 0;
    while done < pages {
        match step(held, done, pages - done) {
            Ok(count) => done += count,
            Err(stop) => return Done { pages: done, stop: Some(stop) },
        }
    }
    Done { pages: done, stop: None }
}

impl State {
    /// Moves the page at `from` to the hole at `to`, or a huge page whole where that fits.
    pub(super) fn step_move(
        &mut self,
        from: PageNumber,
        to: PageNumber,
        left: usize,
    ) -> Result<usize, Stop> {
        if self.areas.at(from).is_some_and(|area| area.attributes.staging) {
            self.pages.settle(from);
        }
        self.may_move(from, to)?;
        let huge = self.pages.huge_fits(from, to, left)
            && (1..BLOCK_PAGES)
                .all(|index| self.may_move(from.plus(index), to.plus(index)).is_ok());
        let count = if huge { BLOCK_PAGES } else { 1 };
        for index in 0..count {
            let page = from.plus(index);
            // What lies aside is not, and nobody else's.
            let untrapped = |area: &Span| !area.attributes.trapped && !area.attributes.staging;
            if self.areas.at(page).is_some_and(untrapped) {
                self.violations.push(Violation::TakenUntrapped(page));
            }
        }
        if huge {
            self.pages.move_huge(from, to);
        } else {
            self.pages.move_page(from, to);
        }
        Ok(count)
    }

    /// Whether the page at `from` can move to `to`, asked in the kernel's order.
    fn may_move(&self, from: PageNumber, to: PageNumber) -> Result<(), Stop> {
        let source = self.areas.at(from).ok_or(Stop::NoArea)?.attributes;
        let target = self.areas.at(to).ok_or(Stop::NoArea)?.attributes;
        if !target.registered() {
            return Err(Stop::NoArea);
        }
        if !source.movable() || !target.movable() {
            return Err(Stop::Refused);
        }
        if self.pages.at(to) != PageState::Hole {
            return Err(Stop::Present);
        }
        match self.pages.at(from) {
            PageState::Hole => Err(Stop::Hole),
            PageState::Poison => Err(Stop::Refused),
            state if state.is_held() => Err(Stop::Busy),
            PageState::Own { .. }
            | PageState::Zero
            | PageState::Cached
            | PageState::Swapped { .. } => Ok(()),
        }
    }

    /// The kind of the trapped or watched area at `to`, where single pages can be filled.
    fn fillable(&self, to: PageNumber) -> Result<Backing, Stop> {
        let target = self.areas.at(to).ok_or(Stop::NoArea)?.attributes;
        if !target.registered() {
            return Err(Stop::NoArea);
        }
        match target.backing {
            Backing::PrivateAnonymous
            | Backing::SharedAnonymous
            | Backing::SharedFile
            | Backing::SharedHugetlb => {}
            _ => return Err(Stop::Refused),
        }
        if self.ends_before(&target, to) {
            return Err(Stop::Other(BAD_ADDRESS));
        }
        Ok(target.backing)
    }

    /// Copies the page at `from` to the hole, or the mark of poison, at `to`.
    pub(super) fn step_copy(&mut self, from: PageNumber, to: PageNumber) -> Result<usize, Stop> {
        self.fillable(to)?;
        if !matches!(self.pages.at(to), PageState::Hole | PageState::Poison) {
            return Err(Stop::Present);
        }
        match self.pages.at(from) {
            PageState::Hole => {
                self.violations.push(Violation::CopiedHole(from));
                return Err(Stop::Hole);
            }
            PageState::Poison => return Err(Stop::Other(BAD_ADDRESS)),
            PageState::Own { .. }
            | PageState::Zero
            | PageState::Cached
            | PageState::Swapped { .. } => {}
        }
        if !self.pages.room() {
            return Err(Stop::NoMemory);
        }
        self.pages.copy_bytes(from, to);
        self.pages.set(to, PageState::OWN);
        Ok(1)
    }

    /// Copies the huge page at `from` to the holes from `to` on, whole where that fits, else its first page.
    pub(super) fn step_copy_whole(
        &mut self,
        from: PageNumber,
        to: PageNumber,
        left: usize,
    ) -> Result<usize, Stop> {
        let whole = self.pages.huge_fits(from, to, left)
            && self.pages.room_for(BLOCK_PAGES)
            && (0..BLOCK_PAGES).all(|index| {
                let to = to.plus(index);
                self.areas.at(to).is_some_and(|area| area.attributes.movable())
                    && self.pages.at(to) == PageState::Hole
            });
        if !whole {
            return self.step_copy(from, to);
        }
        for index in 0..BLOCK_PAGES {
            self.step_copy(from.plus(index), to.plus(index))?;
        }
        self.pages.make_huge(to.block().pages());
        Ok(BLOCK_PAGES)
    }

    /// Fills the block at `to`, all holes, with one huge page of zeros.
    pub(super) fn step_zero_whole(&mut self, to: PageNumber) -> Result<usize, Stop> {
        let block = to.block().pages();
        self.fillable(to)?;
        if block.pages().any(|page| self.pages.at(page) != PageState::Hole) {
            return Err(Stop::Present);
        }
        self.step_remake_whole(to)
    }

    /// Has one huge page of zeros in the place of the block at `to`, whose content is nobody's.
    pub(super) fn step_remake_whole(&mut self, to: PageNumber) -> Result<usize, Stop> {
        let block = to.block().pages();
        self.fillable(to)?;
        if !self.pages.room_for(BLOCK_PAGES) {
            return Err(Stop::NoMemory);
        }
        block.pages().for_each(|page| self.pages.set_zeroed(page, PageState::OWN));
        self.pages.make_huge(block);
        Ok(BLOCK_PAGES)
    }

    /// Fills the hole at `to` with zeros, or with what the file has. Pages of their own are copies of zeros to the kernel, and
    /// so replace a mark of poison.
    pub(super) fn step_zero(&mut self, to: PageNumber, access: Access) -> Result<usize, Stop> {
        let backing = self.fillable(to)?;
        match self.pages.at(to) {
            PageState::Hole | PageState::Poison if self.pages.is_in_file(to) => {
                self.pages.map_of_file(to);
                return Ok(1);
            }
            PageState::Hole => {}
            PageState::Poison if access == Access::Write => {
                self.violations.push(Violation::ZeroedPoison(to));
            }
            _ => return Err(Stop::Present),
        }
        if access == Access::Read && backing == Backing::PrivateAnonymous {
            self.pages.set_zeroed(to, PageState::Zero);
        } else if self.pages.room() {
            self.pages.set_zeroed(to, PageState::OWN);
        } else {
            return Err(Stop::NoMemory);
        }
        Ok(1)
    }

    /// Marks the hole at `to`.
    pub(super) fn step_poison(&mut self, to: PageNumber) -> Result<usize, Stop> {
        self.fillable(to)?;
        if self.pages.at(to) != PageState::Hole {
            return Err(Stop::Present);
        }
        self.pages.set(to, PageState::Poison);
        Ok(1)
    }
}
