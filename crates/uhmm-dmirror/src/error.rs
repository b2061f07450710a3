//! Errors of calls.

use thiserror::Error;
use uhmm::engine_memory::EngineMemoryError;

/// Why a call failed, as the kernel's device says it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// the range wraps, is not one of whole pages, or lies in no area that can be read
    #[error("the range wraps, is not one of whole pages, or lies in no area that can be read")]
    Invalid,
    /// a page cannot be accessed, or the buffer cannot
    #[error("a page of the range, or the buffer, cannot be accessed")]
    Fault,
    /// a page may not be written, or is exclusive still
    #[error("a page of the range may not be written, or is exclusive still")]
    NotPermitted,
    /// no page of the range moved
    #[error("no page of the range moved")]
    NothingMoved,
    /// a page could not be had exclusively
    #[error("a page of the range could not be had exclusively")]
    Busy,
    /// memory is short
    #[error("there is no memory for the call")]
    NoMemory,
}

impl Error {
    /// The error's number, as `errno` has it.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Invalid => libc::EINVAL,
            Self::Fault => libc::EFAULT,
            Self::NotPermitted => libc::EPERM,
            Self::NothingMoved => libc::ENOENT,
            Self::Busy => libc::EBUSY,
            Self::NoMemory => libc::ENOMEM,
        }
    }
}

impl From<EngineMemoryError> for Error {
    fn from(_: EngineMemoryError) -> Self {
        Self::NoMemory
    }
}
