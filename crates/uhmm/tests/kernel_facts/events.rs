//! What the kernel tells of changes, and when.

use std::{ptr, thread};

use rustix::mm::{Advice, MapFlags, MprotectFlags};
use uhmm::{
    mm::{Access, Look, Message, Mm},
    units::PageRange,
};

use crate::memory::Memory;
use crate::support::{all, fact, look, told, unread, wait_for_calm, wait_for_change};

#[test]
fn an_unmapping_is_told_after_the_fact() {
    fact("an_unmapping_is_told_after_the_fact", |linux| {
        let memory = Memory::trapped(linux, 8);
        thread::scope(|scope| {
            scope.spawn(|| memory.unmap());
            wait_for_change(linux);
            linux.wait(None);
            assert_eq!(look(linux, memory.pages), [Look::Hole; 8], "gone before it is told");
            assert_eq!(unread(linux), [Message::Unmapped(memory.pages)]);
        });
    });
}

#[test]
fn mapping_over_is_told_as_unmapping() {
    fact("mapping_over_is_told_as_unmapping", |linux| {
        let memory = Memory::trapped(linux, 8);
        let messages = told(linux, || memory.map_over(MapFlags::PRIVATE | MapFlags::POPULATE));
        assert_eq!(messages, [Message::Unmapped(memory.pages)]);
        assert_eq!(memory.read(0), 0);
    });
}

#[test]
fn discarding_is_told_before_the_pages_go() {
    fact("discarding_is_told_before_the_pages_go", |linux| {
        for advice in [Advice::LinuxDontNeed, Advice::LinuxFree] {
            let memory = Memory::trapped(linux, 8);
            thread::scope(|scope| {
                scope.spawn(move || memory.advise(advice));
                wait_for_change(linux);
                linux.wait(None);
                assert_eq!(look(linux, memory.pages), [Look::Present; 8], "{advice:?}");
                assert_eq!(unread(linux), [Message::Discarded(memory.pages)]);
            });
        }
    });
}

#[test]
fn a_moving_mremap_is_told_as_remap_then_unmap() {
    fact("a_moving_mremap_is_told_as_remap_then_unmap", |linux| {
        let memory = Memory::trapped(linux, 8);
        let target = Memory::new(linux, 8);
        let staging = linux.map_staging(1).unwrap();
        assert_eq!(linux.take(memory.page(3), staging.start(), 1), all(1));
        let messages = told(linux, || memory.move_to(target));
        assert_eq!(
            messages,
            [
                Message::Remapped { from: memory.pages, to: target.page(0) },
                Message::Unmapped(memory.pages)
            ]
        );
        wait_for_calm(linux);
        assert_eq!(linux.give(staging.start(), target.page(3), 1), all(1), "still registered");
    });
}

#[test]
fn growing_in_place_is_not_told_and_registered() {
    fact("growing_in_place_is_not_told_and_registered", |linux| {
        let room = Memory::new(linux, 16);
        let memory = room.part(0, 8);
        memory.fill();
        linux.trap(memory.pages).unwrap();
        // Only then is there room, so that nothing else is mapped there meanwhile.
        let messages = told(linux, || {
            room.part(8, 8).unmap();
            memory.resize(16);
        });
        assert_eq!(messages, []);
        assert_eq!(linux.zero(room.page(8), 8, Access::Read), all(8));
    });
}

#[test]
fn shrinking_is_told_as_unmapping_of_the_tail() {
    fact("shrinking_is_told_as_unmapping_of_the_tail", |linux| {
        let memory = Memory::trapped(linux, 8);
        let messages = told(linux, || memory.resize(4));
        assert_eq!(messages, [Message::Unmapped(PageRange::of(memory.page(4), 4))]);
    });
}

#[test]
fn protecting_is_not_told() {
    fact("protecting_is_not_told", |linux| {
        let memory = Memory::trapped(linux, 8);
        let messages = told(linux, || memory.protect(MprotectFlags::READ));
        assert_eq!(messages, []);
    });
}

#[test]
fn the_free_of_a_big_block_is_told() {
    fact("the_free_of_a_big_block_is_told", |linux| {
        let len = 64 << 20;
        let size = linux.page_size();
        // SAFETY: asking for memory is always sound.
        let block = unsafe { libc::malloc(len) }.expose_provenance();
        let pages = PageRange::of(size.page_of(block), size.pages_for(len) + 1);
        linux.trap(pages).unwrap();
        let messages = told(linux, || {
            // SAFETY: the block from above, which nobody uses.
            unsafe { libc::free(ptr::with_exposed_provenance_mut(block)) }
        });
        assert_eq!(messages, [Message::Unmapped(pages)], "libc's own calls are told too");
    });
}

#[test]
fn a_fork_is_not_told_and_needs_no_reader() {
    fact("a_fork_is_not_told_and_needs_no_reader", |linux| {
        let _memory = Memory::trapped(linux, 8);
        assert_eq!(crate::support::in_child(|| 7), 7);
        assert_eq!(unread(linux), []);
        assert!(!linux.changing());
    });
}
