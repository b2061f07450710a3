//! Pages made present, and why some cannot be.

use rustix::{
    fd::AsFd as _,
    fs::MemfdFlags,
    mm::{MapFlags, MprotectFlags, ProtFlags},
};
use uhmm::{
    mm::{Access, Look, Message, Mm, PopulateFailure, Populated, linux::Linux},
    units::PageRange,
};

use crate::kinds::{self, Kind, PAGES};
use crate::memory::Memory;
use crate::small_tmpfs;
use crate::support::{Child, all, fact, look, skip, stopped, told, unread};

const BOTH: [Access; 2] = [Access::Read, Access::Write];

const fn whole(pages: usize) -> Populated {
    Populated { pages, failure: None }
}

const fn failed(pages: usize, failure: PopulateFailure) -> Populated {
    Populated { pages, failure: Some(failure) }
}

#[test]
fn pages_of_every_kind_are_populated() {
    fact("pages_of_every_kind_are_populated", |linux| {
        for kind in Kind::ALL {
            for access in BOTH {
                let Some(mapped) = kinds::map(linux, kind, PAGES) else { continue };
                let part = PageRange::of(mapped.memory.page(3), 10);
                assert_eq!(linux.populate(part, access), whole(10), "{kind:?}");
                let there = look(linux, part);
                assert!(!there.contains(&Look::Hole), "{kind:?} {access:?}: {there:?}");
                assert_eq!(mapped.memory.peek(3), 0);
            }
        }
        assert_eq!(linux.populate(PageRange::default(), Access::Write), whole(0));
    });
}

#[test]
fn a_populated_page_keeps_its_content_and_leaves_a_child_its_own() {
    fact("a_populated_page_keeps_its_content_and_leaves_a_child_its_own", |linux| {
        let memory = Memory::new(linux, 4);
        memory.fill();
        let _child = Child::fork();
        assert_eq!(linux.populate(memory.pages, Access::Read), whole(4));
        assert_eq!(exclusive(linux, memory), [false; 4]);
        assert_eq!(linux.populate(memory.part(0, 2).pages, Access::Write), whole(2));
        assert_eq!(exclusive(linux, memory), [true, true, false, false]);
        assert_eq!(memory.read(0), crate::support::value(0));
    });
}

fn exclusive(linux: &Linux, memory: Memory) -> Vec<bool> {
    let mut all = Vec::new();
    linux
        .may_write(memory.page(0), memory.pages.len(), &mut |place, may| {
            assert_eq!(place, all.len());
            all.push(may);
        })
        .unwrap();
    all
}

#[test]
fn gaps_end_it() {
    fact("gaps_end_it", |linux| {
        for gap in [0, 1, 7, 255, 299] {
            let memory = Memory::new(linux, 300);
            memory.part(gap, 1).unmap();
            for access in BOTH {
                let expected = failed(gap, PopulateFailure::NoArea);
                assert_eq!(linux.populate(memory.pages, access), expected);
            }
            assert!(!look(linux, PageRange::of(memory.page(0), gap)).contains(&Look::Hole));
        }
    });
}

#[test]
fn protection_ends_it() {
    fact("protection_ends_it", |linux| {
        let memory = Memory::new(linux, 8);
        memory.part(3, 5).protect(MprotectFlags::READ);
        memory.part(6, 2).protect(MprotectFlags::empty());
        let populate = |access| linux.populate(memory.pages, access);
        assert_eq!(populate(Access::Write), failed(3, PopulateFailure::Protection));
        assert_eq!(populate(Access::Read), failed(6, PopulateFailure::Protection));
        // The processor would let a load pass.
        memory.protect(MprotectFlags::WRITE);
        assert_eq!(populate(Access::Read), failed(0, PopulateFailure::Protection));
        assert_eq!(populate(Access::Write), whole(8));
        let shared = Memory::new(linux, 4);
        shared.map_file(MapFlags::SHARED, ProtFlags::READ, kinds::file(linux, 4)).unwrap();
        assert_eq!(linux.populate(shared.pages, Access::Read), whole(4));
        let refused = failed(0, PopulateFailure::Protection);
        assert_eq!(linux.populate(shared.pages, Access::Write), refused);
    });
}

#[test]
fn a_guard_is_protection() {
    fact("a_guard_is_protection", |linux| {
        let memory = Memory::new(linux, 8);
        if !memory.part(5, 1).guard() {
            return skip("a_guard_is_protection", "a kernel before Linux 6.13");
        }
        for access in BOTH {
            let populated = linux.populate(memory.pages, access);
            if populated.failure == Some(PopulateFailure::Other(uhmm::mm::Errno(libc::EFAULT))) {
                return skip("a_guard_is_protection", "a kernel before Linux 6.15");
            }
            assert_eq!(populated, failed(5, PopulateFailure::Protection));
        }
    });
}

#[test]
fn the_end_of_a_file_ends_it() {
    fact("the_end_of_a_file_ends_it", |linux| {
        let page = linux.page_size().bytes() as u64;
        for kind in [
            Kind::SharedMemfd,
            Kind::PrivateMemfd,
            Kind::Tmpfs,
            Kind::SharedFile,
            Kind::PrivateFile,
        ] {
            let Some(mapped) = kinds::map(linux, kind, 16) else { continue };
            let (memory, file) = (mapped.memory, mapped.file.as_ref().unwrap());
            // A part of a page is a page.
            for (bytes, pages) in [(12 * page, 12), (5 * page - 7, 5), (0, 0)] {
                for access in BOTH {
                    assert_eq!(
                        linux.populate(PageRange::of(memory.page(0), pages), access),
                        whole(pages)
                    );
                    rustix::fs::ftruncate(file, bytes).unwrap();
                    let expected = failed(pages, PopulateFailure::BeyondEnd);
                    assert_eq!(linux.populate(memory.pages, access), expected, "{kind:?}");
                }
            }
        }
        // Shared memory without a name ends where it was mapped to.
        let shared = Memory::with(linux, 8, MapFlags::SHARED);
        shared.part(8, 8).unmap();
        shared.resize(12);
        let longer = PageRange::of(shared.page(0), 12);
        let expected = failed(8, PopulateFailure::BeyondEnd);
        assert_eq!(linux.populate(longer, Access::Write), expected);
    });
}

