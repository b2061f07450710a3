//! The nodes, by path, and the devices behind them, of this process.
//!
//! The address space is opened with the first node, and stays open: the devices go with their last
//! descriptor. The child of a fork has neither, and opens its own; what it inherited it leaves alone.

use std::{
    ffi::c_int,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicPtr, AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
};

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_dmirror::{Error, get_pages};

use crate::observe;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A device, by its number: the first two have private memory, the others coherent.
    Device(usize),
    /// The kernel's tester of getting pages, emulated.
    GetPages,
}

/// How many devices there are.
const DEVICES: usize = 4;

/// How many of them have private memory.
const PRIVATE: usize = 2;

/// How much memory a device has where nothing is said.
const MEMORY: usize = 256 << 20;

/// By what `uhmm run` says how much memory in bytes a device has.
const MEMORY_NAME: &str = "UHMM_RUN_DEVICE_MEMORY";

impl Node {
    /// The node of this path.
    pub(crate) fn of_path(path: &[u8]) -> Option<Self> {
        match path {
            b"/dev/hmm_dmirror0" => Some(Self::Device(0)),
            b"/dev/hmm_dmirror1" => Some(Self::Device(1)),
            b"/dev/hmm_dmirror2" => Some(Self::Device(2)),
            b"/dev/hmm_dmirror3" => Some(Self::Device(3)),
            b"/sys/kernel/debug/gup_test" => Some(Self::GetPages),
            _ => None,
        }
    }

    /// A number for it, that is not zero.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::GetPages => 1,
            Self::Device(index) => 2 + index as u64,
        }
    }

    /// The node of a number.
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        if number == Self::GetPages.number() {
            return Some(Self::GetPages);
        }
        let index = usize::try_from(number.checked_sub(2)?).ok()?;
        (index < DEVICES).then_some(Self::Device(index))
    }
}

type Device = uhmm_dmirror::Node<'static>;

/// A device, and how many descriptors are of it.
#[derive(Default)]
struct Opened {
    device: Option<Arc<Device>>,
    descriptors: usize,
}

/// What this process has.
struct Process {
    space: AddressSpace,
    devices: Mutex<[Opened; DEVICES]>,
}

/// That of this process, or of one that it was forked from and whose memory it does not have.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(core::ptr::null_mut());

/// Whose that is; 0 where there is none.
static PROCESS_ID: AtomicU32 = AtomicU32::new(0);

/// What this process has, if it has opened a node.
fn process() -> Option<&'static Process> {
    // Mostly there is none, and who it would be is not asked.
    let owner = PROCESS_ID.load(Acquire);
    if owner == 0 || owner != std::process::id() {
        return None;
    }
    // SAFETY: as this process has set the number it has set the pointer, which came from a box that is
    // never dropped.
    unsafe { PROCESS.load(Acquire).as_ref() }
}

/// What this process has, with its address space opened if it is not.
fn process_or_new() -> Result<&'static Process, c_int> {
    static OPENING: Mutex<()> = Mutex::new(());
    if let Some(process) = process() {
        return Ok(process);
    }
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(process) = process() {
        return Ok(process);
    }
    // Why it cannot was said by `uhmm run`, which looked before it began.
    let space = AddressSpace::open().map_err(|_| libc::ENODEV)?;
    let new = Box::into_raw(Box::new(Process { space, devices: Mutex::default() }));
    PROCESS.store(new, Release);
    PROCESS_ID.store(std::process::id(), Release);
    // SAFETY: it is never dropped: what a fork leaves behind of it in a child must not be.
    let process = unsafe { &*new };
    observe::begin(&process.space);
    Ok(process)
}

/// The address space of this process, opened if it is not.
///
/// # Errors
/// An error's number.
pub(crate) fn space() -> Result<&'static AddressSpace, c_int> {
    process_or_new().map(|process| &process.space)
}

/// Opens a node, for one more descriptor.
///
/// # Errors
/// An error's number.
pub(crate) fn open(node: Node) -> Result<(), c_int> {
    let Node::Device(index) = node else { return Ok(()) };
    let process = process_or_new()?;
    let mut devices = process.devices.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = &mut devices[index];
    if opened.device.is_none() {
        let memory = std::env::var(MEMORY_NAME).ok().and_then(|bytes| bytes.parse().ok());
        let memory = memory.unwrap_or(MEMORY);
        let device = if index < PRIVATE {
            Device::attach(&process.space, memory)
        } else {
            Device::attach_coherent(&process.space, memory)
        };
        opened.device = Some(Arc::new(device.map_err(|_| libc::ENOMEM)?));
    }
    opened.descriptors += 1;
    Ok(())
}

/// Closes a node, for one descriptor.
pub(crate) fn close(node: Node) {
    let (Node::Device(index), Some(process)) = (node, process()) else { return };
    let last = {
        let mut devices = process.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = &mut devices[index];
        opened.descriptors = opened.descriptors.saturating_sub(1);
        if opened.descriptors == 0 { opened.device.take() } else { None }
    };
    // What it holds comes back as the last call on it ends.
    drop(last);
}

/// The program has changed the protection of memory: devices see it at once.
pub(crate) fn protection_changed(address: usize, len: usize) {
    let Some(process) = process() else { return };
    let page = process.space.page_size().bytes();
    if let Ok(range) = AddressRange::new(address, len.next_multiple_of(page)) {
        // What it cannot be told of it sees at its next commit.
        let _ = process.space.protection_changed(range);
    }
}

/// A call of `ioctl` on a node.
///
/// # Errors
/// An error's number.
///
/// # Safety
/// As of [`uhmm_dmirror::Node::call`].
pub(crate) unsafe fn call(node: Node, request: u64, argument: usize) -> Result<(), c_int> {
    let result = match node {
        Node::GetPages => get_pages(process().map(|process| &process.space), request, argument),
        Node::Device(index) => {
            let device = process().and_then(|process| {
                let devices = process.devices.lock().unwrap_or_else(PoisonError::into_inner);
                devices[index].device.clone()
            });
            // SAFETY: the caller's promise.
            device.ok_or(libc::EBADF).map(|device| unsafe { device.call(request, argument) })?
        }
    };
    result.map_err(Error::errno)
}
