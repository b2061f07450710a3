//! What a migration did, and why pages stayed where they were; why a device cannot map one.

mod page_error;

use core::fmt;

use crate::{
    driver::{PrepareError, TransferError},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::{Backing, Errno, PopulateFailure, Stop},
    units::PageRange,
};

pub use page_error::PageError;

/// Why a page stayed where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StayCause {
    /// The page was not adopted.
    NotAdopted,
    /// Nothing is mapped there.
    NoArea,
    /// The area is a stack.
    Stack,
    /// The page holds a thread's control block or a loaded object's writable data, is engine memory, or
    /// is [kept](crate::AddressSpace::keep), as stacks are.
    Kept,
    /// The area is of a kind that does not migrate.
    Backing(Backing),
    /// The area cannot be read and written now.
    Protection,
    /// The area is locked into memory.
    Locked,
    /// Another userfaultfd holds the area.
    ForeignUserfaultfd,
    /// The area cannot be trapped.
    CannotTrap,
    /// The process has as many areas as the system allows, or is short of memory for one more.
    NoRoomForAreas,
    /// The page is pinned, merged with an equal one, or shared with a child. Of shared memory: another
    /// process has it mapped.
    Busy,
    /// The device has no frame left and could give none up.
    NoFrames,
    /// Engine memory or system memory is exhausted.
    NoMemory,
    /// The file that the area shows ends before the page. (Or, where the system does not tell how long
    /// it is, has no room for it.)
    BeyondEnd,
    /// The program discarded the page's content, and the kernel may drop it at any moment, or after
    /// `MADV_FREE` keep it.
    Discarded,
    /// The page's content is lost.
    Poisoned,
    /// The device's memory is gone.
    DeviceLost,
    /// The device refuses the page, with a code of its own.
    DeviceRefuses(i32),
    /// The device could not copy the page, and says why with a code of its own.
    DeviceFails(i32),
    /// The device is detached, or the address space closed.
    Closed,
    /// The system refused for another reason.
    System(Errno),
}

impl StayCause {
    /// The cause behind a call's stop.
    pub(crate) const fn of(stop: Stop) -> Self {
        match stop {
            Stop::Busy => Self::Busy,
            Stop::NoArea | Stop::Hole => Self::NoArea,
            Stop::Refused | Stop::Present | Stop::Changing => Self::Protection,
            Stop::NoMemory => Self::NoMemory,
            Stop::Other(errno) => Self::System(errno),
        }
    }
}

impl StayCause {
    /// What each cause is called where others see it, by its number less one.
    const TEXTS: [&'static str; 20] = [
        "not adopted",
        "nothing is mapped there",
        "a stack",
        "holds a thread's control block, a loaded object's data or engine memory",
        "memory of a kind that does not migrate",
        "not readable and writable",
        "locked into memory (mlock)",
        "held by another userfaultfd",
        "the area cannot be trapped",
        "no room for another area (vm.max_map_count)",
        "pinned, merged with an equal page, or shared with a child process",
        "the device's memory was full",
        "out of memory",
        "discarded by the program and not gone yet",
        "its content was lost",
        "the device's memory was gone",
        "the device refused it",
        "the system refused it",
        "the device could not copy it",
        "beyond the end of its file",
    ];

    /// The cause as a number for others to see, not zero.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::NotAdopted => 1,
            Self::NoArea => 2,
            Self::Stack => 3,
            Self::Kept => 4,
            Self::Backing(_) => 5,
            Self::Protection => 6,
            Self::Locked => 7,
            Self::ForeignUserfaultfd => 8,
            Self::CannotTrap => 9,
            Self::NoRoomForAreas => 10,
            Self::Busy => 11,
            Self::NoFrames => 12,
            Self::NoMemory => 13,
            Self::Discarded => 14,
            Self::Poisoned => 15,
            Self::DeviceLost | Self::Closed => 16,
            Self::DeviceRefuses(_) => 17,
            Self::System(_) => 18,
            Self::DeviceFails(_) => 19,
            Self::BeyondEnd => 20,
        }
    }

    /// What the cause with a number is called.
    #[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "nobody looks there"))]
    pub(crate) fn text_of(number: u8) -> Option<&'static str> {
        Self::TEXTS.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl StayCause {
    /// The cause behind a device's refusal.
    pub(crate) const fn of_prepare(error: PrepareError) -> Self {
        match error {
            PrepareError::Memory(_) => Self::NoMemory,
            PrepareError::Refused { code } => Self::DeviceRefuses(code),
        }
    }

    /// The cause behind a page that could not be made present.
    pub(crate) const fn of_populate(failure: PopulateFailure) -> Self {
        match failure {
            PopulateFailure::NoArea => Self::NoArea,
            PopulateFailure::BeyondEnd => Self::BeyondEnd,
            PopulateFailure::Protection | PopulateFailure::Special => Self::Protection,
            PopulateFailure::Poisoned => Self::Poisoned,
            PopulateFailure::NoMemory => Self::NoMemory,
            PopulateFailure::Other(errno) => Self::System(errno),
        }
    }

    /// The cause behind a transfer's failure.
    pub(crate) const fn of_transfer(error: TransferError) -> Self {
        match error {
            TransferError::Failed { code } => Self::DeviceFails(code),
            TransferError::Lost => Self::DeviceLost,
        }
    }

    /// Whether a device that cannot have the page for this cause may still map it where it is.
    pub const fn may_be_mapped(self) -> bool {
        match self {
            Self::NotAdopted
            | Self::Stack
            | Self::Kept
            | Self::Backing(_)
            | Self::Protection
            | Self::Locked
            | Self::CannotTrap
            | Self::NoRoomForAreas
            | Self::Busy
            | Self::NoFrames
            | Self::NoMemory
            | Self::Discarded
            | Self::DeviceFails(_)
            | Self::System(_) => true,
            Self::NoArea
            | Self::BeyondEnd
            | Self::ForeignUserfaultfd
            | Self::Poisoned
            | Self::DeviceLost
            | Self::DeviceRefuses(_)
            | Self::Closed => false,
        }
    }
}

