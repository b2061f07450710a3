//! The last step of a range fault: translations are entered, under the lock of their block.

use core::ops::Range;

use super::{
    PageEntry, PageState, Want,
    answer::Answer,
    attempt::{Attempt, Runs},
};
use crate::{
    block::{Block, Residence},
    device::FrameRun,
    driver::{DeviceIndex, Entries, Export, FrameNumber, Translation},
    engine::{Areas, Locked},
    migrate::{AwayRun, ReturnCause},
    mirror::Subscriber,
    mm::{Access, Errno, Look, Mm, Populated, Presence, Stop},
    report::PageError,
    units::{PageNumber, PageRange},
};

/// How an attempt at some pages ended.
pub(super) enum Step {
    /// So many pages from the first on are dealt with.
    Dealt(usize),
    /// What was found is not so any more: look anew.
    Anew,
    /// A change of the address space is being applied: wait, and look anew.
    Changing,
}

/// The places of pages in their block.
pub(super) fn places(pages: PageRange) -> Range<usize> {
    let first = pages.start().in_block();
    first..first + pages.len()
}

/// Enters translations of pages of a block, whose lock is held.
pub(super) fn enter(
    block: &Block,
    who: &Subscriber,
    pages: PageRange,
    translation: Translation,
    entry: PageEntry,
    answer: &mut Answer<'_>,
) {
    block.note_translated(true);
    who.holds.touch(pages.start().block(), entry.write);
    who.table().commit(&Entries { pages, translation, write: entry.write, order: entry.order });
    answer.entered(pages, entry);
}

/// Translations are entered for pages of one block, under its lock, in a section that found them
/// open.
pub(super) struct Commit<'c, 'v, 'a, 'e, M: Mm> {
    pub(super) held: &'c mut Locked<'v, M>,
    pub(super) areas: &'c Areas,
    pub(super) attempt: &'c Attempt<'a>,
    pub(super) runs: Runs,
    /// Whether some of the pages are being discarded, and the device would hold on to them.
    pub(super) discarding: bool,
    /// Of pages in coherent memory: the device, and the frame of a page, the others following.
    pub(super) coherent: Option<(DeviceIndex, FrameNumber, PageNumber)>,
    /// The page after the last that is dealt with.
    pub(super) dealt: PageNumber,
    /// Whether all that is dealt with was entered.
    pub(super) complete: bool,
    pub(super) answer: &'c mut Answer<'e>,
}

impl<M: Mm> Commit<'_, '_, '_, '_, M> {
    pub(super) fn enter_all(&mut self, pages: PageRange) -> Step {
        while self.dealt < pages.end() {
            let rest = PageRange::new(self.dealt, pages.end());
            let run = self.held.state().pages.run(&places(rest));
            let part = PageRange::of(self.dealt, run.pages.len());
            let step = match run.residence {
                Residence::System => self.enter_system(part),
                Residence::Mapped { device, frame } => {
                    self.coherent = Some((device, frame, part.start()));
                    let step = self.enter_system(part);
                    self.coherent = None;
                    step
                }
                Residence::Away { device, frame, exclusive }
                    if Some(device) == self.attempt.who.device() =>
                {
                    self.enter_own(part, device, frame, exclusive)
                }
                Residence::Away { device, frame, exclusive } => {
                    let away =
                        AwayRun { pages: run.pages, device, frame, exclusive, mapped: false };
                    self.enter_peer(part, &away)
                }
            };
            match step {
                Step::Dealt(_) => {}
                step => return step,
            }
        }
        Step::Dealt(pages.len())
    }

    fn fail(&mut self, pages: PageRange, error: PageError) {
        self.complete = false;
        self.answer.failed(pages, error);
        self.dealt = pages.end();
    }

    /// Enters translations of `pages`, which follow what is dealt with.
    fn enter(&mut self, pages: PageRange, translation: Translation, entry: PageEntry) {
        enter(self.held.block, self.attempt.who, pages, translation, entry, self.answer);
        self.dealt = pages.end();
    }

    /// Pages that the device has in its own memory, or that are on their way there or back.
    fn enter_own(
        &mut self,
        pages: PageRange,
        device: DeviceIndex,
        frame: FrameNumber,
        exclusive: bool,
    ) -> Step {
        let own = self.held.own_translation(self.held.device(device), frame);
        let Some(translation) = own else {
            let away = AwayRun { pages: places(pages), device, frame, exclusive, mapped: false };
            return self.enter_returned(pages, away);
        };
        // What is in a file can have gone from there.
        let there = match translation {
            Translation::Alias { .. } => {
                let engine = self.held.engine;
                let alias = PageRange::of(engine.aliases.page_of(frame), pages.len());
                engine.mm.populate_alias(alias)
            }
            _ => Populated { pages: pages.len(), failure: None },
        };
        let write = self.attempt.permitted().write;
        let order = self.held.frame_order();
        let state = PageState::Own;
        let entry = PageEntry { state, write, exclusive, order, ..Default::default() };
        let (pages, behind) = (
            PageRange::of(pages.start(), there.pages),
            PageRange::new(pages.start().plus(there.pages), pages.end()),
        );
        if !pages.is_empty() {
            if write {
                let frames = FrameRun { first: frame, frames: pages.len() };
                self.held.device(device).note_writable(frames, self.held.signals);
            }
            self.enter(pages, translation, entry);
        }
        match there.failure {
            Some(failure) => {
                self.fail(PageRange::of(behind.start(), 1), failure.into());
                Step::Dealt(pages.len() + 1)
            }
            None => Step::Dealt(pages.len()),
        }
    }

