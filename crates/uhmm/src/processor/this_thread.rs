//! A place of each thread, in its control block: where it is in relation to that, the linker says.

use core::arch::global_asm;

/// Its size.
pub(crate) const BYTES: usize = 128;
/// What its address is a multiple of.
pub(crate) const ALIGN: usize = 64;

global_asm!(
    ".pushsection .tbss.uhmm_this_thread, \"awT\", @nobits",
    ".balign {align}",
    ".globl uhmm_this_thread",
    ".hidden uhmm_this_thread",
    ".type uhmm_this_thread, @object",
    ".size uhmm_this_thread, {bytes}",
    "uhmm_this_thread:",
    ".zero {bytes}",
    ".popsection",
    align = const ALIGN,
    bytes = const BYTES,
);

/// The calling thread's. All zeros at first.
#[inline]
pub(crate) fn place() -> *const u8 {
    super::instructions::this_thread_place()
}
