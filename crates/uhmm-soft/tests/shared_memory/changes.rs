//! The program changes areas of which pages are away.

use uhmm::{MapError, PageError, PageLocation, StayCause, units::AddressRange};
use uhmm_soft::{AccessError, RunError};

use crate::place::{PAGES, READ_WRITE, add, at, causes, load, map, moved, seen, store, test};

#[test]
fn a_discarded_view_keeps_the_content_and_a_removed_page_does_not() {
    test(|place| {
        let device = place.device(PAGES);
        for away in [true, false] {
            place.fill();
            if away {
                moved(&device.migrate(place.all()).unwrap(), PAGES);
            }
            place.advise(10, 900, libc::MADV_DONTNEED);
            let expected: Vec<_> = (1..=PAGES as u64).collect();
            assert_eq!(seen(&device, place.start, PAGES, place.page), expected);
            place.advise(20, 600, libc::MADV_REMOVE);
            let kept = |page| if (20..620).contains(&page) { 0 } else { page as u64 + 1 };
            let expected: Vec<_> = (0..PAGES).map(kept).collect();
            assert_eq!(seen(&device, place.start, PAGES, place.page), expected);
            assert!((0..PAGES).all(|page| load(place.address(page)) == kept(page)));
        }
    });
}

#[test]
fn unmapping_ends_what_is_away_and_keeps_the_rest() {
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        // SAFETY: the test's own memory.
        unsafe { libc::munmap(at(place.address(100)).cast(), 800 * place.page) };
        assert_eq!(causes(&device.migrate(place.range(100, 800)).unwrap()), [StayCause::NoArea]);
        assert_eq!(place.count_away(), PAGES - 800);
        place.check(0..100);
        place.check(900..PAGES);
        // Other memory there is other memory, for the device too.
        for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
            let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let start = at(place.address(100)).cast();
            // SAFETY: the test's own memory, or nobody's.
            let mapped = unsafe { libc::mmap(start, 800 * place.page, READ_WRITE, flags, -1, 0) };
            assert_eq!(mapped, start);
            assert_eq!(seen(&device, place.address(100), 800, place.page), vec![0; 800]);
            store(place.address(500), 77);
            moved(&device.migrate(place.range(100, 800)).unwrap(), 800);
            add(&device, place.address(500), 1, place.page, 1);
            assert_eq!(load(place.address(500)), 78);
            moved(&device.migrate(place.all()).unwrap(), PAGES);
        }
        place.check(0..100);
        place.check(900..PAGES);
    });
}

#[test]
fn content_follows_a_move() {
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 50);
        let size = 300 * place.page;
        // SAFETY: the test's own memory; the target is wherever the system likes.
        let to = unsafe {
            libc::mremap(at(place.address(200)).cast(), size, size, libc::MREMAP_MAYMOVE)
        };
        assert_eq!(to.addr(), place.address(200), "there is no need to move");
        let target = map(size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the test's own memory, both.
        let to =
            unsafe { libc::mremap(at(place.address(200)).cast(), size, size, flags, at(target)) };
        assert_eq!(to.addr(), target);
        assert!(matches!(place.space.locate(target), PageLocation::Device(_)));
        let expected: Vec<_> = (251..551).collect();
        assert_eq!(seen(&device, target, 300, place.page), expected);
        assert!((0..300).all(|page| load(target + page * place.page) == page as u64 + 251));
        // It goes again from there, and what was left in its place can be used.
        moved(&device.migrate(AddressRange::new(target, size).unwrap()).unwrap(), 300);
        add(&device, target, 300, place.page, 1);
        assert_eq!(load(target), 252);
        let start = at(place.address(200)).cast();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: nobody's memory any more.
        assert_eq!(unsafe { libc::mmap(start, size, READ_WRITE, flags, -1, 0) }, start);
        // SAFETY: the test's own memory.
        unsafe { libc::munmap(at(target).cast(), size) };
        assert_eq!(load(place.address(300)), 0);
        assert_eq!(load(place.address(199)), 250);
    });
}

#[test]
fn a_second_view_shows_the_same_whatever_is_away() {
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        let size = PAGES * place.page;
        // SAFETY: the test's own memory, mapped once more.
        let second = unsafe { libc::mremap(at(place.start).cast(), 0, size, libc::MREMAP_MAYMOVE) }
            .expose_provenance();
        add(&device, place.start, PAGES, place.page, 9);
        assert_eq!(load(second + 5 * place.page), 15);
        store(second + 6 * place.page, 600);
        assert_eq!(seen(&device, place.address(6), 1, place.page), [600]);
        // Both go, but for what is mapped by the other.
        let range = AddressRange::new(second, size).unwrap();
        place.space.adopt(range).unwrap();
        let report = device.migrate(range).unwrap();
        assert!(report.moved() >= PAGES - 32, "{report:?}");
        assert!(causes(&report).iter().all(|cause| *cause == StayCause::Busy), "{report:?}");
        add(&device, second, PAGES, place.page, 1);
        assert_eq!(load(place.address(6)), 601);
        assert_eq!(load(place.address(7)), 18);
        // The one lives without the other.
        // SAFETY: the test's own memory.
        unsafe { libc::munmap(at(second).cast(), size) };
        assert_eq!(seen(&device, place.address(900), 1, place.page), [911]);
        assert_eq!(load(place.address(900)), 911);
    });
}

#[test]
fn protection_is_kept() {
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        let protect = |protection| {
            let start = at(place.address(0)).cast();
            // SAFETY: the test's own memory.
            assert_eq!(unsafe { libc::mprotect(start, PAGES * place.page, protection) }, 0);
            place.space.protection_changed(place.all()).unwrap();
        };
        protect(libc::PROT_READ);
        let address = place.address(3);
        // SAFETY: nobody else uses the number.
        let refused = unsafe { device.run(0..1, move |worker, _| worker.store(address, 1_u64)) };
        let error = AccessError::Map(MapError { address, error: PageError::Protection });
        assert_eq!(refused, Err(RunError::Item { item: 0, error }));
        assert_eq!(seen(&device, place.address(3), 1, place.page), [4]);
        place.check(0..PAGES);
        let stayed = device.migrate(place.range(0, 10)).unwrap();
        assert_eq!(causes(&stayed), [StayCause::Protection]);
        protect(READ_WRITE);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        place.check(0..PAGES);
    });
}

#[test]
fn memory_comes_and_goes() {
    test(|place| {
        let device = place.device(PAGES);
        for round in 0..200 {
            let flags = libc::MAP_ANONYMOUS
                | if round % 3 == 0 { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
            let start = map(40 * place.page, flags);
            let range = AddressRange::new(start, 40 * place.page).unwrap();
            place.space.adopt(range).unwrap();
            store(start + 8 * place.page, round);
            moved(&device.migrate(range).unwrap(), 40);
            add(&device, start, 40, place.page, 1);
            assert_eq!(load(start + 8 * place.page), round + 1);
            // SAFETY: the test's own memory.
            unsafe { libc::munmap(at(start).cast(), 40 * place.page) };
        }
    });
}
