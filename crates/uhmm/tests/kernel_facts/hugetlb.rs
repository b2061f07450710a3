//! Pages of a pool of huge ones: what is done with other shared memory is refused of them, and what is left drops
//! what is private. Shared ones have an alias by their file, and are filled and marked whole.

use std::thread;

use rustix::mm::Advice;
use uhmm::{
    mm::{Access, Look, Message, Mm as _, linux::Linux},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    kinds::{Kind, Mapped, PAGES, map},
    support::{all, fact, look, skip, told, unread, value},
};

/// Memory of a pool of either kind, filled; none, with a word about it, where there is no pool.
fn filled<'a>(name: &str, linux: &'a Linux, kind: Kind) -> Option<Mapped<'a>> {
    let mapped = map(linux, kind, PAGES);
    match &mapped {
        Some(mapped) => mapped.memory.fill(),
        None => skip(name, "the right to fill the pool of huge pages (vm.nr_hugepages)"),
    }
    mapped
}

/// What a `mremap` of the memory with that old length and those flags is refused with, the address of the new
/// mapping being the system's choice.
fn remap_error(mapped: &Mapped<'_>, linux: &Linux, old: usize, flags: i32) -> Option<i32> {
    let start = linux.page_size().address_of(mapped.memory.page(0));
    let start = std::ptr::with_exposed_provenance_mut(start);
    let len = linux.page_size().bytes_in(PAGES);
    // SAFETY: the test's own memory, to which nobody holds a reference.
    let moved = unsafe { libc::mremap(start, old, len, flags | libc::MREMAP_MAYMOVE) };
    (moved == libc::MAP_FAILED).then(|| std::io::Error::last_os_error().raw_os_error().unwrap())
}

#[test]
fn a_pool_s_memory_has_no_alias_and_leaves_no_holes() {
    const NAME: &str = "a_pool_s_memory_has_no_alias_and_leaves_no_holes";
    fact(NAME, |linux| {
        for kind in [Kind::SharedHugetlb, Kind::PrivateHugetlb] {
            let Some(mapped) = filled(NAME, linux, kind) else { return };
            let all = linux.page_size().bytes_in(PAGES);
            let twice = remap_error(&mapped, linux, 0, 0);
            assert!(matches!(twice, Some(libc::EINVAL | libc::EFAULT)), "{kind:?}: {twice:?}");
            let holes = remap_error(&mapped, linux, all, libc::MREMAP_DONTUNMAP);
            assert_eq!(holes, Some(libc::EINVAL), "{kind:?}");
            assert_eq!(mapped.memory.read(3), value(3));
        }
    });
}

#[test]
fn a_pool_s_memory_is_not_paged_out() {
    const NAME: &str = "a_pool_s_memory_is_not_paged_out";
    fact(NAME, |linux| {
        for kind in [Kind::SharedHugetlb, Kind::PrivateHugetlb] {
            let Some(mapped) = filled(NAME, linux, kind) else { return };
            let start = linux.page_size().address_of(mapped.memory.page(0));
            let start = std::ptr::with_exposed_provenance_mut(start);
            let len = linux.page_size().bytes_in(PAGES);
            // SAFETY: no content changes.
            let advised = unsafe { libc::madvise(start, len, libc::MADV_PAGEOUT) };
            assert_eq!(advised, -1);
            let error = std::io::Error::last_os_error().raw_os_error();
            assert_eq!(error, Some(libc::EINVAL), "{kind:?}");
            assert_ne!(look(linux, mapped.memory.part(0, 1).pages), [Look::Hole]);
        }
    });
}

#[test]
fn a_pool_s_memory_is_unmapped_by_discarding_alone() {
    const NAME: &str = "a_pool_s_memory_is_unmapped_by_discarding_alone";
    fact(NAME, |linux| {
        for kind in [Kind::SharedHugetlb, Kind::PrivateHugetlb] {
            let Some(mapped) = filled(NAME, linux, kind) else { return };
            mapped.memory.advise(Advice::LinuxDontNeed);
            assert_eq!(look(linux, mapped.memory.part(0, 1).pages), [Look::Hole]);
            let kept = if kind == Kind::SharedHugetlb { value(3) } else { 0 };
            assert_eq!(mapped.memory.read(3), kept, "{kind:?}");
        }
    });
}

