//! Sources: System V ABI for x86-64, sections "Linux Conventions" and "Thread-Local Storage".

use core::{
    arch::{
        asm,
        x86_64::{
            __m128i, _MM_HINT_NTA, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_sfence,
            _mm_stream_si128,
        },
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

/// From how many bytes on a copy passes by the caches. What is copied then is mostly in none of them, and would
/// drive out what the kernel keeps of pages; of less the reader is likely to wait for it.
const STREAMED: usize = 128 << 10;

/// Copies bytes from one place to another.
///
/// Some go by the instruction that processors have for it, which does without fetching what is overwritten where
/// it is told how much there is. Many go by stores that pass by the caches.
///
/// # Safety
/// As of [`copy_nonoverlapping`](core::ptr::copy_nonoverlapping).
#[cfg(not(miri))]
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    let is_of_lines = (to.addr() | len).is_multiple_of(super::LINE);
    // SAFETY: as the caller says; what is streamed is of whole lines, as was looked at.
    unsafe {
        if len >= STREAMED && is_of_lines {
            stream(from, to, len);
        } else {
            copy_string(from, to, len);
        }
    }
}

/// Copies by `rep movsb`.
///
/// # Safety
/// As of [`copy_nonoverlapping`](core::ptr::copy_nonoverlapping).
#[cfg(not(miri))]
#[inline]
unsafe fn copy_string(from: *const u8, to: *mut u8, len: usize) {
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

/// Copies by stores that pass by the caches, with what SSE2 has, which all these processors do.
///
/// # Safety
/// As of [`copy_nonoverlapping`](core::ptr::copy_nonoverlapping). `to` and `len` are multiples of a line.
#[cfg(not(miri))]
#[expect(clippy::cast_ptr_alignment, reason = "loads ask for no alignment, and stores are aligned")]
unsafe fn stream(from: *const u8, to: *mut u8, len: usize) {
    /// How far ahead of the copy its source is fetched.
    const AHEAD: usize = 2 << 10;
    const WORDS: usize = super::LINE / size_of::<__m128i>();
    let mut done = 0;
    while done < len {
        // SAFETY: what is fetched ahead is not read, and may be any address. The line at `done` is within both
        // memories, as `len` is of whole lines, and that of `to` is aligned, which the stores ask for.
        unsafe {
            _mm_prefetch::<_MM_HINT_NTA>(from.wrapping_add(done + AHEAD).cast());
            let (from, to) = (from.add(done).cast::<__m128i>(), to.add(done).cast::<__m128i>());
            let line: [__m128i; WORDS] =
                core::array::from_fn(|word| _mm_loadu_si128(from.add(word)));
            for (word, value) in line.into_iter().enumerate() {
                _mm_stream_si128(to.add(word), value);
            }
        }
        done += super::LINE;
    }
    // Such stores are ordered by nothing else.
    // SAFETY: SSE has it.
    unsafe { _mm_sfence() };
}
