//! Ending the process with a message, by nothing but system calls.
//!
//! On the fault path nothing may touch the process's heap or its streams' locks, and going on with
//! wrong memory is worse than ending.

/// Writes `uhmm: `, the message and a line's end to standard error, and aborts.
#[cfg_attr(
    shuttle,
    expect(clippy::missing_panics_doc, reason = "the panic stands for the end of the process")
)]
pub fn abort(message: &[u8]) -> ! {
    #[cfg(not(any(shuttle, miri)))]
    {
        let stderr = rustix::stdio::stderr();
        for part in [b"uhmm: ", message, b"\n"] {
            let _ = rustix::io::write(stderr, part);
        }
        // SAFETY: `abort` is always sound to call.
        unsafe { libc::abort() }
    }
    #[cfg(any(shuttle, miri))]
    panic!("uhmm: {}", core::str::from_utf8(message).unwrap_or("a message that is not text"))
}
