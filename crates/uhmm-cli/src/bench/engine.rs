//! Our side: the engine, a device in software, and an area that it may take.

use uhmm::{AddressSpace, CounterValues, Migration, units::BLOCK_PAGES};
use uhmm_soft::{Home, KernelDevice, Options};

use super::memory::Area;
use super::{BenchError, Context};

/// An address space, a device in it, and an area that is adopted.
///
/// The fields end in their order: what the device holds comes back before the area ends.
pub(super) struct Engine {
    device: KernelDevice,
    space: AddressSpace,
    area: Area,
}

impl Engine {
    /// Opens the address space, with handlers on the CPU where the program runs, and a device whose
    /// memory holds the area and a block more.
    pub(super) fn open(area: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let memory = context.page.bytes_in(area.pages() + BLOCK_PAGES);
        Self::open_with(area, Home::Program(Options::new(memory)), context)
    }

    /// Opens the address space likewise, with such a device.
    pub(super) fn open_with(
        area: Area,
        home: Home,
        context: &Context<'_>,
    ) -> Result<Self, BenchError> {
        let space = open_space()?;
        context.cpus.main.bind_handlers()?;
        let device = KernelDevice::start(&space, home, &[])
            .map_err(BenchError::while_doing("the device cannot be started"))?;
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