impl From<EngineMemoryError> for StayCause {
    fn from(_: EngineMemoryError) -> Self {
        Self::NoMemory
    }
}

impl fmt::Display for StayCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAdopted => f.write_str("not adopted"),
            Self::NoArea => f.write_str("nothing is mapped there"),
            Self::Stack => f.write_str("a stack, which never migrates"),
            Self::Kept => f.write_str(
                "kept: it holds a thread's control block, a stack, a loaded object's data or engine \
                 memory, which never migrate, or what the program wants to stay",
            ),
            Self::Backing(backing) => write!(f, "memory of kind {backing:?} does not migrate"),
            Self::Protection => f.write_str("not readable and writable now"),
            Self::Locked => f.write_str("locked into memory"),
            Self::ForeignUserfaultfd => f.write_str("held by another userfaultfd"),
            Self::CannotTrap => f.write_str("the area cannot be trapped"),
            Self::NoRoomForAreas => f.write_str("no room for another area (vm.max_map_count)"),
            Self::Busy => f.write_str("pinned, merged, or shared with a child process"),
            Self::NoFrames => f.write_str("the device's memory is full"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::BeyondEnd => f.write_str("beyond the end of its file"),
            Self::Discarded => f.write_str("discarded by the program and not gone yet"),
            Self::Poisoned => f.write_str("its content was lost"),
            Self::DeviceLost => f.write_str("the device's memory is gone"),
            Self::DeviceRefuses(code) => write!(f, "the device refuses it with code {code}"),
            Self::DeviceFails(code) => write!(f, "the device could not copy it and says {code}"),
            Self::Closed => f.write_str("the device or the address space is closed"),
            Self::System(errno) => write!(f, "{errno}"),
        }
    }
}

/// Pages that stayed, for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stayed {
    /// The pages.
    pub pages: PageRange,
    /// Why.
    pub cause: StayCause,
}

/// What a migration did. Partial success is normal.
#[derive(Debug)]
pub struct Migration {
    moved: usize,
    already: usize,
    stayed: usize,
    list: EngineVec<Stayed>,
}

impl Migration {
    #[inline]
    pub(crate) fn new(memory: &EngineMemory) -> Self {
        Self { moved: 0, already: 0, stayed: 0, list: EngineVec::new(memory.clone()) }
    }

    /// Pages that moved.
    pub const fn moved(&self) -> usize {
        self.moved
    }

    /// Pages that were where they were wanted already.
    pub const fn already(&self) -> usize {
        self.already
    }

    /// Pages that stayed, each for a cause.
    pub const fn stayed(&self) -> usize {
        self.stayed
    }

    /// The pages that stayed, in the order in which they were found. Where engine memory was too
    /// short to list all, the list is shorter than [`stayed`](Self::stayed) says.
    pub fn causes(&self) -> impl Iterator<Item = Stayed> {
        self.list.iter().copied()
    }

    #[inline]
    pub(crate) fn add_moved(&mut self, pages: usize) {
        self.moved += pages;
    }

    pub(crate) fn add_already(&mut self, pages: usize) {
        self.already += pages;
    }

    #[inline]
    pub(crate) fn add_stayed(&mut self, pages: PageRange, cause: StayCause) {
        if !pages.is_empty() {
            self.add_some_stayed(pages, cause);
        }
    }

    #[cold]
    fn add_some_stayed(&mut self, pages: PageRange, cause: StayCause) {
        self.stayed += pages.len();
        if let Some(last) = self.list.last_mut()
            && last.cause == cause
            && last.pages.end() == pages.start()
        {
            last.pages = PageRange::new(last.pages.start(), pages.end());
            return;
        }
        // The count above tells where the list ends early.
        let _ = self.list.try_push(Stayed { pages, cause });
    }
}
