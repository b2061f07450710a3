//! What a function answers, and the message of the last failure of a thread.

use core::{
    cell::Cell,
    ffi::{CStr, c_char},
    fmt::{self, Write},
    panic::AssertUnwindSafe,
};
use std::panic::catch_unwind;

use uhmm::sync::SignalsBlocked;

use crate::failure::Failure;

/// What a function answers. Where it is not UHMM_STATUS_OK nothing was done, unless the function says
/// otherwise; uhmm_message() has the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The handle is none of its kind: it was never given, or is of something else.
    BadHandle = 1,
    /// What the handle was of has ended.
    Ended = 2,
    /// The handle is of the process that this one was forked from. It has none of it, and opens its own.
    OtherProcess = 3,
    /// A pointer is null that must not be, or a number is none of those that are allowed.
    BadArgument = 4,
    /// A range is empty, wraps, is not one of whole pages, or reaches beyond what it has to lie in.
    BadRange = 5,
    /// The function was called by a callback, which may call uhmm_accessor_refuse() alone.
    InCallback = 6,
    /// An accessor is used by the thread that opened it alone.
    OtherThread = 7,
    /// The system lacks something, or does not allow it.
    System = 8,
    /// The process has an address space open already.
    AlreadyOpen = 9,
    /// Engine memory or system memory is exhausted.
    NoMemory = 10,
    /// There are as many handles, devices or accessors as there can be.
    TooMany = 11,
    /// Memory that was to be adopted cannot be, or a page cannot be had.
    Refused = 12,
    /// Pages could not be brought back from a device.
    Stayed = 13,
    /// A panic was caught: a defect of uhmm. What it was at work on may be half done: save what is to be saved
    /// and end the process.
    Panicked = 14,
    /// Accessors of the mirror or device are open: close them first.
    InUse = 15,
}

/// What each status is called, by its number.
const TEXTS: [&CStr; Status::InUse as usize + 1] = [
    c"done",
    c"the handle is none of its kind",
    c"what the handle was of has ended",
    c"the handle is of the process that this one was forked from",
    c"an argument is not allowed",
    c"a range is not one of whole pages where it has to lie",
    c"not to be called by a callback",
    c"an accessor is used by the thread that opened it alone",
    c"the system lacks something or does not allow it",
    c"this process has an address space open already",
    c"memory is exhausted",
    c"there are as many as there can be",
    c"memory cannot be had",
    c"pages could not be brought back from a device",
    c"a defect of uhmm",
    c"accessors of it are open",
];

/// A status in a few words of English. The text is there for good. Anything but a status is said to be none.
/// Safe in a callback.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_status_text(status: i32) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|status| TEXTS.get(status));
    known.copied().unwrap_or(c"no status of uhmm").as_ptr()
}

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
