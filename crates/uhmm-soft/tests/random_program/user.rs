//! Programs of an ordinary user.

use std::{ptr, sync::Once};

const NOBODY: libc::uid_t = 65534;

/// Becomes an ordinary user, once. Each test's programs run in a process of their own.
pub(crate) fn become_nobody() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the calls change who this process is and touch no memory. A process that changed its
        // user is closed to that user's own look at `/proc` unless it says otherwise.
        unsafe {
            if libc::getuid() == 0 {
                assert_eq!(libc::setgroups(0, ptr::null()), 0);
                assert_eq!(libc::setgid(NOBODY), 0);
                assert_eq!(libc::setuid(NOBODY), 0);
                assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
            }
        }
    });
}
