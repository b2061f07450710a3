//! The accesses as instructions of x86-64, and how the kernel saves a thread's registers there.
//!
//! Sources: System V ABI for x86-64 (arguments in rdi, rsi, rdx, rcx, results in rax and rdx);
//! `arch/x86/include/uapi/asm/{ucontext,sigcontext}.h`.

use core::{ffi::c_void, mem::offset_of};

/// A routine of the name `$name`. Its first argument, which it keeps in r8, is where it notes that
/// an access is under way. `$ready` comes before that note; in `$access`, the critical part, what
/// touches the program's memory is the last instruction, or all of it may be done anew; `$answer`
/// brings the result to rax.
macro_rules! routine {
    ($name:literal, $ready:literal, $access:literal, $answer:literal) => {
        concat!(
            ".balign 16\n.globl ",
            $name,
            "\n.hidden ",
            $name,
            "\n.type ",
            $name,
            ", @function\n",
            $name,
            ":\n.cfi_startproc\nmov r8, rdi\n",
            $ready,
            "\nmov dword ptr [r8], 1\n",
            "2:\n",
            $access,
            "\n3:\nmov dword ptr [r8], 0\n",
            $answer,
            "\nxor edx, edx\nret\n",
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
    routine!("uhmm_in_place_load_1", "", "movzx eax, byte ptr [rsi]", ""),
    routine!("uhmm_in_place_load_2", "", "movzx eax, word ptr [rsi]", ""),
    routine!("uhmm_in_place_load_4", "", "mov eax, dword ptr [rsi]", ""),
    routine!("uhmm_in_place_load_8", "", "mov rax, qword ptr [rsi]", ""),
    routine!("uhmm_in_place_store_1", "", "mov byte ptr [rsi], dl", ""),
    routine!("uhmm_in_place_store_2", "", "mov word ptr [rsi], dx", ""),
    routine!("uhmm_in_place_store_4", "", "mov dword ptr [rsi], edx", ""),
    routine!("uhmm_in_place_store_8", "", "mov qword ptr [rsi], rdx", ""),
    routine!(
        "uhmm_in_place_compare_exchange_1",
        "mov eax, edx",
        "lock cmpxchg byte ptr [rsi], cl",
        ""
    ),
    routine!(
        "uhmm_in_place_compare_exchange_2",
        "mov eax, edx",
        "lock cmpxchg word ptr [rsi], cx",
        ""
    ),
    routine!(
        "uhmm_in_place_compare_exchange_4",
        "mov eax, edx",
        "lock cmpxchg dword ptr [rsi], ecx",
        ""
    ),
    routine!(
        "uhmm_in_place_compare_exchange_8",
        "mov rax, rdx",
        "lock cmpxchg qword ptr [rsi], rcx",
        ""
    ),
    routine!("uhmm_in_place_fetch_add_1", "", "lock xadd byte ptr [rsi], dl", "mov eax, edx"),
    routine!("uhmm_in_place_fetch_add_2", "", "lock xadd word ptr [rsi], dx", "mov eax, edx"),
    routine!("uhmm_in_place_fetch_add_4", "", "lock xadd dword ptr [rsi], edx", "mov eax, edx"),
    routine!("uhmm_in_place_fetch_add_8", "", "lock xadd qword ptr [rsi], rdx", "mov rax, rdx"),
    routine!(
        "uhmm_in_place_copy",
        "mov rdi, rsi\nmov rsi, rdx",
        // What is left to copy is in rcx, and where to go on in rsi and rdi: interrupted, it goes
        // on where it was.
        "rep movsb",
        "xor eax, eax"
    ),
    ".balign 16",
    ".globl uhmm_in_place_refused",
    ".hidden uhmm_in_place_refused",
    ".type uhmm_in_place_refused, @function",
    "uhmm_in_place_refused:",
    ".cfi_startproc",
    "mov dword ptr [r8], 0",
    "xor eax, eax",
    "mov edx, 1",
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
    /// r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp.
    registers: [u64; 16],
    /// rip: the instruction to be executed next.
    position: u64,
    /// Flags, segments, and what the processor told of a fault.
    more: [u64; 6],
    floating_point: u64,
    reserved: [u64; 8],
    /// The signals that the thread had blocked.
    pub(super) blocked: u64,
}

const _: () = {
    assert!(offset_of!(Context, position) == offset_of!(libc::ucontext_t, uc_mcontext) + 16 * 8);
    assert!(libc::REG_RIP == 16);
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
