//! A fork sees its moment: a child reads what its parent had on a device.

use uhmm::{AddressSpace, PageLocation, units::AddressRange};
use uhmm_soft::{Options, Soft};

#[test]
fn a_child_reads_what_its_parent_had_on_a_device() {
    let space = AddressSpace::open().unwrap();
    let page = space.page_size().bytes();
    let numbers: Vec<u64> = (0..1 << 17).collect();
    let all = AddressRange::of_slice(&numbers).unwrap().pages_within(space.page_size());
    let size = space.page_size();
    let range = AddressRange::new(size.address_of(all.start()), size.bytes_in(all.len())).unwrap();
    space.adopt(range).unwrap();
    let device = Soft::start(&space, Options::new(range.len())).unwrap();
    let done = device.migrate(range).unwrap();
    assert_eq!(done.moved(), range.len() / page);
    assert_eq!(space.locate(range.start()), PageLocation::Device(device.index()));

    // SAFETY: the child reads memory and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = numbers.iter().enumerate().all(|(index, &number)| number == index as u64);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: the status is ours to write.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child read something else, or ended by a signal");

    // What the child shares is moved again after it has gone.
    let again = device.migrate(range).unwrap();
    assert_eq!((again.moved(), again.stayed()), (range.len() / page, 0));
    assert!(numbers.iter().enumerate().all(|(index, &number)| number == index as u64));
    drop(device);
    space.close().unwrap();
}
