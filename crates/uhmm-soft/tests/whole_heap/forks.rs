//! The process forks all the time, in all ways. Children look at memory that was away, write it, and end
//! or run another program.

use std::{io, ptr};

use crate::{
    random::{Random, check, fill},
    work::{Job, World},
};

/// In what way a child is made, and what it does.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// libc's `fork`; the child looks.
    Fork,
    /// libc's `fork`; the child looks and runs a program.
    ForkAndRun,
    /// The bare system call; the child looks.
    Raw,
    /// The bare system call; the child looks and runs a program.
    RawAndRun,
    /// `posix_spawn`.
    Spawn,
    /// `vfork`'s flags; the child runs a program.
    Shared,
    /// `system`.
    System,
}

const WAYS: [Way; 7] =
    [Way::Fork, Way::ForkAndRun, Way::Raw, Way::RawAndRun, Way::Spawn, Way::Shared, Way::System];

/// The exit status of a child that found all right, and of the programs that are run.
const RIGHT: i32 = 7;

/// Blocks of the heap with content that is known.
struct Blocks {
    seed: u64,
    blocks: Vec<Vec<u8>>,
}

impl Blocks {
    fn new(random: &mut Random) -> Self {
        let seed = random.next();
        let blocks = (0..8).map(|number| {
            let mut block = vec![0; 1 + random.below(200_000)];
            fill(&mut block, seed, number);
            block
        });
        Self { seed, blocks: blocks.collect() }
    }

    /// Whether all is as it was written. Uses no heap.
    fn check(&self) {
        for (number, block) in self.blocks.iter().enumerate() {
            check("a block around a fork", block, self.seed, number);
        }
    }

    /// What a child does.
    fn look_and_write(&mut self) {
        self.check();
        self.seed ^= 0x5555;
        for (number, block) in self.blocks.iter_mut().enumerate() {
            fill(block, self.seed, number);
        }
        self.check();
    }
}

/// Forks by the bare system call; answers 0 in the child.
fn raw_fork() -> libc::pid_t {
    // SAFETY: without a stack of its own the child goes on with a copy of this one. The flags are the
    // first argument and the stack the second on the processors that there are.
    let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) };
    libc::pid_t::try_from(child).expect("a process number")
}

const PROGRAM: [*const libc::c_char; 4] =
    [c"/bin/sh".as_ptr(), c"-c".as_ptr(), c"exit 7".as_ptr(), ptr::null()];

fn run_program() -> libc::c_int {
    let environment = [ptr::null()];
    // SAFETY: the arrays and strings end with zeros.
    unsafe { libc::execve(PROGRAM[0], PROGRAM.as_ptr(), environment.as_ptr()) }
}

extern "C" fn run_shared(_: *mut libc::c_void) -> libc::c_int {
    run_program();
    1
}

fn end(status: i32) -> ! {
    // SAFETY: ending a process is always sound.
    unsafe { libc::_exit(status) }
}

/// A child, which ends with [`RIGHT`].
fn start(way: Way, blocks: &mut Blocks, stack: &mut [u128]) -> libc::pid_t {
    match way {
        Way::Fork | Way::ForkAndRun | Way::Raw | Way::RawAndRun => {
            let child = match way {
                // SAFETY: the child uses no heap but what is this thread's.
                Way::Fork | Way::ForkAndRun => unsafe { libc::fork() },
                _ => raw_fork(),
            };
            if child == 0 {
                blocks.look_and_write();
                if matches!(way, Way::ForkAndRun | Way::RawAndRun) {
                    run_program();
                    end(1);
                }
                end(RIGHT);
            }
            child
        }
        Way::Spawn => {
            let (mut child, environment) = (0, [ptr::null::<libc::c_char>()]);
            // SAFETY: the arrays and strings end with zeros, and live until the call has returned.
            let refused = unsafe {
                libc::posix_spawn(
                    &raw mut child,
                    PROGRAM[0],
                    ptr::null(),
                    ptr::null(),
                    PROGRAM.as_ptr().cast(),
                    environment.as_ptr().cast(),
                )
            };
            assert_eq!(refused, 0, "posix_spawn");
            child
        }
        // SAFETY: the child has a stack of its own, and this thread waits until it runs a program.
        Way::Shared => unsafe {
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr().add(stack.len()).cast();
            libc::clone(run_shared, top, flags, ptr::null_mut())
        },
        Way::System => 0,
    }
}

pub(crate) fn run(mut job: Job, world: &World) {
    let told = uhmm::mm::linux::probe()
        .iter()
        .any(|feature| feature.name == "EVENT_FORK" && feature.present);
    let mut stack = vec![0_u128; 8192];
    let mut blocks = Blocks::new(&mut job.random);
    while job.goes_on() {
        let way = WAYS[job.random.below(WAYS.len())];
        if matches!(way, Way::Raw | Way::RawAndRun) && !told {
            continue;
        }
        for block in &blocks.blocks {
            // What of it is in whole pages goes away.
            let page = world.space.page_size().bytes();
            let start = block.as_ptr().addr().next_multiple_of(page);
            let end = (block.as_ptr().addr() + block.len()) / page * page;
            if start < end && job.random.one_in(2) {
                let range = uhmm::units::AddressRange::new(start, end - start).expect("pages");
                let _ = world.devices[0].migrate(range).expect("whole pages");
            }
        }
        if matches!(way, Way::System) {
            // SAFETY: the string ends with a zero.
            let status = unsafe { libc::system(c"exit 7".as_ptr()) };
            assert_eq!(libc::WEXITSTATUS(status), RIGHT, "{way:?}");
            continue;
        }
        let child = start(way, &mut blocks, &mut stack);
        assert!(child > 0, "{way:?}: {}", io::Error::last_os_error());
        // The parent writes meanwhile, mostly.
        blocks.check();
        if job.random.one_in(2) {
            blocks = Blocks::new(&mut job.random);
        }
        let mut status = 0;
        // SAFETY: the status is ours to be written.
        while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{error}");
        }
        let right = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == RIGHT;
        assert!(right, "{way:?}: a child ended with status {status:#x}");
        blocks.check();
    }
}
