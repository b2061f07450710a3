//! A device for kernels of a list, which runs in the program or in a process of its own: by a flag.

use core::ops::Range;

use uhmm::{
    AddressSpace, DeviceIndex, Migration,
    units::{AddressRange, RangeError},
};

use crate::{
    device::{Options, Soft},
    errors::{KernelRunError, KernelStartError},
    given::pages_of,
    kernels::{ARGUMENTS, Kernel},
    process::{DeviceProcess, MOST_RANGES, ProcessOptions},
};

/// Where a device lives, and what it is like there.
#[derive(Debug)]
pub enum Home {
    /// In the program: its workers are threads of it.
    Program(Options),
    /// In a process of its own: a crash of it, and its locks, are not the program's.
    OwnProcess(ProcessOptions),
}

/// A device for kernels of a list, attached to an address space. Where it lives is a flag of its start; what
/// it is asked, and what it answers, is the same in either place.
///
/// ```
/// use uhmm::{AddressSpace, units::AddressRange};
/// use uhmm_soft::{AccessError, Home, Kernel, KernelDevice, Options, ProcessOptions, Worker};
///
/// /// Doubles a number of an array, whose address is the first argument.
/// fn double(worker: &mut Worker<'_>, item: usize, &[array, ..]: &[u64; 4]) -> Result<(), AccessError> {
///     let at = array as usize + 8 * item;
///     // SAFETY: as the caller of `run` says.
///     unsafe {
///         let number: u64 = worker.load(at)?;
///         worker.store(at, 2 * number)
///     }
/// }
///
/// const KERNELS: &[Kernel] = &[Kernel { name: "double", run: double }];
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Here the device's own process goes another way.
///     uhmm_soft::serve_if_asked(KERNELS);
///     let apart = std::env::args().any(|argument| argument == "--own-process");
///     let home = if apart {
///         Home::OwnProcess(ProcessOptions::new(1 << 20))
///     } else {
///         Home::Program(Options::new(1 << 20))
///     };
///     let space = AddressSpace::open()?;
///     let mut numbers: Vec<u64> = (0..1000).collect();
///     space.adopt_everything()?;
///     let device = KernelDevice::start(&space, home, KERNELS)?;
///     let array = AddressRange::of_slice(&numbers)?;
///     // SAFETY: nobody else uses the array meanwhile, and numbers are stored in it.
///     unsafe { device.run(0, 0..1000, [numbers.as_mut_ptr().addr() as u64, 0, 0, 0], &[array]) }?;
///     assert_eq!(numbers[999], 1998);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct KernelDevice {
    kernels: &'static [Kernel],
    device: Device,
}

#[derive(Debug)]
enum Device {
    Program(Soft),
    OwnProcess(DeviceProcess),
}

impl KernelDevice {
    /// Starts a device and attaches it to `space`. Where it is to live in a process of its own the `main` of the
    /// executable calls [`serve_if_asked`](crate::serve_if_asked) with the same kernels.
    ///
    /// # Errors
    /// [`KernelStartError`]; nothing is left behind then.
    pub fn start(
        space: &AddressSpace,
        home: Home,
        kernels: &'static [Kernel],
    ) -> Result<Self, KernelStartError> {
        let device = match home {
            Home::Program(options) => Device::Program(Soft::start(space, options)?),
            Home::OwnProcess(options) => {
                Device::OwnProcess(DeviceProcess::start(space, options, kernels)?)
            }
        };
        Ok(Self { kernels, device })
    }

    /// Runs a kernel, by its place in the list, once for each of `items`, on the device's workers in any
    /// order, and returns when all are done or one has failed. The kernel can reach pages that have a byte in
    /// `given`, and no others.
    ///
    /// # Errors
    /// [`KernelRunError`]: of the items that failed the first, and the rest is left. What was written stays.
    ///
    /// # Safety
    /// Whatever of `given` the kernel reaches by address until this returns, it
    /// [may](crate::Worker#safety-of-accesses-by-address). In a process of the device's own all of `given` may be
    /// overwritten by any bytes, should the process be another than it seems.
    pub unsafe fn run(
        &self,
        kernel: usize,
        items: Range<usize>,
        arguments: [u64; ARGUMENTS],
        given: &[AddressRange],
    ) -> Result<(), KernelRunError> {
        let kernels = self.kernels.len();
        let &Kernel { run, .. } =
            self.kernels.get(kernel).ok_or(KernelRunError::Kernel { kernel, kernels })?;
        let memory = match &self.device {
            Device::Program(device) => device.attachment().engine_memory(),
            Device::OwnProcess(device) => device.engine_memory(),
        };
        let given = pages_of(memory, given, self.page_size())?;
        if given.len() > MOST_RANGES {
            return Err(KernelRunError::Ranges { ranges: given.len(), most: MOST_RANGES });
        }
        match &self.device {
            Device::Program(device) => Ok(device.launch_given(
                items,
                move |worker, item, &()| run(worker, item, &arguments),
                (),
                Some(given),
            )?),
            Device::OwnProcess(device) => device.run(kernel, items, arguments, given),
        }
    }

    /// Moves `range` to the device, as far as it will go.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn migrate(&self, range: AddressRange) -> Result<Migration, RangeError> {
        match &self.device {
            Device::Program(device) => device.migrate(range),
            Device::OwnProcess(device) => device.migrate(range),
        }
    }

    /// Brings back what of `range` is on this device.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn bring_back(&self, range: AddressRange) -> Result<Migration, RangeError> {
        match &self.device {
            Device::Program(device) => device.bring_back(range),
            Device::OwnProcess(device) => device.bring_back(range),
        }
    }

    /// Brings back all that is on this device. What stays is in the report.
    pub fn bring_all_back(&self) -> Migration {
        match &self.device {
            Device::Program(device) => device.bring_all_back(),
            Device::OwnProcess(device) => device.bring_all_back(),
        }
    }

    /// The size of its memory in bytes.
    pub fn memory(&self) -> usize {
        match &self.device {
            Device::Program(device) => device.memory(),
            Device::OwnProcess(device) => device.memory(),
        }
    }

    /// How much of its memory holds pages, in bytes.
    pub fn memory_used(&self) -> usize {
        match &self.device {
            Device::Program(device) => device.memory_used(),
            Device::OwnProcess(device) => device.memory_used(),
        }
    }

    /// Its place among the devices of the address space.
    pub fn index(&self) -> DeviceIndex {
        match &self.device {
            Device::Program(device) => device.index(),
            Device::OwnProcess(device) => device.index(),
        }
    }

    /// The system's number of the device's own process, where it lives in one.
    pub fn process(&self) -> Option<u32> {
        match &self.device {
            Device::Program(_) => None,
            Device::OwnProcess(device) => Some(device.id()),
        }
    }

    /// Whether its own process is gone, by itself or as it did not answer. What it held is marked, or is as
    /// it is touched. A device that lives in the program is not lost before the program is.
    pub fn is_lost(&self) -> bool {
        match &self.device {
            Device::Program(_) => false,
            Device::OwnProcess(device) => device.is_lost(),
        }
    }

    /// How many pages were marked as its own process was found gone.
    pub fn lost_pages(&self) -> usize {
        match &self.device {
            Device::Program(_) => 0,
            Device::OwnProcess(device) => device.lost_pages(),
        }
    }

    fn page_size(&self) -> uhmm::units::PageSize {
        match &self.device {
            Device::Program(device) => device.page_size(),
            Device::OwnProcess(device) => device.page_size(),
        }
    }
}
