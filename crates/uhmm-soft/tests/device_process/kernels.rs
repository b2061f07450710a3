//! The kernels of the device process.

use uhmm_soft::{ARGUMENTS, ProcessAccessError, ProcessKernel, ProcessWorker};

/// Adds the third argument to the first number of each page.
pub(crate) const ADD: usize = 0;
/// Loads the first number of each page.
pub(crate) const TOUCH: usize = 1;
pub(crate) const PANIC: usize = 2;

pub(crate) const KERNELS: &[ProcessKernel] = &[
    ProcessKernel { name: "add", run: add },
    ProcessKernel { name: "touch", run: touch },
    ProcessKernel { name: "panic", run: panic },
];

pub(crate) const OTHER_KERNELS: &[ProcessKernel] = &[
    ProcessKernel { name: "sub", run: add },
    ProcessKernel { name: "touch", run: touch },
    ProcessKernel { name: "panic", run: panic },
];

type Result = core::result::Result<(), ProcessAccessError>;

fn address(item: u64, arguments: &[u64; ARGUMENTS]) -> usize {
    usize::try_from(arguments[0] + item * arguments[1]).expect("an address")
}

fn add(worker: &mut ProcessWorker<'_>, item: u64, arguments: &[u64; ARGUMENTS]) -> Result {
    let at = address(item, arguments);
    let value: u64 = worker.load(at)?;
    worker.store(at, value + arguments[2])
}

fn touch(worker: &mut ProcessWorker<'_>, item: u64, arguments: &[u64; ARGUMENTS]) -> Result {
    worker.load::<u64>(address(item, arguments)).map(drop)
}

fn panic(_: &mut ProcessWorker<'_>, _: u64, _: &[u64; ARGUMENTS]) -> Result {
    panic!("a kernel of a test panics, as it is to")
}
