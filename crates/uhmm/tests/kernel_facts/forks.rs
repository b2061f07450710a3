//! What the kernel tells of forks, what it does meanwhile, and which areas children have.

use std::{
    ops::ControlFlow,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use uhmm::{
    mm::{Area, Child, Errno, Look, Message, Mm, Stop, linux::Linux},
    units::PageRange,
};

use crate::{
    memory::Memory,
    support::{self, all, fact, look, skip, stopped, unread, value, wait_for_change},
};

/// Runs `body` in a child of the bare system call and returns how it ended, as
/// [`support::in_child`] does. A thread that waits in libc's fork holds the locks of the heap.
fn in_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: without a stack of its own the child goes on with a copy of this one, and keeps to what is
    // said above. The flags are the first argument and the stack the second on the processors that there
    // are.
    let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) };
    if child == 0 {
        let status = body();
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    let child = libc::pid_t::try_from(child).unwrap();
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

/// Runs a test with a descriptor that is told of forks.
fn fact_told(name: &'static str, body: impl FnOnce(&Linux)) {
    fact(name, |_| {
        let linux = Linux::open_telling_forks().unwrap();
        if !linux.tells_forks() {
            return skip(name, "CAP_SYS_PTRACE");
        }
        linux.tell_forks().unwrap();
        body(&linux);
    });
}

/// Forks on another thread, and has `child` run in the child and `parent` here once the fork was
/// told, with what it told. Answers how the child ended.
fn forked(linux: &Linux, child: impl FnOnce() -> i32 + Send, parent: impl FnOnce(Child)) -> i32 {
    thread::scope(|scope| {
        let _failed = LetGo(linux);
        let forker = scope.spawn(|| in_child(child));
        let told = next_child(linux);
        parent(told);
        end(linux, told);
        while !forker.is_finished() {
            linux.wait(Some(Duration::from_millis(5)));
        }
        forker.join().unwrap()
    })
}

/// Waits for the message of a fork, and reads no more than that: others may be there already.
fn next_child(linux: &Linux) -> Child {
    loop {
        linux.wait(Some(Duration::from_millis(5)));
        let mut told = [Message::Discarded(PageRange::default())];
        match (linux.read(&mut told), told) {
            (0, _) => {}
            (_, [Message::Forked(child)]) => return child,
            (_, [other]) => panic!("{other:?} instead of a fork"),
        }
    }
}

/// Lets forks go where a test fails: its scope waits for the threads that make them, and would say
/// nothing of the failure.
struct LetGo<'a>(&'a Linux);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        // One may not have begun yet.
        for _ in 0..200 {
            if !thread::panicking() {
                return;
            }
            self.0.end_forks();
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends a child.
fn end(linux: &Linux, child: Child) {
    // SAFETY: each test ends a child once, when it is done with it.
    unsafe { linux.end_child(child) };
}

/// Memory of which page 1 is in staging, the second of the pair.
fn with_one_away(linux: &Linux) -> (Memory, PageRange) {
    let memory = Memory::trapped(linux, 4);
    let staging = linux.map_staging(2).unwrap();
    assert_eq!(linux.take(memory.page(1), staging.start(), 1), all(1));
    (memory, staging)
}

#[test]
fn a_fork_waits_until_it_is_told_and_nothing_moves() {
    fact_told("a_fork_waits_until_it_is_told_and_nothing_moves", |linux| {
        let (memory, staging) = with_one_away(linux);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let _failed = LetGo(linux);
            scope.spawn(|| {
                assert_eq!(in_child(|| 0), 0);
                ended.store(true, Relaxed);
            });
            wait_for_change(linux);
            thread::sleep(Duration::from_millis(20));
            assert!(!ended.load(Relaxed));
            assert_eq!(
                linux.copy(staging.start(), memory.page(1), 1),
                stopped(0, Stop::Changing),
                "what the child gets is what there was"
            );
            assert_eq!(
                linux.take(memory.page(2), staging.start().plus(1), 1),
                stopped(0, Stop::Changing)
            );
            end(linux, next_child(linux));
            while !ended.load(Relaxed) {
                linux.wait(Some(Duration::from_millis(5)));
            }
        });
    });
}

#[test]
fn a_child_runs_when_all_children_are_filled() {
    fact_told("a_child_runs_when_all_children_are_filled", |linux| {
        let (memory, staging) = with_one_away(linux);
        let read = || i32::from(memory.peek(1));
        let fill = |child| {
            // SAFETY: the child is ended below.
            unsafe { linux.copy_to_child(child, staging.start(), memory.page(1), 1) }
        };
        thread::scope(|scope| {
            let _failed = LetGo(linux);
            let forks = [(); 2].map(|()| scope.spawn(|| in_child(read)));
            let mut told = Vec::new();
            while told.len() < 2 {
                told.push(next_child(linux));
            }
            for &child in &told {
                assert!(forks.iter().all(|fork| !fork.is_finished()));
                assert_eq!(fill(child), all(1));
                assert_eq!(fill(child), stopped(0, Stop::Present));
                linux.wait(Some(Duration::from_millis(20)));
                assert!(forks.iter().all(|fork| !fork.is_finished()));
                end(linux, child);
            }
            while forks.iter().any(|fork| !fork.is_finished()) {
                linux.wait(Some(Duration::from_millis(5)));
            }
            let [one, other] = forks.map(|fork| fork.join().unwrap());
            assert_eq!([one, other], [i32::from(value(1)); 2]);
        });
        assert_eq!(look(linux, PageRange::of(memory.page(1), 1)), [Look::Hole], "not here");
    });
}

