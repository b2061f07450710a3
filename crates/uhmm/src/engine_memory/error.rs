//! What can go wrong with engine memory.

use thiserror::Error;

use crate::mm::Errno;

/// Why engine memory could not be had.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EngineMemoryError {
    /// engine memory is used up
    #[error(
        "engine memory is used up: {asked} bytes asked for, {used} of {limit} bytes in use: map it with a higher limit"
    )]
    Exhausted {
        /// Bytes asked for; `usize::MAX` where they cannot be counted in a word.
        asked: usize,
        /// Bytes handed out when they were asked for.
        used: usize,
        /// Bytes that can be handed out in all.
        limit: usize,
    },
    /// the limit is zero, or beyond what can be managed
    #[error("engine memory cannot have a limit of {asked} bytes: ask for 1 to {most} bytes")]
    Limit {
        /// The limit asked for, in bytes.
        asked: usize,
        /// The highest limit that can be had, in bytes.
        most: usize,
    },
    /// the system refuses the address space
    #[error(
        "reserving {bytes} bytes of address space for engine memory failed ({errno}): lower the limit, or raise RLIMIT_AS"
    )]
    Reserve {
        /// Bytes to be reserved.
        bytes: usize,
        /// The system's error.
        errno: Errno,
    },
    /// the system refuses to back more of the reservation
    #[error(
        "engine memory cannot grow beyond {committed} bytes, with {asked} bytes asked for ({errno}): free memory, or raise vm.max_map_count"
    )]
    Commit {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that are backed.
        committed: usize,
        /// The system's error.
        errno: Errno,
    },
    /// the system refuses to protect a part of it
    #[error(
        "changing the protection of {bytes} bytes of engine memory at {address:#x} failed ({errno}): raise vm.max_map_count"
    )]
    Protect {
        /// Where the part starts.
        address: usize,
        /// Its length in bytes.
        bytes: usize,
        /// The system's error.
        errno: Errno,
    },
}

/// Why an engine thread did not start.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SpawnError {
    /// no engine memory for its stack or its closure
    #[error("no memory for an engine thread: {0}")]
    Memory(#[from] EngineMemoryError),
    /// the system refuses another thread
    #[error(
        "the system refuses an engine thread with a stack of {stack} bytes ({errno}): raise RLIMIT_NPROC or the pids limit of the cgroup"
    )]
    Refused {
        /// The size of its stack in bytes.
        stack: usize,
        /// The system's error.
        errno: Errno,
    },
}
