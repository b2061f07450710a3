//! What children read, and that it is theirs.

use std::{
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use uhmm::units::AddressRange;

use crate::place::{PAGES, Place, Way, Who, alone, content, end, ended, fork, in_child};

/// A child reads all that was away, in the half that was written and in the other.
fn reads(way: Way) {
    let place = Place::new();
    assert_eq!(in_child(way, || place.is_right()), 0);
    assert!(place.is_right());
    // What the child shared is moved again after it has gone.
    place.send_away();
    assert!(place.is_right());
    place.close();
}

#[test]
fn of_libc_read_everything() {
    alone("children::of_libc_read_everything", Who::Told, || reads(Way::Libc));
}

#[test]
fn of_libc_read_everything_untold() {
    alone("children::of_libc_read_everything_untold", Who::Nobody, || {
        reads(Way::Libc);
        // Whoever forks next without libc lacks it again.
        let place = Place::new();
        assert_eq!(in_child(Way::Libc, || place.is_right()), 0);
        place.send_away();
        assert_eq!(in_child(Way::Raw, || place.read(3) == 0), -libc::SIGSEGV);
        place.close();
    });
}

#[test]
fn of_the_bare_call_read_everything() {
    alone("children::of_the_bare_call_read_everything", Who::Told, || {
        reads(Way::Raw);
        let place = Place::new();
        assert_eq!(in_child(Way::Raw, || place.is_right()), 0);
        assert!(place.is_away(7), "the child got a copy");
        assert_eq!(place.space.counters().copied_to_children, PAGES as u64);
        place.close();
    });
}

#[test]
fn of_the_bare_call_end_where_something_could_be_away() {
    alone("children::of_the_bare_call_end_where_something_could_be_away", Who::Nobody, || {
        let place = Place::new();
        let other = Box::new(5_u64);
        for number in [0, PAGES - 1] {
            assert_eq!(in_child(Way::Raw, || place.read(number) == 0), -libc::SIGSEGV);
        }
        assert_eq!(in_child(Way::Raw, || *other == 5), 0, "other memory is there");
        // What is mapped by who closes the address space is had by children again.
        let (range, page) = (place.range, place.page);
        place.close();
        let read = || {
            let address = ptr::with_exposed_provenance::<u64>(range.start() + 3 * page);
            // SAFETY: the mapping stays until the process ends.
            unsafe { address.read_volatile() }
        };
        assert_eq!(in_child(Way::Raw, || read() == content(3)), 0);
    });
}

/// A child forks on, either way, and its child reads everything.
fn forks_on(way: Way, then: Way) {
    let place = Place::new();
    let status = in_child(way, || {
        let grandchild = fork(then);
        if grandchild == 0 {
            end(place.is_right());
        }
        place.is_right() && ended(grandchild) == 0
    });
    assert_eq!(status, 0, "{way:?}, then {then:?}");
    assert!(place.is_right());
    place.close();
}

#[test]
fn fork_on() {
    alone("children::fork_on", Who::Told, || {
        for way in [Way::Libc, Way::Raw] {
            for then in [Way::Libc, Way::Raw] {
                forks_on(way, then);
            }
        }
    });
}

#[test]
fn fork_on_untold() {
    alone("children::fork_on_untold", Who::Nobody, || {
        forks_on(Way::Libc, Way::Libc);
        forks_on(Way::Libc, Way::Raw);
        let place = Place::new();
        let status = in_child(Way::Raw, || in_child(Way::Libc, || place.read(1) == 0) == 0);
        assert_eq!(status, 1, "the child's child has not what the child has not");
        place.close();
    });
}

/// Parent and child write the same pages, and each reads its own.
fn write(way: Way) {
    let place = Place::new();
    let mut pipe = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let child = fork(way);
    if child == 0 {
        let mut right = true;
        for number in 0..PAGES {
            right &= place.read(number) != u64::MAX;
            place.write(number, 1 << 40 | number as u64);
        }
        let mut byte = 0_u8;
        // SAFETY: the byte is ours to write.
        right &= unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) } == 1;
        right &= (0..PAGES).all(|number| place.read(number) == (1 << 40 | number as u64));
        end(right);
    }
    for number in 0..PAGES {
        assert!(place.read(number) < 1 << 40);
        place.write(number, u64::MAX);
    }
    place.send_away();
    // SAFETY: the byte is a constant.
    assert_eq!(unsafe { libc::write(pipe[1], c"x".as_ptr().cast(), 1) }, 1);
    assert_eq!(ended(child), 0);
    assert!((0..PAGES).all(|number| place.read(number) == u64::MAX));
    place.close();
}

#[test]
fn write_what_is_theirs() {
    alone("children::write_what_is_theirs", Who::Told, || {
        write(Way::Libc);
        write(Way::Raw);
    });
}

#[test]
fn write_what_is_theirs_untold() {
    alone("children::write_what_is_theirs_untold", Who::Nobody, || write(Way::Libc));
}

