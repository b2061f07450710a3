//! Turns of one block: a range fault between another holder and faults of the program.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use uhmm::{
    Device, Entries, Invalidation, PageTable, Request,
    units::{AddressRange, BLOCK_PAGES},
};

use super::{open, page};

/// How long others get to stand in line.
const MOMENT: Duration = Duration::from_millis(50);

fn wait_for(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        thread::yield_now();
    }
}

/// A page table that keeps nothing, and takes its time.
#[derive(Default)]
struct Slow {
    invalidating: AtomicBool,
    lined_up: AtomicBool,
    committing: AtomicBool,
}

// SAFETY: it has no translations. What it waits for needs no call of the core to end.
unsafe impl PageTable for Slow {
    fn commit(&self, _: &Entries) {
        self.committing.store(true, SeqCst);
        thread::sleep(MOMENT);
    }

    fn invalidate(&self, _: &Invalidation) {
        self.invalidating.store(true, SeqCst);
        wait_for(&self.lined_up);
    }
}

/// A device that keeps nothing.
struct Null;

// SAFETY: it has no translations and touches no frame.
unsafe impl PageTable for Null {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {}
}

// SAFETY: as above.
unsafe impl Device for Null {}

/// The one who faults a range lets go of its block with a fault of the program behind it, which it
/// serves, while a handler wants the gate for the next message.
#[test]
fn a_fault_parked_behind_a_range_fault_is_served() {
    let Some(world) = open("a_fault_parked_behind_a_range_fault_is_served") else { return };
    let bytes = BLOCK_PAGES * page();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 2 * bytes, access, flags, -1, 0)
    };
    assert_ne!(mapped, libc::MAP_FAILED);
    let start = mapped.expose_provenance().next_multiple_of(bytes);
    let range = |first, pages| AddressRange::new(start + first * page(), pages * page()).unwrap();
    let read = |number: usize| {
        let at = std::ptr::with_exposed_provenance::<u8>(start + number * page());
        // SAFETY: a byte of the mapping, to which there are no references.
        unsafe { at.read_volatile() }
    };
    for number in 0..3_u8 {
        let at = std::ptr::with_exposed_provenance_mut::<u8>(start + usize::from(number) * page());
        // SAFETY: as above.
        unsafe { at.write_volatile(number + 1) };
    }
    world.space.adopt(range(0, 3)).unwrap();
    let device = world.space.attach(Null, 8).unwrap();
    assert_eq!(device.migrate(range(1, 2)).unwrap().moved(), 2);

    let told = world.space.mirror(range(0, 1), Slow::default()).unwrap();
    let asks = world.space.mirror(range(0, 1), Slow::default()).unwrap();
    assert_eq!(told.fault(&Request::read(range(0, 1))).unwrap().entered(), 1);
    thread::scope(|scope| {
        // First in line behind the change below.
        scope.spawn(|| {
            wait_for(&told.table().invalidating);
            assert_eq!(asks.fault(&Request::read(range(0, 1))).unwrap().entered(), 1);
        });
        // Second.
        scope.spawn(|| {
            wait_for(&told.table().invalidating);
            thread::sleep(MOMENT);
            scope.spawn(|| {
                thread::sleep(MOMENT);
                told.table().lined_up.store(true, SeqCst);
            });
            assert_eq!(read(1), 2);
        });
        // Has a handler want the gate.
        scope.spawn(|| {
            wait_for(&asks.table().committing);
            assert_eq!(read(2), 3);
        });
        world.space.protection_changed(range(0, 1)).unwrap();
    });
    // All may be told of their end at once.
    asks.table().lined_up.store(true, SeqCst);
    drop((asks, told, device));
    // SAFETY: nobody has a reference into it.
    assert_eq!(unsafe { libc::munmap(mapped, 2 * bytes) }, 0);
}
