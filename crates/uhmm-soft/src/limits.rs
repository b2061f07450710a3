//! How many there can be of what a device has.

/// The most workers that one device can have.
pub(crate) const MOST_WORKERS: usize = 64;

/// How many entries the fault buffer has for each worker, where nobody said: one for what the worker waits
/// for, the others for what it will want soon.
pub(crate) const ENTRIES_PER_WORKER: usize = 16;
