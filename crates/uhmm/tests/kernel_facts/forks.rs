//! What the kernel tells of forks, what it does meanwhile, and which areas children have.

use std::{
    ops::ControlFlow,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::mm::Advice;
use uhmm::{
    mm::{Area, Child, Errno, Look, Message, Mm, Stop, linux::Linux},
    units::PageRange,
};

use crate::{
    memory::Memory,
    support::{all, fact, in_child, look, skip, stopped, unread, value, wait_for_change},
};

/// Runs a test with a descriptor that is told of forks.
fn fact_told(name: &'static str, body: impl FnOnce(&Linux)) {
    fact(name, |_| {
        let linux = Linux::open_telling_forks().unwrap();
        if linux.tells_forks() { body(&linux) } else { skip(name, "CAP_SYS_PTRACE") }
    });
}

/// Forks on another thread, and has `child` run in the child and `parent` here once the fork was
/// told, with what it told. Answers how the child ended.
fn forked(linux: &Linux, child: impl FnOnce() -> i32 + Send, parent: impl FnOnce(Child)) -> i32 {
    thread::scope(|scope| {
        let forker = scope.spawn(|| in_child(child));
        parent(next_child(linux));
        forker.join().unwrap()
    })
}

/// Waits for the message of a fork.
fn next_child(linux: &Linux) -> Child {
    loop {
        linux.wait(Some(Duration::from_millis(5)));
        match unread(linux)[..] {
            [] => {}
            [Message::Forked(child)] => return child,
            ref other => panic!("{other:?} instead of a fork"),
        }
    }
}

/// What is told of a child next.
fn told_of(linux: &Linux, child: Child) -> Message {
    let mut out = [Message::Discarded(PageRange::default())];
    // SAFETY: the tests end a child when they are done with it.
    while unsafe { linux.read_of_child(child, &mut out) } == 0 {
        thread::yield_now();
    }
    out[0]
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
        });
    });
}

#[test]
fn a_child_waits_at_a_hole_until_it_is_filled() {
    fact_told("a_child_waits_at_a_hole_until_it_is_filled", |linux| {
        let (memory, staging) = with_one_away(linux);
        assert_eq!(linux.take(memory.page(2), staging.start().plus(1), 1), all(1));
        // It waits at the second until it is ended.
        let read = || i32::from(memory.peek(1)) + i32::from(memory.peek(2));
        let status = forked(linux, read, |child| {
            assert!(
                matches!(told_of(linux, child), Message::Fault { page, .. } if page == memory.page(1))
            );
            // SAFETY: the child is ended below.
            let done = unsafe { linux.copy_to_child(child, staging.start(), memory.page(1), 1) };
            assert_eq!(done, all(1));
            // SAFETY: as above.
            let again = unsafe { linux.copy_to_child(child, staging.start(), memory.page(1), 1) };
            assert_eq!(again, stopped(0, Stop::Present));
            end(linux, child);
        });
        assert_eq!(status, i32::from(value(1)));
        assert_eq!(look(linux, PageRange::of(memory.page(1), 1)), [Look::Hole], "not here");
    });
}

#[test]
fn a_child_that_is_ended_finds_zeros_in_holes() {
    fact_told("a_child_that_is_ended_finds_zeros_in_holes", |linux| {
        let (memory, _) = with_one_away(linux);
        let status = forked(
            linux,
            || i32::from(memory.peek(1)),
            |child| {
                told_of(linux, child);
                end(linux, child);
            },
        );
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
                end(linux, child);
            },
        );
        assert_eq!(status, -libc::SIGBUS);
    });
}

#[test]
fn a_child_that_has_ended_is_filled_no_more() {
    fact_told("a_child_that_has_ended_is_filled_no_more", |linux| {
        let (memory, staging) = with_one_away(linux);
        let mut known = None;
        assert_eq!(forked(linux, || 0, |child| known = Some(child)), 0);
        let child = known.unwrap();
        // SAFETY: the child is ended below.
        let done = unsafe { linux.copy_to_child(child, staging.start(), memory.page(1), 1) };
        assert_eq!(done, stopped(0, Stop::Other(Errno(libc::ESRCH))));
        end(linux, child);
    });
}

#[test]
fn a_child_s_changes_are_told_and_stop_its_filling() {
    fact_told("a_child_s_changes_are_told_and_stop_its_filling", |linux| {
        let (memory, staging) = with_one_away(linux);
        let target = Memory::new(linux, 4);
        let body = || {
            memory.part(3, 1).unmap();
            memory.part(0, 1).advise(Advice::LinuxDontNeed);
            memory.part(0, 3).move_to(target.part(0, 3));
            // One that is not inherited from the child's descriptor would be a hole of zeros.
            in_child(|| i32::from(target.peek(1)))
        };
        let status = forked(linux, body, |child| {
            // SAFETY: the child is ended below.
            let fill =
                |child, page| unsafe { linux.copy_to_child(child, staging.start(), page, 1) };
            loop {
                let done = fill(child, memory.page(3));
                if done == stopped(0, Stop::Changing) {
                    break;
                }
                assert_eq!(done, stopped(0, Stop::Present), "it is there until it is unmapped");
            }
            let part = |i, pages| PageRange::of(memory.page(i), pages);
            assert_eq!(told_of(linux, child), Message::Unmapped(part(3, 1)));
            assert_eq!(told_of(linux, child), Message::Discarded(part(0, 1)));
            let moved = Message::Remapped { from: part(0, 3), to: target.page(0) };
            assert_eq!(told_of(linux, child), moved);
            assert_eq!(told_of(linux, child), Message::Unmapped(part(0, 3)));
            let Message::Forked(grandchild) = told_of(linux, child) else { panic!("not told") };
            assert_eq!(fill(grandchild, memory.page(1)), stopped(0, Stop::NoArea));
            assert_eq!(fill(grandchild, target.page(1)), all(1));
            end(linux, grandchild);
            end(linux, child);
        });
        assert_eq!(status, i32::from(value(1)));
    });
}

#[test]
fn ending_a_child_lets_its_changes_go_on() {
    fact_told("ending_a_child_lets_its_changes_go_on", |linux| {
        let memory = Memory::trapped(linux, 4);
        let body = || {
            memory.part(3, 1).unmap();
            in_child(|| i32::from(memory.peek(2)))
        };
        let status = forked(linux, body, |child| {
            thread::sleep(Duration::from_millis(20));
            end(linux, child);
        });
        assert_eq!(status, i32::from(value(2)));
        assert_eq!(unread(linux), []);
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
            let forker = scope.spawn(|| in_child(read));
            wait_for_change(linux);
            set_open_files(0, limits);
            assert_eq!(unread(linux), []);
            assert!(linux.changing(), "it stays to be read");
            set_open_files(limits.rlim_cur, limits);
            end(linux, next_child(linux));
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
            let forker = scope.spawn(|| in_child(read));
            wait_for_change(linux);
            set_open_files(used, limits);
            let child = next_child(linux);
            set_open_files(limits.rlim_cur, limits);
            end(linux, child);
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
