//! Staging: emptied without an event, not inherited, used by several threads at a time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::mm::Advice;
use uhmm::{
    mm::{Access, Look, Mm},
    units::{BLOCK_PAGES, PageRange},
};

use crate::memory::Memory;
use crate::support::{
    all, empty, fact, in_child, look, skip, staged, unmap_staging, unread, value,
};

fn areas_in(linux: &uhmm::mm::linux::Linux, pages: PageRange) -> usize {
    let mut count = 0;
    linux
        .areas(pages, &mut |_| {
            count += 1;
            core::ops::ControlFlow::Continue(())
        })
        .unwrap();
    count
}

#[test]
fn staging_is_aligned_registered_and_empty() {
    fact("staging_is_aligned_registered_and_empty", |linux| {
        for pages in [1, 511, 512, 2000] {
            let staging = linux.map_staging(pages).unwrap();
            assert_eq!((staging.len(), staging.start().in_block()), (pages, 0));
            assert!(look(linux, staging).iter().all(|&look| look == Look::Hole));
            assert_eq!(linux.zero(staging.start(), pages, Access::Read), all(pages));
            unmap_staging(linux, staging);
            assert_eq!(unread(linux), []);
        }
        assert!(linux.map_staging(0).is_err());
        assert!(linux.map_staging(usize::MAX).is_err());
    });
}

#[test]
fn emptying_raises_no_event_and_leaves_one_area() {
    fact("emptying_raises_no_event_and_leaves_one_area", |linux| {
        let staging = linux.map_staging(4 * BLOCK_PAGES).unwrap();
        let before = areas_in(linux, staging);
        for (start, pages) in [(0, 1), (5, 64), (512, 512), (700, 1000), (2047, 1)] {
            let part = PageRange::of(staging.start().plus(start), pages);
            assert_eq!(linux.zero(part.start(), pages, Access::Write), all(pages));
            // The calling thread would wait here for ever if an event were raised.
            empty(linux, part).unwrap();
            assert!(look(linux, staging).iter().all(|&look| look == Look::Hole));
            assert!(!linux.changing());
            assert_eq!(linux.zero(part.start(), pages, Access::Write), all(pages), "registered");
            empty(linux, part).unwrap();
        }
        assert_eq!(areas_in(linux, staging), before, "the parts joined again");
    });
}

#[test]
fn a_child_does_not_inherit_staging() {
    fact("a_child_does_not_inherit_staging", |linux| {
        let staging = linux.map_staging(2).unwrap();
        assert_eq!(linux.zero(staging.start(), 2, Access::Write), all(2));
        assert_eq!(in_child(|| i32::from(staged(linux, staging.start()))), -libc::SIGSEGV);
    });
}

#[test]
fn emptying_a_part_disturbs_no_moves_elsewhere_in_it() {
    fact("emptying_a_part_disturbs_no_moves_elsewhere_in_it", |linux| {
        const PAGES: usize = 32;
        let staging = linux.map_staging(2 * BLOCK_PAGES).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    // Beside, around and apart from what the other thread uses.
                    let (start, pages) =
                        [(0, 100), (132, 1), (99, 1), (512, 512), (133, 300)][round % 5];
                    let part = PageRange::of(staging.start().plus(start), pages);
                    assert_eq!(linux.zero(part.start(), pages, Access::Write), all(pages));
                    empty(linux, part).unwrap();
                    round += 1;
                }
            });
            let memory = Memory::trapped(linux, PAGES);
            let to = staging.start().plus(100);
            for _ in 0..20_000 {
                assert_eq!(linux.take(memory.page(0), to, PAGES), all(PAGES));
                assert_eq!(linux.copy(to, memory.page(0), 1), all(1));
                empty(linux, PageRange::of(to, 1)).unwrap();
                assert_eq!(linux.give(to.plus(1), memory.page(1), PAGES - 1), all(PAGES - 1));
            }
            over.store(true, Ordering::Relaxed);
            for i in 0..PAGES {
                assert_eq!(memory.read(i), value(i));
            }
        });
    });
}

#[test]
fn an_emptied_block_keeps_a_huge_page_whole() {
    fact("an_emptied_block_keeps_a_huge_page_whole", |linux| {
        let memory = Memory::new(linux, 512);
        memory.advise(Advice::LinuxHugepage);
        memory.fill();
        if look(linux, memory.pages) != [Look::PresentHuge; 512] {
            return skip("an_emptied_block_keeps_a_huge_page_whole", "no huge page is to be had");
        }
        let staging = linux.map_staging(1024).unwrap();
        let block = PageRange::of(staging.start().plus(512), 512);
        assert_eq!(linux.zero(block.start(), 512, Access::Write), all(512));
        empty(linux, block).unwrap();
        assert_eq!(linux.take(memory.page(0), block.start(), 512), all(512));
        if look(linux, block) != [Look::PresentHuge; 512] {
            skip(
                "an_emptied_block_keeps_a_huge_page_whole",
                "the kernel keeps empty page tables (before Linux 6.14)",
            );
        }
    });
}

#[test]
fn staging_keeps_its_content_when_the_program_locks_all() {
    fact("staging_keeps_its_content_when_the_program_locks_all", |_| {
        // In a child, as the lock concerns the whole process.
        let status = in_child(|| {
            // SAFETY: locking changes no content.
            if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
                return 2;
            }
            let Ok(linux) = uhmm::mm::linux::Linux::open() else { return 3 };
            let Ok(staging) = linux.map_staging(512) else { return 4 };
            let mut looks = [Look::Zero; 512];
            if linux.look(staging.start(), &mut looks).is_err() || looks != [Look::Hole; 512] {
                return 5;
            }
            if linux.zero(staging.start(), 2, Access::Write) != all(2) {
                return 6;
            }
            if empty(&linux, staging).is_err() { 7 } else { 0 }
        });
        if status == 2 {
            return skip("staging_keeps_its_content_when_the_program_locks_all", "no mlockall");
        }
        assert_eq!(status, 0);
    });
}

#[test]
fn staging_is_emptied_at_the_limit_of_areas_too() {
    fact("staging_is_emptied_at_the_limit_of_areas_too", |_| {
        // In a child, as the limit concerns the whole process.
        let status = in_child(|| {
            let Ok(linux) = uhmm::mm::linux::Linux::open() else { return 3 };
            let Ok(staging) = linux.map_staging(512) else { return 4 };
            if linux.zero(staging.start(), 512, Access::Write) != all(512) {
                return 5;
            }
            for i in 0_u32.. {
                // Neighbours that differ do not join.
                let protection = if i % 2 == 0 { libc::PROT_READ } else { libc::PROT_NONE };
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let (start, len) = (std::ptr::null_mut(), linux.page_size().bytes());
                // SAFETY: a new mapping, at an address of the kernel's choice.
                let area = unsafe { libc::mmap(start, len, protection, flags, -1, 0) };
                if area == libc::MAP_FAILED {
                    break;
                }
                if i == 1_000_000 {
                    return 2;
                }
            }
            let part = PageRange::of(staging.start().plus(5), 7);
            if empty(&linux, part).is_err() {
                return 6;
            }
            if linux.zero(part.start(), 7, Access::Write) == all(7) { 0 } else { 7 }
        });
        match status {
            2 => skip("staging_is_emptied_at_the_limit_of_areas_too", "no limit is near"),
            6 => skip("staging_is_emptied_at_the_limit_of_areas_too", "before Linux 6.13"),
            status => assert_eq!(status, 0),
        }
    });
}
