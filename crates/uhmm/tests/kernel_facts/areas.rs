//! Areas as the system reports them, and pages that never leave.

use std::{ops::ControlFlow, ptr, sync::atomic::AtomicU64, thread};

use rustix::{
    fs::MemfdFlags,
    mm::{MapFlags, ProtFlags},
};
use uhmm::{
    mm::{Area, Backing, Exclusion, Mm, TrapError, linux::Linux},
    units::{AddressRange, PageNumber, PageRange},
};

use crate::memory::Memory;
use crate::support::{fact, skip, told};

fn areas(linux: &Linux, within: PageRange) -> Vec<Area> {
    let mut areas = Vec::new();
    linux
        .areas(within, &mut |area| {
            areas.push(*area);
            ControlFlow::Continue(())
        })
        .unwrap();
    areas
}

fn area_of(linux: &Linux, address: usize) -> Area {
    let page = linux.page_size().page_of(address);
    let areas = areas(linux, PageRange::of(page, 1));
    assert_eq!(areas.len(), 1);
    assert!(areas[0].pages.contains(page));
    areas[0]
}

#[test]
fn private_memory_is_reported_whole() {
    fact("private_memory_is_reported_whole", |linux| {
        let memory = Memory::new(linux, 8);
        memory.fill();
        let found = areas(linux, PageRange::of(memory.page(3), 2));
        let expected = Area {
            pages: memory.pages,
            protection: uhmm::mm::Protection { read: true, write: true, execute: false },
            backing: Backing::PrivateAnonymous,
            stack: false,
            locked: false,
            registered: false,
            object_data: false,
            inherited: true,
            // Eight pages hold none.
            huge: false,
        };
        assert_eq!(found, [expected]);
        linux.trap(memory.pages).unwrap();
        assert_eq!(areas(linux, memory.pages), [Area { registered: true, ..expected }]);
        linux.untrap(memory.pages).unwrap();
        assert_eq!(areas(linux, memory.pages), [expected]);
    });
}

#[test]
fn where_huge_pages_are_made_is_told() {
    fact("where_huge_pages_are_made_is_told", |linux| {
        let choice = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        if choice.is_ok_and(|choice| !choice.contains("[madvise]")) {
            return skip("where_huge_pages_are_made_is_told", "not as programs advise");
        }
        let memory = Memory::new(linux, 512);
        let huge = || areas(linux, memory.pages).iter().all(|area| area.huge);
        assert!(!huge());
        memory.advise(rustix::mm::Advice::LinuxHugepage);
        assert!(huge());
        linux.trap(memory.pages).unwrap();
        assert!(huge(), "of what is trapped too");
    });
}

#[test]
fn all_areas_come_in_order() {
    fact("all_areas_come_in_order", |linux| {
        let all = areas(linux, PageRange::new(PageNumber(0), linux.page_limit()));
        assert!(all.len() > 10);
        assert!(all.windows(2).all(|pair| pair[0].pages.end() <= pair[1].pages.start()));
    });
}

#[test]
fn a_locked_area_is_reported() {
    fact("a_locked_area_is_reported", |linux| {
        let memory = Memory::new(linux, 2);
        if !memory.lock() {
            return skip("a_locked_area_is_reported", "mlock is not allowed");
        }
        assert!(areas(linux, memory.pages)[0].locked);
    });
}

#[test]
fn what_is_mapped_for_a_stack_is_a_stack() {
    fact("what_is_mapped_for_a_stack_is_a_stack", |linux| {
        let memory = Memory::with(linux, 8, MapFlags::PRIVATE | MapFlags::STACK);
        if !areas(linux, memory.pages)[0].stack {
            skip("what_is_mapped_for_a_stack_is_a_stack", "a kernel before Linux 6.7");
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let local = 0_u8;
                assert!(area_of(linux, (&raw const local).addr()).stack, "a thread's stack");
            });
        });
    });
}

