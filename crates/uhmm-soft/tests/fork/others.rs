//! What shares the memory until it runs another program sees no difference.

use std::{
    process::{Command, Stdio},
    ptr,
};

use crate::place::{PAGES, Place, Who, alone, content, ended};

fn start_programs() {
    let place = Place::new();
    // A program by std, which takes `posix_spawn` where it can.
    let status = Command::new("/bin/sh").args(["-c", "exit 3"]).stdin(Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(3));
    let arguments = [c"/bin/sh".as_ptr(), c"-c".as_ptr(), c"exit 4".as_ptr(), ptr::null()];
    let environment = [ptr::null::<libc::c_char>()];
    let mut child = 0;
    // SAFETY: all strings and arrays end with zeros, and live until the call has returned.
    let refused = unsafe {
        libc::posix_spawn(
            &raw mut child,
            arguments[0],
            ptr::null(),
            ptr::null(),
            arguments.as_ptr().cast(),
            environment.as_ptr().cast(),
        )
    };
    assert_eq!((refused, ended(child)), (0, 4));
    // SAFETY: the string ends with a zero.
    assert_eq!(libc::WEXITSTATUS(unsafe { libc::system(c"exit 5".as_ptr()) }), 5);
    assert!(place.is_away(0) && place.is_away(PAGES - 1), "nothing had to come back");

    // A child that shares the memory, on a stack of its own as the parent's is in use, touches what is
    // away, and runs a program.
    let mut stack = vec![0_u128; 4096];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let words = [
        place.range.start(),
        place.range.start() + 5 * place.page,
        (&raw const arguments).expose_provenance(),
        (&raw const environment).expose_provenance(),
    ];
    // SAFETY: the child gets a stack of its own, and this thread waits until it runs another program or
    // ends; what it is given lives until then.
    let child = unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast();
        libc::clone(touch_and_run, top, flags, (&raw const words).cast_mut().cast())
    };
    assert_eq!(ended(child), 4);
    assert!(!place.is_away(0) && !place.is_away(5), "they came back for the child's access");
    assert_eq!(place.read(5), 77);
    place.write(5, content(5));
    assert!(place.is_right());
    place.close();
}

/// Reads a word that is away, writes another, and runs a program; ends with 9 where one is wrong.
extern "C" fn touch_and_run(words: *mut libc::c_void) -> libc::c_int {
    // SAFETY: four words, see above: two addresses in mapped memory that nobody else uses meanwhile,
    // and two arrays as `execve` takes them.
    unsafe {
        let [read, write, arguments, environment] = *words.cast::<[usize; 4]>();
        if ptr::with_exposed_provenance::<u64>(read).read_volatile() != content(0) {
            return 9;
        }
        ptr::with_exposed_provenance_mut::<u64>(write).write_volatile(77);
        libc::execve(
            c"/bin/sh".as_ptr(),
            ptr::with_exposed_provenance(arguments),
            ptr::with_exposed_provenance(environment),
        )
    }
}

#[test]
fn programs_are_started() {
    alone("others::programs_are_started", Who::Told, start_programs);
}

#[test]
fn programs_are_started_untold() {
    alone("others::programs_are_started_untold", Who::Nobody, start_programs);
}
