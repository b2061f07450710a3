//! What came of a range fault: how much, which pages not and why, and each page.

use core::fmt;

use thiserror::Error;

use crate::{
    driver::{DeviceIndex, PrepareError, TransferError},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    migrate::Obstacle,
    mm::{Errno, PopulateFailure, Stop, TrapError},
    units::{AddressRange, PageRange, RangeError},
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

impl From<Obstacle> for PageError {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::System(stop) => stop.into(),
            Obstacle::Device(TransferError::Failed { code }) => Self::DeviceFails(code),
            Obstacle::Device(TransferError::Lost) => Self::Poisoned,
        }
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

/// Pages that a device has no translation of, for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFailure {
    /// The pages.
    pub pages: PageRange,
    /// Why.
    pub error: PageError,
}

/// Where a page is, as a device sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageState {
    /// Not there; a fault would make it present.
    #[default]
    None,
    /// It cannot be had.
    Error(PageError),
    /// Where the CPU maps it: in system memory, or in coherent memory of a device.
    InPlace,
    /// In a frame of the device that asks.
    Own,
    /// In a frame of another device.
    Peer(DeviceIndex),
}

/// A page, as a range fault or a snapshot reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageEntry {
    /// Where it is.
    pub state: PageState,
    /// Whether it may be written: by a translation that was entered, or, in a snapshot, as the CPU
    /// could without another fault.
    pub write: bool,
    /// Whether it is the shared page of zeros.
    pub zero: bool,
    /// Whether one device alone may access it.
    pub exclusive: bool,
    /// The device in whose coherent memory it is, where the CPU maps it all the same: its place is
    /// [`InPlace`](PageState::InPlace) then.
    pub coherent: Option<DeviceIndex>,
    /// The binary logarithm of how many base pages one entry of the CPU's page table, or one huge
    /// frame, maps here; it may reach past the range.
    pub order: u8,
}

impl PageEntry {
    /// Whether the device can read the page.
    pub const fn is_readable(&self) -> bool {
        matches!(self.state, PageState::InPlace | PageState::Own | PageState::Peer(_))
    }
}

/// What came of a range fault.
#[derive(Debug)]
pub struct RangeReport {
    held: usize,
    entered: usize,
    absent: usize,
    failed: usize,
    /// `None` while there are none: most requests have none, and pay nothing for a list.
    list: Option<EngineVec<PageFailure>>,
}

impl RangeReport {
    pub(crate) const fn new() -> Self {
        Self { held: 0, entered: 0, absent: 0, failed: 0, list: None }
    }

    /// Pages of which the device had a translation still, as good as was asked.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Pages of which a translation was entered.
    pub const fn entered(&self) -> usize {
        self.entered
    }

    /// Pages that are not there and were to be mapped only if present.
    pub const fn absent(&self) -> usize {
        self.absent
    }

    /// Pages that cannot be had as was asked.
    pub const fn failed(&self) -> usize {
        self.failed
    }

    /// The pages that cannot be had, in order. Where engine memory was too short to list all, the
    /// list is shorter than [`failed`](Self::failed) says.
    pub fn failures(&self) -> impl Iterator<Item = PageFailure> {
        self.list.iter().flat_map(|list| list.iter().copied())
    }

    pub(crate) fn add_held(&mut self, pages: usize) {
        self.held += pages;
    }

    pub(crate) fn add_entered(&mut self, pages: usize) {
        self.entered += pages;
    }

    pub(crate) fn add_absent(&mut self, pages: usize) {
        self.absent += pages;
    }

    pub(crate) fn add_failed(&mut self, pages: PageRange, error: PageError, memory: &EngineMemory) {
        self.failed += pages.len();
        let list = self.list.get_or_insert_with(|| EngineVec::new(memory.clone()));
        if let Some(last) = list.last_mut()
            && last.error == error
            && last.pages.end() == pages.start()
        {
            last.pages = PageRange::new(last.pages.start(), pages.end());
            return;
        }
        // The count above tells where the list ends early.
        let _ = list.try_push(PageFailure { pages, error });
    }
}

/// Why a request as a whole makes no sense.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RangeFaultError {
    /// The range is not one of whole pages.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// the range reaches beyond the mirror
    #[error("{range} reaches beyond the mirror, which spans {mirror}: ask within it")]
    Outside {
        /// The range.
        range: AddressRange,
        /// What the mirror spans.
        mirror: PageRange,
    },
    /// there are not as many entries as pages
    #[error("{entries} entries for {pages} pages: give one for each page")]
    Entries {
        /// How many entries there are.
        entries: usize,
        /// How many pages the range has.
        pages: usize,
    },
}