#[test]
fn what_is_not_private_memory_is_told_apart() {
    fact("what_is_not_private_memory_is_told_apart", |linux| {
        let shared = Memory::with(linux, 8, MapFlags::SHARED);
        assert_eq!(areas(linux, shared.pages)[0].backing, Backing::SharedAnonymous);
        let file = rustix::fs::memfd_create(c"fact", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 1 << 16).unwrap();
        for (flags, backing) in
            [(MapFlags::SHARED, Backing::SharedFile), (MapFlags::PRIVATE, Backing::PrivateFile)]
        {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, at an address of the kernel's choice.
            let start = unsafe {
                rustix::mm::mmap(ptr::null_mut(), 1 << 16, protection, flags, &file, 0).unwrap()
            };
            assert_eq!(area_of(linux, start.addr()).backing, backing);
        }
        let code = area_of(linux, area_of as *const () as usize);
        assert_eq!(code.backing, Backing::PrivateFile);
        assert!(code.protection.execute && !code.protection.write);
        if let Ok(auxiliary) = std::fs::read("/proc/self/auxv") {
            let words: Vec<usize> = auxiliary
                .chunks_exact(8)
                .map(|word| usize::from_ne_bytes(word.try_into().unwrap()))
                .collect();
            for pair in words.chunks_exact(2).filter(|pair| pair[0] == 33) {
                assert_eq!(area_of(linux, pair[1]).backing, Backing::Special, "vdso");
            }
        }
    });
}

#[test]
fn what_cannot_be_trapped_says_so() {
    fact("what_cannot_be_trapped_says_so", |linux| {
        let code = area_of(linux, area_of as *const () as usize).pages;
        assert_eq!(linux.trap(code), Err(TrapError::Unsupported(code)));
        let gone = Memory::new(linux, 4);
        gone.unmap();
        assert_eq!(linux.trap(gone.pages), Err(TrapError::NoArea(gone.pages)));
        let partly = Memory::new(linux, 4);
        partly.part(2, 1).unmap();
        assert_eq!(linux.trap(partly.pages), Err(TrapError::NoArea(partly.pages)));
        assert!(!areas(linux, partly.pages)[0].registered);
        assert_eq!(linux.trap(PageRange::default()), Ok(()));
    });
}

#[test]
fn the_end_of_a_trap_passes_over_what_was_mapped_since() {
    fact("the_end_of_a_trap_passes_over_what_was_mapped_since", |linux| {
        let memory = Memory::trapped(linux, 8);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        told(linux, || memory.part(3, 1).map_file_over(&file));
        linux.untrap(memory.pages).unwrap();
        assert!(areas(linux, memory.pages).iter().all(|area| !area.registered));
        memory.unmap();
        let _ = linux.untrap(memory.pages);
    });
}

static WRITABLE: AtomicU64 = AtomicU64::new(1);

/// A thread's handle, which is the address of its control block in glibc and musl.
fn control_block() -> usize {
    // SAFETY: a thread may always ask for its handle.
    usize::try_from(unsafe { libc::pthread_self() }).unwrap()
}

#[test]
fn control_blocks_and_objects_are_excluded() {
    fact("control_blocks_and_objects_are_excluded", |linux| {
        let excluded = |objects: bool| {
            let mut found = Vec::new();
            linux.exclusions(objects, &mut |pages, why| found.push((pages, why))).unwrap();
            found
        };
        let covers = |found: &[(PageRange, Exclusion)], address: usize, why| {
            let page = linux.page_size().page_of(address);
            found.iter().any(|&(pages, reason)| reason == why && pages.contains(page))
        };
        thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<usize>();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                send.send(control_block()).unwrap();
                ended.recv().ok();
            });
            let other = receive.recv().unwrap();
            let mine = control_block();
            let found = excluded(false);
            for block in [mine, other] {
                assert!(covers(&found, block, Exclusion::ThreadControlBlock), "{block:#x}");
            }
            assert!(found.iter().all(|&(_, why)| why == Exclusion::ThreadControlBlock));
            drop(end);
        });
        let data = (&raw const WRITABLE).addr();
        assert!(covers(&excluded(true), data, Exclusion::ObjectData));
        let bytes = AddressRange::new(data, 8).unwrap().pages_touched(linux.page_size());
        let area = areas(linux, bytes)[0];
        assert!(area.object_data || area.backing == Backing::PrivateFile);
    });
}
