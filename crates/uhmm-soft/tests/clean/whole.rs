//! What was a huge page, or would be one had the program touched it first, comes back as one, also where
//! nothing of it was kept on the way.

use std::ptr;

use uhmm::{
    mm::{
        Errno, Stop,
        injected::{Call, Failure},
    },
    units::BLOCK_PAGES,
};

use crate::{
    allow_huge_pages::allow_huge_pages,
    copied::{Copied, copied},
    huge_bytes::huge_bytes,
    place::Place,
    skip::skip,
};

/// Memory of so many huge pages, of which a test is told how many bytes one has.
fn with_huge_pages(test: &str, count: usize) -> Option<(Place, usize)> {
    let place = Place::with(test, count * BLOCK_PAGES, true)?;
    let huge = BLOCK_PAGES * place.page;
    if huge_bytes(place.start) != count * huge {
        skip(test, "no huge page is to be had");
        place.end();
        return None;
    }
    Some((place, huge))
}

/// Forgets what some pages have, so that they are made on a device next.
fn discard(place: &mut Place, pages: core::ops::Range<usize>) {
    let part = place.part(pages.clone());
    let start = ptr::with_exposed_provenance_mut(part.start());
    // SAFETY: the place's memory, whose content is given up.
    assert_eq!(unsafe { libc::madvise(start, part.len(), libc::MADV_DONTNEED) }, 0);
    place.expected[pages].fill(0);
}

#[test]
fn what_is_made_on_the_device_comes_back_whole() {
    const PAGES: usize = 2 * BLOCK_PAGES;
    let test = "what_is_made_on_the_device_comes_back_whole";
    let Some((mut place, huge)) = with_huge_pages(test, 2) else { return };
    let device = place.device(PAGES);
    for touched in [false, true] {
        discard(&mut place, 0..PAGES);
        assert_eq!(huge_bytes(place.start), 0);
        place.go(&device, 0..PAGES);
        place.add(&device, &[3, 100, 700]);
        let calls =
            |place: &Place| [Call::Give, Call::Copy].map(|call| place.injections.calls(call));
        let [gives, copies] = calls(&place);
        let gone = place.copied_by(|place| {
            if touched {
                place.check();
                // Who was woken can be here before it is counted.
                drop(place.space.bring_back(place.all()).unwrap());
            } else {
                place.come_back(0..PAGES);
            }
        });
        assert_eq!(gone, copied(PAGES, 0));
        assert_eq!(calls(&place), [gives + 2, copies], "each block by one move");
        assert_eq!(huge_bytes(place.start), 2 * huge, "{touched}");
        place.check();
    }
    drop(device);
    place.end();
}

#[test]
fn what_has_been_given_away_on_the_way_is_made_anew() {
    let test = "what_has_been_given_away_on_the_way_is_made_anew";
    let Some((mut place, huge)) = with_huge_pages(test, 2) else { return };
    let device = place.device(2 * BLOCK_PAGES);
    discard(&mut place, BLOCK_PAGES..2 * BLOCK_PAGES);
    place.go(&device, 0..2 * BLOCK_PAGES);
    place.add(&device, &[5, 600]);
    // The one block goes back by what is kept for the other.
    place.injections.inject(Call::ZeroBlock, 1, Failure::Errno(Errno(libc::ENOMEM)));
    let gone = place.copied_by(|place| place.come_back(BLOCK_PAGES..2 * BLOCK_PAGES));
    assert_eq!(gone, copied(BLOCK_PAGES, 0));
    let before = huge_bytes(place.start);
    let gone = place.copied_by(|place| place.come_back(0..BLOCK_PAGES));
    assert_eq!(gone, copied(BLOCK_PAGES, 0), "nothing was kept");
    assert_eq!(huge_bytes(place.start), before + huge);
    drop(device);
    place.end();
}

