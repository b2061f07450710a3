//! The functions that give a descriptor another number, or close many, defined again: a copy of a node's is of
//! the node, too.

use core::{
    ffi::{c_int, c_uint, c_void},
    mem::transmute,
};

use crate::{
    calls::{close_next, fail},
    descriptors::{self, Whose},
    next::Next,
    nodes,
};

/// Notes that `copy` is a copy of a descriptor that was `whose`. Answers the copy, or fails where it cannot be noted;
/// it is closed then.
fn copied(whose: Whose, copy: c_int) -> c_int {
    if copy < 0 {
        return copy;
    }
    // What had the number before was closed.
    descriptors::forget(copy);
    // A copy of what a parent had is as useless as that, and is left a file's.
    let Whose::Node(node) = whose else { return copy };
    let refused = match nodes::open(node) {
        Ok(()) if descriptors::note(copy, node) => return copy,
        Ok(()) => {
            nodes::close(node);
            libc::EMFILE
        }
        Err(errno) => errno,
    };
    // SAFETY: it was made just now, and nobody knows of it.
    unsafe { close_next(copy) };
    fail(refused)
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dup(descriptor: c_int) -> c_int {
    static NEXT: Next = Next::of(c"dup");
    // SAFETY: it is the function of that name, which has this type.
    let next: unsafe extern "C" fn(c_int) -> c_int = unsafe { transmute(NEXT.address()) };
    let whose = descriptors::whose(descriptor);
    // SAFETY: the caller's promise.
    copied(whose, unsafe { next(descriptor) })
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dup2(descriptor: c_int, copy: c_int) -> c_int {
    static NEXT: Next = Next::of(c"dup2");
    // SAFETY: it is the function of that name, which has this type.
    let next: unsafe extern "C" fn(c_int, c_int) -> c_int = unsafe { transmute(NEXT.address()) };
    let whose = descriptors::whose(descriptor);
    // SAFETY: the caller's promise.
    let made = unsafe { next(descriptor, copy) };
    // To itself it copies nothing.
    if descriptor == copy { made } else { copied(whose, made) }
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dup3(descriptor: c_int, copy: c_int, flags: c_int) -> c_int {
    static NEXT: Next = Next::of(c"dup3");
    type Function = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;
    // SAFETY: it is the function of that name, which has this type.
    let next: Function = unsafe { transmute(NEXT.address()) };
    let whose = descriptors::whose(descriptor);
    // SAFETY: the caller's promise.
    copied(whose, unsafe { next(descriptor, copy, flags) })
}

macro_rules! controls {
    ($($name:ident, $symbol:literal;)*) => {$(
        /// As libc's.
        ///
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(descriptor: c_int, command: c_int, argument: *mut c_void) -> c_int {
            static NEXT: Next = Next::of($symbol);
            type Function = unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
            // SAFETY: it is the function of that name, which has this type but for what is optional.
            let next: Function = unsafe { transmute(NEXT.address()) };
            let copies = matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC);
            let whose = if copies { descriptors::whose(descriptor) } else { Whose::Other };
            // SAFETY: the caller's promise.
            let result = unsafe { next(descriptor, command, argument) };
            if copies { copied(whose, result) } else { result }
        }
    )*};
}

controls! {
    fcntl, c"fcntl";
    fcntl64, c"fcntl64";
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    static NEXT: Next = Next::of(c"close_range");
    type Function = unsafe extern "C" fn(c_uint, c_uint, c_int) -> c_int;
    // SAFETY: it is the function of that name, which has this type.
    let next: Function = unsafe { transmute(NEXT.address()) };
    // SAFETY: the caller's promise.
    let result = unsafe { next(first, last, flags) };
    // Flags have them closed later, or in this process's place in another table of descriptors.
    if result == 0 && flags.unsigned_abs() & libc::CLOSE_RANGE_CLOEXEC == 0 {
        descriptors::forget_all(first, last);
    }
    result
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn closefrom(first: c_int) {
    static NEXT: Next = Next::of(c"closefrom");
    // SAFETY: it is the function of that name, which has this type.
    let next: unsafe extern "C" fn(c_int) = unsafe { transmute(NEXT.address()) };
    // SAFETY: the caller's promise.
    unsafe { next(first) };
    descriptors::forget_all(u32::try_from(first).unwrap_or(0), u32::MAX);
}
