//! Why pages of a pool of huge ones do not migrate: what is done with shared memory is refused of them, and what
//! is left drops what is private.

use rustix::mm::Advice;
use uhmm::mm::{Look, Mm as _, linux::Linux};

use crate::{
    kinds::{Kind, Mapped, PAGES, map},
    support::{fact, look, skip, value},
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
