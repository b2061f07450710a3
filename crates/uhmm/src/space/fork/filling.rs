//! A child whose fork was told is given copies of what was away, before it runs.
//!
//! While the message is unread no page moves. From the reading on all ranges are closed, until the
//! child is filled: so the records are those of the fork's moment, and who asks the engine to settle,
//! as a device does before it runs, waits. The fork waits too, so nobody changes the child, and nobody
//! has a child that is not filled, whatever ends this process.
//!
//! What was moved shortly before the fork can be told after it, so that the records have pages where the
//! child has not. Such changes wait behind the fork, and the child is asked: where it has no trapped area
//! a page is copied to where it was moved. Where it has one at both places, as after `MREMAP_DONTUNMAP`,
//! it gets a mark at the new one, as nobody says which came first.

use crate::{
    block::Residence,
    device::{DeviceState, FrameRun, Place},
    driver::FrameNumber,
    engine::{Change, Engine, Visit},
    engine_memory::EngineVec,
    mm::{Child, Done, Errno, Mm, Stop},
    space::changes::or_abort,
    units::{PageNumber, PageRange},
};

/// That a child is gone before it ran.
struct Gone;

/// Pages that were moved, of which we have records where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moved {
    ours: PageRange,
    /// Where the first of them may be now.
    now: PageNumber,
}

/// Where what is away comes from: frames of a device, from one on.
#[derive(Clone, Copy)]
struct Source<'d> {
    device: &'d DeviceState,
    first: FrameNumber,
}

impl Source<'_> {
    /// The frames `frames` further on.
    fn plus(self, frames: usize) -> Self {
        Self { first: self.first.plus(frames), ..self }
    }

    /// Whether the content is gone with its device.
    fn is_lost(self) -> bool {
        self.device.is_lost() && self.device.is_of_device(self.first)
    }
}

/// Notes that pages were moved, those that had been moved to there among them. A thread may have moved
/// the same pages to and fro many times: each place is noted once.
fn follow(moved: &mut EngineVec<Moved>, from: PageRange, to: PageNumber) {
    let known = moved.len();
    for place in 0..=known {
        let itself = Moved { ours: from, now: from.start() };
        let before = if place < known { moved[place] } else { itself };
        let part = PageRange::of(before.now, before.ours.len()).intersection(from);
        if part.is_empty() {
            continue;
        }
        let ours = before.ours.start().plus(part.start().since(before.now));
        let ours = PageRange::of(ours, part.len());
        let after = Moved { ours, now: to.plus(part.start().since(from.start())) };
        if after.now != ours.start() && !moved.contains(&after) {
            or_abort(moved.try_push(after));
        }
    }
}

impl<M: Mm> Engine<M> {
    /// Gives a child what was away as it was forked, and ends it. All ranges are closed. The changes in
    /// `behind` were told later.
    pub(in crate::space) fn fill_child(
        &self,
        child: Child,
        behind: &[Change],
        visit: &mut Visit<'_, M>,
    ) {
        let filled = self
            .mark_what_left(child, visit)
            .and_then(|()| self.fill(child, visit))
            .and_then(|()| self.fill_moved(child, behind, visit));
        // There is nobody to tell of a child that is gone.
        drop(filled);
        // SAFETY: the child was told and not ended yet; its number is dropped here.
        unsafe { self.mm.end_child(child) };
        self.counters.children.add(1);
    }

    /// Marks what we have let go of before the fork was told, where the child still has it.
    fn mark_what_left(&self, child: Child, visit: &Visit<'_, M>) -> Result<(), Gone> {
        let mut left = EngineVec::new(self.memory.clone());
        for pages in self.gate.share(visit.signals()).left_lately.iter() {
            or_abort(left.try_push(pages));
        }
        left.iter().try_for_each(|&pages| self.fill_run(child, pages, None))
    }

    /// Copies all that is away to the child.
    fn fill(&self, child: Child, visit: &mut Visit<'_, M>) -> Result<(), Gone> {
        self.each_away(self.all_pages(), visit, |pages, from| self.fill_run(child, pages, from))
    }

