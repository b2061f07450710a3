//! What a queue of a device asks for, and what it is told where it cannot have it.

use thiserror::Error;

use crate::{
    driver::FaultAccess,
    report::{PageError, StayCause},
};

/// A queue of work of a device, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(pub usize);

/// An entry of a fault buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The queue.
    pub queue: QueueNumber,
    /// The address that it missed.
    pub address: usize,
    /// What for.
    pub access: FaultAccess,
    /// How many entries came before it.
    pub order: u64,
    /// How often the queue was cancelled or closed before.
    pub(super) generation: u32,
}

/// Why a fault could not be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FaultFailure {
    /// the page cannot come to the device
    #[error("the page cannot come to the device: {0}")]
    Stays(StayCause),
    /// the page cannot be mapped where it is
    #[error("the page cannot be mapped where it is: {0}")]
    NotMapped(PageError),
}

/// A queue's work was ended, as a fault of it could not be served.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("queue {} is cancelled, as it cannot have the page at {address:#x}: {failure}", queue.0)]
pub struct QueueCancelled {
    /// The queue.
    pub queue: QueueNumber,
    /// The address that it missed: of several that cannot be had the one that it missed first.
    pub address: usize,
    /// What for.
    pub access: FaultAccess,
    /// Why it cannot be had.
    pub failure: FaultFailure,
}
