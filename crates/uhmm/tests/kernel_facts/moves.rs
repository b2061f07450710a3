//! Moving, copying and filling pages.

use rustix::mm::{Advice, MprotectFlags};
use uhmm::{
    mm::{Access, Look, Mm, Stop},
    units::PageRange,
};

use crate::memory::Memory;
use crate::support::{Child, all, fact, look, skip, staged, stopped, told, unmap_staging, value};

#[test]
fn pages_go_to_staging_and_back() {
    fact("pages_go_to_staging_and_back", |linux| {
        for pages in [1, 16, 512, 600] {
            let memory = Memory::trapped(linux, pages);
            let staging = linux.map_staging(pages).unwrap();
            assert_eq!(linux.take(memory.page(0), staging.start(), pages), all(pages));
            assert!(look(linux, memory.pages).iter().all(|&look| look == Look::Hole));
            for (i, page) in staging.pages().enumerate() {
                assert_eq!(staged(linux, page), value(i));
            }
            assert_eq!(linux.give(staging.start(), memory.page(0), pages), all(pages));
            assert!(look(linux, staging).iter().all(|&look| look == Look::Hole));
            for i in 0..pages {
                assert_eq!(memory.read(i), value(i));
            }
            unmap_staging(linux, staging);
        }
    });
}

#[test]
fn a_take_needs_only_its_destination_registered() {
    fact("a_take_needs_only_its_destination_registered", |linux| {
        let memory = Memory::new(linux, 4);
        memory.fill();
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
        assert_eq!(
            linux.give(staging.start(), memory.page(0), 4),
            stopped(0, Stop::NoArea),
            "the way back needs the program's area registered"
        );
        linux.trap(memory.pages).unwrap();
        assert_eq!(linux.give(staging.start(), memory.page(0), 4), all(4));
        assert_eq!(memory.read(3), value(3));
    });
}

#[test]
fn a_take_stops_at_a_hole() {
    fact("a_take_stops_at_a_hole", |linux| {
        let memory = Memory::new(linux, 8);
        for i in [0, 1, 2, 5] {
            memory.write(i, value(i));
        }
        linux.trap(memory.pages).unwrap();
        let staging = linux.map_staging(8).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), stopped(3, Stop::Hole));
        assert_eq!(linux.take(memory.page(3), staging.start().plus(3), 1), stopped(0, Stop::Hole));
    });
}

#[test]
fn nothing_is_done_where_there_is_no_area() {
    fact("nothing_is_done_where_there_is_no_area", |linux| {
        let memory = Memory::new(linux, 4);
        memory.fill();
        let gone = Memory::new(linux, 4);
        gone.unmap();
        let staging = linux.map_staging(8).unwrap();
        let none = stopped(0, Stop::NoArea);
        assert_eq!(linux.take(gone.page(0), staging.start(), 4), none);
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
        for to in [memory, gone] {
            assert_eq!(linux.give(staging.start(), to.page(0), 4), none);
            assert_eq!(linux.copy(staging.start(), to.page(0), 4), none);
            assert_eq!(linux.zero(to.page(0), 4, Access::Read), none);
            assert_eq!(linux.zero(to.page(0), 4, Access::Write), none);
            assert_eq!(linux.poison(to.page(0), 4), none);
        }
    });
}

#[test]
fn a_row_may_lie_in_several_areas() {
    fact("a_row_may_lie_in_several_areas", |linux| {
        let memory = Memory::trapped(linux, 16);
        // Another flag makes another area of the last pages.
        memory.part(5, 11).advise(Advice::LinuxDontDump);
        let staging = linux.map_staging(16).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 16), all(16));
        assert_eq!(linux.copy(staging.start(), memory.page(0), 8), all(8));
        assert_eq!(
            linux.give(staging.start().plus(8), memory.page(8), 8),
            all(8),
            "{:?}",
            look(linux, memory.pages)
        );
        for i in 0..16 {
            assert_eq!(memory.read(i), value(i));
        }
    });
}