/// Shared memory of a pool, trapped, of which there is an alias.
fn with_alias(name: &'static str, body: impl FnOnce(&Linux, &Mapped<'_>, PageNumber)) {
    fact(name, |linux| {
        let Some(mapped) = filled(name, linux, Kind::SharedHugetlb) else { return };
        let window = linux.reserve_aliases().unwrap();
        let at = window.start().plus(BLOCK_PAGES - 1).block().first_page();
        // SAFETY: the addresses were reserved just now.
        if let Err(errno) = unsafe { linux.alias(mapped.memory.pages, at) } {
            // SAFETY: asking who runs this is always sound.
            assert_ne!(unsafe { libc::geteuid() }, 0, "{errno}");
        } else {
            linux.trap(mapped.memory.pages).unwrap();
            body(linux, &mapped, at);
        }
        // SAFETY: the test is over, and holds no references.
        unsafe { linux.release_aliases(window) };
    });
}

/// The first byte of a page of an alias.
fn aliased(linux: &Linux, page: PageNumber) -> u8 {
    // SAFETY: the alias is mapped, and its file has the page.
    unsafe { linux.staging_pointer(page).as_ptr().read_volatile() }
}

/// Ends the view of all of the memory.
fn vacate(linux: &Linux, mapped: &Mapped<'_>) {
    let messages = told(linux, || {
        // SAFETY: the test's own memory, of a file.
        unsafe { linux.vacate_undisturbed(mapped.memory.pages) }.unwrap();
    });
    assert_eq!(messages, [Message::Discarded(mapped.memory.pages)]);
    assert_eq!(look(linux, mapped.memory.pages), vec![Look::Hole; PAGES]);
}

#[test]
fn a_pool_s_shared_memory_has_an_alias_by_its_file() {
    with_alias("a_pool_s_shared_memory_has_an_alias_by_its_file", |linux, mapped, at| {
        let pages = mapped.memory.pages;
        assert_eq!(linux.is_alias(pages, at), Ok(true));
        assert_eq!(linux.is_alias(PageRange::of(pages.start().plus(1), 3), at), Ok(false));
        assert_eq!(aliased(linux, at.plus(3)), value(3));
        assert_eq!(unread(linux), [], "it is mapped by its file, not out of the view");
        assert_eq!(told(linux, || mapped.memory.unmap()), [Message::Unmapped(pages)]);
        assert_eq!(linux.is_alias(pages, at), Ok(false));
        assert_eq!(aliased(linux, at.plus(3)), value(3));
    });
}

#[test]
fn a_pool_s_page_is_taken_out_of_view_and_mapped_whole() {
    with_alias("a_pool_s_page_is_taken_out_of_view_and_mapped_whole", |linux, mapped, at| {
        for access in [Access::Read, Access::Write] {
            vacate(linux, mapped);
            assert_eq!(aliased(linux, at.plus(3)), value(3));
            thread::scope(|scope| {
                // SAFETY: the test's own memory.
                let reader = scope.spawn(|| unsafe { mapped.memory.at(3).read_volatile() });
                let fault = loop {
                    linux.wait(None);
                    if let [message] = unread(linux)[..] {
                        break message;
                    }
                };
                let Message::Fault { page, .. } = fault else { panic!("{fault:?}") };
                assert_eq!(page.block(), mapped.memory.page(3).block());
                // A part is asked for, and all of it mapped.
                assert_eq!(linux.zero(mapped.memory.page(3), 4, access), all(4));
                assert_eq!(reader.join().unwrap(), value(3));
            });
            let one = PageRange::of(mapped.memory.page(0).block().first_page(), BLOCK_PAGES);
            assert!(look(linux, one).iter().all(|look| *look != Look::Hole), "{access:?}");
            assert_eq!(mapped.memory.read(5), value(5));
        }
    });
}

#[test]
fn a_pool_s_page_that_its_file_has_not_is_filled_and_marked_whole() {
    const NAME: &str = "a_pool_s_page_that_its_file_has_not_is_filled_and_marked_whole";
    with_alias(NAME, |linux, mapped, at| {
        let removed = || {
            let messages = told(linux, || mapped.memory.advise(Advice::LinuxRemove));
            assert_eq!(messages, [Message::Discarded(mapped.memory.pages)]);
            assert_eq!(look(linux, mapped.memory.pages), vec![Look::Hole; PAGES]);
        };
        removed();
        assert_eq!(linux.zero(mapped.memory.page(3), 1, Access::Write), all(1));
        assert_eq!((mapped.memory.read(0), mapped.memory.read(BLOCK_PAGES - 1)), (0, 0));
        assert_eq!(aliased(linux, at), 0);
        removed();
        assert_eq!(linux.poison(mapped.memory.page(3), 1), all(1));
        // What is in a pool and marked is not told from what would be in swap.
        assert_eq!(look(linux, mapped.memory.part(0, 1).pages), [Look::Swapped]);
    });
}
