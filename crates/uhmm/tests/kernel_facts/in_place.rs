//! Accesses in place that meet trapped holes and marks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use uhmm::{
    engine_memory::EngineMemory,
    mm::{Access, Accessor, Look, Message, Mm, Refused, Width, linux::Linux},
};

use crate::memory::Memory;
use crate::support::{all, fact, look, unread};

/// Runs `body` with an accessor of the calling thread.
fn with_accessor<R>(linux: &Linux, body: impl FnOnce(&Accessor) -> R) -> R {
    let accessor = linux.open_accessor().unwrap();
    let result = body(&accessor);
    linux.close_accessor(accessor);
    result
}

/// An access to the start of a page, by its place among all kinds. Answers whether it was made.
fn access(linux: &Linux, accessor: &Accessor, memory: Memory, kind: usize) -> Result<(), Refused> {
    let at = memory.at(0).expose_provenance();
    let width = Width::Eight;
    // SAFETY: the accessor is the system's; eight bytes of the test's own memory, aligned.
    unsafe {
        match kind {
            0 => linux.load_in_place(accessor, at, width).map(drop),
            1 => linux.store_in_place(accessor, at, width, 7),
            2 => linux.compare_exchange_in_place(accessor, at, width, 7, 8).map(drop),
            3 => linux.fetch_add_in_place(accessor, at, width, 1).map(drop),
            4 => linux.copy_in_place(accessor, at, &mut [0; 8]),
            _ => linux.write_in_place(accessor, at, &[1; 8]),
        }
    }
}

const KINDS: usize = 6;

#[test]
fn a_trapped_hole_is_refused_when_it_is_read() {
    fact("a_trapped_hole_is_refused_when_it_is_read", |linux| {
        for kind in 0..KINDS {
            let memory = Memory::new(linux, 1);
            linux.trap(memory.pages).unwrap();
            thread::scope(|scope| {
                let device = scope.spawn(move || {
                    with_accessor(linux, |accessor| access(linux, accessor, memory, kind))
                });
                while !device.is_finished() {
                    linux.wait(Some(Duration::from_millis(5)));
                    assert_eq!(unread(linux), [], "nobody is told");
                }
                assert_eq!(device.join().unwrap(), Err(Refused));
            });
            assert_eq!(look(linux, memory.pages), [Look::Hole]);
            assert_eq!(linux.zero(memory.page(0), 1, Access::Write), all(1));
            with_accessor(linux, |accessor| {
                assert_eq!(access(linux, accessor, memory, kind), Ok(()));
            });
        }
    });
}

#[test]
fn a_trapped_hole_is_refused_by_who_waits_for_it() {
    fact("a_trapped_hole_is_refused_by_who_waits_for_it", |linux| {
        for kind in 0..KINDS {
            let memory = Memory::new(linux, 1);
            linux.trap(memory.pages).unwrap();
            thread::scope(|scope| {
                let (send, receive) = std::sync::mpsc::channel();
                let device = scope.spawn(move || {
                    with_accessor(linux, |accessor| {
                        send.send(accessor.number()).unwrap();
                        access(linux, accessor, memory, kind)
                    })
                });
                let number = receive.recv().unwrap();
                // Nobody reads.
                while !device.is_finished() {
                    linux.refuse(number);
                    thread::yield_now();
                }
                assert_eq!(device.join().unwrap(), Err(Refused));
            });
            assert_eq!(unread(linux), [], "its message went with it");
        }
    });
}

#[test]
fn other_faults_are_told() {
    fact("other_faults_are_told", |linux| {
        let memory = Memory::new(linux, 2);
        linux.trap(memory.pages).unwrap();
        let next = || {
            loop {
                linux.wait(None);
                if let [message] = unread(linux)[..] {
                    return message;
                }
            }
        };
        // There is room for one message, and that of the access comes to nothing.
        let next_alone = || {
            let mut out = [Message::Unmapped(memory.pages)];
            loop {
                linux.wait(None);
                if linux.read(&mut out) == 1 {
                    return out[0];
                }
            }
        };
        thread::scope(|scope| {
            let device = scope.spawn(move || {
                with_accessor(linux, |accessor| {
                    // Its own instruction, outside of an access.
                    let own = memory.peek(0);
                    let refused = access(linux, accessor, memory.part(1, 1), 0);
                    (own, refused, uhmm::sync::thread_id())
                })
            });
            let told = next();
            assert_eq!(linux.zero(memory.page(0), 1, Access::Read), all(1));
            // The program's, of the same page, at the same time.
            let program = scope.spawn(move || (memory.peek(1), uhmm::sync::thread_id()));
            let also_told = next_alone();
            while !device.is_finished() {
                assert_eq!(unread(linux), []);
                thread::yield_now();
            }
            assert_eq!(linux.zero(memory.page(1), 1, Access::Read), all(1));
            let (own, refused, device) = device.join().unwrap();
            let (read, program) = program.join().unwrap();
            assert_eq!((own, refused, read), (0, Err(Refused), 0));
            let fault =
                |i, thread| Message::Fault { page: memory.page(i), access: Access::Read, thread };
            assert_eq!((told, also_told), (fault(0, device), fault(1, program)));
        });
    });
}

