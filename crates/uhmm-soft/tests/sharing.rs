//! Devices share pages in place, at a peer, or have them alone; areas that only a device backs.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;
#[path = "../../uhmm/tests/support/skip.rs"]
mod skip;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use skip::skip;
use uhmm::{AddressSpace, Export, PageError, PageLocation, units::AddressRange};
use uhmm_soft::{AccessError, Options, Placement, RunError, Soft};

const PAGES: usize = 8;

/// An address space with two devices, and memory that is adopted.
struct World {
    memory: Memory,
    devices: [Soft; 2],
    space: AddressSpace,
    _alone: MutexGuard<'static, ()>,
}

/// Private anonymous memory of this test's own.
struct Memory {
    start: usize,
    bytes: usize,
}

impl Memory {
    fn map(bytes: usize) -> Self {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.expose_provenance(), bytes }
    }

    fn word(&self, number: usize) -> *mut u64 {
        std::ptr::with_exposed_provenance_mut(self.start + 8 * number)
    }

    fn load(&self, number: usize) -> u64 {
        // SAFETY: the word is in the mapping, and aligned.
        unsafe { self.word(number).read_volatile() }
    }

    fn store(&self, number: usize, value: u64) {
        // SAFETY: as above, and nobody else uses the word meanwhile.
        unsafe { self.word(number).write_volatile(value) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = std::ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(start, self.bytes) };
    }
}

impl World {
    fn open(test: &str) -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = match AddressSpace::open() {
            Ok(space) => space,
            Err(error) => {
                skip(test, error);
                return None;
            }
        };
        let page = space.page_size().bytes();
        let devices = [(); 2].map(|()| {
            Soft::start(&space, Options::new(4 * PAGES * page).keep_pages())
                .expect("a device starts")
        });
        let memory = Memory::map(PAGES * page);
        let world = Self { memory, devices, space, _alone: alone };
        world.space.adopt(world.range()).expect("memory that can be adopted");
        Some(world)
    }

    fn range(&self) -> AddressRange {
        AddressRange::new(self.memory.start, self.memory.bytes).expect("some pages")
    }

    fn close(self) {
        let Self { memory, devices, space, .. } = self;
        drop(devices);
        space.close().expect("a close");
        drop(memory);
    }
}

