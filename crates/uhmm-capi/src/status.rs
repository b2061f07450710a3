//! What a function answers.

use core::ffi::{CStr, c_char};

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
