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
pub(crate) use instructions::this_thread;
pub(crate) use instructions::{system_call, thread_pointer};
