//! What the tests share: a process of their own, memory that is away, and two ways to fork.

use std::{
    env,
    io::ErrorKind,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    ptr, thread,
    time::{Duration, Instant},
};

use uhmm::{AddressSpace, PageLocation, units::AddressRange};
use uhmm_soft::{Options, Soft};

use crate::skip::skip;

/// As whom a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user who runs the tests, who may be told of forks.
    Told,
    /// An ordinary user, who may not.
    Nobody,
}

/// How a process is forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By libc, which runs the hook.
    Libc,
    /// By the bare system call.
    Raw,
}

const NOBODY: u32 = 65534;
const VARIABLE: &str = "UHMM_FORK_TEST";
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the test `name`, which calls this, in a process of its own.
pub(crate) fn alone(name: &str, who: Who, body: impl FnOnce()) {
    if env::var(VARIABLE).is_ok_and(|test| test == name) {
        thread::spawn(move || {
            thread::sleep(PATIENCE);
            eprintln!("the test hangs");
            // SAFETY: ends this process and the children of this test, its process group.
            unsafe { libc::kill(0, libc::SIGKILL) };
        });
        return body();
    }
    let told = uhmm::mm::linux::probe()
        .iter()
        .any(|feature| feature.name == "EVENT_FORK" && feature.present);
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, name);
    command.process_group(0).stdin(Stdio::null());
    match who {
        Who::Told if !told => return skip(name, "CAP_SYS_PTRACE"),
        // SAFETY: asking who runs this is always sound.
        Who::Nobody if unsafe { libc::geteuid() } == 0 => {
            command.uid(NOBODY).gid(NOBODY);
        }
        Who::Nobody if told => return skip(name, "a user without CAP_SYS_PTRACE"),
        Who::Told | Who::Nobody => {}
    }
    let started = Instant::now();
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return skip(name, "a path to the tests that an ordinary user may take");
        }
        output => output.unwrap(),
    };
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name} as {who:?} ended with {} after {:?}:\n{said}\n{errors}",
        output.status,
        started.elapsed(),
    );
    // What a measurement found.
    said.lines().filter(|line| line.starts_with(&format!("{who:?}: "))).for_each(|line| {
        println!("{line}");
    });
}

/// An address space, a device, and memory that is away on it: the first half has been written, the
/// second was never touched.
pub(crate) struct Place {
    pub(crate) device: Soft,
    pub(crate) range: AddressRange,
    pub(crate) page: usize,
    pub(crate) space: AddressSpace,
}

/// How many pages there are.
pub(crate) const PAGES: usize = 1500;

impl Place {
    /// Opens an address space and maps memory, all of which is away.
    pub(crate) fn new() -> Self {
        Self::with(AddressSpace::open().unwrap(), PAGES)
    }

    pub(crate) fn with(space: AddressSpace, pages: usize) -> Self {
        let page = space.page_size().bytes();
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), pages * page, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let range = AddressRange::new(start.expose_provenance(), pages * page).unwrap();
        space.adopt(range).unwrap();
        let device = Soft::start(&space, Options::new(range.len())).unwrap();
        let place = Self { device, range, page, space };
        for number in 0..place.pages() / 2 {
            place.write(number, content(number));
        }
        place.send_away();
        place
    }

    pub(crate) const fn pages(&self) -> usize {
        self.range.len() / self.page
    }

    /// Has all of it go to the device.
    pub(crate) fn send_away(&self) {
        let done = self.device.migrate(self.range).unwrap();
        assert_eq!(done.stayed(), 0);
        assert!(self.is_away(0) && self.is_away(self.pages() - 1));
    }

    pub(crate) fn is_away(&self, number: usize) -> bool {
        self.space.locate(self.range.start() + number * self.page)
            == PageLocation::Device(self.device.index())
    }

    fn word(&self, number: usize) -> *mut u64 {
        ptr::with_exposed_provenance_mut(self.range.start() + number * self.page)
    }

    /// Reads the first word of a page.
    pub(crate) fn read(&self, number: usize) -> u64 {
        // SAFETY: the word is in the mapping, and aligned.
        unsafe { self.word(number).read_volatile() }
    }

    /// Writes the first word of a page.
    pub(crate) fn write(&self, number: usize, value: u64) {
        // SAFETY: as above, and nobody else uses the word meanwhile.
        unsafe { self.word(number).write_volatile(value) };
    }

    /// Whether all of it has the content that it was given first.
    pub(crate) fn is_right(&self) -> bool {
        (0..self.pages()).all(|number| self.read(number) == first_content(number, self.pages()))
    }

    /// Ends the mapping of what there is.
    pub(crate) fn close(self) {
        drop(self.device);
        self.space.close().unwrap();
    }
}

/// What is written to a page.
pub(crate) const fn content(number: usize) -> u64 {
    number as u64 * 7 + 1
}

/// What a page has at first.
pub(crate) const fn first_content(number: usize, pages: usize) -> u64 {
    if number < pages / 2 { content(number) } else { 0 }
}

/// Forks; answers 0 in the child, which is to end by [`end`].
pub(crate) fn fork(way: Way) -> libc::pid_t {
    let child = match way {
        // SAFETY: the child keeps to memory that no other thread of its parent had locked.
        Way::Libc => unsafe { libc::fork() },
        Way::Raw => {
            // SAFETY: as above; without a stack of its own it goes on with a copy of this one. The
            // flags are the first argument and the stack the second on the processors that there are.
            let child =
                unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) };
            libc::pid_t::try_from(child).unwrap()
        }
    };
    assert!(child >= 0, "no child");
    child
}

/// Ends a child, without running anything of its parent's.
pub(crate) fn end(right: bool) -> ! {
    // SAFETY: ending a process is always sound.
    unsafe { libc::_exit(i32::from(!right)) }
}

/// Waits for a child and answers its exit status, or the signal that ended it below zero.
pub(crate) fn ended(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours to write.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

/// Runs `body` in a child and answers how that ended: 0 where it answered true.
pub(crate) fn in_child(way: Way, body: impl FnOnce() -> bool) -> i32 {
    match fork(way) {
        0 => end(body()),
        child => ended(child),
    }
}
