//! `syscall`, by which a program calls the system by number, defined again: what is a node's is served, and what is
//! told early by a function is told early by its number too.

use core::{
    ffi::{c_int, c_long, c_uint, c_void},
    mem::transmute,
    ptr::with_exposed_provenance_mut,
};

use uhmm_record::Stage;

use crate::{
    calls::{self, node_of, open_node},
    copies,
    descriptors::{self, Whose},
    next::Next,
    nodes, observe,
};

/// The lower half of an argument, which is all that the system looks at where it wants an `int`.
fn int(argument: c_long) -> c_int {
    #[expect(clippy::cast_possible_truncation, reason = "as the system does")]
    let lower = argument as c_int;
    lower
}

fn number(argument: c_long) -> usize {
    argument.cast_unsigned().try_into().unwrap_or(usize::MAX)
}

fn pointer<T>(argument: c_long) -> *mut T {
    with_exposed_provenance_mut(number(argument))
}

/// As libc's. Each system call has at most six arguments; those that it does not have are read from where they would
/// be, and passed on.
///
/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn syscall(
    call: c_long,
    first: c_long,
    second: c_long,
    third: c_long,
    fourth: c_long,
    fifth: c_long,
    sixth: c_long,
) -> c_long {
    static NEXT: Next = Next::of(c"syscall");
    type Function =
        unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    // SAFETY: it is the function of that name, which has this type but for what is optional.
    let next: Function = unsafe { transmute(NEXT.address()) };
    // SAFETY: the caller's promise.
    let next = || unsafe { next(call, first, second, third, fourth, fifth, sixth) };
    // SAFETY: each is called with what the call of its number has, by the caller's promise.
    unsafe {
        match call {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => match node_of(pointer(first)) {
                Some(node) => open_node(node, int(second)).into(),
                None => next(),
            },
            libc::SYS_openat => match node_of(pointer(second)) {
                Some(node) => open_node(node, int(third)).into(),
                None => next(),
            },
            libc::SYS_ioctl if descriptors::whose(int(first)) != Whose::Other => {
                calls::ioctl(int(first), second.cast_unsigned(), pointer(third)).into()
            }
            libc::SYS_mmap if descriptors::whose(int(fifth)) != Whose::Other => {
                let mapped = calls::mmap(
                    pointer(first),
                    number(second),
                    int(third),
                    int(fourth),
                    int(fifth),
                    sixth,
                );
                address(mapped)
            }
            libc::SYS_close => {
                descriptors::forget(int(first));
                next()
            }
            libc::SYS_close_range => {
                copies::close_range(unsigned(first), unsigned(second), int(third)).into()
            }
            libc::SYS_dup => copies::dup(int(first)).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => copies::dup2(int(first), int(second)).into(),
            libc::SYS_dup3 => copies::dup3(int(first), int(second), int(third)).into(),
            libc::SYS_fcntl if matches!(int(second), libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
                copies::fcntl(int(first), int(second), pointer(third)).into()
            }
            libc::SYS_mprotect => {
                let result = next();
                if result == 0 {
                    nodes::protection_changed(number(first), number(second));
                }
                result
            }
            libc::SYS_exit_group => {
                observe::end(Stage::Ended);
                next()
            }
            libc::SYS_execve | libc::SYS_execveat => {
                observe::end(Stage::Replaced);
                let failed = next();
                observe::did_not_end();
                failed
            }
            _ => next(),
        }
    }
}

fn unsigned(argument: c_long) -> c_uint {
    int(argument).cast_unsigned()
}

/// An address as the system answers it.
fn address(mapped: *mut c_void) -> c_long {
    c_long::try_from(mapped.addr().cast_signed()).unwrap_or(-1)
}
