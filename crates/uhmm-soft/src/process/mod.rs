//! A device in a process of its own: its heap, its locks and its crashes are not the program's.
//!
//! The process is the program's own executable, started anew: so it has the code of the kernels, and
//! nothing of the program's memory, which a fork would share and thereby keep from moving. It is asked
//! to be a device by its environment, and [`serve_if_asked`], the first thing that `main` calls, is where
//! it becomes one.
//!
//! Both sides map one file in memory: a page of numbers, three rings ([`uhmm::ring`]), and the device's
//! frames. Pages are copied into frames and out of them by the thread of the program that moves them; the
//! device process is told of translations, asks for pages that it misses, and computes. A kernel is
//! named by its place in a list that both sides have, never by an address.
//!
//! What the device process writes is not trusted. It can do with the pages that it was given what it
//! likes, and gets others only of ranges that a launch names. It ends by itself, or is ended when
//! it does not answer: then what it held is marked as lost, and the program lives.

mod device;
mod host;
mod layout;

pub use device::{ProcessAccessError, ProcessWorker, serve_if_asked};
pub use host::{DeviceProcess, ProcessError, ProcessRunError};

/// How many numbers a kernel of a device process is given.
pub const ARGUMENTS: usize = 4;

/// A kernel of a device process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessKernel {
    /// What it is called, for both sides to see that they have the same list.
    pub name: &'static str,
    /// What it does for an item.
    pub run: fn(&mut ProcessWorker<'_>, u64, &[u64; ARGUMENTS]) -> Result<(), ProcessAccessError>,
}

/// By what a list of kernels is known from another.
fn fingerprint(kernels: &[ProcessKernel]) -> u64 {
    // FNV-1a, of the names with their ends.
    let bytes = kernels.iter().flat_map(|kernel| kernel.name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
