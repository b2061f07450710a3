//! Our side: the engine, a device in software, and an area that it may take.

use uhmm::{AddressSpace, CounterValues, Migration, units::BLOCK_PAGES};
use uhmm_soft::{AccessError, Home, Kernel, KernelDevice, Options, Worker};

use super::memory::Area;
use super::{BenchError, Context};

/// What a device of these runs.
pub(crate) const KERNELS: &[Kernel] = &[Kernel { name: "rewrite", run: rewrite }];

/// Writes the first number of a page as it is. The arguments are where the first page begins, and the size of
/// one.
fn rewrite(
    worker: &mut Worker<'_>,
    item: usize,
    &[first, page, ..]: &[u64; 4],
) -> Result<(), AccessError> {
    let at = first + item as u64 * page;
    // An address of this process.
    let address = usize::try_from(at).unwrap_or(usize::MAX);
    // SAFETY: as the caller of `Engine::rewrite` says.
    unsafe { worker.fetch_add(address, 0_u64) }.map(drop)
}

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
        let device = KernelDevice::start(&space, home, KERNELS)
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

    /// Has the device write all pages of the area, which stay as they are.
    pub(super) fn rewrite(&self) -> Result<(), BenchError> {
        let pages = self.area.pages();
        let range = self.area.all()?;
        let arguments = [range.start() as u64, self.area.page_size().bytes() as u64, 0, 0];
        // SAFETY: the area is numbers, lives until this returns, and nobody else touches it meanwhile.
        unsafe { self.device.run(0, 0..pages, arguments, &[range]) }
            .map_err(BenchError::while_doing("the device cannot work on the memory"))
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
