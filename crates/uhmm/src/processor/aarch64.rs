//! Sources: syscall(2), "Architecture calling conventions"; ELF for the Arm 64-bit Architecture,
//! "Thread-local storage".

use core::{arch::asm, ffi::c_long};

/// Makes a call of the system with four arguments: its result, or an error's number negated.
///
/// # Safety
/// As the call says.
#[inline]
#[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "there is no system in this world"))]
pub(crate) unsafe fn system_call(number: c_long, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel changes only the register of the result; for all else the caller answers.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            options(nostack, preserves_flags)
        );
    }
    result
}

/// Where the calling thread's place is, which [`this_thread`](super::this_thread) makes.
#[cfg(not(any(shuttle, miri)))]
#[inline]
pub(super) fn this_thread_place() -> *const u8 {
    let place;
    // SAFETY: a word is read that does not change, where the linker has put the place in relation to the
    // control block, and a register that says where that is.
    unsafe {
        asm!(
            "adrp {1}, :gottprel:uhmm_this_thread",
            "ldr {1}, [{1}, :gottprel_lo12:uhmm_this_thread]",
            "mrs {0}, tpidr_el0",
            "add {0}, {0}, {1}",
            out(reg) place,
            out(reg) _,
            options(nostack, readonly, pure, preserves_flags)
        );
    }
    place
}

/// The address from which the calling thread's own data are found.
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reading the register of the thread's pointer changes nothing.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem, preserves_flags, pure));
    }
    pointer
}

/// Has the processor fetch the line of the caches that an address is in, or does nothing.
#[inline]
pub(super) fn prefetch_line(at: *const i8) {
    // SAFETY: it reads nothing, and may be given any address.
    unsafe { asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags)) };
}
