//! How the device's faults are served: its workers are the queues of a fault buffer, and whoever of them
//! misses a page while nobody serves is the driver for a while. What is wanted soon, and waited for by
//! nobody, is served by a thread.

use uhmm::{
    Attachment, FaultAccess, FaultBatch, FaultBuffer, Serve, Service,
    mm::Mm,
    units::{PageNumber, PageRange},
};

use crate::{
    given::{NO_PAGES, range_with},
    placement::Placements,
    table::Table,
};

/// A driver: it has pages brought, or mapped where they are, as was said of them.
pub(crate) struct Server<'a, M: Mm> {
    attachment: &'a Attachment<Table<M>, M>,
    placements: &'a Placements,
    /// Where neighbours come from, sorted and apart, if not from anywhere.
    given: Option<&'a [PageRange]>,
}

impl<'a, M: Mm> Server<'a, M> {
    pub(crate) const fn new(
        attachment: &'a Attachment<Table<M>, M>,
        placements: &'a Placements,
        given: Option<&'a [PageRange]>,
    ) -> Self {
        Self { attachment, placements, given }
    }

    fn how(&self, page: PageNumber, access: FaultAccess) -> Service {
        match access {
            _ if self.placements.is_in_place(page) => Service::Map,
            // What nobody waits for is not worth a translation that may be refused.
            FaultAccess::Prefetch => Service::Migrate,
            // Atomic operations are the processor's own, wherever the page is, so no page has to be the
            // device's alone for them.
            FaultAccess::Read | FaultAccess::Write | FaultAccess::Atomic => Service::MigrateOrMap,
        }
    }

    /// Serves the buffer until it ends: the work of the device's own thread.
    pub(crate) fn serve_until_end(&mut self, faults: &FaultBuffer) {
        while let Some(batch) = faults.next_batch() {
            self.serve(batch);
        }
    }
}

impl<M: Mm> Serve for Server<'_, M> {
    const LEADS: bool = true;

    fn serve(&mut self, batch: FaultBatch<'_>) {
        let how = |page, access| self.how(page, access);
        match self.given {
            None => self.attachment.serve_faults(batch, how),
            Some(given) => {
                let within = |page| range_with(given, page).unwrap_or(NO_PAGES);
                self.attachment.serve_faults_within(batch, how, within)
            }
        };
    }
}
