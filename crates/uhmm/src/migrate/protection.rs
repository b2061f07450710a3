//! What a protection forbids ends.

use crate::{
    driver::InvalidationKind,
    engine::{Engine, Permitted, Visit},
    mm::Mm,
    sync::SignalsBlocked,
    units::PageRange,
};

impl<M: Mm> Engine<M> {
    /// Has what is known of the area at the first of `pages` agree with what is permitted there, and
    /// ends all translations of it of which it is not known that they are. No lock is held.
    #[cold]
    #[inline(never)]
    pub(crate) fn heed(&self, pages: PageRange) {
        let signals = SignalsBlocked::new();
        // Where nothing is mapped, or the system does not tell, the next look says so.
        let Ok(Some(mapping)) = self.mm.mapping_at(pages.start()) else { return };
        let mut visit = self.visit(&signals);
        let (area, permitted) = (mapping.pages, Permitted::by(mapping.protection));
        let mut closed = false;
        let mut rest = area;
        while !rest.is_empty() {
            let part = {
                let mut areas = self.gate.alone(&signals);
                if !closed && areas.is_closed(area) {
                    // It is changing, and who asked looks anew.
                    return;
                }
                let restricted = &mut areas.restricted;
                let part = restricted.leading(rest);
                rest = PageRange::new(part.end(), rest.end());
                if restricted.knows(part, permitted) {
                    // Nothing is left to end, and what is permitted still stays.
                    if !restricted.allows(part, permitted) {
                        restricted.note(part, permitted);
                    }
                    continue;
                }
                if visit.is_err() {
                    // What cannot be ended is not known to have ended, and the next commit tries again.
                    restricted.forget(part);
                    continue;
                }
                restricted.note(part, permitted);
                // Who finds it known waits until it is so.
                closed = closed || areas.try_close(area).is_ok();
                part
            };
            if let Ok(visit) = &mut visit {
                self.end_translations(part, InvalidationKind::Protection, visit);
            }
        }
        if closed {
            self.gate.open(area, &signals);
        }
    }

    /// The program changed what may be done with `pages`, and tells.
    pub(crate) fn protection_changed(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        self.fetch_ahead(pages, visit.signals());
        {
            let mut areas = self.gate.alone(visit.signals());
            areas.restricted.changed(pages);
        }
        self.mirrors.prefetch_hits(pages.start(), visit.signals());
        // Who looked before that and enters translations now was in a section before; who enters
        // them later looks again.
        self.end_translations(pages, InvalidationKind::Protection, visit);
    }

    /// Ends all translations of `pages`, wherever those are, which stay there.
    pub(crate) fn end_translations(
        &self,
        pages: PageRange,
        kind: InvalidationKind,
        visit: &mut Visit<'_, M>,
    ) {
        for (block, part) in self.blocks.existing(pages) {
            if block.hint().away > 0 || block.is_translated() {
                let first = part.start().in_block();
                let mut held = visit.lock(block, part.start().block());
                held.end_everywhere(&(first..first + part.len()), kind);
            }
        }
    }
}
