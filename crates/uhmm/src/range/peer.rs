//! A page that another device holds: whether it may be mapped there.

use crate::{
    device::DeviceState,
    driver::{Export, Importer},
    engine::Locked,
    migrate::AwayRun,
    mm::Mm,
    units::PageRange,
};

impl<M: Mm> Locked<'_, M> {
    /// What the device says that holds the first of a run to an importer, and the pages that it says it
    /// of. `None` where it need not be asked: a page that is exclusive is nobody else's, and comes back
    /// first.
    ///
    /// What was granted once is granted while the area lives, without asking again.
    pub(super) fn ask_peer(
        &self,
        away: &AwayRun,
        importer: Importer,
        write: bool,
    ) -> Option<(PageRange, Export)> {
        if away.exclusive {
            return None;
        }
        let pages = self.pages(&away.pages);
        Some(self.ask_exporter(self.device(away.device), pages, importer, write))
    }

    /// What a device says that has `pages`, of this block, to an importer: of the first, and of those
    /// from there on that it names.
    pub(super) fn ask_exporter(
        &self,
        exporter: &DeviceState,
        pages: PageRange,
        importer: Importer,
        write: bool,
    ) -> (PageRange, Export) {
        // What is lost is marked on its way back; what is reached by copies nobody can map.
        if exporter.is_lost() || exporter.copying().is_some() {
            return (pages, Export::SystemMemory);
        }
        let (pages, granted) = exporter.grants.leading(importer.mirror, pages, self.signals);
        if granted {
            return (pages, Export::Map);
        }
        let (answered, answer) = exporter.device.export(importer, pages, write);
        // An answer is for one page at least, whatever the device says.
        let first = PageRange::of(pages.start(), 1);
        let pages = if answered.start() == pages.start() && !answered.is_empty() {
            pages.intersection(answered)
        } else {
            first
        };
        if answer == Export::Map
            && exporter.grants.add(importer.mirror, pages, self.signals).is_err()
        {
            // What cannot be promised to hold is not granted.
            return (pages, Export::SystemMemory);
        }
        (pages, answer)
    }
}
