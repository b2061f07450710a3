//! What a device has let its peers map: once granted it is granted again while the area lives.

use crate::{
    driver::MirrorId,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    range_set::RangeSet,
    sync::{Lock, SignalsBlocked},
    units::PageRange,
};

/// The grants of one device.
pub(crate) struct Grants {
    memory: EngineMemory,
    by_mirror: Lock<EngineVec<(MirrorId, RangeSet)>>,
}

impl Grants {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { memory: memory.clone(), by_mirror: Lock::new(EngineVec::new(memory.clone())) }
    }

    /// Whether the first of `pages` was granted to the mirror, and the pages from there on of which the
    /// same is so.
    pub(crate) fn leading(
        &self,
        mirror: MirrorId,
        pages: PageRange,
        signals: &SignalsBlocked,
    ) -> (PageRange, bool) {
        let grants = self.by_mirror.lock(signals);
        let granted = grants.iter().find(|(to, _)| *to == mirror);
        granted.map_or((pages, false), |(_, granted)| granted.leading(pages))
    }

    /// Notes that `pages` are granted to the mirror.
    pub(crate) fn add(
        &self,
        mirror: MirrorId,
        pages: PageRange,
        signals: &SignalsBlocked,
    ) -> Result<(), EngineMemoryError> {
        let mut grants = self.by_mirror.lock(signals);
        if let Some((_, granted)) = grants.iter_mut().find(|(to, _)| *to == mirror) {
            return granted.add(pages);
        }
        let mut granted = RangeSet::new(&self.memory);
        granted.add(pages)?;
        grants.try_push((mirror, granted))
    }

    /// Ends what was granted of `pages`: their area is gone.
    pub(crate) fn end(
        &self,
        pages: PageRange,
        signals: &SignalsBlocked,
    ) -> Result<(), EngineMemoryError> {
        let mut grants = self.by_mirror.lock(signals);
        grants.iter_mut().try_for_each(|(_, granted)| granted.remove(pages))
    }

    /// Ends what was granted to a mirror, which is gone.
    pub(crate) fn forget(&self, mirror: MirrorId, signals: &SignalsBlocked) {
        let mut grants = self.by_mirror.lock(signals);
        if let Some(at) = grants.iter().position(|(to, _)| *to == mirror) {
            grants.swap_remove(at);
        }
    }
}
