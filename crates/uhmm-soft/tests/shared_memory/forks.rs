//! Children share the memory.

use crate::place::{PAGES, Place, add, load, moved, seen, store, test};

/// Runs `body` in a child, by libc's `fork` or by the bare system call, and returns its exit status.
pub(crate) fn in_child(libc_fork: bool, body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls and accesses to the test's memory alone, then ends.
    let child = unsafe {
        if libc_fork {
            libc::fork()
        } else {
            let none = 0_usize;
            let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none);
            i32::try_from(child).unwrap()
        }
    };
    if child == 0 {
        let status = body();
        // SAFETY: ending a process is always sound.
        unsafe { libc::_exit(status) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: the status is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

fn both_ways(name: &str, body: impl Fn(&Place, bool)) {
    for libc_fork in [true, false] {
        test(name, |place| body(place, libc_fork));
    }
}

#[test]
fn a_child_has_what_is_away_and_shares_it() {
    both_ways("a_child_has_what_is_away_and_shares_it", |place, libc_fork| {
        let device = place.device(PAGES);
        moved(&device.migrate(place.all()).unwrap(), PAGES);
        add(&device, place.start, PAGES, place.page, 10);
        let ends = in_child(libc_fork, || {
            for page in 0..PAGES {
                if load(place.address(page)) != page as u64 + 11 {
                    return 1;
                }
            }
            for page in 0..50 {
                store(place.address(page), 5);
            }
            0
        });
        assert_eq!(ends, 0);
        assert_eq!(seen(&device, place.start, 50, place.page), [5; 50]);
        assert_eq!(load(place.address(20)), 5);
        assert_eq!(load(place.address(60)), 71);
    });
}

#[test]
fn a_device_writes_while_a_child_reads() {
    both_ways("a_device_writes_while_a_child_reads", |place, libc_fork| {
        let device = place.device(PAGES);
        let (flag, page) = (place.address(1000), place.address(3));
        store(flag, 0);
        moved(&device.migrate(place.range(0, 100)).unwrap(), 100);
        std::thread::scope(|scope| {
            let child = scope.spawn(|| {
                in_child(libc_fork, || {
                    store(flag, 1);
                    while load(page) != 1234 {
                        std::hint::spin_loop();
                    }
                    0
                })
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
