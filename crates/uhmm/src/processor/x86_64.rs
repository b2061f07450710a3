//! Sources: System V ABI for x86-64, sections "Linux Conventions" and "Thread-Local Storage".

use core::{
    arch::{
        asm,
        x86_64::{_MM_HINT_T0, _mm_prefetch},
    },
    ffi::c_long,
};

/// Makes a call of the system with four arguments: its result, or an error's number negated.
///
/// # Safety
/// As the call says.
#[inline]
#[cfg_attr(any(shuttle, miri), allow(dead_code, reason = "there is no system in this world"))]
pub(crate) unsafe fn system_call(number: c_long, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the kernel changes only the three registers named; for all else the caller answers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
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
    // SAFETY: two words are read that do not change: where the linker has put the place in relation to
    // the control block, and where that is.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + uhmm_this_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:0",
            out(reg) place,
            options(nostack, readonly, pure)
        );
    }
    place
}

/// The address from which the calling thread's own data are found.
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: the first word of the control block holds its own address, and reading it changes
    // nothing.
    unsafe {
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags, pure));
    }
    pointer
}

/// Has the processor fetch the line of the caches that an address is in, or does nothing.
#[inline]
pub(super) fn prefetch_line(at: *const i8) {
    // SAFETY: it reads nothing, and may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

/// Copies bytes from one place to another, by the instruction that processors have for it: for many bytes
/// they do without fetching what is overwritten.
///
/// # Safety
/// As of [`copy_nonoverlapping`](core::ptr::copy_nonoverlapping).
#[cfg(not(miri))]
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller says; by the ABI the direction is upwards.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}
