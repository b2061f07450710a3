//! All that can go wrong, with its status.

use thiserror::Error;
use uhmm::{
    AddressSpace, AdoptError, AttachError, CloseError, DeviceFaultError, MirrorError, OpenError,
    RangeFaultError, Refused,
    engine_memory::EngineMemoryError,
    mm::Errno,
    units::{PageRange, RangeError},
};

use crate::status::Status;

/// Why a function failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("{handle:#x} is no handle of {kind}")]
    BadHandle { handle: u64, kind: &'static str },
    #[error("the handle {handle:#x} is of {kind} that has ended")]
    Ended { handle: u64, kind: &'static str },
    #[error(
        "the handle {handle:#x} is of {kind} of process {process}, which this one was forked from: open your own"
    )]
    OtherProcess { handle: u64, kind: &'static str, process: u32 },
    #[error("{0} is null")]
    Null(&'static str),
    #[error("{name} is {value}, which is none of those that are allowed")]
    BadNumber { name: &'static str, value: u64 },
    #[error("there are {most} handles: end one first")]
    TooManyHandles { most: usize },
    #[error(
        "the accessor was opened by thread {opener}, and is used by thread {user}: open one there"
    )]
    OtherThread { opener: u32, user: u32 },
    #[error("{accessors} accessors of it are open: close them first")]
    InUse { accessors: usize },
    #[error("the block at {address:#x} is not in engine memory")]
    NotEngineMemory { address: usize },
    #[error("no engine memory could be had for {bytes} bytes, aligned to {align}")]
    NoEngineMemory { bytes: usize, align: usize },
    #[error("no memory could be had for {bytes} bytes: ask for fewer pages at a time")]
    NoMemory { bytes: usize },
    #[error("no thread can be given access to memory in place: {0}")]
    Accessor(Errno),
    #[error("{0}")]
    AccessRefused(Refused),
    #[error("{0}")]
    Range(#[from] RangeError),
    #[error("{0}")]
    Memory(#[from] EngineMemoryError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{pages} pages could not be brought back from a device: free memory and close again")]
    Stayed { pages: usize },
    #[error("{pages} could not be released: {errno}")]
    Release { pages: PageRange, errno: Errno },
    #[error("{0}")]
    Adopt(#[from] AdoptError),
    #[error("{0}")]
    Mirror(#[from] MirrorError),
    #[error("{0}")]
    Attach(#[from] AttachError),
    #[error("{0}")]
    RangeFault(#[from] RangeFaultError),
    #[error("{0}")]
    DeviceFault(#[from] DeviceFaultError),
}

impl Failure {
    /// Why an address space could not be closed, and the address space.
    pub(crate) fn of_close(error: CloseError) -> (AddressSpace, Self) {
        match error {
            CloseError::Stayed { space, report } => {
                (space, Self::Stayed { pages: report.stayed() })
            }
            CloseError::Release { space, pages, errno } => (space, Self::Release { pages, errno }),
        }
    }

    /// The status that tells of it.
    pub(crate) const fn status(&self) -> Status {
        match self {
            Self::BadHandle { .. } => Status::BadHandle,
            Self::Ended { .. } => Status::Ended,
            Self::OtherProcess { .. } => Status::OtherProcess,
            Self::Null(_) | Self::BadNumber { .. } | Self::NotEngineMemory { .. } => {
                Status::BadArgument
            }
            Self::TooManyHandles { .. } | Self::Accessor(_) => Status::TooMany,
            Self::OtherThread { .. } => Status::OtherThread,
            Self::InUse { .. } => Status::InUse,
            Self::NoMemory { .. } | Self::NoEngineMemory { .. } | Self::Memory(_) => {
                Status::NoMemory
            }
            Self::AccessRefused(_) | Self::DeviceFault(_) => Status::Refused,
            Self::Range(_) | Self::RangeFault(_) => Status::BadRange,
            Self::Open(error) => match error {
                OpenError::AlreadyOpen => Status::AlreadyOpen,
                OpenError::Memory(_) => Status::NoMemory,
                _ => Status::System,
            },
            Self::Stayed { .. } => Status::Stayed,
            Self::Release { .. } => Status::System,
            Self::Adopt(error) => match error {
                AdoptError::Range(_) | AdoptError::BeyondLimit { .. } => Status::BadRange,
                AdoptError::Refused { .. } => Status::Refused,
                AdoptError::Memory(_) => Status::NoMemory,
                AdoptError::System(_) => Status::System,
                AdoptError::Closed => Status::Ended,
            },
            Self::Mirror(error) => match error {
                MirrorError::Range(_) | MirrorError::BeyondLimit { .. } => Status::BadRange,
                MirrorError::Memory(_) => Status::NoMemory,
            },
            Self::Attach(error) => match error {
                AttachError::NoFrames | AttachError::TooManyFrames { .. } => Status::BadArgument,
                AttachError::TooManyDevices => Status::TooMany,
                AttachError::Staging { .. }
                | AttachError::SetAside { .. }
                | AttachError::Memory(_) => Status::NoMemory,
                AttachError::Node { .. } | AttachError::Thread(_) => Status::System,
            },
        }
    }
}
