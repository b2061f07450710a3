//! What came of a range fault: how much, which pages not and why, and each page.

use thiserror::Error;

use crate::{
    driver::{DeviceIndex, TransferError},
    engine_memory::{EngineMemory, EngineVec},
    migrate::Obstacle,
    report::PageError,
    units::{AddressRange, PageRange, RangeError},
};

impl From<Obstacle> for PageError {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::System(stop) => stop.into(),
            Obstacle::Device(TransferError::Failed { code }) => Self::DeviceFails(code),
            Obstacle::Device(TransferError::Lost) => Self::Poisoned,
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
