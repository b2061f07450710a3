//! Each error that a page can have.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use uhmm::{PageError, RangeFaultError, Request, units::AddressRange};

use crate::{
    memory::{Mapped, READ_WRITE, anonymous, map, memory_file, truncate},
    open, open_with, page,
    table::{Listener, Recorder},
};

/// What of the area fails, as pages from its first on, and why.
fn failures(
    mirror: &uhmm::Mirror<Recorder>,
    request: &Request<'_>,
) -> Vec<(usize, usize, PageError)> {
    let first = request.range().start() / page();
    let report = mirror.fault(request).expect("a request");
    let failures = report
        .failures()
        .map(|failure| (failure.pages.start().0 - first, failure.pages.len(), failure.error));
    let failures: Vec<_> = failures.collect();
    assert_eq!(report.failed(), failures.iter().map(|(_, pages, _)| pages).sum::<usize>());
    failures
}

#[test]
fn holes_and_protection() {
    let Some(world) = open("holes_and_protection") else { return };
    let area = anonymous(8);
    area.touch(0, 8, 1);
    area.unmap(2, 2);
    area.protect(5, 1, libc::PROT_READ);
    area.protect(6, 1, libc::PROT_NONE);
    let mirror = &world.mirror;
    assert_eq!(
        failures(mirror, &Request::read(area.range())),
        [(2, 2, PageError::NoArea), (6, 1, PageError::Protection)]
    );
    assert_eq!(
        failures(mirror, &Request::write(area.range())),
        [(2, 2, PageError::NoArea), (5, 2, PageError::Protection)]
    );
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn the_end_of_a_file() {
    let Some(world) = open("the_end_of_a_file") else { return };
    let file = memory_file(4);
    let area = map(6, READ_WRITE, libc::MAP_SHARED, Some(file.try_clone().expect("a file")));
    let mirror = &world.mirror;
    let beyond = |first, pages| vec![(first, pages, PageError::BeyondEnd)];
    assert_eq!(failures(mirror, &Request::read(area.range())), beyond(4, 2));
    truncate(&file, 2);
    // The system does not tell of it; who asks anew finds out.
    let entries = &mut [uhmm::PageEntry::default(); 6];
    let report = mirror.fault_into(&Request::write(area.range()), entries).expect("a request");
    assert_eq!((report.entered(), report.failed()), (2, 4), "{report:?}");
    assert_eq!(failures(mirror, &Request::write(area.range())), beyond(2, 4));
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn a_file_that_is_open_for_reading_only() {
    let Some(world) = open("a_file_that_is_open_for_reading_only") else { return };
    let file = memory_file(2);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let reader: OwnedFd = std::fs::File::open(path).expect("a file").into();
    let shared =
        map(2, libc::PROT_READ, libc::MAP_SHARED, Some(reader.try_clone().expect("a file")));
    let private = map(2, libc::PROT_READ, libc::MAP_PRIVATE, Some(reader));
    let mirror = &world.mirror;
    // Nobody could tell of its changes.
    assert_eq!(failures(mirror, &Request::read(shared.range())), [(0, 2, PageError::CannotWatch)]);
    assert_eq!(failures(mirror, &Request::read(private.range())), []);
    assert_eq!(failures(mirror, &Request::write(private.range())), [(0, 2, PageError::Protection)]);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn memory_of_the_kernel_and_of_the_engine() {
    let Some(world) = open("memory_of_the_kernel_and_of_the_engine") else { return };
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the areas");
    let vdso = maps.lines().find(|line| line.ends_with("[vdso]")).expect("a vdso");
    let start = usize::from_str_radix(vdso.split('-').next().unwrap_or(""), 16).expect("a number");
    let vdso = AddressRange::new(start, page()).expect("a page");
    assert_eq!(failures(&world.mirror, &Request::read(vdso)), [(0, 1, PageError::Special)]);
    let engine = world.space.engine_memory().range().start() / page() * page();
    let engine = AddressRange::new(engine, page()).expect("a page");
    assert_eq!(failures(&world.mirror, &Request::read(engine)), [(0, 1, PageError::Engine)]);
    drop(world.mirror);
    world.space.close().expect("a close");
}

/// A userfaultfd of somebody else in this process, with an area registered.
fn foreign(area: &Mapped) -> Option<OwnedFd> {
    #[repr(C)]
    struct Api(u64, u64, u64);
    #[repr(C)]
    struct Register(u64, u64, u64, u64);
    // SAFETY: a new descriptor that is ours.
    let file = unsafe {
        let number = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1);
        let number = i32::try_from(number).ok().filter(|&number| number >= 0)?;
        OwnedFd::from_raw_fd(number)
    };
    let range = area.range();
    let mut api = Api(0xaa, 0, 0);
    let mut register = Register(range.start() as u64, range.len() as u64, 1, 0);
    // SAFETY: the structures of the two calls, UFFDIO_API and UFFDIO_REGISTER.
    let done = unsafe {
        libc::ioctl(file.as_raw_fd(), 0xc018_aa3f, &raw mut api) == 0
            && libc::ioctl(file.as_raw_fd(), 0xc020_aa00, &raw mut register) == 0
    };
    done.then_some(file)
}

#[test]
fn somebody_elses_userfaultfd() {
    let Some(world) = open("somebody_elses_userfaultfd") else { return };
    let area = anonymous(4);
    area.touch(0, 4, 1);
    let other = foreign(&area).expect("a second userfaultfd");
    assert_eq!(
        failures(&world.mirror, &Request::read(area.range())),
        [(0, 4, PageError::ForeignUserfaultfd)]
    );
    drop(other);
    assert_eq!(failures(&world.mirror, &Request::read(area.range())), []);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn content_that_is_lost() {
    let Some(world) = open("content_that_is_lost") else { return };
    let area = anonymous(4);
    area.touch(0, 4, 1);
    world.space.adopt(area.range()).expect("memory that can be adopted");
    let device = world.space.attach(Listener::default(), 4).expect("a device");
    assert_eq!(device.migrate(area.part(1, 2)).expect("whole pages").moved(), 2);
    assert_eq!(device.lose(), 2);
    for request in [Request::read(area.range()), Request::write(area.range())] {
        assert_eq!(failures(&world.mirror, &request), [(1, 2, PageError::Poisoned)]);
    }
    drop(device);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn a_device_that_refuses() {
    let table = Recorder { refuses: Some(-5), ..Default::default() };
    let Some(world) = open_with("a_device_that_refuses", table) else { return };
    let area = anonymous(4);
    assert_eq!(
        failures(&world.mirror, &Request::write(area.range())),
        [(0, 4, PageError::DeviceRefuses(-5))]
    );
    assert_eq!(world.mirror.table().take(), []);
    drop(world.mirror);
    world.space.close().expect("a close");
}

#[test]
fn requests_that_make_no_sense() {
    let Some(world) = open("requests_that_make_no_sense") else { return };
    let area = anonymous(4);
    let inner = world.space.mirror(area.part(1, 2), Recorder::default()).expect("a mirror");
    let outside = inner.fault(&Request::read(area.range()));
    assert!(matches!(outside, Err(RangeFaultError::Outside { .. })), "{outside:?}");
    let unaligned = AddressRange::new(area.range().start() + 1, page()).expect("some bytes");
    let unaligned = inner.fault(&Request::read(unaligned));
    assert!(matches!(unaligned, Err(RangeFaultError::Range(_))), "{unaligned:?}");
    let short = inner.snapshot(area.part(1, 2), &mut []);
    assert_eq!(short, Err(RangeFaultError::Entries { entries: 0, pages: 2 }));
    assert_eq!(inner.table().take(), []);
    drop(inner);
    drop(world.mirror);
    world.space.close().expect("a close");
}
