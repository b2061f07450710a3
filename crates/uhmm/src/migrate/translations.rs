//! Translations end, before what they lead to changes: the owner's, and those of all who mapped the
//! pages where they are.

use core::ops::Range;

use super::AwayRun;
use crate::{
    device::DeviceState,
    driver::{DeviceIndex, Invalidation, InvalidationKind},
    engine::Locked,
    mm::Mm,
    units::BLOCK_PAGES,
};

impl<M: Mm> Locked<'_, M> {
    /// Ends all translations of pages that are on `device`.
    pub(crate) fn end_away(
        &self,
        device: &DeviceState,
        places: &Range<usize>,
        kind: InvalidationKind,
    ) {
        let invalidation = Invalidation { pages: self.pages(places), kind };
        if self.block.is_translated() {
            self.end_all(&invalidation, Some(device.index));
        }
        self.engine.counters.invalidations.add(1);
        device.device.invalidate(&invalidation);
    }

    /// Ends all translations of a run that leaves its addresses, so that the device can be asked no more
    /// what it has written there.
    pub(crate) fn end_leaving(&self, run: &AwayRun, kind: InvalidationKind) {
        let device = self.device(run.device);
        self.end_away(device, &run.pages, kind);
        self.ask_written(device, run);
    }

    /// Ends all translations of pages that are in system memory.
    pub(crate) fn end_in_place(&self, places: &Range<usize>, kind: InvalidationKind) {
        if self.block.is_translated() && !places.is_empty() {
            self.end_all(&Invalidation { pages: self.pages(places), kind }, None);
        }
    }

    /// Ends all translations of pages wherever they are, which stay where they are.
    pub(crate) fn end_everywhere(&mut self, places: &Range<usize>, kind: InvalidationKind) {
        // First of all, as below.
        self.block.changed(0, 0);
        self.end_in_place(places, kind);
        let mut rest = places.clone();
        while let Some(run) = self.next_on_device(rest.clone(), None) {
            rest.start = run.pages.end;
            self.engine.counters.invalidations.add(1);
            let invalidation = Invalidation { pages: self.pages(&run.pages), kind };
            self.device(run.device).device.invalidate(&invalidation);
        }
    }

    fn end_all(&self, invalidation: &Invalidation, except: Option<DeviceIndex>) {
        // First of all, so that nobody who asks from here on believes to have what ends.
        self.block.changed(0, 0);
        let told = self.engine.mirrors.invalidate(invalidation, except, self.signals);
        self.engine.counters.invalidations.add(told);
        if invalidation.pages.len() == BLOCK_PAGES {
            self.block.note_translated(false);
            self.engine.view.note_unmapped(self.number);
        }
    }
}