#[test]
fn read_only_areas_take_copies_but_no_moves() {
    fact("read_only_areas_take_copies_but_no_moves", |linux| {
        let memory = Memory::trapped(linux, 8);
        let staging = linux.map_staging(8).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
        memory.protect(MprotectFlags::READ);
        let refused = stopped(0, Stop::Refused);
        assert_eq!(linux.take(memory.page(4), staging.start().plus(4), 4), refused);
        assert_eq!(linux.give(staging.start(), memory.page(0), 4), refused);
        assert_eq!(linux.copy(staging.start(), memory.page(0), 1), all(1));
        assert_eq!(linux.zero(memory.page(1), 1, Access::Read), all(1));
        assert_eq!(linux.poison(memory.page(2), 1), all(1));
        assert_eq!((memory.read(0), memory.read(1)), (value(0), 0));
    });
}

#[test]
fn locked_areas_do_not_move() {
    fact("locked_areas_do_not_move", |linux| {
        let memory = Memory::new(linux, 2);
        memory.fill();
        if !memory.lock() {
            return skip("locked_areas_do_not_move", "mlock is not allowed");
        }
        let staging = linux.map_staging(2).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 2), stopped(0, Stop::Refused));
    });
}

#[test]
fn pages_shared_with_a_child_are_busy_until_unshared() {
    fact("pages_shared_with_a_child_are_busy_until_unshared", |linux| {
        let memory = Memory::trapped(linux, 8);
        let staging = linux.map_staging(8).unwrap();
        let child = Child::fork();
        let busy = stopped(0, Stop::Busy);
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), busy);
        drop(child);
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), busy, "the child has gone");
        linux.unshare(memory.pages).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), all(8));
    });
}

#[test]
fn a_batch_stops_at_the_first_busy_page() {
    fact("a_batch_stops_at_the_first_busy_page", |linux| {
        let memory = Memory::trapped(linux, 8);
        let staging = linux.map_staging(8).unwrap();
        let child = Child::fork();
        drop(child);
        for i in 0..5 {
            memory.write(i, 9);
        }
        assert_eq!(linux.take(memory.page(0), staging.start(), 8), stopped(5, Stop::Busy));
        assert_eq!(memory.read(5), value(5));
    });
}

#[test]
fn zero_pages_move() {
    fact("zero_pages_move", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.zero(memory.page(0), 4, Access::Read), all(4));
        assert_eq!(look(linux, memory.pages), [Look::Zero; 4]);
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), all(4));
        assert_eq!(look(linux, staging), [Look::Zero; 4]);
        assert_eq!(linux.give(staging.start(), memory.page(0), 4), all(4));
        memory.write(1, 3);
        assert_eq!((memory.read(0), memory.read(1)), (0, 3));
        assert_eq!(linux.zero(staging.start(), 4, Access::Read), all(4), "staging takes zeros");
    });
}

#[test]
fn own_zeros_fill_any_number_of_holes() {
    fact("own_zeros_fill_any_number_of_holes", |linux| {
        let memory = Memory::new(linux, 1100);
        linux.trap(memory.pages).unwrap();
        assert_eq!(linux.zero(memory.page(0), 1100, Access::Write), all(1100));
        assert!(look(linux, memory.pages).iter().all(|&look| look == Look::Present));
        assert_eq!(memory.read(1099), 0);
    });
}

#[test]
fn a_page_that_is_there_stays() {
    fact("a_page_that_is_there_stays", |linux| {
        let memory = Memory::trapped(linux, 4);
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.zero(staging.start(), 4, Access::Write), all(4));
        let present = stopped(0, Stop::Present);
        assert_eq!(linux.give(staging.start(), memory.page(0), 4), present);
        assert_eq!(linux.copy(staging.start(), memory.page(0), 4), present);
        assert_eq!(linux.zero(memory.page(0), 4, Access::Read), present);
        assert_eq!(linux.poison(memory.page(0), 4), present);
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), present);
        assert_eq!(memory.read(0), value(0));
    });
}

