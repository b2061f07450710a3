//! Children share the memory.

use crate::{
    child::in_child,
    place::{PAGES, Place, add, load, moved, seen, store, test},
};

fn both_ways(body: impl Fn(&Place, bool)) {
    for libc_fork in [true, false] {
        test(|place| body(place, libc_fork));
    }
}

#[test]
fn a_child_has_what_is_away_and_shares_it() {
    both_ways(|place, libc_fork| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 10);
        let ends = in_child(
            libc_fork,
            || {
                for page in 0..PAGES {
                    if load(place.address(page)) != page as u64 + 11 {
                        return 1;
                    }
                }
                for page in 0..50 {
                    store(place.address(page), 5);
                }
                0
            },
            || (),
        );
        assert_eq!(ends, 0);
        assert_eq!(seen(&device, place.start, 50, place.page), [5; 50]);
        assert_eq!(load(place.address(20)), 5);
        assert_eq!(load(place.address(60)), 71);
    });
}

#[test]
fn a_device_writes_while_a_child_reads() {
    both_ways(|place, libc_fork| {
        let device = place.device(PAGES);
        let (flag, page) = (place.address(1000), place.address(3));
        store(flag, 0);
        moved(&device.migrate(place.range(0, 100)).unwrap(), 100);
        std::thread::scope(|scope| {
            let child = scope.spawn(|| {
                in_child(
                    libc_fork,
                    || {
                        store(flag, 1);
                        while load(page) != 1234 {
                            std::hint::spin_loop();
                        }
                        0
                    },
                    || (),
                )
            });
            while load(flag) == 0 {
                std::thread::yield_now();
            }
            device.migrate(place.range(0, 100)).unwrap();
            add(&device, page, 1, place.page, 1230);
            assert_eq!(child.join().unwrap(), 0);
        });
    });
}
