//! What the device is told of the program's memory by the system, and the program's buffers, to and from
//! which a call copies.

use core::ops::Range;

use procfs::process::{MMPermissions, MMapPath, Process};
use uhmm::units::AddressRange;

use crate::error::Error;

/// An area of the program, cut to the range that was asked for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of an area")]
pub(crate) struct Area {
    pub(crate) addresses: Range<usize>,
    pub(crate) readable: bool,
    /// Whether it is memory of files, or of no file, that is shared.
    pub(crate) shared: bool,
    /// Whether it maps a file, or what is like one.
    pub(crate) file: bool,
    /// Whether it is of pages that are huge by its kind.
    pub(crate) hugetlb: bool,
}

/// The areas that `range` lies in, in order.
///
/// # Errors
/// [`Error::Invalid`] where they do not cover it; [`Error::NoMemory`] where the system does not tell.
pub(crate) fn areas(range: AddressRange) -> Result<Vec<Area>, Error> {
    let maps = Process::myself().and_then(|me| me.maps()).map_err(|_| Error::NoMemory)?;
    let mut areas = Vec::new();
    let mut at = range.start();
    for map in maps {
        let (start, end) = (address(map.address.0), address(map.address.1));
        if end <= at {
            continue;
        }
        if start > at || at == range.end() {
            break;
        }
        let end = end.min(range.end());
        areas.push(Area {
            addresses: at..end,
            readable: map.perms.contains(MMPermissions::READ),
            shared: map.perms.contains(MMPermissions::SHARED),
            file: map.inode != 0,
            hugetlb: is_hugetlb(&map.pathname),
        });
        at = end;
    }
    if at == range.end() { Ok(areas) } else { Err(Error::Invalid) }
}

/// An address that the system names is one of this process.
fn address(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn is_hugetlb(path: &MMapPath) -> bool {
    match path {
        MMapPath::Path(path) => path.starts_with("/anon_hugepage"),
        _ => false,
    }
}

/// Copies `bytes` to the program's memory at `to`, by the system: what may not be written is an error.
pub(crate) fn copy_to_program(to: usize, bytes: &[u8]) -> Result<(), Error> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote =
        libc::iovec { iov_base: core::ptr::with_exposed_provenance_mut(to), iov_len: bytes.len() };
    // SAFETY: the local vector is of `bytes`, which are read only; the program says that what it names is
    // to be written, and the system checks that it can.
    let done = unsafe {
        libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    all_done(done, bytes.len())
}

/// Copies the program's memory at `from` to `bytes`, by the system.
pub(crate) fn copy_from_program(from: usize, bytes: &mut [u8]) -> Result<(), Error> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec {
        iov_base: core::ptr::with_exposed_provenance_mut(from),
        iov_len: bytes.len(),
    };
    // SAFETY: the local vector is of `bytes`, which are written; the rest is checked by the system.
    let done = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    all_done(done, bytes.len())
}

fn all_done(done: isize, wanted: usize) -> Result<(), Error> {
    if usize::try_from(done) == Ok(wanted) { Ok(()) } else { Err(Error::Fault) }
}
