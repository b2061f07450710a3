//! The program discards, unmaps and moves what is on the device.

use std::sync::atomic::Ordering::Relaxed;

use uhmm::PageLocation;

use crate::place::{PAGES, at, map, number, test};

#[test]
fn what_is_discarded_is_zeros_and_its_frames_are_free() {
    test(|place| {
        let device = place.device(PAGES);
        place.send(&device, 0, PAGES);
        // SAFETY: the memory is the test's, and holds numbers, of which any may become zero.
        let done =
            unsafe { libc::madvise(at(place.address(500)), 100 * place.page, libc::MADV_DONTNEED) };
        assert_eq!(done, 0);
        for page in 500..600 {
            assert_eq!(place.number(page).load(Relaxed), 0, "page {page}");
        }
        assert_eq!(place.used(&device), PAGES - 100);
        assert_eq!(place.space.counters().ended_by_discard, 100);
        place.check(0..500, 0);
        place.check(600..PAGES, 0);
        // They can go there again.
        place.send(&device, 500, 100);
        place.add(&device, 500, 100, 3);
        assert_eq!(place.number(550).load(Relaxed), 3);
        assert_eq!(place.used(&device), PAGES);
    });
}

#[test]
fn what_is_unmapped_is_gone_and_its_frames_are_free() {
    test(|place| {
        let start = map(300 * place.page);
        let range = uhmm::units::AddressRange::new(start, 300 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        let device = place.device(400);
        for page in 0..300 {
            number(start + page * place.page).store(7, Relaxed);
        }
        assert_eq!(device.migrate(range).unwrap().moved(), 300);
        // SAFETY: the memory is this test's.
        assert_eq!(unsafe { libc::munmap(at(start + 100 * place.page), 200 * place.page) }, 0);
        device.migrate(place.range(0, 1)).unwrap();
        assert_eq!(place.used(&device), 101);
        assert_eq!(number(start + 99 * place.page).load(Relaxed), 7);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::munmap(at(start), 100 * place.page) }, 0);
        place.send(&device, 0, 400);
        assert_eq!(place.used(&device), 400);
        place.check(0..400, 0);
    });
}

#[test]
fn what_is_moved_takes_its_frame_along() {
    test(|place| {
        let from = map(600 * place.page);
        let to = map(600 * place.page);
        let range = uhmm::units::AddressRange::new(from, 600 * place.page).unwrap();
        place.space.adopt(range).unwrap();
        for page in 0..600 {
            number(from + page * place.page).store(page as u64, Relaxed);
        }
        let device = place.device(600);
        assert_eq!(device.migrate(range).unwrap().moved(), 600);
        let len = 600 * place.page;
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both mappings are this test's.
        let moved = unsafe { libc::mremap(at(from), len, len, how, at(to)) };
        assert_eq!(moved.expose_provenance(), to);
        let faults = place.faults();
        for page in 0..600 {
            let number = number(to + page * place.page);
            assert_eq!(number.fetch_add(1, Relaxed), page as u64, "page {page}");
        }
        assert_eq!(place.faults(), faults, "they are mapped at the new address");
        assert_eq!(place.space.locate(to), PageLocation::Device(device.index()));
        assert_eq!((place.used(&device), place.space.counters().remapped), (600, 600));
        drop(device);
        for page in 0..600 {
            assert_eq!(number(to + page * place.page).load(Relaxed), page as u64 + 1);
        }
        // SAFETY: the memory is this test's.
        unsafe { libc::munmap(at(to), len) };
    });
}
