//! Memory of one NUMA node.
//!
//! By `mbind(2)`, with `MPOL_BIND`: what is made at the addresses from then on is of that node, or is not
//! made. What is moved from there stays where it is in memory, so nothing of the program's is bound.

use rustix::io::Errno as E;

use crate::units::{NumaNode, PageRange, PageSize};

/// Nodes that a mask has room for: as many as a kernel can be made for (`CONFIG_NODES_SHIFT`).
const NODES: usize = 1024;

const BITS: usize = libc::c_ulong::BITS as usize;

/// Has what is made at `pages`, which are of this process, be of a node, or of whatever node the process
/// has memory of.
pub(super) fn bind(page: PageSize, pages: PageRange, node: Option<NumaNode>) -> Result<(), E> {
    let mut mask: [libc::c_ulong; NODES / BITS] = [0; NODES / BITS];
    let (mode, bits) = match node {
        Some(NumaNode(number)) => {
            let number = usize::try_from(number).map_err(|_| E::INVAL)?;
            *mask.get_mut(number / BITS).ok_or(E::INVAL)? |= 1 << (number % BITS);
            // The kernel looks at one bit less.
            (libc::MPOL_BIND, NODES + 1)
        }
        None => (libc::MPOL_DEFAULT, 1),
    };
    let (start, len) = (page.address_of(pages.start()), page.bytes_in(pages.len()));
    let flags = 0;
    // SAFETY: it changes where memory comes from, and no content; the mask has as many bits as it says,
    // but for the one that is not looked at.
    if unsafe { libc::syscall(libc::SYS_mbind, start, len, mode, mask.as_ptr(), bits, flags) } == 0
    {
        return Ok(());
    }
    // SAFETY: libc's error number of this thread is always readable.
    Err(E::from_raw_os_error(unsafe { *libc::__errno_location() }))
}
