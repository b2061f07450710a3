//! What peers are let have of a device's memory, by address.

use uhmm::{
    Export, RangeSet,
    engine_memory::{EngineMemory, EngineMemoryError},
    sync::{Lock, SignalsBlocked},
    units::PageRange,
};

/// What peers are let have of the device's memory, by address.
#[derive(Debug)]
pub(crate) struct Exports(Lock<Sets>);

#[derive(Debug)]
struct Sets {
    mapped: RangeSet,
    refused: RangeSet,
}

impl Exports {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        let sets = Sets { mapped: RangeSet::new(memory), refused: RangeSet::new(memory) };
        Self(Lock::new(sets))
    }

    pub(crate) fn set(&self, pages: PageRange, export: Export) -> Result<(), EngineMemoryError> {
        let signals = SignalsBlocked::new();
        let mut sets = self.0.lock(&signals);
        sets.mapped.remove(pages)?;
        sets.refused.remove(pages)?;
        match export {
            Export::Map => sets.mapped.add(pages),
            Export::Refuse => sets.refused.add(pages),
            Export::SystemMemory => Ok(()),
        }
    }

    /// What is said of the first of `pages`, and the pages from there on of which the same is said.
    pub(crate) fn leading(&self, pages: PageRange) -> (PageRange, Export) {
        let signals = SignalsBlocked::new();
        let sets = self.0.lock(&signals);
        match sets.refused.leading(pages) {
            (refused, true) => (refused, Export::Refuse),
            (pages, false) => match sets.mapped.leading(pages) {
                (mapped, true) => (mapped, Export::Map),
                (neither, false) => (neither, Export::SystemMemory),
            },
        }
    }
}
