//! An address space on the model, and the program that lives in it.

use std::sync::Arc;

use uhmm::{
    AddressSpace, Attachment, CounterValues, Options,
    mm::{
        Backing, Protection,
        model::{Model, ModelOptions},
    },
    units::{AddressRange, BLOCK_PAGES, PageNumber, PageRange, PageSize},
};

use super::device::{Lent, TestDevice, TestMemory};

/// What may be done with the program's memory.
pub(crate) const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };
pub(crate) const READ_ONLY: Protection = Protection { write: false, ..READ_WRITE };
pub(crate) const NO_ACCESS: Protection = Protection { read: false, ..READ_ONLY };

/// An address space that is open, and the model it is on.
pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) space: AddressSpace<Model>,
}

impl World {
    /// Opens an address space with a few blocks.
    pub(crate) fn open() -> Self {
        Self::open_as(true)
    }

    /// Opens one of a process that is told of forks, or is not.
    pub(crate) fn open_as(tells_forks: bool) -> Self {
        let model = Model::new(ModelOptions {
            pages: 4 * BLOCK_PAGES,
            staging_pages: if cfg!(shuttle) { 8 } else { 24 } * BLOCK_PAGES,
            tells_forks,
            ..Default::default()
        });
        let options = Options::new().engine_memory(Options::LEAST_ENGINE_MEMORY);
        let space = options.open_on(model.clone()).unwrap();
        Self { model, space }
    }

    /// Opens an address space, maps `pages` of it and adopts them.
    pub(crate) fn with(pages: PageRange) -> Self {
        let world = Self::open();
        map(&world.model, pages);
        world.space.adopt(bytes(pages)).unwrap();
        world
    }

    /// Attaches a device with `frames` frames and `workers` workers.
    pub(crate) fn attach(&self, frames: usize, workers: usize) -> Attachment<TestDevice, Model> {
        let space = &self.space;
        let memory = space.engine_memory();
        let device = TestDevice::new(memory, space.page_size(), space.page_limit(), workers, None);
        space.attach(device, frames).unwrap()
    }

    /// Attaches a device with `frames` frames of its own and `workers` workers. One of so many transfers
    /// fails, or none for 0.
    pub(crate) fn attach_copying(
        &self,
        frames: usize,
        workers: usize,
        fails_every: usize,
    ) -> Attachment<TestDevice, Model> {
        let space = &self.space;
        let (memory, size) = (space.engine_memory(), space.page_size());
        let own = Arc::new(TestMemory::new(frames, size, fails_every));
        let lent = Lent(Arc::clone(&own));
        let device = TestDevice::new(memory, size, space.page_limit(), workers, Some(own));
        space.attach_copying(device, lent, frames).unwrap()
    }

    /// Attaches a device with coherent memory of `frames` frames. It has no worker: the program maps what is
    /// there.
    pub(crate) fn attach_coherent(&self, frames: usize) -> Attachment<TestDevice, Model> {
        let space = &self.space;
        let memory = space.engine_memory();
        let device = TestDevice::new(memory, space.page_size(), space.page_limit(), 1, None);
        space.attach_coherent(device, frames).unwrap()
    }

    /// Closes the address space, whose devices are detached, and checks what must hold at the end.
    pub(crate) fn end(self) -> CounterValues {
        let counters = self.space.counters();
        self.space.close().unwrap();
        check(&self.model);
        counters
    }
}

/// Checks that the core did nothing that it must never do.
pub(crate) fn check(model: &Model) {
    assert_eq!(model.violations(), []);
}

/// Pages from `start` up to `end`.
pub(crate) fn pages(start: usize, end: usize) -> PageRange {
    PageRange::new(PageNumber(start), PageNumber(end))
}

fn page_size() -> PageSize {
    ModelOptions::default().page_size
}

/// The addresses of `pages`.
pub(crate) fn bytes(pages: PageRange) -> AddressRange {
    let size = page_size();
    AddressRange::new(size.address_of(pages.start()), size.bytes_in(pages.len())).unwrap()
}

/// The address of a word of a page.
pub(crate) fn word(page: PageNumber, number: usize) -> usize {
    page_size().address_of(page) + 8 * number
}

/// Maps private anonymous memory at `pages`, over what is there.
pub(crate) fn map(model: &Model, pages: PageRange) {
    let backing = Backing::PrivateAnonymous;
    assert_eq!(model.map(Some(pages.start()), pages.len(), READ_WRITE, backing), Ok(pages));
}

/// Maps memory that is shared with others at `pages`, over what is there.
pub(crate) fn map_shared(model: &Model, pages: PageRange) {
    let backing = Backing::SharedAnonymous;
    assert_eq!(model.map(Some(pages.start()), pages.len(), READ_WRITE, backing), Ok(pages));
}

/// Maps memory of a pool there, whole pages, that is shared with others.
pub(crate) fn map_pool(model: &Model, pages: PageRange) {
    let backing = Backing::SharedHugetlb;
    assert_eq!(model.map(Some(pages.start()), pages.len(), READ_WRITE, backing), Ok(pages));
}

/// Maps a file that is kept in memory there.
#[cfg_attr(shuttle, expect(dead_code, reason = "for tests without schedules"))]
pub(crate) fn map_file(model: &Model, pages: PageRange) {
    let backing = Backing::SharedFile;
    assert_eq!(model.map(Some(pages.start()), pages.len(), READ_WRITE, backing), Ok(pages));
}

/// A word, as an instruction of the calling thread loads it.
pub(crate) fn load(model: &Model, address: usize) -> u64 {
    let mut word = [0; 8];
    model.load(address, &mut word).unwrap();
    u64::from_ne_bytes(word)
}

/// Stores a word, as an instruction of the calling thread does.
pub(crate) fn store(model: &Model, address: usize, value: u64) {
    model.store(address, &value.to_ne_bytes()).unwrap();
}
