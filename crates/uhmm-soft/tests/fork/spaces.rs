//! Children with address spaces of their own, and parents that end.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use uhmm::AddressSpace;

use crate::place::{Place, Way, Who, alone, content, end, ended, fork, in_child};

/// A child opens its own address space, and has a device take what its parent had away.
fn opens(way: Way) {
    let place = Place::new();
    let status = in_child(way, || {
        let Ok(space) = AddressSpace::open() else { return false };
        let own = Place::with(space, 600);
        let right = own.is_right();
        own.space.adopt(place.range).unwrap();
        let moved = own.device.migrate(own.range).unwrap().stayed() == 0;
        let device = uhmm_soft::Soft::start(&own.space, uhmm_soft::Options::new(place.range.len()));
        let device = device.unwrap();
        let left = device.migrate(place.range).unwrap().stayed();
        if left > 0 {
            eprintln!("{left} pages of the parent's stayed");
        }
        let read = place.is_right();
        drop(device);
        own.close();
        right && moved && left == 0 && read && place.is_right()
    });
    assert_eq!(status, 0, "{way:?}");
    assert!(place.is_right());
    place.close();
}

#[test]
fn of_children() {
    alone("spaces::of_children", Who::Told, || {
        opens(Way::Libc);
        opens(Way::Raw);
    });
}

#[test]
fn of_children_untold() {
    alone("spaces::of_children_untold", Who::Nobody, || {
        opens(Way::Libc);
        // One of the bare call has nothing of its parent's that was trapped, but may have its own.
        let place = Place::new();
        let status = in_child(Way::Raw, || {
            let Ok(space) = AddressSpace::open() else { return false };
            let own = Place::with(space, 600);
            let right = own.is_right();
            own.close();
            right
        });
        assert_eq!(status, 0);
        place.close();
    });
}

fn opens_and_closes() -> bool {
    AddressSpace::open().is_ok_and(|space| space.close().is_ok())
}

/// Opens and closes address spaces while other threads fork all the time. Answers whether all went well,
/// and how many forks there were. A child by libc does so too where `children` says so.
fn beside_forks(spaces: usize, children: bool) -> (bool, usize) {
    let (over, forks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let right = thread::scope(|scope| {
        let forkers = [Way::Libc, Way::Libc, Way::Raw].map(|way| {
            let (over, forks) = (&over, &forks);
            scope.spawn(move || {
                let mut right = true;
                let children = children && way == Way::Libc;
                while !over.load(Relaxed) {
                    right &= in_child(way, || !children || opens_and_closes()) == 0;
                    forks.fetch_add(1, Relaxed);
                }
                right
            })
        });
        let opened = (0..spaces).all(|_| opens_and_closes());
        over.store(true, Relaxed);
        forkers.into_iter().all(|forker| forker.join().is_ok_and(|right| right)) && opened
    });
    (right, forks.into_inner())
}

/// The first address space of a process differs from others, as libc's hooks are not there yet.
fn are_opened_beside_forks() {
    for _ in 0..20 {
        assert_eq!(in_child(Way::Libc, || beside_forks(3, true).0), 0);
    }
    let (right, forks) = beside_forks(300, false);
    assert!(right);
    assert!(forks > 100, "{forks} forks are too few to meet an opening");
}

#[test]
fn are_opened_and_closed_beside_forks() {
    alone("spaces::are_opened_and_closed_beside_forks", Who::Told, are_opened_beside_forks);
}

#[test]
fn are_opened_and_closed_beside_forks_untold() {
    alone(
        "spaces::are_opened_and_closed_beside_forks_untold",
        Who::Nobody,
        are_opened_beside_forks,
    );
}

/// A parent ends at once, and its child goes on with what it had.
fn parent_dies(way: Way) {
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let parent = fork(Way::Libc);
    if parent == 0 {
        let place = Place::new();
        let me = std::process::id();
        if fork(way) == 0 {
            // SAFETY: asking is always sound.
            while unsafe { libc::getppid() }.cast_unsigned() == me {
                thread::yield_now();
            }
            let right = [u8::from(place.is_right() && place.read(9) == content(9))];
            // SAFETY: the byte is there.
            unsafe { libc::write(pipe[1], right.as_ptr().cast(), 1) };
            end(true);
        }
        // Its values are not dropped.
        std::process::exit(0);
    }
    assert_eq!(ended(parent), 0);
    let mut right = 0_u8;
    // SAFETY: the byte is ours to write.
    assert_eq!(unsafe { libc::read(pipe[0], (&raw mut right).cast(), 1) }, 1);
    assert_eq!(right, 1, "{way:?}");
}

/// How a parent ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// By `_exit`, on the thread that forks, as soon as it has.
    AtOnce,
    /// By `_exit`, on another thread, so long after the fork began.
    Exit(Duration),
    /// By SIGKILL, likewise.
    Kill(Duration),
}

