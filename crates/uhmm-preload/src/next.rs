//! The functions that ours stand in front of.

use core::{
    ffi::{CStr, c_void},
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering::{Acquire, Release},
    },
};

/// A function that is defined again here, as whoever comes next defines it.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Next {
    pub(crate) const fn of(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Its address.
    pub(crate) fn address(&self) -> *mut c_void {
        let known = self.found.load(Acquire);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string; the answer is an address or null.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            uhmm::abort::abort(
                b"a function that libuhmm_preload.so defines again is defined by nobody else",
            );
        }
        self.found.store(found, Release);
        found
    }
}
