//! To become somebody who is allowed less.

use std::{io, ptr};

/// Has this process become an ordinary user who is allowed nothing special, where it is root's.
pub(crate) fn drop_privileges() {
    let done = |returned, call| assert_eq!(returned, 0, "{call}: {}", io::Error::last_os_error());
    // SAFETY: the calls change who this process is and touch no memory. A process that changed its
    // user is closed to that user's own look at `/proc` unless it says otherwise.
    unsafe {
        if libc::getuid() == 0 {
            done(libc::setgroups(0, ptr::null()), "setgroups");
            done(libc::setgid(65534), "setgid");
            done(libc::setuid(65534), "setuid");
            done(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl");
        }
    }
}
