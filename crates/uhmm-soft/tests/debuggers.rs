//! A signal has all come back: for a debugger, and before a core dump.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;
#[path = "../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    io, ptr, thread,
    time::{Duration, Instant},
};

use skip::skip;
use uhmm::{AddressSpace, OpenError, Options, units::AddressRange};
use uhmm_soft::{Options as DeviceOptions, Soft};

const PAGES: usize = 64;

struct Away {
    memory: *mut u8,
    bytes: usize,
    page: usize,
}

impl Away {
    fn map() -> Self {
        // SAFETY: it asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let bytes = PAGES * page;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the system chooses the addresses.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        assert!(mapped != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { memory: mapped.cast(), bytes, page }
    }

    /// Makes all pages be away.
    fn go(&self, space: &AddressSpace) -> Soft {
        for page in 0..PAGES {
            // SAFETY: the memory is the test's own.
            unsafe { self.memory.add(page * self.page).write(number(page)) };
        }
        let range = AddressRange::new(self.memory.addr(), self.bytes).unwrap();
        space.adopt(range).unwrap();
        let device = Soft::start(space, DeviceOptions::new(self.bytes)).unwrap();
        assert_eq!(device.migrate(range).unwrap().moved(), PAGES);
        device
    }
}

fn number(page: usize) -> u8 {
    u8::try_from(page + 1).unwrap()
}

fn open(test: &str, options: Options) -> Option<AddressSpace> {
    match options.open() {
        Ok(space) => Some(space),
        Err(error) => {
            skip(test, error);
            None
        }
    }
}

fn checked(returned: i32) -> i32 {
    assert!(returned >= 0, "{}", io::Error::last_os_error());
    returned
}

/// Runs `what` in a child that this process traces, which stops at each of its signals.
fn traced(what: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child has this thread alone, and does not return from here.
    let child = checked(unsafe { libc::fork() });
    if child == 0 {
        // SAFETY: it lets the parent trace this process.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        // SAFETY: the child ends here.
        unsafe { libc::_exit(0) }
    }
    child
}

/// Waits for the next signal of the child, and answers which it is; nothing where the child ended.
fn next_signal(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    // SAFETY: there is room for the status.
    checked(unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) });
    libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status))
}

fn go_on(child: libc::pid_t, signal: i32) {
    // SAFETY: the child is stopped, and traced by this thread.
    let done = unsafe { libc::ptrace(libc::PTRACE_CONT, child, 0, libc::c_long::from(signal)) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// How many of the pages are there in the child, by its page tables.
fn present(child: libc::pid_t, away: &Away) -> usize {
    use std::os::unix::fs::FileExt;
    let pagemap = std::fs::File::open(format!("/proc/{child}/pagemap")).unwrap();
    let mut entries = vec![0_u8; PAGES * 8];
    pagemap.read_exact_at(&mut entries, (away.memory.addr() / away.page * 8) as u64).unwrap();
    let is_there = |entry: &&[u8]| entry[7] & 0x80 != 0;
    entries.chunks(8).filter(is_there).count()
}

#[test]
fn what_a_core_dump_would_show_is_there() {
    let options = Options::new().bring_back_on(libc::SIGABRT).bring_back_on(libc::SIGSEGV);
    for signal in [libc::SIGABRT, libc::SIGSEGV] {
        let away = Away::map();
        let child = traced(|| {
            let Some(space) = open("what_a_core_dump_would_show_is_there", options) else {
                return;
            };
            let _device = away.go(&space);
            // SAFETY: it ends the process, or touches what is not there.
            unsafe {
                libc::raise(libc::SIGSTOP);
                if signal == libc::SIGABRT {
                    libc::abort();
                }
                ptr::without_provenance_mut::<u8>(8).write_volatile(1);
            }
        });
        let mut seen = Vec::new();
        while let Some(stop) = next_signal(child) {
            if stop == signal || stop == libc::SIGSTOP {
                seen.push((stop, present(child, &away)));
            }
            go_on(child, if stop == libc::SIGSTOP { 0 } else { stop });
        }
        if !seen.is_empty() {
            // The last is the one that leaves the dump.
            assert_eq!(seen.first(), Some(&(libc::SIGSTOP, 0)));
            assert_eq!(seen.last(), Some(&(signal, PAGES)), "{seen:?}");
        }
        // SAFETY: nobody uses it any more.
        checked(unsafe { libc::munmap(away.memory.cast(), away.bytes) });
    }
}

#[test]
fn a_signal_has_all_come_back() {
    const TEST: &str = "a_signal_has_all_come_back";
    let away = Away::map();
    {
        let refused = Options::new().bring_back_on(libc::SIGKILL).open();
        assert!(
            matches!(refused, Err(OpenError::Signal { signal: libc::SIGKILL, .. })),
            "{refused:?}"
        );
        let none = Options::new().bring_back_on(99).open();
        assert!(matches!(none, Err(OpenError::Signal { signal: 0, .. })), "{none:?}");
    }
    let Some(space) = open(TEST, Options::new().bring_back_on(libc::SIGUSR2)) else { return };
    let device = away.go(&space);
    for _ in 0..2 {
        assert_eq!(device.memory_used(), away.bytes);
        // SAFETY: it is a signal with a handler.
        checked(unsafe { libc::raise(libc::SIGUSR2) });
        let since = Instant::now();
        while device.memory_used() > 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "nothing comes back");
            thread::sleep(Duration::from_millis(1));
        }
        for page in 0..PAGES {
            // SAFETY: the memory is the test's own.
            assert_eq!(unsafe { away.memory.add(page * away.page).read() }, number(page));
        }
        // They may go again.
        let range = AddressRange::new(away.memory.addr(), away.bytes).unwrap();
        assert_eq!(device.migrate(range).unwrap().moved(), PAGES);
    }
    drop(device);
    space.close().unwrap();
    // The signal does what it did before.
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: there is room for an action, which is filled in.
    let handler = unsafe {
        checked(libc::sigaction(libc::SIGUSR2, ptr::null(), action.as_mut_ptr()));
        action.assume_init().sa_sigaction
    };
    assert_eq!(handler, libc::SIG_DFL);
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