#[test]
fn change_their_memory_at_once() {
    alone("children::change_their_memory_at_once", Who::Told, || {
        for _ in 0..20 {
            changes();
        }
    });
}

/// A child unmaps, drops and moves memory as soon as it runs, and forks on.
fn changes() {
    let place = Place::new();
    let at = |number: usize| {
        ptr::with_exposed_provenance_mut::<libc::c_void>(place.range.start() + number * place.page)
    };
    let len = |pages: usize| pages * place.page;
    let status = in_child(Way::Raw, || {
        // SAFETY: the child's own memory, which only this thread uses.
        let moved = unsafe {
            libc::munmap(at(600), len(50));
            libc::madvise(at(500), len(50), libc::MADV_DONTNEED);
            libc::mremap(
                at(400),
                len(50),
                len(50),
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                at(600),
            )
        };
        if moved == libc::MAP_FAILED {
            return false;
        }
        let grandchild = fork(Way::Raw);
        let dropped = (500..550).all(|number| place.read(number) == 0);
        let moved = (600..650).all(|number| place.read(number) == content(number - 200));
        let rest = (0..400).chain(550..600).chain(650..750);
        let right = dropped && moved && rest.into_iter().all(|n| place.read(n) == content(n));
        if grandchild == 0 {
            end(right);
        }
        right && ended(grandchild) == 0
    });
    assert_eq!(status, 0);
    assert!(place.is_right());
    place.close();
}

/// Forks while ten threads write, read back, and fault, and a device takes the pages again and again.
fn while_threads_fault(way: Way) {
    const THREADS: usize = 10;
    let place = Place::new();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (place, stop) = (&place, &stop);
            scope.spawn(move || {
                let mut round = 0_u64;
                while !stop.load(Relaxed) {
                    round += 1;
                    for number in (thread..PAGES / 2).step_by(THREADS) {
                        assert!(place.read(number) >= content(number), "page {number}");
                        place.write(number, content(number) + (round << 32));
                    }
                }
            });
        }
        for _ in 0..10 {
            let _ = place.device.migrate(place.range).unwrap();
            let status = in_child(way, || {
                (0..PAGES).all(|number| {
                    let low = place.read(number) & u64::from(u32::MAX);
                    low == if number < PAGES / 2 { content(number) } else { 0 }
                })
            });
            assert_eq!(status, 0);
        }
        stop.store(true, Relaxed);
    });
    place.close();
}

#[test]
fn come_while_threads_fault() {
    alone("children::come_while_threads_fault", Who::Told, || {
        while_threads_fault(Way::Libc);
        while_threads_fault(Way::Raw);
    });
}

#[test]
fn come_while_threads_fault_untold() {
    alone("children::come_while_threads_fault_untold", Who::Nobody, || {
        while_threads_fault(Way::Libc);
    });
}

/// Forks by the bare call while a thread moves what is away to and fro.
fn while_memory_is_moved() {
    const MOVED: usize = 64;
    let place = Place::new();
    let page = place.page;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address of the kernel's choice, with room for both places.
    let room = unsafe { libc::mmap(ptr::null_mut(), 4 * MOVED * page, 0, flags, -1, 0) };
    assert_ne!(room, libc::MAP_FAILED);
    let places = [1, 3].map(|number| room.expose_provenance() + number * MOVED * page);
    let at = |address: usize| ptr::with_exposed_provenance_mut::<libc::c_void>(address);
    let go = |from: usize, to: usize| {
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the pages are this test's, and nobody uses them but children.
        let moved = unsafe { libc::mremap(at(from), MOVED * page, MOVED * page, how, at(to)) };
        assert_ne!(moved, libc::MAP_FAILED);
    };
    go(place.range.start(), places[0]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                go(places[0], places[1]);
                go(places[1], places[0]);
            }
        });
        let [mut right, mut marked] = [0; 2];
        for _ in 0..FORKS {
            for start in places {
                let range = AddressRange::new(start, MOVED * page).unwrap();
                let _ = place.device.migrate(range).unwrap();
            }
            let status = in_child(Way::Raw, || {
                let mut there = [0; MOVED];
                places.into_iter().any(|start| {
                    let len = MOVED * page;
                    // SAFETY: there is a byte for each page.
                    let mapped = unsafe { libc::mincore(at(start), len, there.as_mut_ptr()) } == 0;
                    mapped
                        && (0..MOVED).all(|number| {
                            let word = ptr::with_exposed_provenance::<u64>(start + number * page);
                            // SAFETY: it is mapped and aligned.
                            let read = unsafe { word.read_volatile() };
                            read == content(number)
                        })
                })
            });
            match status {
                0 => right += 1,
                status if status == -libc::SIGBUS => marked += 1,
                status => panic!("the child ended with {status}: it reads something else"),
            }
        }
        stop.store(true, Relaxed);
        println!("{right} children had all, {marked} a mark");
    });
    place.close();
}

/// How often a process forks while memory is moved.
const FORKS: usize = 20;

#[test]
fn come_while_memory_is_moved() {
    alone("children::come_while_memory_is_moved", Who::Told, while_memory_is_moved);
}