/// How a process ends in whose fork nothing was filled yet.
fn given_up(name: &'static str, die: fn()) {
    fact(name, |_| {
        if !Linux::open_telling_forks().unwrap().tells_forks() {
            return skip(name, "CAP_SYS_PTRACE");
        }
        let mut pipe = [0; 2];
        // SAFETY: the array has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        let parent = support::in_child(|| {
            let linux = Linux::open_telling_forks().unwrap();
            linux.tell_forks().unwrap();
            let (memory, _) = with_one_away(&linux);
            thread::scope(|scope| {
                let _failed = LetGo(&linux);
                scope.spawn(|| {
                    in_child(|| {
                        let read = [memory.peek(1)];
                        // SAFETY: the byte is there.
                        unsafe { libc::write(pipe[1], read.as_ptr().cast(), 1) };
                        0
                    })
                });
                let _child = next_child(&linux);
                // The fork has come to the hold by now, or not yet.
                thread::sleep(Duration::from_millis(5));
                die();
            });
            0
        });
        assert!(parent != 0, "it has ended");
        let mut read = 0_u8;
        // SAFETY: the descriptors are ours, and the byte is ours to be written.
        let count = unsafe {
            libc::close(pipe[1]);
            libc::read(pipe[0], (&raw mut read).cast(), 1)
        };
        assert_eq!(count, 0, "there was a child, which read {read}");
    });
}

#[test]
fn a_fork_is_given_up_where_its_process_is_killed() {
    given_up("a_fork_is_given_up_where_its_process_is_killed", || {
        // SAFETY: ending a process is always sound.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
}

#[test]
fn a_fork_is_given_up_where_its_process_ends() {
    given_up("a_fork_is_given_up_where_its_process_ends", || {
        // SAFETY: as above.
        unsafe { libc::_exit(7) }
    });
}

#[test]
fn a_child_that_is_ended_finds_zeros_in_holes() {
    fact_told("a_child_that_is_ended_finds_zeros_in_holes", |linux| {
        let (memory, _) = with_one_away(linux);
        let status = forked(linux, || i32::from(memory.peek(1)), |_| {});
        assert_eq!(status, 0);
    });
}

#[test]
fn a_mark_in_a_child_ends_its_access() {
    fact_told("a_mark_in_a_child_ends_its_access", |linux| {
        let (memory, _) = with_one_away(linux);
        let status = forked(
            linux,
            || i32::from(memory.peek(1)),
            |child| {
                // SAFETY: the child is ended below.
                assert_eq!(unsafe { linux.poison_in_child(child, memory.page(1), 1) }, all(1));
            },
        );
        assert_eq!(status, -libc::SIGBUS);
    });
}

#[test]
fn what_a_child_has_not_is_not_filled() {
    fact_told("what_a_child_has_not_is_not_filled", |linux| {
        let (memory, staging) = with_one_away(linux);
        let other = Memory::new(linux, 4);
        let kept = Memory::trapped(linux, 4);
        linux.set_inherited(kept.pages, false).unwrap();
        let read = || i32::from(memory.peek(2));
        let status = forked(linux, read, |child| {
            for page in [other.page(1), kept.page(1)] {
                // SAFETY: the child is ended later.
                let done = unsafe { linux.copy_to_child(child, staging.start(), page, 1) };
                assert_eq!(done, stopped(0, Stop::NoArea));
            }
        });
        assert_eq!(status, i32::from(value(2)));
    });
}

#[test]
fn no_fork_is_told_or_waits_when_that_was_ended() {
    fact_told("no_fork_is_told_or_waits_when_that_was_ended", |linux| {
        let memory = Memory::trapped(linux, 4);
        let read = || i32::from(memory.peek(2));
        thread::scope(|scope| {
            let _failed = LetGo(linux);
            let forker = scope.spawn(|| in_child(read));
            wait_for_change(linux);
            linux.untrap(memory.pages).unwrap();
            linux.end_forks();
            assert_eq!(forker.join().unwrap(), i32::from(value(2)));
        });
        assert_eq!(in_child(read), i32::from(value(2)));
    });
}

/// Limits the numbers of descriptors that this process can open.
fn set_open_files(soft: libc::rlim_t, limits: libc::rlimit) {
    let limits = libc::rlimit { rlim_cur: soft, ..limits };
    // SAFETY: the structure is there.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) }, 0);
}

#[test]
fn a_fork_stays_to_be_read_where_no_descriptor_is_left() {
    fact_told("a_fork_stays_to_be_read_where_no_descriptor_is_left", |linux| {
        let memory = Memory::trapped(linux, 4);
        let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is ours to be written.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) }, 0);
        let read = || i32::from(memory.peek(2));
        thread::scope(|scope| {
            let _failed = LetGo(linux);
            let forker = scope.spawn(|| in_child(read));
            wait_for_change(linux);
            set_open_files(0, limits);
            assert_eq!(unread(linux), []);
            assert!(linux.changing(), "it stays to be read");
            set_open_files(limits.rlim_cur, limits);
            end(linux, next_child(linux));
            while !forker.is_finished() {
                linux.wait(Some(Duration::from_millis(5)));
            }
            assert_eq!(forker.join().unwrap(), i32::from(value(2)));
        });
        // The back end has one to give up. All numbers up to the last that is used are taken.
        let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
        let number = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap()
        };
        let last = numbers.map(number).max().unwrap();
        let mut taken = Vec::new();
        while taken.last().is_none_or(|file: &OwnedFd| file.as_raw_fd() <= last) {
            taken.push(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
        }
        let used = libc::rlim_t::try_from(taken.pop().unwrap().as_raw_fd()).unwrap();
        thread::scope(|scope| {
            let _failed = LetGo(linux);
            let forker = scope.spawn(|| in_child(read));
            wait_for_change(linux);
            set_open_files(used, limits);
            end(linux, next_child(linux));
            while !forker.is_finished() {
                linux.wait(Some(Duration::from_millis(5)));
            }
            set_open_files(limits.rlim_cur, limits);
            assert_eq!(forker.join().unwrap(), i32::from(value(2)));
        });
    });
}

