//! Pages that only a device backs: it has them, and its peers map them where it lets them.

use super::{
    PageEntry, PageState, Want,
    answer::Answer,
    commit::{Step, enter, places},
};
use crate::{
    device::ReservedRun,
    driver::{Export, Translation},
    engine::{Engine, Locked, Mappable},
    mirror::Subscriber,
    mm::{Access, Mm},
    report::PageError,
    sync::SignalsBlocked,
    units::PageRange,
};

impl<M: Mm> Engine<M> {
    /// Enters translations of pages of one block that are reserved.
    pub(super) fn fault_reserved(
        &self,
        who: &Subscriber,
        pages: PageRange,
        want: Want,
        answer: &mut Answer<'_>,
    ) -> Step {
        let number = pages.start().block();
        let write = want == Want::Write;
        let access = if write { Access::Write } else { Access::Read };
        let signals = SignalsBlocked::new();
        let made = self.blocks.make(pages).and_then(|()| who.holds.prepare(number));
        let ready = match made {
            Ok(()) => who.table().prepare(pages, access).map_err(PageError::from),
            Err(error) => Err(error.into()),
        };
        let visit = ready.and_then(|()| self.visit(&signals).map_err(PageError::from));
        let (mut visit, block) = match (visit, self.blocks.get(number)) {
            (Ok(visit), Some(block)) => (visit, block),
            (Err(error), _) => {
                answer.failed(pages, error);
                return Step::Dealt(pages.len());
            }
            (Ok(_), None) => {
                answer.failed(pages, PageError::NoMemory);
                return Step::Dealt(pages.len());
            }
        };
        let held = visit.lock(block, number);
        if self.gate.share(&signals).mappable(pages) != (pages, Mappable::Reserved) {
            return Step::Anew;
        }
        let mut complete = true;
        let mut rest = pages;
        while !rest.is_empty()
            && let Some(run) = self.reserved.find(rest, &signals)
        {
            let (part, reached) = held.translation_of(&run, who, write);
            rest = PageRange::new(part.end(), pages.end());
            match reached {
                Ok((translation, state)) => {
                    let write = write || state == PageState::Own;
                    let entry = PageEntry { state, write, ..Default::default() };
                    enter(block, who, part, translation, entry, answer);
                }
                Err(error) => {
                    complete = false;
                    answer.failed(part, error);
                }
            }
        }
        if complete {
            who.holds.record(number, &places(pages), write, block.hint().generation);
        }
        Step::Dealt(pages.len())
    }
}

impl<M: Mm> Locked<'_, M> {
    /// How a device may reach the first of some reserved pages, and the pages from there on of which the
    /// same is so. Main memory is no way to, as there is none behind them.
    fn translation_of(
        &self,
        run: &ReservedRun,
        who: &Subscriber,
        write: bool,
    ) -> (PageRange, Result<(Translation, PageState), PageError>) {
        let owner = self.device(run.device);
        if who.device() == Some(run.device) {
            let own = owner.translation_of(run.frame, &self.engine.mm);
            let own = own.map(|own| (own, PageState::Own)).ok_or(PageError::PeerRefuses);
            return (run.pages, own);
        }
        let memory = owner.pointer_of(run.frame, &self.engine.mm);
        let (pages, export) = self.ask_exporter(owner, run.pages, who.importer(), write);
        let (Export::Map, Some(memory)) = (export, memory) else {
            return (pages, Err(PageError::PeerRefuses));
        };
        self.engine.counters.mapped_from_peer.add(pages.len());
        self.engine.view.note_mapped(pages.start().block(), who.importer().device);
        let translation = Translation::Peer { device: run.device, memory };
        (pages, Ok((translation, PageState::Peer(run.device))))
    }
}
