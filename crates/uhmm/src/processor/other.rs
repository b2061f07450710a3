//! Processors of which nothing is known here.

use core::ffi::c_long;

/// Makes a call of the system with four arguments: its result, or an error's number negated.
///
/// # Safety
/// As the call says.
#[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "there is no system in this world"))]
pub(crate) unsafe fn system_call(number: c_long, arguments: [usize; 4]) -> isize {
    let [first, second, third, fourth] = arguments;
    // SAFETY: the caller answers for the call; libc's error number of this thread is always readable.
    unsafe {
        match libc::syscall(number, first, second, third, fourth) {
            -1 => -(*libc::__errno_location() as isize),
            result => result as isize,
        }
    }
}

/// Zero: where the calling thread's own data are is not known.
pub(crate) fn thread_pointer() -> usize {
    0
}

/// Does nothing: how memory is fetched is not known.
pub(super) fn prefetch_line(_at: *const i8) {}
