//! Our side: the engine, a device in software, and an area that it may take.

use uhmm::{
    AddressSpace, CounterValues, Migration,
    units::{AddressRange, BLOCK_PAGES, RangeError},
};
use uhmm_soft::{DeviceProcess, Options, Soft};

use super::memory::Area;
use super::{BenchError, Context};

/// Where a device in software runs.
enum Device {
    /// In this process.
    Here(Soft),
    /// In one of its own.
    Apart(DeviceProcess),
}

impl Device {
    fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        match self {
            Self::Here(device) => device.migrate(range),
            Self::Apart(device) => device.migrate(range),
        }
    }

    fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        match self {
            Self::Here(device) => device.bring_back(range),
            Self::Apart(device) => device.bring_back(range),
        }
    }
}

/// An address space, a device in it, and an area that is adopted.
///
/// The fields end in their order: what the device holds comes back before the area ends.
pub(super) struct Engine {
    device: Device,
    space: AddressSpace,
    area: Area,
}

impl Engine {
    /// Opens the address space, with handlers on the CPU where the program runs, and a device whose
    /// memory holds the area and a block more.
    pub(super) fn open(area: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let memory = context.page.bytes_in(area.pages() + BLOCK_PAGES);
        Self::open_with(area, Options::new(memory), context)
    }

    /// Opens the address space likewise, with such a device.
    pub(super) fn open_with(
        area: Area,
        options: Options,
        context: &Context<'_>,
    ) -> Result<Self, BenchError> {
        let space = open_space()?;
        context.cpus.main.bind_handlers()?;
        let device = Soft::start(&space, options)
            .map_err(BenchError::while_doing("the device cannot be started"))?;
        Self::adopt(Device::Here(device), space, area)
    }

    /// Opens the address space likewise, with a device that runs in a process of its own, and has a memory
    /// of so many bytes.
    pub(super) fn open_apart(
        area: Area,
        memory: usize,
        context: &Context<'_>,
    ) -> Result<Self, BenchError> {
        let space = open_space()?;
        context.cpus.main.bind_handlers()?;
        let device = DeviceProcess::start(&space, memory, &[])
            .map_err(BenchError::while_doing("the device process cannot be started"))?;
        Self::adopt(Device::Apart(device), space, area)
    }

    fn adopt(device: Device, space: AddressSpace, area: Area) -> Result<Self, BenchError> {
        space
            .adopt(area.all()?)
            .map_err(BenchError::while_doing("the memory cannot be adopted"))?;
        Ok(Self { device, space, area })
    }

    /// The area.
    pub(super) const fn area(&self) -> &Area {
        &self.area
    }

    /// Moves pages of the area to the device.
    pub(super) fn migrate(&self, first: usize, pages: usize) -> Result<(), BenchError> {
        let done = self.device.migrate(self.area.range(first, pages)?);
        all_of(pages, &done.map_err(BenchError::while_doing("the area cannot migrate"))?)
    }

    /// Brings pages of the area back.
    pub(super) fn bring_back(&self, first: usize, pages: usize) -> Result<(), BenchError> {
        let done = self.device.bring_back(self.area.range(first, pages)?);
        all_of(pages, &done.map_err(BenchError::while_doing("the area cannot come back"))?)
    }

    /// What happened so far.
    pub(super) fn counters(&self) -> CounterValues {
        self.space.counters()
    }

    /// Closes the address space; all is back then.
    pub(super) fn close(self) -> Result<(), BenchError> {
        let Self { device, space, area } = self;
        drop(device);
        close_space(space)?;
        area.check()
    }
}

/// Opens this process's address space.
pub(super) fn open_space() -> Result<AddressSpace, BenchError> {
    AddressSpace::open().map_err(BenchError::while_doing("the address space cannot be opened"))
}

/// Closes it.
pub(super) fn close_space(space: AddressSpace) -> Result<(), BenchError> {
    let failed = BenchError::while_doing("the address space cannot be closed");
    // The error holds the address space, which cannot leave this thread.
    space.close().map_err(|error| failed(error.to_string()))
}

/// An error where a migration left a page out.
pub(super) fn all_of(pages: usize, done: &Migration) -> Result<(), BenchError> {
    if done.moved() + done.already() == pages {
        return Ok(());
    }
    let cause = match done.causes().next() {
        Some(stayed) => format!("{}: {}", stayed.pages, stayed.cause),
        None => format!("{} of {pages} pages", done.moved() + done.already()),
    };
    Err(BenchError::failed("pages did not move", cause))
}