#[test]
fn marks_end_accesses_and_stay_where_they_are() {
    fact("marks_end_accesses_and_stay_where_they_are", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        let staging = linux.map_staging(4).unwrap();
        assert_eq!(linux.poison(memory.page(0), 4), all(4));
        let marks = look(linux, memory.pages);
        if marks == [Look::Swapped; 4] {
            skip("marks_end_accesses_and_stay_where_they_are", "marks look like swapped pages");
        } else {
            assert_eq!(marks, [Look::Poisoned; 4]);
        }
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), stopped(0, Stop::Refused));
        assert_eq!(linux.zero(staging.start(), 1, Access::Write), all(1));
        let present = stopped(0, Stop::Present);
        assert_eq!(linux.give(staging.start(), memory.page(0), 1), present);
        assert_eq!(linux.zero(memory.page(0), 1, Access::Read), present);
        assert_eq!(linux.poison(memory.page(0), 1), present);
        let mut byte = 0_u8;
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let remote = libc::iovec { iov_base: memory.at(0).cast(), iov_len: 1 };
        // SAFETY: both describe a byte, one of a local, one of the test's own memory.
        let read = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        assert_eq!(read, -1, "an access ends with an error");
        // A copy puts content in their place without a word: whoever poisons has to know it.
        assert_eq!(linux.copy(staging.start(), memory.page(0), 1), all(1));
        assert_eq!(memory.read(0), 0);
    });
}

#[test]
fn huge_pages_move_whole() {
    fact("huge_pages_move_whole", |linux| {
        let memory = Memory::new(linux, 512);
        memory.advise(Advice::LinuxHugepage);
        memory.fill();
        linux.trap(memory.pages).unwrap();
        if look(linux, memory.pages) != [Look::PresentHuge; 512] {
            return skip("huge_pages_move_whole", "no huge page is to be had");
        }
        let staging = linux.map_staging(1024).unwrap();
        let huge = linux.take(memory.page(0), staging.start().plus(512), 512);
        assert_eq!(huge, all(512));
        let there = look(linux, staging);
        assert!(there[512..].iter().all(|&look| look == Look::PresentHuge), "{:?}", there[512]);
        assert_eq!(linux.give(staging.start().plus(512), memory.page(0), 512), all(512));
        let back = look(linux, memory.pages)[0];
        eprintln!("a huge page that went and came back: {back:?}");
        for i in 0..512 {
            assert_eq!(memory.read(i), value(i));
        }
    });
}

#[test]
fn a_huge_page_is_copied_whole() {
    fact("a_huge_page_is_copied_whole", |linux| {
        let memory = Memory::new(linux, 512);
        memory.advise(Advice::LinuxHugepage);
        memory.fill();
        linux.trap(memory.pages).unwrap();
        if look(linux, memory.pages) != [Look::PresentHuge; 512] {
            return skip("a_huge_page_is_copied_whole", "no huge page is to be had");
        }
        let staging = linux.map_staging(1024).unwrap();
        let (first, second) = (staging.start(), staging.start().plus(512));
        assert_eq!(linux.take(memory.page(0), first, 512), all(512));
        // To staging, and to the program, both of which have holes.
        for to in [second, memory.page(0)] {
            assert_eq!(linux.copy_block(first, to), all(512));
            assert_eq!(look(linux, PageRange::of(to, 512)), [Look::PresentHuge; 512]);
        }
        assert!((0..512).all(|i| memory.read(i) == value(i)));
        assert_eq!(look(linux, PageRange::of(first, 512)), [Look::PresentHuge; 512]);
        assert_eq!(linux.copy_block(first, second), stopped(0, Stop::Present));
        // Where a page is there already the others come one by one.
        told(linux, || memory.advise(Advice::LinuxDontNeed));
        assert_eq!(linux.zero(memory.page(100), 1, Access::Write), all(1));
        memory.write(100, 7);
        assert_eq!(linux.copy_block(first, memory.page(0)), stopped(100, Stop::Present));
        assert!((0..100).all(|i| memory.read(i) == value(i)));
        assert_eq!(memory.read(100), 7);
        // Nothing is left on the way.
        told(linux, || memory.advise(Advice::LinuxDontNeed));
        assert_eq!(linux.copy_block(first, memory.page(0)), all(512));
        assert!((0..512).all(|i| memory.read(i) == value(i)));
        told(linux, || memory.unmap());
        assert_eq!(linux.copy_block(first, memory.page(0)), stopped(0, Stop::NoArea));
    });
}

