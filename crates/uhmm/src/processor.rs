//! What takes an instruction of the processor at hand.
//!
//! A call of the system that is made here touches no page of libc's code. After pages have moved that
//! counts: the processor's translations have ended, and each page of code that runs next has to be
//! looked up anew. Other processors go through libc.

#[cfg_attr(target_arch = "x86_64", path = "processor/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "processor/aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "processor/other.rs")]
mod instructions;

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(shuttle, miri))))]
pub(crate) mod this_thread;

pub(crate) use instructions::{system_call, thread_pointer};

/// Copies many bytes from one place to another, as fast as the processor can.
///
/// # Safety
/// As of [`copy_nonoverlapping`](core::ptr::copy_nonoverlapping).
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as the caller says.
    unsafe {
        instructions::copy(from, to, len);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: as above.
    unsafe {
        core::ptr::copy_nonoverlapping(from, to, len);
    }
}

/// Bytes that a processor's caches fetch at a time. Where they are more some are asked for twice.
const LINE: usize = 64;

/// Has the processor fetch the memory of a value that will be wanted, while it does something else.
#[inline]
pub(crate) fn prefetch<T>(value: *const T) {
    // A value may begin within a line.
    let end = value.addr() + size_of::<T>();
    let mut at = value.map_addr(|address| address / LINE * LINE);
    while at.addr() < end {
        instructions::prefetch_line(at.cast());
        at = at.wrapping_byte_add(LINE);
    }
}

#[cfg(all(test, not(any(loom, shuttle, miri))))]
mod tests;
