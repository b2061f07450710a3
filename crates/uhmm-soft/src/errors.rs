//! Why an access, a launch or the start of a device failed.

use thiserror::Error;
use uhmm::{
    AttachError, DeviceFaultError, FaultFailure, MapError, QueueCancelled,
    engine_memory::{EngineMemoryError, SpawnError},
    mm::Errno,
    units::RangeError,
};

/// Why an access of the device failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// The page cannot be had.
    #[error(transparent)]
    Fault(#[from] DeviceFaultError),
    /// The page cannot be mapped where it is.
    #[error(transparent)]
    Map(#[from] MapError),
    /// the range wraps around the end of the address space
    #[error("an access of {len} bytes at {address:#x} wraps around the end of the address space")]
    Wraps {
        /// Where it starts.
        address: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// an atomic access of an address that is not aligned for it
    #[error("an atomic access of {len} bytes at {address:#x} is not aligned")]
    Unaligned {
        /// The address.
        address: usize,
        /// The length of the access in bytes.
        len: usize,
    },
    /// the processor refuses the access again and again although the page can be mapped
    #[error("the processor refuses the access to {address:#x} although the page can be mapped")]
    Refused {
        /// The address.
        address: usize,
    },
    /// accesses in place cannot be had
    #[error(
        "{address:#x} cannot be accessed in place, as the handlers of SIGSEGV and SIGBUS cannot be set ({errno})"
    )]
    Handlers {
        /// The address.
        address: usize,
        /// The system's error.
        errno: Errno,
    },
    /// elements that an argument does not have
    #[error("{count} elements from {first} on are not in an argument of {len}")]
    OutOfBounds {
        /// The first element asked for.
        first: usize,
        /// How many.
        count: usize,
        /// How many the argument has.
        len: usize,
    },
    /// a page that the launch of a kernel of a list does not name
    #[error("the launch does not name the page at {address:#x}: give it the range")]
    NotNamed {
        /// The address.
        address: usize,
    },
    /// The access was told to fail by the kernel that made it.
    #[error("the kernel gave up at {address:#x}")]
    GivenUp {
        /// An address that the kernel names.
        address: usize,
    },
}

impl From<QueueCancelled> for AccessError {
    fn from(cancelled: QueueCancelled) -> Self {
        let QueueCancelled { address, failure, .. } = cancelled;
        match failure {
            FaultFailure::Stays(cause) => Self::Fault(DeviceFaultError { address, cause }),
            FaultFailure::NotMapped(error) => Self::Map(MapError { address, error }),
        }
    }
}

/// Why a device could not be started.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    /// a memory that does not hold a page
    #[error("a memory of {memory} bytes does not hold a page of {page} bytes: give it more")]
    MemoryTooSmall {
        /// Bytes asked for.
        memory: usize,
        /// The size of a page in bytes.
        page: usize,
    },
    /// no workers, or too many
    #[error("a device cannot have {workers} workers: give it 1 to {most}")]
    Workers {
        /// Workers asked for.
        workers: usize,
        /// The most that there can be.
        most: usize,
    },
    /// It cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A worker cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
    /// a worker cannot be given access to memory in place
    #[error("a worker cannot reach memory in place ({errno}): start fewer workers")]
    InPlace {
        /// The system's error.
        errno: Errno,
    },
    /// the memory of its own cannot be mapped
    #[error("{memory} bytes for the device's own memory cannot be mapped ({errno}): give it less")]
    Mapping {
        /// Bytes asked for.
        memory: usize,
        /// The system's error.
        errno: Errno,
    },
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Why a launch failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RunError {
    /// an item's access failed, and the items not begun were left
    #[error("item {item}: {error}")]
    Item {
        /// The first item that failed.
        item: usize,
        /// Why.
        error: AccessError,
    },
    /// No engine memory for the kernel.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
    /// a launch by a kernel, which the worker that runs it would wait for for ever
    #[error("a kernel cannot launch kernels: launch them on a thread of the program")]
    FromKernel,
}

/// Why a placement could not be noted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PlaceError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// No engine memory to note it.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Why a device for kernels of a list could not be started.
#[derive(Debug, Error)]
pub enum KernelStartError {
    /// What can go wrong wherever it lives.
    #[error(transparent)]
    Device(#[from] StartError),
    /// the process cannot be started, or not be watched
    #[error("the device process cannot be started: {0}")]
    Spawn(#[source] std::io::Error),
    /// the process did not say that it is ready
    #[error(
        "the device process did not become ready in {patience:?}: does main call serve_if_asked first?"
    )]
    NotReady {
        /// How long it had.
        patience: core::time::Duration,
    },
    /// the process is of another version, or has other kernels
    #[error("the device process has another version or other kernels: start the same executable")]
    Refused,
}

/// Why a launch of a kernel of a list failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KernelRunError {
    /// What can go wrong wherever the device lives.
    #[error(transparent)]
    Run(#[from] RunError),
    /// no such kernel
    #[error("there is no kernel {kernel}: the list has {kernels}")]
    Kernel {
        /// The kernel's place in the list.
        kernel: usize,
        /// How many there are.
        kernels: usize,
    },
    /// too many ranges of memory
    #[error("a launch cannot name {ranges} ranges apart from each other: name {most} at most")]
    Ranges {
        /// How many were named, those that touch each other being one.
        ranges: usize,
        /// How many can be.
        most: usize,
    },
    /// the device process is gone, and what it held is lost
    #[error("the device process is gone, and what it held is lost")]
    Lost,
}

impl From<EngineMemoryError> for KernelRunError {
    fn from(error: EngineMemoryError) -> Self {
        Self::Run(error.into())
    }
}
