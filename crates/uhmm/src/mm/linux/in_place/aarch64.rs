//! The accesses as instructions of 64-bit Arm, and how the kernel saves a thread's registers there.
//!
//! Sources: Procedure Call Standard for the Arm 64-bit Architecture (arguments in x0 to x7, results in
//! x0 and x1); Arm Architecture Reference Manual, "Load-Acquire, Store-Release" and "Load-Exclusive,
//! Store-Exclusive"; `arch/arm64/include/uapi/asm/{ucontext,sigcontext}.h`.

use core::{ffi::c_void, mem::offset_of};

/// A routine of the name `$name`. Its first argument, which it keeps in x8, is where it notes that
/// an access is under way. In `$access`, the critical part, what changes the program's memory is the
/// last instruction, or all of it may be done anew; `$answer`, which may go back there, brings the
/// result to x9.
macro_rules! routine {
    ($name:literal, $access:expr, $answer:expr) => {
        concat!(
            ".balign 16\n.globl ",
            $name,
            "\n.hidden ",
            $name,
            "\n.type ",
            $name,
            ", @function\n",
            $name,
            ":\n.cfi_startproc\nmov x8, x0\nmov w10, #1\nstr w10, [x8]\n",
            "2:\n",
            $access,
            "\n3:\n",
            $answer,
            "\nstr wzr, [x8]\nmov x0, x9\nmov x1, #0\nret\n",
            ".cfi_endproc\n.size ",
            $name,
            ", . - ",
            $name,
            "\n",
            ".pushsection .rodata.uhmm_in_place, \"a\", @progbits\n",
            ".long 2b - uhmm_in_place_text, 3b - uhmm_in_place_text\n.popsection\n",
        )
    };
}

/// A routine that compares and exchanges, by the loading and storing instructions of its width.
macro_rules! compare_exchange {
    ($name:literal, $load:literal, $store:literal) => {
        routine!(
            $name,
            concat!($load, "\ncmp x9, x2\nb.ne 4f\n", $store),
            "cbnz w10, 2b\nb 5f\n4:\nclrex\n5:"
        )
    };
}

/// A routine that adds, by the loading and storing instructions of its width.
macro_rules! fetch_add {
    ($name:literal, $load:literal, $store:literal) => {
        routine!($name, concat!($load, "\nadd x11, x9, x2\n", $store), "cbnz w10, 2b")
    };
}

core::arch::global_asm!(
    ".pushsection .rodata.uhmm_in_place, \"a\", @progbits",
    ".balign 4",
    ".globl uhmm_in_place_parts",
    ".hidden uhmm_in_place_parts",
    "uhmm_in_place_parts:",
    ".popsection",
    ".pushsection .text.uhmm_in_place, \"ax\", @progbits",
    ".globl uhmm_in_place_text",
    ".hidden uhmm_in_place_text",
    "uhmm_in_place_text:",
    routine!("uhmm_in_place_load_1", "ldarb w9, [x1]", ""),
    routine!("uhmm_in_place_load_2", "ldarh w9, [x1]", ""),
    routine!("uhmm_in_place_load_4", "ldar w9, [x1]", ""),
    routine!("uhmm_in_place_load_8", "ldar x9, [x1]", ""),
    routine!("uhmm_in_place_store_1", "stlrb w2, [x1]", ""),
    routine!("uhmm_in_place_store_2", "stlrh w2, [x1]", ""),
    routine!("uhmm_in_place_store_4", "stlr w2, [x1]", ""),
    routine!("uhmm_in_place_store_8", "stlr x2, [x1]", ""),
    compare_exchange!(
        "uhmm_in_place_compare_exchange_1",
        "ldaxrb w9, [x1]",
        "stlxrb w10, w3, [x1]"
    ),
    compare_exchange!(
        "uhmm_in_place_compare_exchange_2",
        "ldaxrh w9, [x1]",
        "stlxrh w10, w3, [x1]"
    ),
    compare_exchange!("uhmm_in_place_compare_exchange_4", "ldaxr w9, [x1]", "stlxr w10, w3, [x1]"),
    compare_exchange!("uhmm_in_place_compare_exchange_8", "ldaxr x9, [x1]", "stlxr w10, x3, [x1]"),
    fetch_add!("uhmm_in_place_fetch_add_1", "ldaxrb w9, [x1]", "stlxrb w10, w11, [x1]"),
    fetch_add!("uhmm_in_place_fetch_add_2", "ldaxrh w9, [x1]", "stlxrh w10, w11, [x1]"),
    fetch_add!("uhmm_in_place_fetch_add_4", "ldaxr w9, [x1]", "stlxr w10, w11, [x1]"),
    fetch_add!("uhmm_in_place_fetch_add_8", "ldaxr x9, [x1]", "stlxr w10, x11, [x1]"),
    routine!(
        "uhmm_in_place_copy",
        // From x2 to x1; what is left is in x3.
        "subs x3, x3, #16
        b.lo 7f
        6: ldp x9, x10, [x2], #16
        stp x9, x10, [x1], #16
        subs x3, x3, #16
        b.hs 6b
        7: adds x3, x3, #16
        b.eq 3f
        8: ldrb w9, [x2], #1
        strb w9, [x1], #1
        subs x3, x3, #1
        b.ne 8b",
        ""
    ),
    ".balign 16",
    ".globl uhmm_in_place_refused",
    ".hidden uhmm_in_place_refused",
    ".type uhmm_in_place_refused, @function",
    "uhmm_in_place_refused:",
    ".cfi_startproc",
    "str wzr, [x8]",
    "mov x0, #0",
    "mov x1, #1",
    "ret",
    ".cfi_endproc",
    ".size uhmm_in_place_refused, . - uhmm_in_place_refused",
    ".popsection",
    ".pushsection .rodata.uhmm_in_place, \"a\", @progbits",
    ".globl uhmm_in_place_parts_end",
    ".hidden uhmm_in_place_parts_end",
    "uhmm_in_place_parts_end:",
    ".popsection",
);

/// `struct ucontext`, as the kernel lays it out for a handler, whatever libc calls its parts.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    /// The signals that the thread had blocked.
    pub(super) blocked: u64,
    /// Room for more signals, and up to a multiple of sixteen bytes.
    room: [u64; 16],
    fault_address: u64,
    registers: [u64; 31],
    stack_pointer: u64,
    /// The instruction to be executed next.
    position: u64,
}

const _: () = {
    let registers = offset_of!(libc::ucontext_t, uc_mcontext);
    assert!(
        offset_of!(Context, position) == registers + offset_of!(libc::mcontext_t, pc),
        "the registers are where libc says"
    );
    assert!(offset_of!(Context, blocked) == offset_of!(libc::ucontext_t, uc_sigmask));
};

impl Context {
    /// Where the thread was interrupted.
    pub(super) fn position(&self) -> usize {
        super::super::abi::bytes(self.position)
    }

    /// Has the thread go on at `routine`.
    pub(super) fn go_on_at(&mut self, routine: *const c_void) {
        self.position = super::super::abi::word(routine.addr());
    }
}