#[test]
fn what_is_kept_of_a_part_is_of_use() {
    let test = "what_is_kept_of_a_part_is_of_use";
    let Some((mut place, huge)) = with_huge_pages(test, 2) else { return };
    let device = place.device(2 * BLOCK_PAGES);
    let others = BLOCK_PAGES..BLOCK_PAGES + 100;
    discard(&mut place, others.clone());
    place.go(&device, 0..BLOCK_PAGES);
    place.add(&device, &[300]);
    place.go(&device, others.clone());
    // They are more than what is kept for pages that nothing was kept of.
    place.come_back(others);
    let Copied { out, clean } = place.copied_by(|place| place.come_back(0..BLOCK_PAGES));
    assert_eq!(out + clean, BLOCK_PAGES as u64);
    assert!((2..=100).contains(&out), "{out} were copied");
    assert_eq!(huge_bytes(place.start), huge);
    drop(device);
    place.end();
}

#[test]
fn what_goes_from_one_device_to_another_comes_back_whole() {
    let test = "what_goes_from_one_device_to_another_comes_back_whole";
    let Some((mut place, huge)) = with_huge_pages(test, 1) else { return };
    let (one, other) = (place.device(BLOCK_PAGES), place.device(BLOCK_PAGES));
    place.go(&one, 0..BLOCK_PAGES);
    place.add(&one, &[9]);
    place.go(&other, 0..BLOCK_PAGES);
    place.add(&other, &[9, 10]);
    let gone = place.copied_by(|place| place.come_back(0..BLOCK_PAGES));
    assert_eq!(gone, copied(BLOCK_PAGES, 0));
    assert_eq!(huge_bytes(place.start), huge);
    drop((one, other));
    place.end();
}

#[test]
fn where_there_is_no_huge_page_small_ones_come_back() {
    let test = "where_there_is_no_huge_page_small_ones_come_back";
    let Some((mut place, huge)) = with_huge_pages(test, 1) else { return };
    let device = place.device(BLOCK_PAGES);
    for refused in [true, false] {
        discard(&mut place, 0..BLOCK_PAGES);
        place.go(&device, 0..BLOCK_PAGES);
        place.add(&device, &[7]);
        if refused {
            place.injections.inject(Call::ZeroBlock, 1, Failure::Errno(Errno(libc::ENOMEM)));
        } else {
            allow_huge_pages(false).unwrap();
        }
        place.come_back(0..BLOCK_PAGES);
        allow_huge_pages(true).unwrap();
        assert_eq!(huge_bytes(place.start), 0);
        place.check();
    }
    assert_eq!(place.space.counters().to_system_request, 2 * huge as u64 / place.page as u64);
    drop(device);
    place.end();
}

/// Were a page of the way lost each time, there would be none left at the end.
#[test]
fn whatever_fails_nothing_is_lost_on_the_way() {
    const ROUNDS: usize = 40;
    let test = "whatever_fails_nothing_is_lost_on_the_way";
    let Some((mut place, huge)) = with_huge_pages(test, 1) else { return };
    let device = place.device(BLOCK_PAGES);
    let stop = |after, stop| Failure::Stop { after, stop };
    let errno = Failure::Errno(Errno(libc::EINVAL));
    for round in 0..ROUNDS {
        for failure in [
            None,
            Some((Call::ZeroBlock, stop(0, Stop::Changing))),
            Some((Call::ZeroBlock, stop(100, Stop::NoMemory))),
            Some((Call::EmptyStaging, errno)),
            Some((Call::Give, stop(0, Stop::Changing))),
            Some((Call::Give, stop(200, Stop::Refused))),
        ] {
            discard(&mut place, 0..BLOCK_PAGES);
            place.go(&device, 0..BLOCK_PAGES);
            place.add(&device, &[round, 500]);
            if let Some((call, failure)) = failure {
                place.injections.inject(call, 1, failure);
            } else {
                device.fail_transfer(1);
                let back = place.space.bring_back(place.all()).unwrap();
                assert_ne!(back.stayed(), 0);
            }
            let left = place.space.bring_back(place.all()).unwrap();
            assert_eq!(left.stayed(), 0);
            place.check();
            // What was to fail may not have come: a huge page was left over from before.
            let _ = place.injections.clear();
        }
    }
    discard(&mut place, 0..BLOCK_PAGES);
    place.go(&device, 0..BLOCK_PAGES);
    place.come_back(0..BLOCK_PAGES);
    assert_eq!(huge_bytes(place.start), huge);
    drop(device);
    place.end();
}