#[test]
fn starting_programs_is_not_told() {
    fact_told("starting_programs_is_not_told", |linux| {
        let _memory = Memory::trapped(linux, 4);
        // SAFETY: the string ends with a zero.
        assert_eq!(unsafe { libc::system(c"exit 0".as_ptr()) }, 0);
        assert_eq!(unread(linux), []);
    });
}

/// The areas in `pages`.
fn areas(linux: &Linux, pages: PageRange) -> Vec<Area> {
    let mut areas = Vec::new();
    let mut visit = |area: &Area| {
        areas.push(*area);
        ControlFlow::Continue(())
    };
    linux.areas(pages, &mut visit).unwrap();
    areas
}

/// Whether a child has a page.
fn child_has(memory: Memory, i: usize) -> bool {
    let status = in_child(|| i32::from(memory.peek(i)));
    assert!(status == i32::from(value(i)) || status == -libc::SIGSEGV, "{status}");
    status >= 0
}

#[test]
fn an_area_that_is_kept_from_children_is_one_area_and_moves_its_pages() {
    fact("an_area_that_is_kept_from_children_is_one_area_and_moves_its_pages", |linux| {
        let memory = Memory::trapped(linux, 8);
        let staging = linux.map_staging(8).unwrap();
        assert!(child_has(memory, 3));
        linux.set_inherited(memory.pages, false).unwrap();
        assert!(!child_has(memory, 3));
        let found = areas(linux, memory.pages);
        assert_eq!(found.len(), 1);
        assert!(found[0].pages == memory.pages && found[0].registered && !found[0].inherited);
        // The fork that did not take it shared nothing.
        linux.unshare(memory.pages).unwrap();
        assert!(!child_has(memory, 3));
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), all(8));
        assert_eq!(linux.give(staging.start(), memory.page(0), 8), all(8));
        linux.set_inherited(memory.pages, true).unwrap();
        assert!(child_has(memory, 3) && areas(linux, memory.pages)[0].inherited);
    });
}

#[test]
fn what_is_kept_from_children_is_so_where_it_moves_and_grows() {
    fact("what_is_kept_from_children_is_so_where_it_moves_and_grows", |linux| {
        let room = Memory::apart(linux, 16);
        let memory = room.part(0, 8);
        memory.fill();
        let target = Memory::new(linux, 8);
        linux.set_inherited(memory.pages, false).unwrap();
        room.part(8, 8).unmap();
        memory.resize(16);
        assert_eq!(areas(linux, room.pages).len(), 1);
        memory.resize(8);
        memory.move_to(target);
        assert!(!child_has(target, 5) && target.read(5) == value(5));
    });
}

#[test]
fn keeping_from_children_says_where_nothing_is_mapped() {
    fact("keeping_from_children_says_where_nothing_is_mapped", |linux| {
        let memory = Memory::apart(linux, 8);
        memory.fill();
        memory.part(2, 2).unmap();
        let refused = linux.set_inherited(memory.pages, false);
        assert_eq!(refused, Err(Errno(libc::ENOMEM)));
        assert!(!child_has(memory, 0) && !child_has(memory, 7), "the rest is done");
    });
}
