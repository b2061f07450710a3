//! A child whose fork was told is given copies of what was away.
//!
//! While the message is unread no page moves. From the reading on all ranges are closed, until the
//! child is filled: so the records are those of the fork's moment, and who asks the engine to settle,
//! as a device does before it runs, waits. The child runs meanwhile. A hole that it touches it waits
//! at; a change that it makes stops the filling until it was read, and is followed: what it unmapped
//! or dropped is left out, what it moved is filled where it is now. A child that forks leaves us two
//! to be filled.

use core::ops::ControlFlow;

use crate::{
    block::Residence,
    engine_memory::EngineVec,
    mm::{Child, Done, Errno, Message, Mm, Stop},
    space::{Engine, Visit, changes::or_abort},
    units::{PageNumber, PageRange},
};

/// Pages whose content the child is yet to get.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it is to be in the child.
    child: PageNumber,
    /// Where it is here, or was.
    ours: PageRange,
    /// Whether we have let go of it before the fork was told.
    lost: bool,
}

impl Piece {
    /// Where it is to be in the child.
    const fn target(self) -> PageRange {
        PageRange::of(self.child, self.ours.len())
    }

    /// The part of it that is to be in `target`, a part of the child's.
    const fn part(self, target: PageRange) -> Self {
        let start = self.ours.start().plus(target.start().since(self.child));
        Self { child: target.start(), ours: PageRange::of(start, target.len()), ..self }
    }

    /// What is left of it from one of our pages on.
    const fn rest(self, start: PageNumber) -> Self {
        let child = self.child.plus(start.since(self.ours.start()));
        Self { child, ours: PageRange::new(start, self.ours.end()), ..self }
    }
}

/// A child, and what it is yet to get.
struct Unfilled {
    child: Child,
    rest: EngineVec<Piece>,
}

impl Unfilled {
    /// Takes what is to be in `target` out of the rest, and shows it.
    fn take_out(&mut self, target: PageRange, mut show: impl FnMut(Piece)) {
        let mut place = 0;
        while let Some(&piece) = self.rest.get(place) {
            let whole = piece.target();
            let hit = whole.intersection(target);
            if hit.is_empty() {
                place += 1;
                continue;
            }
            self.rest.swap_remove(place);
            show(piece.part(hit));
            for left in
                [PageRange::new(whole.start(), hit.start()), PageRange::new(hit.end(), whole.end())]
            {
                if !left.is_empty() {
                    or_abort(self.rest.try_push(piece.part(left)));
                }
            }
        }
    }

    /// Follows a change of the child's.
    fn follow(&mut self, message: Message, forked: &mut EngineVec<Self>) {
        match message {
            // Who waits there is served in its turn, or finds zeros when the child is ended.
            Message::Fault { .. } => {}
            Message::Unmapped(pages) | Message::Discarded(pages) => self.take_out(pages, |_| {}),
            Message::Remapped { from, to } => {
                self.take_out(PageRange::of(to, from.len()), |_| {});
                let mut moved = EngineVec::new(self.rest.memory().clone());
                self.take_out(from, |piece| {
                    let child = to.plus(piece.child.since(from.start()));
                    or_abort(moved.try_push(Piece { child, ..piece }));
                });
                or_abort(self.rest.try_extend_from_slice(&moved));
            }
            Message::Forked(child) => {
                let mut rest = EngineVec::new(self.rest.memory().clone());
                or_abort(rest.try_extend_from_slice(&self.rest));
                or_abort(forked.try_push(Self { child, rest }));
            }
        }
    }
}

/// Messages of a child that are read at once.
const MESSAGES: usize = 16;

impl<M: Mm> Engine<M> {
    /// Gives a child what was away as it was forked, and ends it. All ranges are closed.
    pub(in crate::space) fn fill_child(&self, child: Child, visit: &mut Visit<'_, M>) {
        let everything = self.all_pages();
        let mut unfilled = EngineVec::new(self.memory.clone());
        let mut rest = EngineVec::new(self.memory.clone());
        or_abort(rest.try_push(Piece { child: everything.start(), ours: everything, lost: false }));
        for ours in self.gate.share(visit.signals()).left_lately.iter() {
            or_abort(rest.try_push(Piece { child: ours.start(), ours, lost: true }));
        }
        or_abort(unfilled.try_push(Unfilled { child, rest }));
        while let Some(mut next) = unfilled.pop() {
            while let Some(piece) = next.rest.pop() {
                let ControlFlow::Break(left) = self.fill(next.child, piece, visit) else {
                    continue;
                };
                let Some(left) = left else { break };
                or_abort(next.rest.try_push(left));
                let mut messages = [Message::Discarded(PageRange::of(PageNumber(0), 0)); MESSAGES];
                // SAFETY: the child was told and is ended below, where it is not used any more.
                let count = unsafe { self.mm.read_of_child(next.child, &mut messages) };
                for &message in &messages[..count] {
                    next.follow(message, &mut unfilled);
                }
            }
            // SAFETY: as above; its number is dropped here.
            unsafe { self.mm.end_child(next.child) };
            self.counters.children.add(1);
        }
    }