    /// Pages on another device: mapped there where it lets us, else brought back first.
    fn enter_peer(&mut self, pages: PageRange, away: &AwayRun) -> Step {
        let write = self.attempt.want == Want::Write;
        let asked = self.held.ask_peer(away, self.attempt.who.importer(), write);
        let (pages, asked) = match asked {
            Some((answered, export)) => (answered, Some(export)),
            None => (pages, None),
        };
        let away = AwayRun { pages: places(pages), ..*away };
        match (asked, self.held.pointer_to(away.device, away.frame)) {
            (Some(Export::Map), Some(memory)) => {
                let state = PageState::Peer(away.device);
                let order = self.held.frame_order();
                let entry = PageEntry { state, write, order, ..Default::default() };
                let engine = self.held.engine;
                engine.counters.mapped_from_peer.add(pages.len());
                engine.view.note_mapped(self.held.number, self.attempt.who.importer().device);
                let translation = if away.frame.is_shared() {
                    Translation::Alias { memory }
                } else {
                    Translation::Peer { device: away.device, memory }
                };
                self.enter(pages, translation, entry);
                Step::Dealt(pages.len())
            }
            (Some(Export::Refuse), _) => {
                self.fail(pages, PageError::PeerRefuses);
                Step::Dealt(pages.len())
            }
            (Some(Export::Map | Export::SystemMemory) | None, _) => {
                self.enter_returned(pages, away)
            }
        }
    }

    /// Pages that are away and come back first.
    fn enter_returned(&mut self, pages: PageRange, away: AwayRun) -> Step {
        let write = self.attempt.want == Want::Write;
        let device = self.held.device(away.device);
        let done = self.held.bring_back(away, ReturnCause::Coherence, self.areas);
        if (write || device.is_lost()) && done.pages > 0 {
            // They are there, and may be the page of zeros, or shared with a child; or there are
            // marks in their place.
            return Step::Anew;
        }
        if done.pages > 0 {
            self.enter_in_place(
                PageRange::of(pages.start(), done.pages),
                Presence { look: Look::Present, file: false },
            );
        }
        match done.obstacle {
            None => Step::Dealt(done.pages),
            Some(obstacle) if obstacle.is_change() => Step::Changing,
            Some(obstacle) => {
                let next = PageRange::of(pages.start().plus(done.pages), 1);
                self.fail(next, obstacle.into());
                Step::Dealt(done.pages + 1)
            }
        }
    }

    /// Pages in system memory, or nowhere yet.
    fn enter_system(&mut self, pages: PageRange) -> Step {
        for index in 0..self.runs.count {
            let (run, presence) = self.runs.list[index];
            let run = run.intersection(pages);
            if run.is_empty() {
                continue;
            }
            match presence.look {
                Look::Poisoned => self.fail(run, PageError::Poisoned),
                Look::Hole if self.attempt.want == Want::Present => {
                    self.complete = false;
                    self.answer.absent(run);
                    self.dealt = run.end();
                }
                Look::Hole if self.attempt.trapped => match self.fill(run) {
                    Step::Dealt(_) => {}
                    step => return step,
                },
                // It was there a moment ago; who holds on to pages needs it to be there now.
                Look::Hole if self.attempt.pins => return Step::Anew,
                Look::Hole | Look::Swapped => {
                    self.enter_in_place(run, Presence { look: Look::Present, ..presence });
                }
                _ if self.discarding => self.fail(run, PageError::Discarded),
                _ => self.enter_in_place(run, presence),
            }
        }
        Step::Dealt(pages.len())
    }

    /// Fills holes of a trapped area, as the first touch of each would.
    fn fill(&mut self, holes: PageRange) -> Step {
        let access = self.attempt.access();
        let mut rest = holes;
        while !rest.is_empty() {
            let done = self.held.engine.mm.zero(rest.start(), rest.len(), access);
            let filled = PageRange::of(rest.start(), done.pages);
            if !filled.is_empty() {
                // Nothing was there, so no frame is any more.
                self.held.replaced(places(filled));
                self.coherent = None;
                let look = match access {
                    Access::Read => Look::Zero,
                    Access::Write => Look::Present,
                };
                self.enter_in_place(filled, Presence { look, file: false });
            }
            let next = PageRange::new(filled.end(), rest.end());
            let (one, behind) =
                (PageRange::of(next.start(), 1), PageRange::new(next.start().plus(1), next.end()));
            rest = match done.stop {
                None => next,
                Some(Stop::Changing | Stop::NoArea) => return Step::Changing,
                Some(Stop::Present) => {
                    // A thread of the program was faster.
                    self.enter_in_place(one, Presence { look: Look::Present, file: false });
                    behind
                }
                Some(stop) => {
                    // The file of shared memory has been cut short.
                    let beyond = stop == Stop::Other(Errno(libc::EFAULT));
                    self.fail(one, if beyond { PageError::BeyondEnd } else { stop.into() });
                    behind
                }
            };
        }
        Step::Dealt(holes.len())
    }

    fn enter_in_place(&mut self, pages: PageRange, presence: Presence) {
        let zero = presence.look == Look::Zero;
        let write = self.attempt.want == Want::Write && !zero;
        let entry = PageEntry {
            state: PageState::InPlace,
            write,
            zero,
            exclusive: false,
            coherent: self.coherent.map(|(device, ..)| device),
            order: self.attempt.order(presence),
        };
        let engine = self.held.engine;
        engine.counters.mapped_in_place.add(pages.len());
        engine.view.note_mapped(self.held.number, self.attempt.who.importer().device);
        let translation = match self.coherent {
            Some((device, frame, first)) if Some(device) == self.attempt.who.device() => {
                let frame = frame.plus(pages.start().since(first)).0 as usize;
                Translation::Coherent { frame }
            }
            _ => Translation::InPlace { zero },
        };
        self.enter(pages, translation, entry);
    }
}
