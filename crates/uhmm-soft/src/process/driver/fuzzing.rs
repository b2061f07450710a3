//! The program's side, for a fuzzer that plays the device process: what the thread that serves does, the fuzzer has it do.

use core::time::Duration;

use super::*;
use crate::{
    errors::KernelStartError,
    given::pages_of,
    process::{fuzzing::Between, server::Desk},
};

/// A program that has a device process which was ready.
pub struct Program<'f, M: Mm> {
    desk: Option<Desk<'f>>,
    /// Ends before the device is detached, as the thread does.
    server: Server<M>,
    driver: Driver<M>,
    /// How many launches were done, as one began.
    times: u32,
}

impl<M: Mm> Program<'_, M> {
    /// Starts a device, and has `play` play until it is dropped.
    ///
    /// # Errors
    /// [`KernelStartError`].
    ///
    /// # Panics
    /// There is no engine memory.
    pub fn start(
        space: &AddressSpace<M>,
        between: &Between,
        limits: Limits,
        patience: Duration,
        play: impl FnOnce(&mut Program<'_, M>),
    ) -> Result<(), KernelStartError> {
        let memory = space.engine_memory();
        let (mapping, process) = (between.map(), between.process());
        let (link, reports) =
            Link::new(mapping, process, patience, limits.workers, memory).expect("engine memory");
        link.wait_until_ready()?;
        let (driver, server) = Driver::attach(space, link, reports, limits, Bus::new(), false)?;
        let room = limits.workers * ENTRIES_PER_WORKER;
        let faults = driver.attachment().fault_buffer(limits.workers, room);
        let faults = faults.expect("engine memory");
        let desk = Some(Desk::new(&faults, room));
        play(&mut Program { desk, server, driver, times: 0 });
        Ok(())
    }

    /// Begins a launch.
    ///
    /// # Panics
    /// There is no engine memory.
    pub fn begin(
        &mut self,
        kernel: usize,
        items: Range<usize>,
        arguments: [u64; ARGUMENTS],
        given: &[AddressRange],
    ) {
        let memory = self.driver.engine_memory();
        let given = pages_of(memory, given, self.driver.page_size()).expect("engine memory");
        let given = Shared::try_new(given, memory).expect("engine memory");
        self.times = self.driver.work.done.word().load(Acquire);
        self.driver.begin(kernel, items, arguments, given);
    }

    /// Whether who launched is told that it is done.
    pub fn is_done(&self) -> bool {
        self.driver.work.done.word().load(Acquire) != self.times
    }

    /// What became of the launch.
    ///
    /// # Errors
    /// [`KernelRunError`].
    pub fn end(&self) -> Result<(), KernelRunError> {
        self.driver.end()
    }

    /// Does once what the thread does that serves. Answers whether there was anything to do.
    pub fn serve(&mut self) -> bool {
        let Some(desk) = &mut self.desk else {
            self.server.tell_lost();
            return false;
        };
        let busy = self.server.go_on(desk) || self.server.link.lives();
        if self.server.link.is_dead() {
            self.desk = None;
            self.server.mark();
            self.server.tell_lost();
        }
        busy
    }

    /// Whether the thread that serves has found that the process is gone.
    pub fn is_buried(&self) -> bool {
        self.desk.is_none()
    }

    /// Whether the process was seen to end, or was ended.
    pub fn is_dead(&self) -> bool {
        self.server.link.is_dead()
    }

    /// How many pages were marked.
    pub fn lost_pages(&self) -> usize {
        self.driver.lost_pages()
    }

    /// How many frames hold pages.
    pub fn frames_used(&self) -> usize {
        self.driver.attachment().frames_used()
    }

    /// Its place among the devices.
    pub fn index(&self) -> DeviceIndex {
        self.driver.index()
    }

    /// Moves pages there.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.driver.migrate(range)
    }

    /// Brings pages back.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.driver.bring_back(range)
    }
}
