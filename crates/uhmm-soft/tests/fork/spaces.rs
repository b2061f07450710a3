//! Children with address spaces of their own, and parents that end.

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
                std::thread::yield_now();
            }
            let right = [u8::from(place.is_right() && place.read(9) == content(9))];
            // SAFETY: the byte is there.
            unsafe { libc::write(pipe[1], right.as_ptr().cast(), 1) };
            end(true);
        }
        // It ends by `exit`, which waits until a child of the bare call is filled; its values are not
        // dropped.
        std::process::exit(0);
    }
    assert_eq!(ended(parent), 0);
    let mut right = 0_u8;
    // SAFETY: the byte is ours to write.
    assert_eq!(unsafe { libc::read(pipe[0], (&raw mut right).cast(), 1) }, 1);
    assert_eq!(right, 1, "{way:?}");
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
