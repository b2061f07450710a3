//! Where the system has swap, what ends a mapping also writes the page there.

use std::fs;

use crate::{
    place::{Kind, PAGES, Place, add, at, load, moved, test_of},
    random,
    skip::skip,
    swap::Swap,
    there_and_back,
};

/// Kibibytes of swap that are in use.
fn used() -> usize {
    let swaps = fs::read_to_string("/proc/swaps").unwrap();
    let used = swaps.lines().skip(1).map(|line| line.split_whitespace().nth(3).unwrap());
    used.map(|used| used.parse::<usize>().unwrap()).sum()
}

/// Has the system write out what the engine's views of the memory show.
fn page_out_aliases(place: &Place) {
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let (area, rest) = line.split_once(' ').unwrap();
        let (start, end) = area.split_once('-').unwrap();
        let [start, end] = [start, end].map(|digits| usize::from_str_radix(digits, 16).unwrap());
        if rest.contains("/dev/zero") && start != place.start {
            // SAFETY: the advice changes no content.
            let refused =
                unsafe { libc::madvise(at(start).cast(), end - start, libc::MADV_PAGEOUT) };
            assert_eq!(refused, 0);
        }
    }
}

#[test]
fn pages_go_and_come_back_where_there_is_swap() {
    const NAME: &str = "pages_go_and_come_back_where_there_is_swap";
    // SAFETY: asking who runs this is always sound.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: {NAME}: an ordinary user cannot give the system swap");
    }
    let _swap = match Swap::found_or_made() {
        Ok(swap) => swap,
        Err(reason) => return skip(NAME, reason),
    };
    test_of(Kind::Anonymous, |place| {
        let before = used();
        let device = place.device(PAGES);
        for round in 0..3 {
            moved(&device.migrate(place.all()).unwrap(), PAGES);
            add(&device, place.start, PAGES, place.page, 1);
            // A device that uses its pages has them in memory; nobody has the others.
            page_out_aliases(place);
            assert!(used() > before, "round {round}: nothing was written to swap");
            for page in 0..PAGES {
                assert_eq!(load(place.address(page)), page as u64 + 2 + round);
            }
        }
    });
    there_and_back::pages_go_and_come_back();
    there_and_back::a_device_faults_on_pages_of_every_state();
    there_and_back::the_processor_and_a_device_share_pages_all_the_time();
    random::random_programs_do_what_the_oracle_says();
}
