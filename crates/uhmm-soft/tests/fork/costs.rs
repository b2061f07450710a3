//! What forks cost.

use std::time::{Duration, Instant};

use crate::place::{Place, Way, Who, alone, end, ended, fork};

const PAGES: usize = 1 << 14;
const ROUNDS: usize = 15;

/// The median time that `body` takes, after `before`.
fn median(mut before: impl FnMut(), mut body: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            before();
            let start = Instant::now();
            body();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn measure(who: Who) {
    // The harness has begun a line.
    println!();
    let fork_and_end = |way| match fork(way) {
        0 => end(true),
        child => assert_eq!(ended(child), 0),
    };
    let place = Place::with(uhmm::AddressSpace::open().unwrap(), PAGES);
    let nothing_away =
        median(|| drop(place.space.bring_back(place.range).unwrap()), || fork_and_end(Way::Libc));
    let all_away = median(|| place.send_away(), || fork_and_end(Way::Libc));
    println!("{who:?}: libc, {PAGES} pages in system memory: {nothing_away:?}");
    println!("{who:?}: libc, all of them away: {all_away:?}");
    if who == Who::Told {
        let bare = median(|| place.send_away(), || fork_and_end(Way::Raw));
        let filled = median(
            || place.send_away(),
            || {
                let before = place.space.counters().children;
                let child = fork(Way::Raw);
                if child == 0 {
                    end(place.read(PAGES - 1) == 0 && place.is_right());
                }
                while place.space.counters().children == before {
                    std::thread::yield_now();
                }
                assert_eq!(ended(child), 0);
            },
        );
        println!("{who:?}: bare, all away, the child ends at once: {bare:?}");
        println!("{who:?}: bare, all away, the child reads all: {filled:?}");
    }
    place.write(0, 1);
    let range = place.range;
    place.close();
    let closed = median(|| (), || fork_and_end(Way::Libc));
    println!("{who:?}: libc, no address space, {} MiB mapped: {closed:?}", range.len() >> 20);
}

#[test]
#[ignore = "a measurement"]
fn told() {
    alone("costs::told", Who::Told, || measure(Who::Told));
}

#[test]
#[ignore = "a measurement"]
fn untold() {
    alone("costs::untold", Who::Nobody, || measure(Who::Nobody));
}
