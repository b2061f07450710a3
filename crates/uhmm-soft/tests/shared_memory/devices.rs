//! More than one device, and devices that break.

use crate::place::{PAGES, add, load, moved, seen, test};

#[test]
fn devices_take_pages_over() {
    test(|place| {
        let (one, other) = (place.device(PAGES), place.device(3));
        moved(&one.migrate(place.all()).unwrap(), PAGES);
        add(&one, place.start, PAGES, place.page, 1);
        moved(&other.migrate(place.all()).unwrap(), PAGES);
        add(&other, place.start, PAGES, place.page, 1);
        add(&one, place.start, 20, place.page, 1);
        for page in 0..PAGES {
            assert_eq!(load(place.address(page)), page as u64 + if page < 20 { 4 } else { 3 });
        }
        moved(&other.migrate(place.all()).unwrap(), PAGES);
        drop(one);
        assert_eq!(place.count_away(), PAGES);
        drop(other);
        assert_eq!(place.count_away(), 0);
    });
}

#[test]
fn a_device_has_pages_alone() {
    test(|place| {
        let (one, other) = (place.device(PAGES), place.device(PAGES));
        moved(&one.make_exclusive(place.range(0, 30)).unwrap(), 30);
        add(&one, place.start, 30, place.page, 1);
        moved(&other.make_exclusive(place.range(0, 15)).unwrap(), 15);
        add(&other, place.start, 15, place.page, 1);
        for page in 0..30 {
            assert_eq!(load(place.address(page)), page as u64 + if page < 15 { 3 } else { 2 });
        }
    });
}

#[test]
fn a_lost_device_loses_nothing_of_it() {
    test(|place| {
        let (one, other) = (place.device(PAGES), place.device(PAGES));
        moved(&one.migrate(place.all()).unwrap(), PAGES);
        add(&one, place.start, PAGES, place.page, 1);
        assert_eq!(one.lose(), 0);
        assert_eq!(load(place.address(5)), 7);
        let expected: Vec<_> = (2..PAGES as u64 + 2).collect();
        assert_eq!(seen(&other, place.start, PAGES, place.page), expected);
    });
}
