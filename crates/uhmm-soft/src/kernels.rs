//! Kernels of a list: what runs wherever a device is.
//!
//! A closure cannot go to another process. A function of a list that both processes have can: it is named
//! by its place there, never by an address, and is given numbers. It reaches memory by its worker, as a closure
//! does, and of memory what its launch names: in the program as in a process of the device's own.

use crate::{errors::AccessError, worker::Worker};

/// How many numbers a kernel of a list is given.
pub const ARGUMENTS: usize = 4;

/// A kernel of a list.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What it is called, for two processes to see that they have the same list.
    pub name: &'static str,
    /// What it does for an item, with the launch's numbers.
    ///
    /// It may [reach](Worker#safety-of-accesses-by-address) by address what its launch's caller says, and
    /// nothing else but by its arguments: it may be in another process.
    pub run: fn(&mut Worker<'_>, usize, &[u64; ARGUMENTS]) -> Result<(), AccessError>,
}

/// By what a list of kernels is known from another.
pub(crate) fn fingerprint(kernels: &[Kernel]) -> u64 {
    // FNV-1a, of the names with their ends.
    let bytes = kernels.iter().flat_map(|kernel| kernel.name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
