//! Children have what is on the device, as copies of their own.

use std::sync::atomic::Ordering::Relaxed;

use uhmm::mm::linux::{Feature, probe};

use crate::{
    child::in_child,
    place::{PAGES, Place, test},
    skip::skip,
};

fn a_child_has_copies_of_its_own(place: &Place, libc_fork: bool) {
    let device = place.device(PAGES);
    place.send(&device, 0, PAGES);
    place.add(&device, 0, PAGES, 10);
    let faults = place.faults();
    let ends = in_child(
        libc_fork,
        || {
            for page in 0..PAGES {
                if place.number(page).fetch_add(5, Relaxed) != page as u64 + 11 {
                    return 1;
                }
            }
            0
        },
        || {
            // At the same time.
            for page in 0..100 {
                assert_eq!(place.number(page).fetch_add(1, Relaxed), page as u64 + 11);
            }
        },
    );
    assert_eq!(ends, 0);
    assert_eq!(place.faults(), faults, "the parent met a hole");
    place.check(0..100, 11);
    place.check(100..PAGES, 10);
    // They are shared, or the parent's own by now: in the device's frames no more.
    assert_eq!((place.count_on(device.index()), place.used(&device)), (0, 0));
    assert_eq!(place.space.counters().left_in_place, PAGES as u64);
    place.send(&device, 0, PAGES);
    place.add(&device, 0, PAGES, 1);
    place.check(0..100, 12);
    place.check(100..PAGES, 11);
}

#[test]
fn a_child_of_libc_has_copies_of_its_own() {
    test(|place| a_child_has_copies_of_its_own(place, true));
}

#[test]
fn a_child_of_the_bare_call_has_copies_of_its_own() {
    let told = |feature: &Feature| feature.name == "EVENT_FORK" && feature.present;
    if !probe().iter().any(told) {
        // It lacks what is trapped.
        return skip("a_child_of_the_bare_call_has_copies_of_its_own", "forks are not told");
    }
    test(|place| a_child_has_copies_of_its_own(place, false));
}
