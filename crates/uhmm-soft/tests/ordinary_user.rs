//! Where faults of system calls are not served, what a launch computed can be used in them all the same.

#[path = "../../uhmm/tests/support/privileges.rs"]
mod privileges;

use std::{fs::File, io, io::Write, os::fd::FromRawFd, ptr};

use privileges::drop_privileges;
use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{InOut, Options, RunError, Soft};

/// Runs `what` in a child, and answers what it says.
fn in_child(what: impl FnOnce() -> String) -> String {
    let mut pipe = [0; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child has this thread alone, and does not return from here.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", io::Error::last_os_error());
    // SAFETY: both ends are open and nobody else's.
    let [read_end, mut write_end] = pipe.map(|end| unsafe { File::from_raw_fd(end) });
    if child == 0 {
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        let _ = write_end.write_all(said.as_deref().unwrap_or("a panic").as_bytes());
        // SAFETY: the child ends here.
        unsafe { libc::_exit(0) }
    }
    drop(write_end);
    let said = io::read_to_string(read_end).unwrap();
    // SAFETY: it is our child, not waited for before.
    assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child);
    said
}

const NUMBERS: usize = 1 << 16;

/// How many bytes of what a device computed can be written to a file.
fn written(options: Options, in_scope: bool) -> Result<usize, Box<dyn std::error::Error>> {
    let space = AddressSpace::open()?;
    if space.serves_system_calls() {
        return Err("faults of system calls are served here".into());
    }
    let mut numbers = vec![1_u64; NUMBERS];
    let bytes = AddressRange::of_slice(&numbers)?;
    let page = space.page_size().bytes();
    let start = bytes.start().next_multiple_of(page);
    let whole = AddressRange::new(start, bytes.end() / page * page - start)?;
    space.adopt(whole)?;
    let device = Soft::start(&space, options)?;
    let double = |worker: &mut uhmm_soft::Worker<'_>, item, numbers: &InOut<u64>| {
        let value = numbers.get(worker, item)?;
        numbers.set(worker, item, value * 2)
    };
    if in_scope {
        device.scope(|scope| -> Result<(), RunError> {
            scope.launch(0..NUMBERS, double, &mut numbers[..]);
            Ok(())
        })?;
    } else {
        device.launch(0..NUMBERS, double, &mut numbers[..])?;
    }
    // SAFETY: numbers are bytes.
    let bytes = unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), NUMBERS * 8) };
    let mut written = 0;
    let mut file = tempfile()?;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(numbers.iter().all(|&number| number == 2));
    drop(device);
    space.close()?;
    Ok(written)
}

fn tempfile() -> io::Result<File> {
    // SAFETY: the name is one.
    let file = unsafe { libc::memfd_create(c"computed".as_ptr(), libc::MFD_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was made just now.
    Ok(unsafe { File::from_raw_fd(file) })
}

/// What a child says that cannot do it here.
fn skipped(test: &str, said: &str) -> bool {
    let Some(reason) = said.strip_prefix("no: ") else { return false };
    // An ordinary user may be allowed more here, and then there is nothing to try.
    let allowed = reason.contains("are served here");
    assert!(allowed || std::env::var_os("CI").is_none(), "in CI nothing is skipped: {reason}");
    eprintln!("skipped: {test}: {reason}");
    true
}

fn say(written: Result<usize, Box<dyn std::error::Error>>) -> String {
    written.map_or_else(|error| format!("no: {error}"), |written| written.to_string())
}

#[test]
fn what_was_computed_can_be_written_to_a_file() {
    for in_scope in [false, true] {
        let said = in_child(|| {
            drop_privileges();
            say(written(Options::new(1 << 20), in_scope))
        });
        if !skipped("what_was_computed_can_be_written_to_a_file", &said) {
            assert_eq!(said, (NUMBERS * 8).to_string());
        }
    }
}

#[test]
fn who_keeps_pages_on_the_device_cannot() {
    let said = in_child(|| {
        drop_privileges();
        say(written(Options::new(1 << 20).keep_pages(), false))
    });
    if !skipped("who_keeps_pages_on_the_device_cannot", &said) {
        let written: usize = said.parse().expect("a number of bytes");
        assert!(written < NUMBERS * 8, "all {written} bytes were written");
    }
}