    /// Copies to the child what was moved as the records do not say yet.
    fn fill_moved(
        &self,
        child: Child,
        behind: &[Change],
        visit: &mut Visit<'_, M>,
    ) -> Result<(), Gone> {
        let mut moved = EngineVec::new(self.memory.clone());
        for change in behind {
            if let Change::Remapped { from, to, .. } = *change {
                follow(&mut moved, from, to);
            }
        }
        for &Moved { ours, now } in moved.iter() {
            self.each_away(ours, visit, |pages, from| {
                for (place, page) in pages.pages().enumerate() {
                    let one = PageRange::of(now.plus(page.since(ours.start())), 1);
                    // It is there, or there is nothing to be filled.
                    // SAFETY: the child was told, and is ended by the caller's caller alone.
                    let there = unsafe { self.mm.poison_in_child(child, page, 1) };
                    let from = from.filter(|_| there.stop == Some(Stop::NoArea));
                    self.fill_run(child, one, from.map(|from| from.plus(place)))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Shows the runs of `pages` that are away, and where each is, if it is not lost.
    fn each_away(
        &self,
        pages: PageRange,
        visit: &mut Visit<'_, M>,
        mut show: impl FnMut(PageRange, Option<Source<'_>>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        for (block, part) in self.blocks.existing(pages) {
            if block.hint().away == 0 {
                continue;
            }
            let mut held = visit.lock(block, part.start().block());
            let mut place = part.start().in_block();
            let end = place + part.len();
            while place < end {
                let run = held.state().pages.run(&(place..end));
                // Of shared memory the child has the file, as it has what is not away.
                if let Residence::Away { device, frame, .. } = run.residence
                    && !frame.is_shared()
                {
                    let from = Source { device: held.device(device), first: frame };
                    show(held.pages(&run.pages), (!from.is_lost()).then_some(from))?;
                }
                place = run.pages.end;
            }
        }
        Ok(())
    }

    /// Copies pages to holes of the child, as many as it can at once.
    ///
    /// # Safety
    /// As of [`Mm::copy_to_child`].
    unsafe fn copy_to_child(
        &self,
        child: Child,
        from: Source<'_>,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        match from.device.place_of(from.first) {
            // SAFETY: as the caller says.
            Place::Staging(page) => unsafe { self.mm.copy_to_child(child, page, to, pages) },
            Place::Copying(copying, first) => {
                let frames = FrameRun { first, frames: pages };
                // SAFETY: as the caller says.
                unsafe { self.copy_out_to_child(from.device, copying, frames, child, to) }
            }
        }
    }

    /// Copies pages to holes of the child, or marks those where there is nothing to copy from. What the
    /// child has something else for is passed over; what cannot be had is marked.
    fn fill_run(
        &self,
        child: Child,
        pages: PageRange,
        from: Option<Source<'_>>,
    ) -> Result<(), Gone> {
        let mut place = 0;
        while place < pages.len() {
            let (to, left) = (pages.start().plus(place), pages.len() - place);
            // SAFETY: the child was told, and is ended by the caller's caller alone.
            let filled = unsafe {
                match from {
                    Some(from) => self.copy_to_child(child, from.plus(place), to, left),
                    None => self.mm.poison_in_child(child, to, left),
                }
            };
            place += filled.pages;
            self.counters.copied_to_children.add(filled.pages);
            let stop = match filled.stop {
                None => continue,
                Some(stop) if is_final(stop) => stop,
                Some(_) => {
                    let to = pages.start().plus(place);
                    // SAFETY: as above.
                    let Done { pages, stop } = unsafe { self.mm.poison_in_child(child, to, 1) };
                    place += pages;
                    let Some(stop) = stop else { continue };
                    stop
                }
            };
            match stop {
                // A mark of its parent's, or what it has there of a file.
                Stop::Present | Stop::NoArea => place += 1,
                Stop::Other(GONE) => return Err(Gone),
                _ => crate::abort::abort(
                    b"a page cannot be copied to a child for want of memory, nor can its access be \
                      failed: the child would read zeros",
                ),
            }
        }
        Ok(())
    }
}

/// How it is said that a fork has been given up.
const GONE: Errno = Errno(libc::ESRCH);

/// Whether a page that was not filled for this cause needs no mark.
const fn is_final(stop: Stop) -> bool {
    matches!(stop, Stop::Present | Stop::NoArea | Stop::Other(GONE))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::engine_memory::EngineMemory;

    #[test]
    fn what_is_moved_on_is_followed_and_noted_once() {
        let memory = EngineMemory::map(4 << 20).unwrap();
        let range = |start, end| PageRange::new(PageNumber(start), PageNumber(end));
        let at = |start, end, now| Moved { ours: range(start, end), now: PageNumber(now) };
        let mut moved = EngineVec::new(memory);
        for _ in 0..100 {
            follow(&mut moved, range(0, 10), PageNumber(20));
            follow(&mut moved, range(20, 30), PageNumber(0));
        }
        assert_eq!(moved[..], [at(0, 10, 20), at(20, 30, 0)]);
        // A part goes on, with more from beside it.
        moved.clear();
        follow(&mut moved, range(0, 10), PageNumber(20));
        follow(&mut moved, range(25, 35), PageNumber(50));
        assert_eq!(moved[..], [at(0, 10, 20), at(5, 10, 50), at(25, 35, 50)]);
    }
}