/// A parent of much that is away forks by the bare call and ends meanwhile. Answers whether there was a
/// child, which has to read what its parent had.
fn dies_meanwhile(death: Death) -> bool {
    const PAGES: usize = 1 << 14;
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let parent = fork(Way::Libc);
    if parent == 0 {
        let place = Place::with(AddressSpace::open().unwrap(), PAGES);
        let later = |duration: Duration, die: fn()| {
            thread::spawn(move || {
                thread::sleep(duration);
                die();
            });
        };
        match death {
            Death::AtOnce => {}
            Death::Exit(duration) => later(duration, || end(true)),
            Death::Kill(duration) => later(duration, || {
                // SAFETY: ending a process is always sound.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }),
        }
        if fork(Way::Raw) == 0 {
            let wrong = (0..PAGES).filter(|&number| {
                place.read(number) != if number < PAGES / 2 { content(number) } else { 0 }
            });
            let wrong = (wrong.count() as u64).to_ne_bytes();
            // SAFETY: the bytes are there.
            unsafe { libc::write(pipe[1], wrong.as_ptr().cast(), wrong.len()) };
            end(true);
        }
        end(true);
    }
    // SAFETY: it is open, and not used here.
    unsafe { libc::close(pipe[1]) };
    ended(parent);
    let mut wrong = [0_u8; 8];
    // SAFETY: the bytes are ours to be written, and the descriptor is closed once.
    let read = unsafe {
        let read = libc::read(pipe[0], wrong.as_mut_ptr().cast(), wrong.len());
        libc::close(pipe[0]);
        read
    };
    let wrong = u64::from_ne_bytes(wrong);
    assert_eq!(wrong, 0, "{death:?}: the child read {wrong} pages wrong");
    read > 0
}

#[test]
fn of_parents_that_die_within_a_fork() {
    alone("spaces::of_parents_that_die_within_a_fork", Who::Told, || {
        assert!(dies_meanwhile(Death::AtOnce), "the fork had returned");
        let mut born = [0; 2];
        for millis in [0, 1, 2, 5, 10, 20, 40, 80, 160, 320] {
            let after = Duration::from_millis(millis);
            born[0] += usize::from(dies_meanwhile(Death::Exit(after)));
            born[1] += usize::from(dies_meanwhile(Death::Kill(after)));
        }
        println!("of 10 parents each that ended and were killed, {born:?} had a child");
    });
}

/// An address space is closed while a child of its process lives, which has its descriptors; and forks
/// go on when it is closed and something of it is left.
fn closes_beside_a_child() {
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    for way in [Way::Libc, Way::Raw] {
        let place = Place::new();
        let child = fork(way);
        if child == 0 {
            let mut byte = 0_u8;
            // SAFETY: the byte is ours to be written.
            let read = unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) };
            end(read == 1 && place.is_right());
        }
        let refuser = place.space.refuser();
        place.close();
        for way in [Way::Raw, Way::Libc] {
            assert_eq!(in_child(way, || true), 0);
        }
        drop(refuser);
        assert_eq!(in_child(Way::Raw, || true), 0);
        // SAFETY: the byte is a constant.
        assert_eq!(unsafe { libc::write(pipe[1], c"x".as_ptr().cast(), 1) }, 1);
        assert_eq!(ended(child), 0);
    }
}

#[test]
fn are_closed_beside_a_child() {
    alone("spaces::are_closed_beside_a_child", Who::Told, closes_beside_a_child);
}

#[test]
fn of_parents_that_die_first() {
    alone("spaces::of_parents_that_die_first", Who::Told, || {
        parent_dies(Way::Libc);
        parent_dies(Way::Raw);
    });
}

#[test]
fn of_parents_that_die_first_untold() {
    alone("spaces::of_parents_that_die_first_untold", Who::Nobody, || parent_dies(Way::Libc));
}
