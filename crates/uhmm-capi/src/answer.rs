//! How a function comes to its answer, and the message of the last failure of a thread.

use core::{
    cell::Cell,
    ffi::c_char,
    fmt::{self, Write},
    panic::AssertUnwindSafe,
};
use std::panic::catch_unwind;

use uhmm::sync::SignalsBlocked;

use crate::{failure::Failure, status::Status};

/// How long a message can be, with the zero that ends it.
const LONGEST: usize = 512;

thread_local! {
    /// The message of the last failure. Nothing is to be dropped with the thread.
    static MESSAGE: Cell<[u8; LONGEST]> = const { Cell::new([0; LONGEST]) };
}

/// Writes what it has room for, and cuts off the rest.
struct Cut {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays zero; a character that does not fit stays out whole.
        let room = LONGEST - 1 - self.len;
        let mut fits = text.len().min(room);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

/// Copies the message of the calling thread's last failure to `buffer`, which has room for `size` bytes: as
/// much of it as there is room for, with a zero at the end. Answers how long the message is without that zero.
/// What succeeds leaves it as it is; before any failure it is empty. A null buffer only asks for the length.
/// In a callback it answers 0.
///
/// # Safety
/// `buffer` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_message(buffer: *mut c_char, size: usize) -> usize {
    if SignalsBlocked::are_here() {
        return 0;
    }
    let message = MESSAGE.get();
    let len = message.iter().take_while(|&&byte| byte != 0).count();
    if !buffer.is_null() && size > 0 {
        let copied = len.min(size - 1);
        // SAFETY: the caller's promise; the zero that ends it fits.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(message.as_ptr(), copied);
            buffer.add(copied).write(0);
        }
    }
    len
}

/// Notes a failure of the calling thread.
fn note(failure: &dyn fmt::Display) {
    let mut cut = Cut { bytes: [0; LONGEST], len: 0 };
    // Writing there does not fail.
    let _ = write!(cut, "{failure}");
    MESSAGE.set(cut.bytes);
}

/// Does what a function is to do, unless a callback calls it: notes what fails, and lets no panic through.
pub(crate) fn run(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    if SignalsBlocked::are_here() {
        return Status::InCallback;
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(failure)) => {
            note(&failure);
            failure.status()
        }
        Err(_) => {
            note(&"a panic was caught: a defect of uhmm; its own message is on standard error");
            Status::Panicked
        }
    }
}
