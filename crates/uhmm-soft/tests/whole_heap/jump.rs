//! A load that a signal handler may give up for: `sigsetjmp` here, `siglongjmp` there.

use std::{arch::naked_asm, cell::Cell, ffi::c_int, mem::MaybeUninit, ptr};

/// More than a `sigjmp_buf` of any libc and processor takes.
#[repr(C, align(64))]
struct Buffer([u8; 1024]);

unsafe extern "C" {
    fn siglongjmp(to: *mut Buffer, value: c_int) -> !;
}

thread_local! {
    /// Where this thread jumps to from a handler; null where it must not.
    static TO: Cell<*mut Buffer> = const { Cell::new(ptr::null_mut()) };
}

/// Loads a word to `out`, and answers 0; or answers what a handler jumps here with. Its frame is
/// in use for as long as a handler can jump, and it is no Rust that returns twice.
///
/// # Safety
/// `buffer` and `out` are valid; what a load of `at` does has been taken care of.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn load(buffer: *mut Buffer, at: *const u64, out: *mut u64) -> c_int {
    naked_asm!(
        "push rbx",
        "push r12",
        "sub rsp, 8",
        "mov rbx, rsi",
        "mov r12, rdx",
        "mov esi, 1",
        "call __sigsetjmp@PLT",
        "test eax, eax",
        "jnz 2f",
        "mov rax, [rbx]",
        "mov [r12], rax",
        "xor eax, eax",
        "2:",
        "add rsp, 8",
        "pop r12",
        "pop rbx",
        "ret",
    )
}

/// As for the other processor.
///
/// # Safety
/// As there.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn load(buffer: *mut Buffer, at: *const u64, out: *mut u64) -> c_int {
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x19, x20, [sp, #16]",
        "mov x19, x1",
        "mov x20, x2",
        "mov w1, #1",
        "bl __sigsetjmp",
        "cbnz w0, 2f",
        "ldr x8, [x19]",
        "str x8, [x20]",
        "2:",
        "ldp x19, x20, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "ret",
    )
}

/// Loads the word at `at`; nothing where a handler of this thread [gives up](give_up).
///
/// # Safety
/// `at` is aligned, and what is there may be loaded, or a load of it ends with a signal whose handler
/// gives up.
pub(crate) unsafe fn try_load(at: *const u64) -> Option<u64> {
    let mut buffer = MaybeUninit::<Buffer>::uninit();
    let mut word = 0;
    TO.set(buffer.as_mut_ptr());
    // SAFETY: both are this frame's; the caller's promise.
    let jumped = unsafe { load(buffer.as_mut_ptr(), at, &raw mut word) };
    TO.set(ptr::null_mut());
    (jumped == 0).then_some(word)
}

/// Leaves a signal handler for the load that it interrupted.
///
/// # Safety
/// Called by the handler of a signal that a load of [`try_load`] raised on this thread, with no value
/// to be dropped in its frames.
pub(crate) unsafe fn give_up() -> ! {
    let to = TO.get();
    if to.is_null() {
        uhmm::abort::abort(b"LOST: a fault where none can be");
    }
    // SAFETY: the caller's promise: the frame that set it is the one interrupted.
    unsafe { siglongjmp(to, 1) }
}
