//! Faults, and waiting for messages.

use std::{
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use rustix::mm::MapFlags;
use uhmm::mm::{Access, Message, Mm};

use crate::memory::Memory;
use crate::support::{all, fact, skip, unread, value};

fn next(linux: &uhmm::mm::linux::Linux) -> Message {
    loop {
        linux.wait(None);
        if let [message, rest @ ..] = &unread(linux)[..] {
            assert_eq!(rest, []);
            return *message;
        }
    }
}

#[test]
fn a_fault_names_its_page_its_access_and_its_thread() {
    fact("a_fault_names_its_page_its_access_and_its_thread", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        for (i, access) in [(1, Access::Read), (2, Access::Write)] {
            thread::scope(|scope| {
                let toucher = scope.spawn(move || {
                    match access {
                        Access::Read => _ = memory.peek(i),
                        Access::Write => memory.poke(i, 5),
                    }
                    uhmm::sync::thread_id()
                });
                let fault = next(linux);
                assert_eq!(linux.zero(memory.page(i), 1, access), all(1));
                let thread = toucher.join().unwrap();
                assert_eq!(fault, Message::Fault { page: memory.page(i), access, thread });
            });
        }
        assert_eq!(memory.peek(2), 5);
    });
}

#[test]
fn every_way_of_filling_wakes() {
    fact("every_way_of_filling_wakes", |linux| {
        let memory = Memory::trapped(linux, 4);
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
        for i in 0..4 {
            thread::scope(|scope| {
                let toucher = scope.spawn(move || memory.read(i));
                next(linux);
                let from = staging.start().plus(i);
                let (done, expected) = match i {
                    0 => (linux.give(from, memory.page(i), 1), value(i)),
                    1 => (linux.copy(from, memory.page(i), 1), value(i)),
                    2 => (linux.zero(memory.page(i), 1, Access::Read), 0),
                    _ => (linux.zero(memory.page(i), 1, Access::Write), 0),
                };
                assert_eq!(done, all(1));
                assert_eq!(toucher.join().unwrap(), expected);
            });
        }
    });
}

#[test]
fn a_wait_in_a_system_call_is_told_too() {
    fact("a_wait_in_a_system_call_is_told_too", |linux| {
        if !linux.serves_system_calls() {
            return skip("a_wait_in_a_system_call_is_told_too", "user mode only");
        }
        let memory = Memory::new(linux, 1);
        linux.trap(memory.pages).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let zero = std::fs::File::open("/dev/zero").unwrap();
                // SAFETY: a byte of the test's own memory, which no reference is into.
                unsafe { libc::read(zero.as_raw_fd(), memory.at(0).cast(), 1) }
            });
            assert!(matches!(next(linux), Message::Fault { access: Access::Write, .. }));
            assert_eq!(linux.zero(memory.page(0), 1, Access::Write), all(1));
            assert_eq!(reader.join().unwrap(), 1);
        });
    });
}

#[test]
fn ending_the_trap_wakes() {
    fact("ending_the_trap_wakes", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        thread::scope(|scope| {
            let toucher = scope.spawn(move || memory.read(1));
            next(linux);
            linux.untrap(memory.pages).unwrap();
            assert_eq!(toucher.join().unwrap(), 0);
        });
    });
}

#[test]
fn a_waiter_whose_range_is_mapped_over_wakes_by_an_explicit_wake_only() {
    fact("a_waiter_whose_range_is_mapped_over_wakes_by_an_explicit_wake_only", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        thread::scope(|scope| {
            let toucher = scope.spawn(move || memory.read(1));
            next(linux);
            let over = scope.spawn(move || memory.map_over(MapFlags::PRIVATE));
            assert_eq!(next(linux), Message::Unmapped(memory.pages));
            over.join().unwrap();
            thread::sleep(Duration::from_millis(20));
            assert!(!toucher.is_finished());
            linux.wake(memory.pages);
            assert_eq!(toucher.join().unwrap(), 0);
        });
    });
}

#[test]
fn a_kick_ends_one_wait() {
    fact("a_kick_ends_one_wait", |linux| {
        linux.kick();
        linux.wait(None);
        let start = Instant::now();
        linux.wait(Some(Duration::from_millis(30)));
        assert!(start.elapsed() >= Duration::from_millis(30), "the first kick is used up");
        thread::scope(|scope| {
            let waiters = [(); 2].map(|()| scope.spawn(|| linux.wait(None)));
            linux.kick();
            while !waiters.iter().any(thread::ScopedJoinHandle::is_finished) {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            assert!(!waiters.iter().all(thread::ScopedJoinHandle::is_finished));
            linux.kick();
        });
    });
}

#[test]
fn reading_without_messages_does_not_wait() {
    fact("reading_without_messages_does_not_wait", |linux| {
        assert_eq!(unread(linux), []);
        assert_eq!(linux.read(&mut []), 0);
    });
}