/// Adds to the word at an address, on a device, and answers what was there.
fn add(device: &Soft, address: usize, value: u64) -> Result<u64, AccessError> {
    let before = std::sync::atomic::AtomicU64::new(0);
    let at = (&raw const before).expose_provenance();
    // SAFETY: the kernel touches the two words only, by its worker, and nobody else does meanwhile
    // but by atomic accesses.
    let ran = unsafe {
        device.run(0..1, move |worker, _| {
            let before: u64 = worker.fetch_add(address, value)?;
            worker.store(at, before)
        })
    };
    match ran {
        Ok(()) => Ok(before.into_inner()),
        Err(RunError::Item { error, .. }) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn memory_that_is_not_adopted_is_mapped_where_it_is() {
    let Some(world) = World::open("memory_that_is_not_adopted_is_mapped_where_it_is") else {
        return;
    };
    let others = Memory::map(world.memory.bytes);
    others.store(3, 40);
    for (number, device) in world.devices.iter().enumerate() {
        assert_eq!(add(device, others.start + 24, 1), Ok(40 + number as u64));
    }
    assert_eq!(others.load(3), 42);
    assert_eq!(world.space.locate(others.start), PageLocation::System);
    let counters = world.space.counters();
    assert!(counters.mapped_in_place > 0, "{counters:?}");
    world.close();
}

#[test]
fn a_placement_keeps_pages_where_they_are() {
    let Some(world) = World::open("a_placement_keeps_pages_where_they_are") else { return };
    let [device, _] = &world.devices;
    device.place(world.range(), Placement::InPlace).expect("whole pages");
    assert_eq!(add(device, world.memory.start, 5), Ok(0));
    assert_eq!(world.space.locate(world.memory.start), PageLocation::System);
    device.place(world.range(), Placement::Migrate).expect("whole pages");
    // It has a translation, and keeps that.
    assert_eq!(add(device, world.memory.start, 5), Ok(5));
    assert_eq!(world.space.locate(world.memory.start), PageLocation::System);
    device.migrate(world.range()).expect("whole pages");
    assert_eq!(add(device, world.memory.start, 5), Ok(10));
    assert_eq!(world.space.locate(world.memory.start), PageLocation::Device(device.index()));
    assert_eq!(world.memory.load(0), 15);
    world.close();
}

#[test]
fn a_peer_maps_what_it_is_let() {
    let Some(world) = World::open("a_peer_maps_what_it_is_let") else { return };
    let [exporter, importer] = &world.devices;
    let page = world.space.page_size().bytes();
    let at = |number: usize| world.memory.start + number * page;
    let one = |number| AddressRange::new(at(number), page).expect("a page");
    importer.place(world.range(), Placement::InPlace).expect("whole pages");
    exporter.export(one(0), Export::Map).expect("whole pages");
    exporter.export(one(1), Export::Refuse).expect("whole pages");
    exporter.migrate(world.range()).expect("whole pages");

    // Mapped at the peer: both work on one frame.
    assert_eq!(add(importer, at(0), 1), Ok(0));
    assert_eq!(world.space.locate(at(0)), PageLocation::Device(exporter.index()));
    assert_eq!(add(exporter, at(0), 1), Ok(1));
    assert_eq!(world.space.counters().mapped_from_peer, 1);
    // Refused.
    let refused = add(importer, at(1), 1);
    let why = |error| match error {
        AccessError::Map(error) => Some(error.error),
        _ => None,
    };
    assert_eq!(refused.map_err(why), Err(Some(PageError::PeerRefuses)));
    // In main memory, with nothing said.
    assert_eq!(add(importer, at(2), 1), Ok(0));
    assert_eq!(world.space.locate(at(2)), PageLocation::System);

    // The exporter's frames move: to the CPU and back. The importer is told, and maps again what it
    // was once granted, whatever the exporter says by now.
    exporter.export(one(0), Export::Refuse).expect("whole pages");
    assert_eq!(world.memory.load(0), 2);
    exporter.migrate(one(0)).expect("whole pages");
    assert_eq!(add(importer, at(0), 1), Ok(2));
    assert_eq!(world.space.locate(at(0)), PageLocation::Device(exporter.index()));
    assert_eq!(world.memory.load(0), 3);
    world.close();
}

#[test]
fn exclusive_pages_are_the_devices_alone_until_somebody_touches_them() {
    const TEST: &str = "exclusive_pages_are_the_devices_alone_until_somebody_touches_them";
    let Some(world) = World::open(TEST) else { return };
    let [device, other] = &world.devices;
    world.memory.store(0, 7);
    let all = world.range();
    // Both have it in place first.
    for device in &world.devices {
        device.place(all, Placement::InPlace).expect("whole pages");
        add(device, world.memory.start, 1).expect("an access");
    }
    assert_eq!(device.make_exclusive(all).expect("whole pages").moved(), PAGES);
    assert_eq!(device.is_exclusive(all), Ok(true));
    assert_eq!(device.make_exclusive(all).expect("whole pages").already(), PAGES);
    assert_eq!(add(device, world.memory.start, 1), Ok(9));
    assert_eq!(device.is_exclusive(all), Ok(true));
    // The CPU takes a page back.
    assert_eq!(world.memory.load(0), 10);
    assert_eq!(device.is_exclusive(all), Ok(false));
    let page = world.space.page_size().bytes();
    let second = AddressRange::new(world.memory.start + page, page).expect("a page");
    assert_eq!(device.is_exclusive(second), Ok(true));
    // A device that may map at its peers may not map this; it comes back first.
    device.export(all, Export::Map).expect("whole pages");
    assert_eq!(add(other, second.start(), 1), Ok(0));
    assert_eq!(world.space.locate(second.start()), PageLocation::System);
    assert_eq!(device.is_exclusive(second), Ok(false));
    // What is on the device already becomes exclusive without moving.
    device.migrate(second).expect("whole pages");
    assert_eq!(device.is_exclusive(second), Ok(false));
    assert_eq!(device.make_exclusive(second).expect("whole pages").already(), 1);
    assert_eq!(device.is_exclusive(second), Ok(true));
    world.close();
}

#[test]
fn an_area_that_only_a_device_backs() {
    let Some(world) = World::open("an_area_that_only_a_device_backs") else { return };
    let [owner, peer] = &world.devices;
    let area = owner.reserve_area(3).expect("frames");
    let (range, page) = (area.range(), world.space.page_size().bytes());
    assert_eq!(owner.memory_used(), 3 * page);
    for number in 0..3 {
        let at = range.start() + number * page;
        assert_eq!(add(owner, at, 4), Ok(0), "it is zeros at first");
        assert_eq!(add(owner, at, 4), Ok(4));
    }
    // Main memory is no answer here.
    assert!(add(peer, range.start(), 1).is_err());
    owner.export(range, Export::Map).expect("whole pages");
    assert_eq!(add(peer, range.start(), 1), Ok(8));
    assert_eq!(add(owner, range.start(), 1), Ok(9));
    // Nothing migrates, and a fork or a close does not wait for it.
    assert_eq!(peer.migrate(range).expect("whole pages").stayed(), 3);
    assert!(owner.reserve_area(10_000).is_err(), "more than the device has");
    assert_eq!(owner.memory_used(), 3 * page, "and nothing of it is left behind");
    thread::spawn(|| std::process::Command::new("true").status()).join().expect("a thread").ok();
    drop(area);
    assert_eq!(owner.memory_used(), 0);
    assert!(add(owner, range.start(), 1).is_err(), "the addresses are gone");
    world.close();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
