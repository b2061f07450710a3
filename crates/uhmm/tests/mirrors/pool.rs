//! Memory of the pool of huge pages is mapped where it is, each huge page as one.

use std::os::fd::{FromRawFd, OwnedFd};

use uhmm::{InvalidationKind, PageEntry, PageError, PageState, Request, units::PageRange};

use crate::{
    huge_pages::{HugePages, huge_page},
    memory::{Mapped, READ_WRITE, map, truncate},
    open, page, skip,
    table::translations,
};

/// Pages of a gigabyte that there are.
const GIGABYTES: &str = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";

/// Adds pages to the pool for a test, or says that it is left out: filling the pool takes a privilege, which an
/// ordinary user has not, in CI neither.
/// Answers how many base pages a huge one has.
fn fill(test: &str, count: usize) -> Option<(HugePages, usize)> {
    let added = huge_page().ok_or_else(|| "the system has no huge pages".to_owned());
    match added.and_then(|bytes| Ok((HugePages::add(count)?, bytes / page()))) {
        Ok(added) => Some(added),
        Err(reason) => {
            // SAFETY: asking who runs this is always sound.
            if unsafe { libc::geteuid() } == 0 {
                skip(test, reason);
            } else {
                eprintln!("skipped: {test}: {reason}");
            }
            None
        }
    }
}

/// A file of the pool, of so many base pages.
fn file(pages: usize) -> OwnedFd {
    let flags = libc::MFD_CLOEXEC | libc::MFD_HUGETLB;
    // SAFETY: the name is a string; the descriptor is new and ours.
    let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"mirrors".as_ptr(), flags)) };
    truncate(&file, pages);
    file
}

/// Two huge pages of each kind of mapping that there is.
fn each(pages: usize) -> [(&'static str, Mapped); 4] {
    let anonymous = libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    [
        ("private", map(pages, READ_WRITE, libc::MAP_PRIVATE | anonymous, None)),
        ("shared", map(pages, READ_WRITE, libc::MAP_SHARED | anonymous, None)),
        ("file, private", map(pages, READ_WRITE, libc::MAP_PRIVATE, Some(file(pages)))),
        ("file, shared", map(pages, READ_WRITE, libc::MAP_SHARED, Some(file(pages)))),
    ]
}

#[test]
fn pages_of_a_pool_are_faulted_whole() {
    const TEST: &str = "pages_of_a_pool_are_faulted_whole";
    // Alone, as the system may move the pages of others to have huge ones.
    let Some(world) = open(TEST) else { return };
    // A page of a private file is another than the file's once it was written.
    let Some((_pool, huge)) = fill(TEST, 2 * 5) else { return };
    let order = u8::try_from(huge.ilog2()).expect("a small number");
    let mirror = &world.mirror;
    for (name, area) in &each(2 * huge) {
        let mut entries = vec![PageEntry::default(); 2 * huge];
        mirror.snapshot(area.range(), &mut entries).expect("a snapshot");
        assert!(entries.iter().all(|entry| entry.state == PageState::None), "{name}: a look fills");
        // A few pages of one make all of it present, and nothing of the other.
        let few = area.part(3, 4);
        let report = mirror.fault(&Request::read(few)).expect("a request");
        assert_eq!((report.entered(), report.failed()), (4, 0), "{name}: {report:?}");
        mirror.snapshot(area.range(), &mut entries).expect("a snapshot");
        for (number, entry) in entries.iter().enumerate() {
            let expected = if number < huge { PageState::InPlace } else { PageState::None };
            assert_eq!(entry.state, expected, "{name}, page {number}");
            assert_eq!(entry.order, if number < huge { order } else { 0 }, "{name}, page {number}");
            assert!(!entry.zero, "{name}: there is no huge page of zeros of a pool");
        }
        let request = Request::write(area.range());
        let report = mirror.fault_into(&request, &mut entries).expect("a request");
        assert_eq!((report.entered(), report.failed()), (2 * huge, 0), "{name}: {report:?}");
        assert!(entries.iter().all(|entry| entry.write && entry.order == order), "{name}");
        let told = translations(&mirror.table().take(), area.numbers());
        assert_eq!(told, vec![Some(true); 2 * huge], "{name}");
        let report = mirror.fault(&Request::read(area.range())).expect("a request");
        assert_eq!(report.held(), 2 * huge, "{name}: {report:?}");
    }
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn changes_of_pages_of_a_pool_are_told() {
    const TEST: &str = "changes_of_pages_of_a_pool_are_told";
    let Some(world) = open(TEST) else { return };
    let Some((_pool, huge)) = fill(TEST, 2 * 5) else { return };
    let mirror = &world.mirror;
    for (name, area) in &each(2 * huge) {
        let report = mirror.fault(&Request::write(area.range())).expect("a request");
        assert_eq!(report.failed(), 0, "{name}: {report:?}");
        mirror.table().take();
        let told = || {
            // Asking has everything applied that was read.
            let _ = mirror.snapshot(area.part(0, 1), &mut [PageEntry::default()]);
            let told = mirror.table().take_invalidations();
            told.into_iter().fold(Vec::<(PageRange, InvalidationKind)>::new(), |mut all, one| {
                // A block is told of by itself.
                match all.last_mut() {
                    Some((pages, kind)) if pages.end() == one.0.start() && *kind == one.1 => {
                        *pages = PageRange::new(pages.start(), one.0.end());
                    }
                    _ => all.push(one),
                }
                all
            })
        };
        let part = |first| PageRange::of(area.numbers().start().plus(first), huge);
        area.advise(huge, huge, libc::MADV_DONTNEED);
        assert_eq!(told(), [(part(huge), InvalidationKind::Clear)], "{name}");
        area.unmap(0, huge);
        assert_eq!(told(), [(part(0), InvalidationKind::Unmap)], "{name}");
        let report = mirror.fault(&Request::read(area.range())).expect("a request");
        let failures: Vec<_> = report.failures().map(|it| (it.pages, it.error)).collect();
        assert_eq!(failures, [(part(0), PageError::NoArea)], "{name}");
    }
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn a_pool_that_is_empty_is_out_of_memory() {
    const TEST: &str = "a_pool_that_is_empty_is_out_of_memory";
    // The pool of gigabytes, which is nobody's as a rule: to empty that of the usual size would take
    // pages from others.
    let pages = match std::fs::read_to_string(GIGABYTES) {
        Ok(told) => told.trim().parse::<usize>().expect("a number"),
        Err(error) => return eprintln!("skipped: {TEST}: {GIGABYTES}: {error}"),
    };
    if pages > 0 {
        return eprintln!("skipped: {TEST}: there are {pages} pages of a gigabyte");
    }
    let Some(world) = open(TEST) else { return };
    let flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | libc::MAP_HUGETLB
        | libc::MAP_HUGE_1GB
        | libc::MAP_NORESERVE;
    let area = map((1 << 30) / page(), READ_WRITE, flags, None);
    for request in [Request::read(area.part(3, 4)), Request::write(area.part(3, 4))] {
        let report = world.mirror.fault(&request).expect("a request");
        let failures: Vec<_> = report.failures().map(|it| (it.pages.len(), it.error)).collect();
        assert_eq!(failures, [(4, PageError::NoMemory)], "{report:?}");
    }
    drop(area);
    drop(world.mirror);
    world.space.close().expect("a close");
}
