//! Replies of the kernel, and how they are made truthful.

use std::{
    fs,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::{mm::Advice, thread::gettid};
use uhmm::mm::{Access, Message, Mm, Stop};

use crate::memory::Memory;
use crate::support::{
    all, empty, fact, stopped, told, unmap_staging, unread, value, wait_for_calm, wait_for_change,
};

#[test]
fn nothing_is_done_while_a_change_is_unread() {
    fact("nothing_is_done_while_a_change_is_unread", |linux| {
        let memory = Memory::trapped(linux, 8);
        let other = Memory::trapped(linux, 8);
        let staging = linux.map_staging(16).unwrap();
        assert!(!linux.changing());
        assert_eq!(linux.take(memory.page(0), staging.start(), 2), all(2));
        thread::scope(|scope| {
            scope.spawn(|| other.unmap());
            wait_for_change(linux);
            let changing = stopped(0, Stop::Changing);
            let to = staging.start().plus(8);
            assert_eq!(linux.take(memory.page(2), to, 2), changing);
            assert_eq!(linux.give(staging.start(), memory.page(0), 2), changing);
            assert_eq!(linux.copy(staging.start(), memory.page(0), 2), changing);
            assert_eq!(linux.zero(memory.page(0), 2, Access::Read), changing);
            assert_eq!(linux.zero(memory.page(0), 2, Access::Write), changing);
            assert_eq!(linux.poison(memory.page(0), 2), changing);
            // What is not held up: waking, registering and its end, and with it emptying staging.
            linux.wake(memory.pages);
            linux.trap(memory.pages).unwrap();
            let spare = linux.map_staging(1).unwrap();
            empty(linux, spare).unwrap();
            unmap_staging(linux, spare);
            assert!(linux.changing());
            while unread(linux).is_empty() {}
            wait_for_calm(linux);
        });
        assert_eq!(linux.give(staging.start(), memory.page(0), 2), all(2));
    });
}

#[test]
fn what_is_told_has_happened_as_it_waits_to_be_read() {
    fact("what_is_told_has_happened_as_it_waits_to_be_read", |linux| {
        let memory = Memory::trapped(linux, 8);
        let cut = memory.part(5, 3);
        let is_there = |place| linux.mapping_at(memory.page(place)).unwrap().is_some();
        assert!(is_there(5) && !linux.readable());
        thread::scope(|scope| {
            let unmapping = scope.spawn(|| cut.unmap());
            while !linux.readable() {
                thread::yield_now();
            }
            assert!(is_there(4) && !is_there(5));
            thread::sleep(Duration::from_millis(10));
            assert!(!unmapping.is_finished(), "its thread waits until it is read");
            let mut message = [Message::Discarded(memory.pages)];
            assert_eq!(linux.read(&mut message), 1);
            assert_eq!(message, [Message::Unmapped(cut.pages)]);
        });
        assert!(!linux.readable());
    });
}

#[test]
fn changes_are_read_in_the_order_in_which_they_came() {
    fact("changes_are_read_in_the_order_in_which_they_came", |linux| {
        let memories: Vec<_> = (0..4).map(|_| Memory::trapped(linux, 2)).collect();
        let pages: Vec<_> = memories.iter().map(|memory| memory.pages).collect();
        thread::scope(|scope| {
            for memory in memories {
                let (tell, told) = mpsc::channel();
                scope.spawn(move || {
                    tell.send(gettid().as_raw_nonzero()).unwrap();
                    memory.unmap();
                });
                let thread = told.recv().unwrap();
                // The next begins when this one waits, which only a deadly signal would end.
                let waits = || {
                    let state = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
                    state.unwrap().rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))
                };
                while !waits() {
                    thread::yield_now();
                }
            }
            for pages in pages {
                let mut message = [Message::Discarded(pages)];
                assert_eq!(linux.read(&mut message), 1);
                assert_eq!(message, [Message::Unmapped(pages)]);
            }
        });
    });
}

#[test]
fn a_change_concerns_its_own_descriptor_alone() {
    fact("a_change_concerns_its_own_descriptor_alone", |linux| {
        fact("a_change_concerns_its_own_descriptor_alone", |second| {
            let (mine, theirs) = (Memory::trapped(linux, 2), Memory::trapped(second, 2));
            let staging = linux.map_staging(2).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| theirs.unmap());
                wait_for_change(second);
                assert!(!linux.changing());
                assert_eq!(linux.take(mine.page(0), staging.start(), 2), all(2));
                while unread(second).is_empty() {}
            });
        });
    });
}

#[test]
fn an_area_of_another_descriptor_is_foreign() {
    fact("an_area_of_another_descriptor_is_foreign", |linux| {
        fact("an_area_of_another_descriptor_is_foreign", |second| {
            let memory = Memory::trapped(second, 2);
            assert_eq!(linux.trap(memory.pages), Err(uhmm::mm::TrapError::Foreign(memory.pages)));
            let _ = linux.untrap(memory.pages);
            assert_eq!(linux.trap(memory.pages), Err(uhmm::mm::TrapError::Foreign(memory.pages)));
        });
    });
}

/// The kernel's batches answer that pages are there, or stop short, for pages that did move, while
/// another thread changes the same entries of the page table. What is reported must be the truth.
#[test]
fn moves_are_counted_truly_under_pressure() {
    fact("moves_are_counted_truly_under_pressure", |linux| {
        const PAGES: usize = 64;
        const ROUNDS: usize = 4000;
        let memory = Memory::trapped(linux, PAGES);
        let staging = linux.map_staging(PAGES).unwrap();
        let over = AtomicBool::new(false);
        let mut stops = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    memory.advise(Advice::LinuxCold);
                }
            });
            for _ in 0..ROUNDS {
                for (from, to, back) in [
                    (memory.page(0), staging.start(), false),
                    (staging.start(), memory.page(0), true),
                ] {
                    let mut done = 0;
                    while done < PAGES {
                        let call = if back {
                            linux.give(from.plus(done), to.plus(done), PAGES - done)
                        } else {
                            linux.take(from.plus(done), to.plus(done), PAGES - done)
                        };
                        done += call.pages;
                        match call.stop {
                            None => assert_eq!(done, PAGES),
                            Some(Stop::Busy) => stops += 1,
                            Some(stop) => panic!("{stop:?} after {done} pages"),
                        }
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        for i in 0..PAGES {
            assert_eq!(memory.read(i), value(i));
        }
        eprintln!("busy pages met: {stops}");
    });
}

#[test]
fn a_race_for_a_hole_has_one_winner_and_hangs_nobody() {
    fact("a_race_for_a_hole_has_one_winner_and_hangs_nobody", |linux| {
        let memory = Memory::new(linux, 1);
        linux.trap(memory.pages).unwrap();
        let staging = linux.map_staging(1).unwrap();
        for _ in 0..500 {
            assert_eq!(linux.zero(staging.start(), 1, Access::Write), all(1));
            thread::scope(|scope| {
                let toucher = scope.spawn(|| memory.read(0));
                let racer = scope.spawn(|| linux.zero(memory.page(0), 1, Access::Write));
                let mine = linux.give(staging.start(), memory.page(0), 1);
                let theirs = racer.join().unwrap();
                assert_eq!(mine.pages + theirs.pages, 1, "{mine:?} {theirs:?}");
                assert_eq!(toucher.join().unwrap(), 0);
            });
            told(linux, || memory.advise(Advice::LinuxDontNeed));
            wait_for_calm(linux);
            empty(linux, staging).unwrap();
        }
    });
}