    /// Fills a piece. Breaks off with what is left of it where the child changes, with nothing where
    /// the child is gone.
    fn fill(
        &self,
        child: Child,
        piece: Piece,
        visit: &mut Visit<'_, M>,
    ) -> ControlFlow<Option<Piece>> {
        if piece.lost {
            let fill = |done| {
                let to = piece.child.plus(done);
                // SAFETY: the child was told, and is ended by the caller alone.
                unsafe { self.mm.poison_in_child(child, to, piece.ours.len() - done) }
            };
            return self.fill_run(child, piece, fill);
        }
        for (block, part) in self.blocks.existing(piece.ours) {
            if block.hint().away == 0 {
                continue;
            }
            let mut held = visit.lock(block, part.start().block());
            let mut place = part.start().in_block();
            let end = place + part.len();
            while place < end {
                let run = held.state().pages.run(&(place..end));
                let from = match run.residence {
                    Residence::System => {
                        place = run.pages.end;
                        continue;
                    }
                    Residence::Away { device, frame, .. } => {
                        let device = held.device(device);
                        (!device.is_lost()).then(|| device.page_of(frame))
                    }
                };
                let ours = held.pages(&run.pages);
                let to = piece.rest(ours.start()).child;
                let fill = |done: usize| {
                    let (to, pages) = (to.plus(done), ours.len() - done);
                    // SAFETY: the child was told, and is ended by the caller alone.
                    unsafe {
                        match from {
                            Some(from) => self.mm.copy_to_child(child, from.plus(done), to, pages),
                            None => self.mm.poison_in_child(child, to, pages),
                        }
                    }
                };
                let run_piece = Piece { child: to, ours, lost: false };
                if let ControlFlow::Break(left) = self.fill_run(child, run_piece, fill) {
                    return ControlFlow::Break(left.map(|left| piece.rest(left.ours.start())));
                }
                place = run.pages.end;
            }
        }
        ControlFlow::Continue(())
    }

    /// Fills a piece by `fill`, which does so from its page of that number on. What the child has
    /// something else for by now is passed over; what cannot be had is marked.
    fn fill_run(
        &self,
        child: Child,
        piece: Piece,
        fill: impl Fn(usize) -> Done,
    ) -> ControlFlow<Option<Piece>> {
        let mut place = 0;
        while place < piece.ours.len() {
            let filled = fill(place);
            place += filled.pages;
            self.counters.copied_to_children.add(filled.pages);
            let stop = match filled.stop {
                Some(Stop::Refused | Stop::NoMemory | Stop::Other(_)) if !is_gone(filled) => {
                    let to = piece.child.plus(place);
                    // SAFETY: as in `fill`.
                    let marked = unsafe { self.mm.poison_in_child(child, to, 1) };
                    place += marked.pages;
                    marked.stop
                }
                stop => stop,
            };
            match stop {
                None => {}
                // A mark of its parent's, or what the child has put there.
                Some(Stop::Present | Stop::NoArea) => place += 1,
                Some(Stop::Changing) => {
                    return ControlFlow::Break(Some(piece.rest(piece.ours.start().plus(place))));
                }
                Some(Stop::Other(GONE)) => return ControlFlow::Break(None),
                Some(_) => crate::abort::abort(
                    b"a page cannot be copied to a child for want of memory, nor can its access be \
                      failed: the child would read zeros",
                ),
            }
        }
        ControlFlow::Continue(())
    }
}

/// How it is said that a child has ended, or runs another program.
const GONE: Errno = Errno(libc::ESRCH);

/// Whether a call ended because of that.
fn is_gone(done: Done) -> bool {
    done.stop == Some(Stop::Other(GONE))
}

#[cfg(all(test, not(shuttle)))]
#[expect(clippy::disallowed_types, reason = "tests are off the fault path")]
mod tests {
    use super::*;
    use crate::engine_memory::EngineMemory;

    fn range(start: usize, end: usize) -> PageRange {
        PageRange::new(PageNumber(start), PageNumber(end))
    }

    /// What the child is yet to get of pages below 100: for each, where it is here.
    fn rest(unfilled: &Unfilled) -> Vec<Option<usize>> {
        let place = |page| {
            let mut holds =
                unfilled.rest.iter().filter(|piece| piece.target().contains(PageNumber(page)));
            let piece = holds.next()?;
            assert!(holds.next().is_none(), "page {page} is to be filled twice");
            Some(piece.part(range(page, page + 1)).ours.start().0)
        };
        (0..100).map(place).collect()
    }

    #[test]
    fn a_child_s_changes_are_followed() {
        let memory = EngineMemory::map(4 << 20).unwrap();
        let mut forked = EngineVec::new(memory.clone());
        let mut child = Unfilled { child: Child::new(3), rest: EngineVec::new(memory) };
        let ours = range(0, 100);
        child.rest.try_push(Piece { child: ours.start(), ours, lost: false }).unwrap();
        let mut expected: Vec<_> = (0..100).map(Some).collect();

        child.follow(Message::Unmapped(range(10, 20)), &mut forked);
        expected[10..20].fill(None);
        assert_eq!(rest(&child), expected);

        child.follow(Message::Discarded(range(15, 25)), &mut forked);
        expected[15..25].fill(None);
        assert_eq!(rest(&child), expected);

        // Over what is there, from a range with a gap.
        child.follow(Message::Forked(Child::new(4)), &mut forked);
        child.follow(Message::Remapped { from: range(5, 30), to: PageNumber(60) }, &mut forked);
        let before = expected.clone();
        let moved = expected[5..30].to_vec();
        expected[5..30].fill(None);
        expected[60..85].clone_from_slice(&moved);
        assert_eq!(rest(&child), expected);
        assert_eq!(expected[60], Some(5));

        // Its child has what it had then.
        let [grandchild] = &forked[..] else { panic!("one has forked") };
        assert_eq!((grandchild.child, rest(grandchild)), (Child::new(4), before));
    }
}
