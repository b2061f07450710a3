//! Why an address space cannot be opened or closed, or a mirror made.

use core::fmt;

use thiserror::Error;

use super::AddressSpace;
use crate::{
    engine_memory::{EngineMemoryError, SpawnError},
    mm::{self, Errno, Mm, linux::Linux},
    report::Migration,
    units::{AddressRange, PageRange, RangeError},
};

/// Why an address space could not be opened. Nothing is left behind.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system lacks something, or does not allow it.
    #[error(transparent)]
    System(#[from] mm::linux::OpenError),
    /// this process has one open already
    #[error("this process has an address space open already: share that one, or close it first")]
    AlreadyOpen,
    /// engine memory cannot be had
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// the limit for engine memory is too low to work with
    #[error("engine memory of {asked} bytes is too little: ask for {least} bytes or more")]
    TooLittleEngineMemory {
        /// What was asked for, in bytes.
        asked: usize,
        /// The least that works, in bytes.
        least: usize,
    },
    /// a signal cannot be handled
    #[error("signal {signal} cannot have a handler ({errno}): choose another one")]
    Signal {
        /// The signal's number; 0 for what is none.
        signal: i32,
        /// The system's error.
        errno: Errno,
    },
    /// A thread of the engine cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
}

/// Why an address space could not be closed. It is open still, but nothing goes to a device any
/// more.
#[derive(Error)]
pub enum CloseError<M: Mm = Linux> {
    /// pages could not be brought back
    #[error("{} pages could not be brought back from a device: free memory and close again", report.stayed())]
    Stayed {
        /// The address space, to close again.
        space: AddressSpace<M>,
        /// Which pages, and why.
        report: Migration,
    },
    /// an area could not be released
    #[error("{pages} could not be released: {errno}")]
    Release {
        /// The address space, to close again.
        space: AddressSpace<M>,
        /// The area.
        pages: PageRange,
        /// The system's error.
        errno: Errno,
    },
}

impl<M: Mm> fmt::Debug for CloseError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a mirror could not be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MirrorError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// the range reaches beyond what a program can have
    #[error("{range} reaches beyond the address space of a program: shorten it")]
    BeyondLimit {
        /// The range.
        range: AddressRange,
    },
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}
