//! Pages of areas that cannot be written are taken out all the same, by `mremap` with `MREMAP_DONTUNMAP`.

use std::{ops::ControlFlow, os::fd::AsRawFd, thread};

use rustix::mm::{MapFlags, MprotectFlags};
use uhmm::{
    mm::{Look, Message, Mm, linux::Linux},
    units::{BLOCK_PAGES, PageRange},
};

use crate::memory::Memory;
use crate::support::{
    Child, all, fact, in_child, look, skip, staged, stopped, told, unread, value,
};

const NONE: MprotectFlags = MprotectFlags::empty();
const READ_WRITE: MprotectFlags = MprotectFlags::READ.union(MprotectFlags::WRITE);

/// Takes pages out, and answers where they lie and what was told.
fn set_aside(linux: &Linux, pages: PageRange) -> (PageRange, Vec<Message>) {
    let mut aside = None;
    let told = told(linux, || {
        // SAFETY: the test's own memory, which nothing else uses.
        aside = Some(unsafe { linux.set_aside(pages) }.unwrap());
    });
    (aside.unwrap(), told)
}

/// Puts pages back, and answers what was told.
fn put_back(linux: &Linux, from: PageRange, to: PageRange) -> Vec<Message> {
    told(linux, || {
        // SAFETY: as in `set_aside`; the pages are from there and no holes.
        unsafe { linux.put_back(from.start(), to) }.unwrap();
    })
}

fn end_aside(linux: &Linux, pages: PageRange) {
    // SAFETY: nobody uses it any more.
    unsafe { linux.end_aside(pages) }.unwrap();
}

