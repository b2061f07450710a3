//! Accesses that may end with a signal: made by a process that shares this one's memory and nothing
//! else, whose end they are.

use std::{ffi::c_void, ptr};

use uhmm::mm::Access;

/// What the process that touches is told.
#[derive(Clone, Copy)]
struct Touch {
    at: *mut u8,
    access: Access,
}

/// How the process ends where the access ended with SIGSEGV.
const SIGNALLED: i32 = 77;

const STACK: usize = 64 << 10;

/// Whether an access to the byte at `at`, as an instruction of this process, ends with SIGSEGV. A
/// store, where it does not, stores what no test expects there.
pub(crate) fn ends_with_a_signal(at: *mut u8, access: Access) -> bool {
    let mut touch = Touch { at, access };
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    // Until it ends this thread does not run, whose thread-local variables it shares.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the function keeps to what is safe in such a process: it makes system calls and touches
    // `at`, whose pages are a test's own. The stack and `touch` outlive it, as it is waited for.
    let child = unsafe {
        let top = stack.as_mut_ptr_range().end.cast();
        libc::clone(make, top, flags, (&raw mut touch).cast())
    };
    assert!(child > 0, "no process to touch memory with");
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the process that touches ended with {status:#x}");
    libc::WEXITSTATUS(status) == SIGNALLED
}

extern "C" fn make(touch: *mut c_void) -> i32 {
    // SAFETY: it is what `ends_with_a_signal` has on its stack.
    let Touch { at, access } = unsafe { *touch.cast::<Touch>() };
    // SAFETY: the process has a table of handlers of its own, and the handler only ends it.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = ended as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
    }
    // SAFETY: a test's own memory, or the access ends with a signal.
    unsafe {
        match access {
            Access::Read => _ = at.read_volatile(),
            Access::Write => at.write_volatile(0xee),
        }
    }
    0
}

extern "C" fn ended(_: i32) {
    // SAFETY: ending a process is always sound.
    unsafe { libc::_exit(SIGNALLED) }
}
