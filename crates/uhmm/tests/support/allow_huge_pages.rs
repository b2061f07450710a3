//! Whether the system makes huge pages for a process.

use std::io;

/// Has the system make huge pages for this process from now on, as its settings say, or none.
///
/// Not by advice: memory that is advised against huge pages is taken for a stack.
pub(crate) fn allow_huge_pages(allow: bool) -> io::Result<()> {
    let (disable, none) = (libc::c_ulong::from(!allow), 0 as libc::c_ulong);
    // SAFETY: it is about how memory is backed from now on, and changes no content.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disable, none, none, none) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