#[test]
fn poison_ends_it() {
    fact("poison_ends_it", |linux| {
        let memory = Memory::new(linux, 8);
        linux.watch(memory.pages).unwrap();
        if linux.poison(memory.page(3), 1) != all(1) {
            return skip("poison_ends_it", "no UFFDIO_POISON");
        }
        for access in BOTH {
            assert_eq!(linux.populate(memory.pages, access), failed(3, PopulateFailure::Poisoned));
        }
    });
}

#[test]
fn special_memory_ends_it() {
    fact("special_memory_ends_it", |linux| {
        let Some(code) = crate::watching::special_area(linux) else {
            return skip("special_memory_ends_it", "no vdso");
        };
        // It is code, and code of the kernel's own to be read.
        let special = failed(0, PopulateFailure::Special);
        assert_eq!(linux.populate(code, Access::Write), special);
        // What the clock's code reads, before it: device memory to the kernel.
        let data = PageRange::of(uhmm::units::PageNumber(code.start().0 - 1), 1);
        if linux.mapping_at(data.start()).unwrap().is_some() {
            for access in BOTH {
                assert_eq!(linux.populate(data, access), special);
            }
        }
    });
}

#[test]
fn an_empty_pool_of_huge_pages_is_no_memory() {
    fact("an_empty_pool_of_huge_pages_is_no_memory", |linux| {
        // Mapped without reserving any, and more than is likely to be in the pool.
        let pages = 1 << 19;
        let Ok(file) = rustix::fs::memfd_create(c"fact", MemfdFlags::HUGETLB) else {
            return skip("an_empty_pool_of_huge_pages_is_no_memory", "no hugetlb");
        };
        let bytes = linux.page_size().bytes_in(pages) as u64;
        rustix::fs::ftruncate(&file, bytes).unwrap();
        let memory = Memory::new(linux, pages);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        memory.map_file(flags, ProtFlags::READ | ProtFlags::WRITE, file.as_fd()).unwrap();
        let populated = linux.populate(memory.pages, Access::Write);
        assert!(matches!(populated.failure, None | Some(PopulateFailure::NoMemory)));
        assert_eq!(populated.pages % 512, 0);
        memory.unmap();
    });
}

#[test]
fn a_full_file_system_is_no_memory() {
    fact("a_full_file_system_is_no_memory", |linux| {
        let Some(file) = small_tmpfs::file_with_room_for(8) else {
            return skip("a_full_file_system_is_no_memory", small_tmpfs::NEEDED);
        };
        let bytes = linux.page_size().bytes_in(16) as u64;
        rustix::fs::ftruncate(&file, bytes).unwrap();
        let memory = Memory::new(linux, 16);
        memory.map_file(MapFlags::SHARED, ProtFlags::READ | ProtFlags::WRITE, &file).unwrap();
        let populated = linux.populate(memory.pages, Access::Write);
        assert_eq!(populated.failure, Some(PopulateFailure::NoMemory), "{populated:?}");
        assert!(populated.pages < 16);
        rustix::fs::ftruncate(&file, 0).unwrap();
        let beyond = failed(0, PopulateFailure::BeyondEnd);
        assert_eq!(linux.populate(memory.pages, Access::Write), beyond);
    });
}

#[test]
fn populating_a_trapped_hole_waits_for_who_serves_it() {
    fact("populating_a_trapped_hole_waits_for_who_serves_it", |linux| {
        let memory = Memory::new(linux, 4);
        linux.trap(memory.pages).unwrap();
        if !linux.serves_system_calls() {
            let efault = PopulateFailure::Other(uhmm::mm::Errno(libc::EFAULT));
            assert_eq!(linux.populate(memory.pages, Access::Read), failed(0, efault));
            return;
        }
        std::thread::scope(|scope| {
            let populates = scope.spawn(|| linux.populate(memory.pages, Access::Write));
            while !matches!(unread(linux)[..], [Message::Fault { .. }]) {
                linux.wait(None);
            }
            assert_eq!(linux.zero(memory.page(0), 4, Access::Write), all(4));
            assert_eq!(populates.join().unwrap(), whole(4));
        });
    });
}

#[test]
fn watched_holes_are_populated_and_filled() {
    fact("watched_holes_are_populated_and_filled", |linux| {
        let memory = Memory::new(linux, 8);
        linux.watch(memory.pages).unwrap();
        assert_eq!(linux.populate(memory.part(0, 2).pages, Access::Write), whole(2));
        // What fills trapped holes fills watched ones.
        assert_eq!(
            linux.zero(memory.page(0), 1, Access::Write),
            stopped(0, uhmm::mm::Stop::Present)
        );
        assert_eq!(linux.zero(memory.page(2), 2, Access::Write), all(2));
        let staging = linux.map_staging(2).unwrap();
        assert_eq!(linux.take(memory.page(0), staging.start(), 2), all(2));
        assert_eq!(linux.give(staging.start(), memory.page(0), 2), all(2));
        let messages = told(linux, || memory.unmap());
        assert_eq!(messages, [Message::Unmapped(memory.pages)]);
    });
}
