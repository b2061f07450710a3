//! What is told to who asked, page by page.

use super::{PageEntry, PageState, RangeReport};
use crate::{
    engine_memory::EngineMemory,
    report::PageError,
    units::{PageNumber, PageRange},
};

/// What is told to who asked.
pub(super) struct Answer<'a> {
    pub(super) memory: &'a EngineMemory,
    pub(super) report: RangeReport,
    pub(super) entries: Option<&'a mut [PageEntry]>,
    pub(super) first: PageNumber,
}

impl<'a> Answer<'a> {
    pub(super) const fn new(
        memory: &'a EngineMemory,
        first: PageNumber,
        entries: Option<&'a mut [PageEntry]>,
    ) -> Self {
        Self { memory, report: RangeReport::new(), entries, first }
    }

    pub(super) fn tell(&mut self, pages: PageRange, entry: PageEntry) {
        if let Some(entries) = &mut self.entries {
            entries[pages.start().since(self.first)..pages.end().since(self.first)].fill(entry);
        }
    }

    pub(super) fn entered(&mut self, pages: PageRange, entry: PageEntry) {
        self.report.add_entered(pages.len());
        self.tell(pages, entry);
    }

    pub(super) fn absent(&mut self, pages: PageRange) {
        self.report.add_absent(pages.len());
        self.tell(pages, PageEntry::default());
    }

    pub(super) fn failed(&mut self, pages: PageRange, error: PageError) {
        if !pages.is_empty() {
            self.report.add_failed(pages, error, self.memory);
            self.tell(pages, PageEntry { state: PageState::Error(error), ..Default::default() });
        }
    }
}