#[test]
fn a_huge_page_of_zeros_is_made_in_holes() {
    fact("a_huge_page_of_zeros_is_made_in_holes", |linux| {
        let staging = linux.map_staging(512).unwrap();
        let block = staging.start();
        let made = linux.zero_block(block, None);
        if made == stopped(0, Stop::NoMemory) {
            return skip("a_huge_page_of_zeros_is_made_in_holes", "no huge page is to be had");
        }
        assert_eq!(made, all(512));
        assert_eq!(look(linux, staging), [Look::PresentHuge; 512]);
        assert_eq!(linux.zero_block(block, None), stopped(0, Stop::Present));
        // The program gets it as one, and reads zeros.
        let memory = Memory::new(linux, 512);
        linux.trap(memory.pages).unwrap();
        assert_eq!(linux.give(block, memory.page(0), 512), all(512));
        assert_eq!(look(linux, memory.pages), [Look::PresentHuge; 512]);
        assert!((0..512).all(|i| memory.read(i) == 0));
    });
}

#[test]
fn parts_of_a_huge_page_that_hold_zeros_lose_their_memory_as_it_is_split() {
    const NAME: &str = "parts_of_a_huge_page_that_hold_zeros_lose_their_memory_as_it_is_split";
    fact(NAME, |linux| {
        for by_move in [false, true] {
            let staging = linux.map_staging(1024).unwrap();
            let block = staging.start();
            if linux.zero_block(block, None) != all(512) {
                return skip(NAME, "no huge page is to be had");
            }
            // One part holds something else.
            // SAFETY: a page of staging that is there, to which there is no reference.
            unsafe { linux.staging_pointer(block.plus(7)).cast::<u64>().write_volatile(1) };
            if by_move {
                assert_eq!(linux.take(block.plus(9), block.plus(512), 1), all(1));
            } else {
                linux.split_block(block.plus(9));
            }
            let looks = look(linux, PageRange::of(block, 512));
            assert_eq!(looks[7], Look::Present);
            // Before Linux 6.13 those that hold zeros stay, too.
            eprintln!("a part that holds zeros, split by a move ({by_move}): {:?}", looks[8]);
            assert!(matches!(looks[8], Look::Present | Look::Zero));
            unmap_staging(linux, staging);
        }
    });
}

#[test]
fn one_page_leaves_a_huge_page() {
    fact("one_page_leaves_a_huge_page", |linux| {
        let memory = Memory::new(linux, 512);
        memory.advise(Advice::LinuxHugepage);
        memory.fill();
        if look(linux, memory.pages) != [Look::PresentHuge; 512] {
            return skip("one_page_leaves_a_huge_page", "no huge page is to be had");
        }
        let staging = linux.map_staging(512).unwrap();
        assert_eq!(linux.take(memory.page(7), staging.start(), 1), all(1));
        let rest = look(linux, memory.pages);
        assert_eq!(rest[7], Look::Hole);
        assert_eq!(rest.iter().filter(|&&look| look == Look::Present).count(), 511);
        assert_eq!(memory.read(8), value(8));
    });
}

#[test]
fn pinned_pages_are_busy() {
    fact("pinned_pages_are_busy", |linux| {
        let memory = Memory::trapped(linux, 4);
        let staging = linux.map_staging(4).unwrap();
        let mut parameters = [0_u64; 15];
        // SAFETY: the parameters have the 120 bytes that the call reads and writes.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
        if ring < 0 {
            return skip("pinned_pages_are_busy", "no io_uring");
        }
        let buffer =
            libc::iovec { iov_base: memory.at(2).cast(), iov_len: linux.page_size().bytes() };
        // SAFETY: one buffer, of the test's own memory; the ring is never told to use it.
        let registered =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, 0, &raw const buffer, 1) };
        assert_eq!(registered, 0, "IORING_REGISTER_BUFFERS");
        assert_eq!(linux.take(memory.page(0), staging.start(), 4), stopped(2, Stop::Busy));
        assert_eq!(memory.read(2), value(2));
        // SAFETY: the descriptor made above.
        unsafe { libc::syscall(libc::SYS_close, ring) };
    });
}