#[test]
fn marks_are_refused() {
    fact("marks_are_refused", |linux| {
        let memory = Memory::new(linux, 1);
        linux.trap(memory.pages).unwrap();
        assert_eq!(linux.poison(memory.page(0), 1), all(1));
        with_accessor(linux, |accessor| {
            for kind in 0..KINDS {
                assert_eq!(access(linux, accessor, memory, kind), Err(Refused));
            }
        });
        assert_eq!(look(linux, memory.pages), [Look::Poisoned]);
        assert_eq!(unread(linux), []);
    });
}

#[test]
fn an_engine_thread_survives_what_is_not_there() {
    fact("an_engine_thread_survives_what_is_not_there", |linux| {
        static REFUSED: AtomicUsize = AtomicUsize::new(0);
        static OVER: AtomicBool = AtomicBool::new(false);
        let own = Arc::new(Linux::open().unwrap());
        let memory = Memory::new(linux, 1);
        own.trap(memory.pages).unwrap();
        let engine_memory = EngineMemory::map(1 << 20).unwrap();
        let device = {
            let linux = Arc::clone(&own);
            uhmm::engine_memory::thread::spawn(&engine_memory, c"device", move |_signals| {
                if let Ok(accessor) = linux.open_accessor() {
                    for address in [8, 1 << 62, memory.at(0).expose_provenance()] {
                        // SAFETY: the accessor is the system's; nothing is at the addresses.
                        let result =
                            unsafe { linux.load_in_place(&accessor, address, Width::Eight) };
                        REFUSED.fetch_add(usize::from(result == Err(Refused)), Ordering::Relaxed);
                    }
                    linux.close_accessor(accessor);
                }
                OVER.store(true, Ordering::Release);
            })
        };
        while !OVER.load(Ordering::Acquire) {
            own.wait(Some(Duration::from_millis(5)));
            assert_eq!(unread(&own), []);
        }
        device.unwrap().join();
        assert_eq!(REFUSED.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn adds_are_made_or_refused_while_the_page_comes_and_goes() {
    fact("adds_are_made_or_refused_while_the_page_comes_and_goes", |linux| {
        let memory = Memory::trapped(linux, 1);
        let staging = linux.map_staging(1).unwrap().start();
        let at = memory.at(0);
        // SAFETY: the test's own page, eight aligned bytes.
        let word = unsafe { AtomicU64::from_ptr(at.cast()) };
        word.store(0, Ordering::Relaxed);
        let (over, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
        let made = thread::scope(|scope| {
            let device = scope.spawn(|| {
                with_accessor(linux, |accessor| {
                    let mut made = 0;
                    while !over.load(Ordering::Relaxed) {
                        match access(linux, accessor, memory, 3) {
                            Ok(()) => made += 1,
                            Err(Refused) => _ = refused.fetch_add(1, Ordering::Relaxed),
                        }
                    }
                    made
                })
            });
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    linux.wait(Some(Duration::from_millis(5)));
                    // The page may have come back, and the access ended, since the message was
                    // read: then it is told, and concerns nobody.
                    drop(unread(linux));
                }
            });
            while refused.load(Ordering::Relaxed) < 100 {
                if linux.take(memory.page(0), staging, 1) == all(1) {
                    thread::yield_now();
                    while linux.give(staging, memory.page(0), 1) != all(1) {}
                }
            }
            over.store(true, Ordering::Relaxed);
            device.join().unwrap()
        });
        assert_eq!(word.load(Ordering::Relaxed), made);
    });
}
