//! Where the pages of a range are to be as the device works on them.

use uhmm::{
    RangeSet,
    engine_memory::{EngineMemory, EngineMemoryError},
    sync::{Lock, SignalsBlocked},
    units::{PageNumber, PageRange},
};

/// Where pages are to be as the device works on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// In the device's memory: they come when they are touched. What cannot come is mapped where it
    /// is.
    #[default]
    Migrate,
    /// Where the program has them: the device maps them there.
    InPlace,
}

/// The placements of all pages.
#[derive(Debug)]
pub(crate) struct Placements(Lock<RangeSet>);

impl Placements {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self(Lock::new(RangeSet::new(memory)))
    }

    pub(crate) fn set(
        &self,
        pages: PageRange,
        placement: Placement,
    ) -> Result<(), EngineMemoryError> {
        let signals = SignalsBlocked::new();
        let mut in_place = self.0.lock(&signals);
        match placement {
            Placement::InPlace => in_place.add(pages),
            Placement::Migrate => in_place.remove(pages),
        }
    }

    pub(crate) fn is_in_place(&self, page: PageNumber) -> bool {
        self.0.lock(&SignalsBlocked::new()).overlaps(PageRange::of(page, 1))
    }
}
