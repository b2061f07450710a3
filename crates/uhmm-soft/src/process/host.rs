//! The program's side of a device process: it is started, and ended.

use core::time::Duration;
use std::{
    os::fd::OwnedFd,
    process::{Child, Command as Program, Stdio},
};

use rustix::process::{Pid, PidfdFlags};
use uhmm::{AddressSpace, ring::Limits};

use super::{device::ASKED, driver::Driver, layout::Mapping, link::Link};
use crate::{
    bus::Bus,
    errors::{KernelStartError, StartError},
    kernels::Kernel,
    limits::MOST_WORKERS,
};

/// How a device in a process of its own is made.
#[derive(Debug)]
pub struct ProcessOptions {
    memory: usize,
    workers: usize,
    keeps_pages: bool,
    bus: Bus,
    patience: Duration,
    command: Option<Program>,
}

impl ProcessOptions {
    /// How long a device process may take to answer, unless [`patience`](Self::patience) says otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// A device with a memory of `memory` bytes, rounded down to pages, and one worker, in a process that is this
    /// executable started anew.
    pub const fn new(memory: usize) -> Self {
        let (bus, patience, command) = (Bus::new(), Self::PATIENCE, None);
        Self { memory, workers: 1, keeps_pages: false, bus, patience, command }
    }

    /// Sets how many threads of the process run its kernels.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Has pages stay on the device as a launch returns, as [`Options::keep_pages`](crate::Options::keep_pages)
    /// says.
    #[must_use]
    pub fn keep_pages(self) -> Self {
        Self { keeps_pages: true, ..self }
    }

    /// Has pages get to the device's memory and back by such a bus, as
    /// [`Options::behind_bus`](crate::Options::behind_bus) does. Without it they do as fast as the processor copies.
    #[must_use]
    pub fn behind_bus(self, bus: Bus) -> Self {
        Self { bus, ..self }
    }

    /// Sets for how long the process may leave unanswered what it has to answer at once. Then it is ended.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sets the command that starts the process. Its standard input is taken, and of its environment one variable.
    ///
    /// A process that is another than it seems can read and overwrite what launches name, and what is moved there, for
    /// as long as it is there. It reaches nothing else of the program by this crate.
    #[must_use]
    pub fn command(self, command: Program) -> Self {
        Self { command: Some(command), ..self }
    }
}

/// A device in a process of its own, attached to an address space. Dropping it brings back what the device
/// holds, and ends the process.
pub(crate) struct DeviceProcess {
    /// Ends first.
    driver: Driver,
    child: Ended,
}

impl DeviceProcess {
    /// Starts the process and attaches the device.
    ///
    /// # Errors
    /// [`KernelStartError`]; nothing is left behind then.
    pub(crate) fn start(
        space: &AddressSpace,
        options: ProcessOptions,
        kernels: &'static [Kernel],
    ) -> Result<Self, KernelStartError> {
        let ProcessOptions { memory, workers, keeps_pages, bus, patience, command } = options;
        let page_size = space.page_size();
        let page = page_size.bytes();
        if workers == 0 || workers > MOST_WORKERS {
            return Err(StartError::Workers { workers, most: MOST_WORKERS }.into());
        }
        let frames = memory / page;
        if frames == 0 {
            return Err(StartError::MemoryTooSmall { memory, page }.into());
        }
        let (file, mapping) = Mapping::create(frames, page_size)
            .map_err(|errno| StartError::Mapping { memory, errno })?;
        let limits = Limits {
            frames,
            kernels: kernels.len(),
            workers,
            pages: space.page_limit().0,
            page_bytes: page,
        };
        mapping.shared().introduce(&limits, kernels);
        let mut command = match command {
            Some(command) => command,
            None => Program::new(std::env::current_exe().map_err(KernelStartError::Spawn)?),
        };
        let child = command
            .env(ASKED, std::process::id().to_string())
            .stdin(Stdio::from(file))
            .spawn()
            .map_err(KernelStartError::Spawn)?;
        let child = Ended(child);
        let process = child.watch().map_err(KernelStartError::Spawn)?;
        let (link, reports) = Link::new(mapping, process, patience, workers, space.engine_memory())
            .map_err(StartError::from)?;
        link.wait_until_ready()?;
        let (mut driver, server) = Driver::attach(space, link, reports, limits, bus, keeps_pages)?;
        driver.serve(server)?;
        Ok(Self { driver, child })
    }

    /// The system's number of the device process.
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }
}

impl core::ops::Deref for DeviceProcess {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl core::fmt::Debug for DeviceProcess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceProcess").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A process that was started, and is ended as this is dropped.
struct Ended(Child);

impl Ended {
    /// By what its end is seen.
    fn watch(&self) -> Result<OwnedFd, std::io::Error> {
        let id = i32::try_from(self.0.id()).ok();
        let process = id.and_then(Pid::from_raw).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(rustix::process::pidfd_open(process, PidfdFlags::empty())?)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
