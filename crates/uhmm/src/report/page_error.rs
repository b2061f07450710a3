//! Why a device has no translation of a page.

use core::fmt;

use crate::{
    driver::PrepareError,
    engine_memory::EngineMemoryError,
    mm::{Errno, PopulateFailure, Stop, TrapError},
};

/// Why a device has no translation of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageError {
    /// Nothing is mapped there.
    NoArea,
    /// The area may not be read, or not be written where that was asked.
    Protection,
    /// The page's content is lost.
    Poisoned,
    /// The page lies beyond the end of its file.
    BeyondEnd,
    /// System memory or engine memory is exhausted.
    NoMemory,
    /// The area is a driver's or the kernel's own.
    Special,
    /// The memory is the engine's own.
    Engine,
    /// Another userfaultfd holds the area.
    ForeignUserfaultfd,
    /// Changes of the area cannot be watched, such as of a shared mapping of a file that was opened
    /// for reading only.
    CannotWatch,
    /// The process has as many areas as the system allows.
    NoRoomForAreas,
    /// The program discarded the content, which may go at any moment, and the device would hold on
    /// to it.
    Discarded,
    /// The page is on a peer that does not let this device have it.
    PeerRefuses,
    /// The device refuses the page, with a code of its own.
    DeviceRefuses(i32),
    /// The device that has the page could not copy it out, and says why with a code of its own.
    DeviceFails(i32),
    /// The address space is closed.
    Closed,
    /// The system refused for another reason.
    System(Errno),
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoArea => f.write_str("nothing is mapped there"),
            Self::Protection => f.write_str("the area's protection forbids it"),
            Self::Poisoned => f.write_str("its content was lost"),
            Self::BeyondEnd => f.write_str("beyond the end of the file"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::Special => f.write_str("memory of a driver or of the kernel"),
            Self::Engine => f.write_str("the engine's own memory"),
            Self::ForeignUserfaultfd => f.write_str("held by another userfaultfd"),
            Self::CannotWatch => f.write_str("changes of the area cannot be watched"),
            Self::NoRoomForAreas => f.write_str("no room for another area (vm.max_map_count)"),
            Self::Discarded => f.write_str("discarded by the program and not gone yet"),
            Self::PeerRefuses => f.write_str("on a device that does not let this one have it"),
            Self::DeviceRefuses(code) => write!(f, "the device refuses it with code {code}"),
            Self::DeviceFails(code) => {
                write!(f, "on a device that could not copy it and says {code}")
            }
            Self::Closed => f.write_str("the address space is closed"),
            Self::System(errno) => write!(f, "{errno}"),
        }
    }
}

impl From<PopulateFailure> for PageError {
    fn from(failure: PopulateFailure) -> Self {
        match failure {
            PopulateFailure::NoArea => Self::NoArea,
            PopulateFailure::Protection => Self::Protection,
            PopulateFailure::Poisoned => Self::Poisoned,
            PopulateFailure::BeyondEnd => Self::BeyondEnd,
            PopulateFailure::NoMemory => Self::NoMemory,
            PopulateFailure::Special => Self::Special,
            PopulateFailure::Other(errno) => Self::System(errno),
        }
    }
}

impl From<TrapError> for PageError {
    fn from(error: TrapError) -> Self {
        match error {
            TrapError::Foreign(_) => Self::ForeignUserfaultfd,
            TrapError::NoArea(_) => Self::NoArea,
            TrapError::Unsupported(_) => Self::CannotWatch,
            TrapError::NoRoom(_) => Self::NoRoomForAreas,
            TrapError::Other(_, errno) => Self::System(errno),
        }
    }
}

impl From<PrepareError> for PageError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Memory(_) => Self::NoMemory,
            PrepareError::Refused { code } => Self::DeviceRefuses(code),
        }
    }
}

impl From<EngineMemoryError> for PageError {
    fn from(_: EngineMemoryError) -> Self {
        Self::NoMemory
    }
}

impl From<Stop> for PageError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::NoArea | Stop::Hole => Self::NoArea,
            Stop::Busy | Stop::Refused | Stop::Present | Stop::Changing => Self::Protection,
            Stop::NoMemory => Self::NoMemory,
            Stop::Other(errno) => Self::System(errno),
        }
    }
}
