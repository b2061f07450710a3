//! Areas whose protection changes while pages of theirs are away.

use std::{
    io::Write,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use rustix::mm::MprotectFlags;
use uhmm::{
    mm::{Access, Message, Mm, Stop, linux::Linux},
    units::PageRange,
};

use crate::memory::Memory;
use crate::support::{all, empty, fact, skip, stopped, unread, value};
use crate::touch::ends_with_a_signal;

const READ_WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);

/// Memory of which all is in staging, and that.
fn away(linux: &Linux, pages: usize) -> (Memory, PageRange) {
    let memory = Memory::trapped(linux, pages);
    let staging = linux.map_staging(pages).unwrap();
    assert_eq!(linux.take(memory.page(0), staging.start(), pages), all(pages));
    (memory, staging)
}

/// Waits for a fault, and answers its access.
fn next(linux: &Linux, memory: Memory) -> Access {
    loop {
        linux.wait(None);
        if let [Message::Fault { page, access, .. }] = unread(linux)[..] {
            assert_eq!(page, memory.page(0));
            return access;
        }
    }
}

#[test]
fn what_is_forbidden_is_a_signal_and_no_message() {
    fact("what_is_forbidden_is_a_signal_and_no_message", |linux| {
        let (memory, staging) = away(linux, 2);
        for (protection, accesses) in [
            (MprotectFlags::READ, &[Access::Write][..]),
            (MprotectFlags::empty(), &[Access::Write, Access::Read]),
        ] {
            memory.protect(protection);
            for &access in accesses {
                for page in [0, 1] {
                    assert!(ends_with_a_signal(memory.at(page), access), "{access:?}");
                    assert_eq!(unread(linux), []);
                }
            }
            // The same of a page that is there.
            assert_eq!(linux.copy(staging.start(), memory.page(0), 1), all(1));
            for &access in accesses {
                assert!(ends_with_a_signal(memory.at(0), access), "{access:?}");
            }
            assert_eq!(unread(linux), []);
            memory.protect(READ_WRITE);
            assert_eq!(memory.read(0), value(0));
            empty(linux, PageRange::of(staging.start(), 1)).unwrap();
            assert_eq!(linux.take(memory.page(0), staging.start(), 1), all(1));
        }
    });
}

#[test]
fn a_load_from_a_read_only_hole_is_told_and_served() {
    fact("a_load_from_a_read_only_hole_is_told_and_served", |linux| {
        let (memory, staging) = away(linux, 2);
        memory.protect(MprotectFlags::READ);
        thread::scope(|scope| {
            let loader = scope.spawn(move || memory.read(0));
            assert_eq!(next(linux, memory), Access::Read);
            assert_eq!(linux.copy(staging.start(), memory.page(0), 1), all(1));
            assert_eq!(loader.join().unwrap(), value(0));
        });
        // And no system call writes there, but says so.
        if !linux.serves_system_calls() {
            return skip("a_load_from_a_read_only_hole_is_told_and_served", "user mode only");
        }
        let (from, mut to) = std::io::pipe().unwrap();
        to.write_all(&[7]).unwrap();
        // SAFETY: the kernel refuses to write there, else to a byte of the test's own memory.
        let got = unsafe { libc::read(from.as_raw_fd(), memory.at(1).cast(), 1) };
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((got, error), (-1, Some(libc::EFAULT)));
        assert_eq!(unread(linux), []);
    });
}

#[test]
fn a_store_that_waits_ends_with_a_signal_where_it_is_forbidden_by_now() {
    fact("a_store_that_waits_ends_with_a_signal_where_it_is_forbidden_by_now", |linux| {
        for (protection, access) in [
            (MprotectFlags::READ, Access::Write),
            (MprotectFlags::empty(), Access::Write),
            (MprotectFlags::empty(), Access::Read),
        ] {
            let (memory, staging) = away(linux, 1);
            thread::scope(|scope| {
                let at = memory.at(0).expose_provenance();
                let toucher = scope.spawn(move || {
                    ends_with_a_signal(std::ptr::with_exposed_provenance_mut(at), access)
                });
                assert_eq!(next(linux, memory), access);
                memory.protect(protection);
                let since = Instant::now();
                while since.elapsed() < Duration::from_millis(20) {
                    assert!(!toucher.is_finished(), "the change wakes nobody");
                    thread::yield_now();
                }
                // It is served as any, and goes on to its end.
                assert_eq!(linux.copy(staging.start(), memory.page(0), 1), all(1));
                assert!(toucher.join().unwrap(), "{access:?} went on");
            });
            memory.protect(READ_WRITE);
            assert_eq!(memory.read(0), value(0));
        }
    });
}

#[test]
fn what_is_forbidden_to_the_processor_is_filled_by_all_but_moves() {
    fact("what_is_forbidden_to_the_processor_is_filled_by_all_but_moves", |linux| {
        for protection in [MprotectFlags::READ, MprotectFlags::empty()] {
            let memory = Memory::trapped(linux, 8);
            let staging = linux.map_staging(16).unwrap();
            assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
            memory.protect(protection);
            let refused = stopped(0, Stop::Refused);
            assert_eq!(linux.take(memory.page(4), staging.start().plus(4), 4), refused);
            assert_eq!(linux.take(memory.page(0), staging.start().plus(4), 1), refused, "a hole");
            assert_eq!(linux.give(staging.start(), memory.page(0), 4), refused);
            assert_eq!(linux.copy(staging.start(), memory.page(0), 2), all(2));
            assert_eq!(linux.zero(memory.page(2), 1, Access::Read), all(1));
            assert_eq!(linux.zero(memory.page(3), 1, Access::Write), all(1));
            memory.protect(READ_WRITE);
            let found = [0, 1, 2, 3, 4].map(|page| memory.read(page));
            assert_eq!(found, [value(0), value(1), 0, 0, value(4)]);
            // All of it moves again.
            assert_eq!(linux.take(memory.page(2), staging.start().plus(8), 6), all(6));
            assert_eq!(linux.give(staging.start().plus(8), memory.page(2), 6), all(6));
            assert_eq!(memory.read(7), value(7));
        }
    });
}

#[test]
fn a_move_goes_up_to_where_the_protection_is_another() {
    fact("a_move_goes_up_to_where_the_protection_is_another", |linux| {
        let memory = Memory::trapped(linux, 16);
        let staging = linux.map_staging(16).unwrap();
        memory.part(5, 3).protect(MprotectFlags::READ);
        let done = linux.take(memory.page(0), staging.start(), 16);
        assert_eq!(done, stopped(5, Stop::Refused));
        memory.part(5, 3).protect(READ_WRITE);
        assert_eq!(linux.take(memory.page(5), staging.start().plus(5), 11), all(11));
        memory.part(5, 3).protect(MprotectFlags::READ);
        let done = linux.give(staging.start(), memory.page(0), 16);
        assert_eq!(done, stopped(5, Stop::Refused));
        assert_eq!(linux.copy(staging.start().plus(5), memory.page(5), 11), all(11));
        for page in 0..16 {
            assert_eq!(memory.read(page), value(page));
        }
    });
}
