//! The functions that are defined again. Each has the arguments that libc's has; those that are optional
//! there are always passed on, as they come in registers whether or not they were given.

use core::{
    ffi::{CStr, c_char, c_int, c_ulong, c_void},
    mem::transmute,
};

use libc::{mode_t, off_t, size_t};

use crate::{
    descriptors::{self, Whose},
    next::Next,
    nodes::{self, Node},
};

/// Says why a call failed, as libc does.
pub(crate) fn fail(errno: c_int) -> c_int {
    // SAFETY: libc's error number of this thread is always writable.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// The node that a path names.
///
/// # Safety
/// The path is a C string, or null.
pub(crate) unsafe fn node_of(path: *const c_char) -> Option<Node> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Node::of_path(unsafe { CStr::from_ptr(path) }.to_bytes())
}

/// Opens a node.
pub(crate) fn open_node(node: Node, flags: c_int) -> c_int {
    let close_on_exec = if flags & libc::O_CLOEXEC == 0 { 0 } else { libc::MFD_CLOEXEC };
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(c"uhmm node".as_ptr(), close_on_exec) };
    if descriptor < 0 {
        return -1;
    }
    let refused = match nodes::open(node) {
        Ok(()) if descriptors::note(descriptor, node) => return descriptor,
        Ok(()) => {
            nodes::close(node);
            libc::EMFILE
        }
        Err(errno) => errno,
    };
    // SAFETY: it was opened just above, and nobody knows of it.
    unsafe { close_next(descriptor) };
    fail(refused)
}

/// # Safety
/// As of `close(2)`.
pub(crate) unsafe fn close_next(descriptor: c_int) -> c_int {
    static NEXT: Next = Next::of(c"close");
    // SAFETY: it is the function of that name, which has this type.
    let next: unsafe extern "C" fn(c_int) -> c_int = unsafe { transmute(NEXT.address()) };
    // SAFETY: the caller's promise.
    unsafe { next(descriptor) }
}

macro_rules! opens {
    ($($name:ident, $symbol:literal, ($($before:ident: $type:ty,)*), $($mode:ident)?;)*) => {$(
        /// As libc's.
        ///
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($before: $type,)* path: *const c_char, flags: c_int $(, $mode: mode_t)?) -> c_int {
            static NEXT: Next = Next::of($symbol);
            type Function = unsafe extern "C" fn($($type,)* *const c_char, c_int $(, opens!(@type $mode))?) -> c_int;
            // SAFETY: the caller's promise.
            if let Some(node) = unsafe { node_of(path) } {
                return open_node(node, flags);
            }
            // SAFETY: it is the function of that name, which has this type.
            let next: Function = unsafe { transmute(NEXT.address()) };
            // SAFETY: the caller's promise.
            unsafe { next($($before,)* path, flags $(, $mode)?) }
        }
    )*};
    (@type $mode:ident) => { mode_t };
}

opens! {
    open, c"open", (), mode;
    open64, c"open64", (), mode;
    openat, c"openat", (directory: c_int,), mode;
    openat64, c"openat64", (directory: c_int,), mode;
    __open_2, c"__open_2", (), ;
    __open64_2, c"__open64_2", (), ;
    __openat_2, c"__openat_2", (directory: c_int,), ;
    __openat64_2, c"__openat64_2", (directory: c_int,), ;
}

/// As libc's.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    descriptors::forget(descriptor);
    // SAFETY: the caller's promise.
    unsafe { close_next(descriptor) }
}

/// As libc's.
///
/// # Safety
/// As libc's; of nodes, as of [`uhmm_dmirror::Node::call`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(
    descriptor: c_int,
    request: c_ulong,
    argument: *mut c_void,
) -> c_int {
    match descriptors::whose(descriptor) {
        Whose::Node(node) => {
            // SAFETY: the caller's promise.
            match unsafe { nodes::call(node, request, argument.expose_provenance()) } {
                Ok(()) => 0,
                Err(errno) => fail(errno),
            }
        }
        Whose::Inherited(_) => fail(libc::EIO),
        Whose::Other => {
            static NEXT: Next = Next::of(c"ioctl");
            type Function = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;
            // SAFETY: it is the function of that name, which has this type but for what is optional.
            let next: Function = unsafe { transmute(NEXT.address()) };
            // SAFETY: the caller's promise.
            unsafe { next(descriptor, request, argument) }
        }
    }
}

macro_rules! maps {
    ($($name:ident, $symbol:literal;)*) => {$(
        /// As libc's. Of a node it maps pages of zeros.
        ///
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(
            address: *mut c_void,
            len: size_t,
            protection: c_int,
            flags: c_int,
            descriptor: c_int,
            offset: off_t,
        ) -> *mut c_void {
            static NEXT: Next = Next::of($symbol);
            type Function =
                unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
            // SAFETY: it is the function of that name, which has this type.
            let next: Function = unsafe { transmute(NEXT.address()) };
            let is_node = flags & libc::MAP_ANONYMOUS == 0
                && descriptors::whose(descriptor) != Whose::Other;
            if is_node && let Err(errno) = make_pages(descriptor, offset, len) {
                fail(errno);
                return libc::MAP_FAILED;
            }
            // SAFETY: the caller's promise.
            let mapped = unsafe { next(address, len, protection, flags, descriptor, offset) };
            if is_node && mapped != libc::MAP_FAILED && protection & libc::PROT_READ != 0 {
                // As a driver that enters its pages at once. Where it fails they come as they are touched.
                // SAFETY: no content changes.
                unsafe { libc::madvise(mapped, len, libc::MADV_POPULATE_READ) };
            }
            mapped
        }
    )*};
}

maps! {
    mmap, c"mmap";
    mmap64, c"mmap64";
}

/// As libc's. Devices see what is permitted then as it returns.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mprotect(
    address: *mut c_void,
    len: size_t,
    protection: c_int,
) -> c_int {
    static NEXT: Next = Next::of(c"mprotect");
    // SAFETY: it is the function of that name, which has this type.
    let next: unsafe extern "C" fn(*mut c_void, size_t, c_int) -> c_int =
        unsafe { transmute(NEXT.address()) };
    // SAFETY: the caller's promise.
    let result = unsafe { next(address, len, protection) };
    if result == 0 {
        nodes::protection_changed(address.addr(), len);
    }
    result
}

/// Makes pages for a mapping of a node.
fn make_pages(descriptor: c_int, offset: off_t, len: size_t) -> Result<(), c_int> {
    let len = off_t::try_from(len).map_err(|_| libc::EINVAL)?;
    // SAFETY: the file is this library's own.
    if unsafe { libc::fallocate(descriptor, 0, offset, len) } == 0 {
        Ok(())
    } else {
        // SAFETY: libc's error number of this thread is always readable.
        Err(unsafe { *libc::__errno_location() })
    }
}
