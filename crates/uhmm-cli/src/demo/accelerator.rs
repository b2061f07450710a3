//! The seam between the demonstration and the device that computes for it.

use std::error::Error;

use crate::failure::Failure;
use crate::interrupt::{Interrupted, Stop};
use crate::pagerank::Step;
use uhmm_record::Recorded;

/// A device that computes the second half of an iteration.
pub(crate) trait Accelerator {
    /// Bytes of memory that the device has.
    fn memory_bytes(&self) -> u64;

    /// Computes every new rank with [`rank_of`](crate::pagerank::kernel::rank_of), reading the
    /// operands and writing the ranks through the device's page table. Returns when the device is
    /// done, or soon after `stop` is set.
    fn step(&mut self, step: Step<'_>, stop: &Stop) -> Result<(), DeviceError>;

    /// What happened since the device was opened.
    fn counters(&self) -> Counters;

    /// Everything that is counted, by name.
    fn all_counters(&self) -> Vec<(&'static str, u64)>;

    /// Begins to record what happens.
    fn record(&mut self) -> Result<(), DeviceError>;

    /// Ends the recording, if there is one.
    fn recorded(&mut self) -> Option<Recorded>;

    /// Brings all memory back to the program and ends the device.
    fn close(self: Box<Self>) -> Result<(), DeviceError>;
}

/// What moved between the program's memory and the device's, and on whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Accesses of CPU threads that found their page away.
    pub(crate) cpu_faults: u64,
    /// Accesses of the device that found no translation.
    pub(crate) device_faults: u64,
    /// Bytes of pages that moved to the device.
    pub(crate) migrated_to_device_bytes: u64,
    /// Bytes of pages that came back, on faults and by eviction.
    pub(crate) migrated_to_system_bytes: u64,
}

/// The device could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The device, or the engine below it, failed.
    #[error("{doing}: {source}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Interrupted(interrupted) => interrupted.into(),
            failed @ DeviceError::Failed { .. } => Self::new(failed),
        }
    }
}
