//! Pages go, are used, and come back.

use std::thread;

use uhmm::units::AddressRange;

use crate::place::{PAGES, add, areas, at, load, map, moved, seen, store, test};

#[test]
pub(crate) fn pages_go_and_come_back() {
    test(|place| {
        let before = areas();
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        assert_eq!((place.count_away(), device.memory_used()), (PAGES, 0));
        assert!(areas() > before, "there is an alias");
        add(&device, place.start, PAGES, place.page, 1000);
        // One page, by a fault; then those behind it, and all by request.
        assert_eq!(load(place.address(700)), 1701);
        assert!(!place.is_away(700) && place.is_away(699));
        moved(&place.space.bring_back(place.range(0, 600)).unwrap(), 600);
        assert_eq!(place.count_away(), PAGES - 601);
        for page in 0..PAGES {
            assert_eq!(load(place.address(page)), page as u64 + 1001);
            store(place.address(page), page as u64 + 1);
        }
        assert_eq!(place.count_away(), 0);
        for _ in 0..3 {
            moved(&device.migrate(place.all()).unwrap(), PAGES);
            let expected: Vec<_> = (1..=PAGES as u64).collect();
            assert_eq!(seen(&device, place.start, PAGES, place.page), expected);
            place.check(0..PAGES);
        }
        // What is away as the device goes is here.
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        drop(device);
        assert_eq!(place.count_away(), 0);
        place.check(0..PAGES);
    });
}

#[test]
pub(crate) fn a_device_faults_on_pages_of_every_state() {
    test(|place| {
        let device = place.device(2);
        let fresh = map(64 * place.page, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        place.space.adopt(AddressRange::new(fresh, 64 * place.page).unwrap()).unwrap();
        // Never touched by anybody, touched, and given back by the program.
        add(&device, fresh, 64, place.page, 5);
        place.advise(100, 20, libc::MADV_DONTNEED);
        add(&device, place.start, PAGES, place.page, 5);
        assert!((0..64).all(|page| load(fresh + page * place.page) == 5));
        assert!((0..PAGES).all(|page| load(place.address(page)) == page as u64 + 6));
        assert_eq!(device.memory_used(), 0, "no frames are taken");
        // SAFETY: the test's own memory.
        unsafe { libc::munmap(at(fresh).cast(), 64 * place.page) };
    });
}

#[test]
pub(crate) fn the_processor_and_a_device_share_pages_all_the_time() {
    const ROUNDS: u64 = 40;
    const SHARED: usize = 40;
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.range(0, SHARED)).unwrap(), SHARED);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        for page in 0..SHARED {
                            let number = crate::place::number(place.address(page));
                            number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
            for round in 0..ROUNDS {
                add(&device, place.start, SHARED, place.page, 1000);
                if round % 4 == 0 {
                    device.migrate(place.range(0, SHARED)).unwrap();
                }
            }
        });
        for page in 0..SHARED {
            assert_eq!(load(place.address(page)), page as u64 + 1 + 2 * ROUNDS + 1000 * ROUNDS);
        }
    });
}

#[test]
fn what_is_away_as_all_ends_is_here() {
    test(|place| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 7);
        place.space.bring_all_back();
        assert!((0..PAGES).all(|page| load(place.address(page)) == page as u64 + 8));
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        drop(device);
        assert_eq!(place.count_away(), 0);
    });
}
