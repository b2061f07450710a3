//! What the work tells who watches it: counters in memory that both processes share.

use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Kind {
    Chaos,
    Devices,
    Boxes,
    Vectors,
    Maps,
    Blocks,
    Trim,
    Areas,
    HugeAreas,
    Condition,
    Channels,
    Threads,
    Locals,
    Files,
    Pipes,
    Signals,
    Timers,
    Collector,
    Processes,
    Forks,
}

impl Kind {
    pub(crate) const ALL: [Self; 20] = [
        Self::Chaos,
        Self::Devices,
        Self::Boxes,
        Self::Vectors,
        Self::Maps,
        Self::Blocks,
        Self::Trim,
        Self::Areas,
        Self::HugeAreas,
        Self::Condition,
        Self::Channels,
        Self::Threads,
        Self::Locals,
        Self::Files,
        Self::Pipes,
        Self::Signals,
        Self::Timers,
        Self::Collector,
        Self::Processes,
        Self::Forks,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Devices => "devices",
            Self::Boxes => "boxes",
            Self::Vectors => "vectors",
            Self::Maps => "maps",
            Self::Blocks => "blocks",
            Self::Trim => "trim",
            Self::Areas => "areas",
            Self::HugeAreas => "huge-areas",
            Self::Condition => "condition",
            Self::Channels => "channels",
            Self::Threads => "threads",
            Self::Locals => "locals",
            Self::Files => "files",
            Self::Pipes => "pipes",
            Self::Signals => "signals",
            Self::Timers => "timers",
            Self::Collector => "collector",
            Self::Processes => "processes",
            Self::Forks => "forks",
        }
    }
}

/// Where the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Stage {
    Starting,
    Working,
    Ending,
    Done,
}

const KINDS: usize = Kind::ALL.len();

/// The shared words: the stage, a word of bits for the kinds that work, and a counter for each.
#[repr(C)]
struct Words {
    stage: AtomicU64,
    working: AtomicU64,
    rounds: [AtomicU64; KINDS],
}

/// The shared memory, as one of the two processes sees it.
pub(crate) struct Progress {
    file: OwnedFd,
    words: &'static Words,
}

impl Progress {
    /// Makes the memory. A program that this process starts inherits its descriptor.
    pub(crate) fn new() -> Self {
        // SAFETY: a new file without a name; the name given is for people.
        let file = unsafe { libc::memfd_create(c"uhmm-progress".as_ptr(), 0) };
        assert!(file >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was made just now and is nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        // SAFETY: the file is this process's own.
        let resized = unsafe { libc::ftruncate(file.as_raw_fd(), 4096) };
        assert_eq!(resized, 0, "ftruncate: {}", std::io::Error::last_os_error());
        Self::of(file)
    }

    /// Finds the memory by the number of an inherited descriptor.
    pub(crate) fn inherited(number: i32) -> Self {
        // SAFETY: the process was started with it, for this, and asks for it once.
        Self::of(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn of(file: OwnedFd) -> Self {
        let (read, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, at an address of the system's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), 4096, read, shared, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        // SAFETY: the mapping is never unmapped, is larger than the words, and zeros are words.
        let words = unsafe { &*start.cast::<Words>() };
        Self { file, words }
    }

    /// The number of the descriptor.
    pub(crate) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.words.stage.store(stage as u64, Relaxed);
    }

    pub(crate) fn stage(&self) -> Stage {
        [Stage::Starting, Stage::Working, Stage::Ending, Stage::Done]
            .into_iter()
            .find(|&stage| stage as u64 == self.words.stage.load(Relaxed))
            .unwrap_or(Stage::Starting)
    }

    /// Notes that a kind of work has begun.
    pub(crate) fn begin(&self, kind: Kind) {
        self.words.working.fetch_or(1 << kind as usize, Relaxed);
    }

    /// Whether a kind of work has begun.
    pub(crate) fn works(&self, kind: Kind) -> bool {
        self.words.working.load(Relaxed) & 1 << kind as usize != 0
    }

    /// Counts a round of work.
    pub(crate) fn count(&self, kind: Kind) {
        self.words.rounds[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn rounds(&self, kind: Kind) -> u64 {
        self.words.rounds[kind as usize].load(Relaxed)
    }

    /// All counters in one line.
    pub(crate) fn line(&self) -> String {
        Kind::ALL
            .into_iter()
            .filter(|&kind| self.works(kind))
            .map(|kind| format!("{} {}", kind.name(), self.rounds(kind)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}
