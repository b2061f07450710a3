//! Where the pages of areas are that only a device backs.
//!
//! No record of a block knows of such pages, as they never move: they are found by their addresses.

use crate::{
    driver::{DeviceIndex, FrameNumber},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    sync::{Lock, SignalsBlocked},
    units::PageRange,
};

/// Pages of a reservation and the first of their frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReservedRun {
    pub(crate) pages: PageRange,
    pub(crate) device: DeviceIndex,
    pub(crate) frame: FrameNumber,
}

/// Where all reserved pages are.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Sorted, and apart.
    runs: Lock<EngineVec<ReservedRun>>,
}

impl Reserved {
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { runs: Lock::new(EngineVec::new(memory.clone())) }
    }

    /// The frames of the first of `pages`, as many as follow each other; `None` where it is not
    /// reserved.
    pub(crate) fn find(&self, pages: PageRange, signals: &SignalsBlocked) -> Option<ReservedRun> {
        let runs = self.runs.lock(signals);
        let at = runs.partition_point(|run| run.pages.end() <= pages.start());
        let run = *runs.get(at)?;
        run.pages.contains(pages.start()).then(|| ReservedRun {
            pages: run.pages.intersection(pages),
            frame: run.frame.plus(pages.start().since(run.pages.start())),
            ..run
        })
    }

    pub(crate) fn add(
        &self,
        run: ReservedRun,
        signals: &SignalsBlocked,
    ) -> Result<(), EngineMemoryError> {
        let mut runs = self.runs.lock(signals);
        let at = runs.partition_point(|other| other.pages.end() <= run.pages.start());
        runs.try_insert(at, run)
    }

    /// Takes out the first run that lies in `pages`.
    pub(crate) fn take(&self, pages: PageRange, signals: &SignalsBlocked) -> Option<ReservedRun> {
        let mut runs = self.runs.lock(signals);
        let at = runs.partition_point(|run| run.pages.end() <= pages.start());
        if !runs.get(at)?.pages.overlaps(pages) {
            return None;
        }
        runs.remove(at)
    }
}