/// The areas that overlap `pages`.
fn areas(linux: &Linux, pages: PageRange) -> Vec<(PageRange, bool)> {
    let mut found = Vec::new();
    linux
        .areas(pages, &mut |area| {
            found.push((area.pages, area.registered));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn what_cannot_be_written_is_taken_out_at_once_and_leaves_trapped_holes() {
    fact("what_cannot_be_written_is_taken_out_at_once_and_leaves_trapped_holes", |linux| {
        for protection in [MprotectFlags::READ, NONE, READ_WRITE, MprotectFlags::EXEC] {
            let memory = Memory::trapped(linux, 8);
            memory.protect(protection);
            let part = memory.part(2, 4);
            let (aside, told) = set_aside(linux, part.pages);
            assert_eq!(told, [Message::Remapped { from: part.pages, to: aside.start() }]);
            assert_eq!(look(linux, part.pages), [Look::Hole; 4]);
            // It is one area still, and trapped.
            assert_eq!(areas(linux, memory.pages), [(memory.pages, true)]);
            assert_eq!(areas(linux, aside), [(aside, false)]);
            let staging = linux.map_staging(4).unwrap();
            assert_eq!(linux.take(aside.start(), staging.start(), 4), all(4));
            end_aside(linux, aside);
            assert_eq!(unread(linux), [], "nothing is told of the end of what lies aside");
            for i in 0..4 {
                assert_eq!(staged(linux, staging.start().plus(i)), value(i + 2));
            }
            assert_eq!(linux.copy(staging.start(), part.page(0), 4), all(4));
            memory.protect(MprotectFlags::READ);
            for i in 0..8 {
                assert_eq!(memory.read(i), value(i));
            }
        }
    });
}

#[test]
fn a_load_of_what_lies_aside_waits_and_is_served() {
    fact("a_load_of_what_lies_aside_waits_and_is_served", |linux| {
        let memory = Memory::trapped(linux, 4);
        memory.protect(MprotectFlags::READ);
        let (aside, _) = set_aside(linux, memory.pages);
        thread::scope(|scope| {
            let loader = scope.spawn(move || memory.read(1));
            let page = loop {
                linux.wait(None);
                if let [Message::Fault { page, .. }] = unread(linux)[..] {
                    break page;
                }
            };
            assert_eq!(page, memory.page(1));
            let back = PageRange::of(aside.start().plus(1), 1);
            let read = put_back(linux, back, memory.part(1, 1).pages);
            assert_eq!(read, [Message::Unmapped(memory.part(1, 1).pages)]);
            // Who waits is not woken by the move.
            linux.wake(memory.pages);
            assert_eq!(loader.join().unwrap(), value(1));
        });
    });
}

#[test]
fn what_is_put_back_is_the_same_page_in_the_same_area() {
    let name = "what_is_put_back_is_the_same_page_in_the_same_area";
    fact(name, |linux| {
        let memory = Memory::trapped(linux, 8);
        let mut pipe = [0; 2];
        // SAFETY: two numbers of files, the test's own.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        let bytes = libc::iovec { iov_base: memory.at(3).cast(), iov_len: 4 };
        // SAFETY: the pipe has the page itself, of the test's own memory.
        assert_eq!(unsafe { libc::vmsplice(pipe[1].as_raw_fd(), &raw const bytes, 1, 0) }, 4);
        memory.protect(MprotectFlags::READ);
        let (aside, _) = set_aside(linux, memory.part(2, 3).pages);
        put_back(linux, aside, memory.part(2, 3).pages);
        assert_eq!(areas(linux, memory.pages), [(memory.pages, true)], "one area, trapped");
        for i in 0..8 {
            assert_eq!(memory.read(i), value(i));
        }
        memory.protect(READ_WRITE);
        memory.write(3, 200);
        let mut got = [0_u8; 4];
        // SAFETY: the buffer is the test's own.
        assert_eq!(unsafe { libc::read(pipe[0].as_raw_fd(), got.as_mut_ptr().cast(), 4) }, 4);
        assert_eq!(got, [200; 4], "the pipe has the page that was put back");
        // The area can be moved as one, and unmapped.
        let elsewhere = Memory::new(linux, 8);
        let moved = told(linux, || memory.move_to(elsewhere));
        assert_eq!(moved.len(), 2, "{moved:?}");
    });
}

#[test]
fn a_huge_page_is_taken_out_whole() {
    let name = "a_huge_page_is_taken_out_whole";
    fact(name, |linux| {
        let memory = Memory::new(linux, BLOCK_PAGES);
        memory.advise(rustix::mm::Advice::LinuxHugepage);
        memory.fill();
        if look(linux, memory.part(0, 1).pages) != [Look::PresentHuge] {
            return skip(name, "the system has no huge page");
        }
        linux.trap(memory.pages).unwrap();
        memory.protect(MprotectFlags::READ);
        let (aside, _) = set_aside(linux, memory.pages);
        assert_eq!(look(linux, PageRange::of(aside.start(), 1)), [Look::PresentHuge]);
        let staging = linux.map_staging(BLOCK_PAGES).unwrap();
        assert_eq!(linux.take(aside.start(), staging.start(), BLOCK_PAGES), all(BLOCK_PAGES));
        assert_eq!(look(linux, PageRange::of(staging.start(), 1)), [Look::PresentHuge]);
        end_aside(linux, aside);
    });
}

#[test]
fn what_a_child_shares_is_unshared_aside() {
    fact("what_a_child_shares_is_unshared_aside", |linux| {
        let memory = Memory::trapped(linux, 4);
        memory.protect(MprotectFlags::READ);
        let _child = Child::fork();
        // Where it is it cannot be.
        assert!(linux.unshare(memory.pages).is_err());
        let (aside, _) = set_aside(linux, memory.pages);
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.take(aside.start(), staging.start(), 4), stopped(0, uhmm::mm::Stop::Busy));
        linux.unshare(aside).unwrap();
        assert_eq!(linux.take(aside.start(), staging.start(), 4), all(4));
        end_aside(linux, aside);
    });
}

#[test]
fn more_than_one_area_is_refused_and_stays() {
    fact("more_than_one_area_is_refused_and_stays", |linux| {
        let memory = Memory::trapped(linux, 4);
        memory.part(2, 2).protect(MprotectFlags::READ);
        let told = told(linux, || {
            // SAFETY: as in `set_aside`.
            assert!(unsafe { linux.set_aside(memory.pages) }.is_err());
        });
        assert_eq!(told, []);
        for i in 0..4 {
            assert_eq!(memory.read(i), value(i));
        }
    });
}

#[test]
fn the_kernel_counts_the_threads_of_a_process() {
    // A child has one.
    let status = in_child(|| match Linux::open() {
        Ok(linux) => i32::from(linux.is_alone(0) != Ok(true)),
        Err(_) => 2,
    });
    if status == 2 {
        return skip("the_kernel_counts_the_threads_of_a_process", "no address space in a child");
    }
    assert_eq!(status, 0);
    fact("the_kernel_counts_the_threads_of_a_process", |linux| {
        // The test's own watchdog, at least.
        assert_eq!(linux.is_alone(0), Ok(false));
        // Other tests' threads come and go.
        let holds = |_: &i32| {
            let count = std::fs::read_dir("/proc/self/task").unwrap().count();
            linux.is_alone(count - 1) == Ok(true) && linux.is_alone(count - 2) == Ok(false)
        };
        assert!((0..1000).any(|i| holds(&i)));
    });
}

#[test]
fn memory_that_came_to_lie_at_an_address_is_taken_without_a_word() {
    fact("memory_that_came_to_lie_at_an_address_is_taken_without_a_word", |linux| {
        // Why who takes pages out has to know that nobody maps anything there: another's memory leaves
        // holes that are nobody's to fill.
        let memory = Memory::new(linux, 2);
        memory.map_over(MapFlags::PRIVATE);
        memory.fill();
        let (aside, told) = set_aside(linux, memory.pages);
        assert_eq!(told, []);
        assert_eq!(memory.read(0), 0);
        end_aside(linux, aside);
    });
}

#[test]
fn an_area_that_loses_all_its_pages_at_once_may_stay_apart_from_its_neighbours() {
    fact("an_area_that_loses_all_its_pages_at_once_may_stay_apart_from_its_neighbours", |linux| {
        for at_once in [true, false] {
            let memory = Memory::trapped(linux, 8);
            let part = memory.part(2, 4);
            part.protect(NONE);
            let taken = if at_once { vec![part] } else { vec![part.part(0, 3), part.part(3, 1)] };
            for taken in taken {
                let (aside, _) = set_aside(linux, taken.pages);
                end_aside(linux, aside);
            }
            memory.protect(MprotectFlags::READ);
            if at_once {
                // Not on every kernel.
                assert!([1, 3].contains(&areas(linux, memory.pages).len()));
            } else {
                assert_eq!(areas(linux, memory.pages), [(memory.pages, true)]);
            }
        }
    });
}
