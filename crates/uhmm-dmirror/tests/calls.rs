//! What the calls of a node do, answer and refuse.

use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uhmm::AddressSpace;
use uhmm_dmirror::{Command, Error, Function, Node, seen};

/// There is one address space a process, so there is one test at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pages of private memory of a test's own.
struct Memory {
    start: *mut u8,
    page: usize,
    pages: usize,
}

impl Memory {
    fn map(pages: usize, page: usize) -> Self {
        Self::of(pages, page, libc::MAP_PRIVATE)
    }

    fn of(pages: usize, page: usize, kind: i32) -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, kind | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the system wants it.
        let start = unsafe { libc::mmap(ptr::null_mut(), pages * page, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), page, pages }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this value's own.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.pages * self.page) }
    }

    fn fill(&mut self, salt: u8) {
        for (index, byte) in self.bytes().iter_mut().enumerate() {
            *byte = pattern(index, salt);
        }
    }

    fn protect(&self, page: usize, pages: usize, protection: i32) {
        // SAFETY: the pages are this value's own; nobody has a reference into them.
        let done = unsafe {
            libc::mprotect(self.start.add(page * self.page).cast(), pages * self.page, protection)
        };
        assert_eq!(done, 0);
    }

    fn unmap(&self, page: usize, pages: usize) {
        // SAFETY: as above.
        let done =
            unsafe { libc::munmap(self.start.add(page * self.page).cast(), pages * self.page) };
        assert_eq!(done, 0);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.unmap(0, self.pages);
    }
}

fn pattern(index: usize, salt: u8) -> u8 {
    (index / 7 + index / 4096).to_le_bytes()[0] ^ salt
}

/// A call over `pages` pages of `memory` from `page` on.
fn call(
    node: &Node<'_>,
    function: Function,
    memory: &Memory,
    (page, pages): (usize, usize),
    data: &mut [u8],
) -> Result<Command, Error> {
    let mut command = Command {
        address: (memory.start.addr() + page * memory.page) as u64,
        data: data.as_mut_ptr().expose_provenance() as u64,
        pages: pages as u64,
        ..Command::default()
    };
    // SAFETY: the test's memory is used by nobody else meanwhile.
    unsafe { node.run(function, &mut command) }?;
    Ok(command)
}

struct World {
    space: &'static AddressSpace,
    page: usize,
    _one: MutexGuard<'static, ()>,
}

impl World {
    fn open() -> Self {
        let one = one_at_a_time();
        let space: &AddressSpace =
            Box::leak(Box::new(AddressSpace::open().expect("it can be opened")));
        Self { space, page: space.page_size().bytes(), _one: one }
    }

    fn node(&self) -> Node<'static> {
        Node::attach(self.space, 64 * self.page).expect("there is memory for a device")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the nodes of the test are gone.
        drop(unsafe { Box::from_raw(ptr::from_ref(self.space).cast_mut()) });
    }
}

#[test]
fn pages_go_and_come_back_with_their_content() {
    let world = World::open();
    let node = world.node();
    let mut memory = Memory::map(16, world.page);
    let mut data = vec![0; 16 * world.page];
    memory.fill(1);
    let told = call(&node, Function::MigrateToDevice, &memory, (0, 16), &mut data).unwrap();
    assert_eq!(told.done, 16);
    assert!(data.iter().enumerate().all(|(index, &byte)| byte == pattern(index, 1)));
    let told = call(&node, Function::MigrateToSystem, &memory, (4, 4), &mut data).unwrap();
    assert_eq!(told.done, 4);
    let mut bytes = [0; 16];
    call(&node, Function::Snapshot, &memory, (0, 16), &mut bytes).unwrap();
    let (away, here) = (seen::PRIVATE_OWN | seen::WRITE, seen::WRITE);
    assert_eq!(bytes[..4], [away; 4]);
    assert_eq!(bytes[4..8], [here; 4]);
    assert_eq!(bytes[8..], [away; 8]);
    call(&node, Function::Release, &memory, (0, 1), &mut data).unwrap();
    call(&node, Function::Snapshot, &memory, (0, 16), &mut bytes).unwrap();
    assert_eq!(bytes, [here; 16]);
    assert!(memory.bytes().iter().enumerate().all(|(index, &byte)| byte == pattern(index, 1)));
}

#[test]
fn coherent_memory_is_seen_by_all_and_told_whose_it_is() {
    let world = World::open();
    let attach = || Node::attach_coherent(world.space, 8 * world.page).expect("there is memory");
    let (node, other) = (attach(), attach());
    let mut memory = Memory::map(12, world.page);
    let mut data = vec![0; 12 * world.page];
    memory.fill(5);
    let told = call(&node, Function::MigrateToDevice, &memory, (0, 6), &mut data).unwrap();
    assert_eq!(told.done, 6);
    assert!(data[..6 * world.page].iter().enumerate().all(|(at, &byte)| byte == pattern(at, 5)));
    // The processor's accesses leave it there.
    let faults = world.space.counters().cpu_faults;
    memory.fill(6);
    assert_eq!(world.space.counters().cpu_faults, faults);
    let mut bytes = [0; 12];
    call(&node, Function::Snapshot, &memory, (0, 12), &mut bytes).unwrap();
    assert_eq!(bytes[..6], [seen::COHERENT_OWN | seen::WRITE; 6]);
    assert_eq!(bytes[6..], [seen::WRITE; 6]);
    call(&other, Function::Snapshot, &memory, (0, 12), &mut bytes).unwrap();
    assert_eq!(bytes[..6], [seen::COHERENT_OTHER | seen::WRITE; 6]);
    // Others read it where it is, and do not take it.
    let told = call(&other, Function::Read, &memory, (0, 6), &mut data).unwrap();
    assert_eq!(told.done, 6);
    assert!(data[..6 * world.page].iter().enumerate().all(|(at, &byte)| byte == pattern(at, 6)));
    let refused = call(&other, Function::MigrateToDevice, &memory, (0, 6), &mut data);
    assert_eq!(refused, Err(Error::NothingMoved));
    // There is room for eight.
    let told = call(&node, Function::MigrateToDevice, &memory, (0, 12), &mut data).unwrap();
    assert_eq!(told.done, 8);
    let told = call(&node, Function::MigrateToSystem, &memory, (0, 12), &mut data).unwrap();
    assert_eq!(told.done, 8);
    call(&node, Function::Snapshot, &memory, (0, 12), &mut bytes).unwrap();
    assert_eq!(bytes, [seen::WRITE; 12]);
    assert!(memory.bytes().iter().enumerate().all(|(at, &byte)| byte == pattern(at, 6)));
}

#[test]
fn the_device_reads_and_writes_with_one_fault() {
    let world = World::open();
    let node = world.node();
    let mut memory = Memory::map(8, world.page);
    let mut data = vec![0; 8 * world.page];
    memory.fill(2);
    let told = call(&node, Function::Read, &memory, (0, 8), &mut data).unwrap();
    assert_eq!((told.done, told.faults), (8, 1));
    assert!(data.iter().enumerate().all(|(index, &byte)| byte == pattern(index, 2)));
    // It has entries for reading, and needs others for writing.
    data.fill(3);
    let told = call(&node, Function::Write, &memory, (0, 8), &mut data).unwrap();
    assert_eq!((told.done, told.faults), (8, 1));
    assert!(memory.bytes().iter().all(|&byte| byte == 3));
    let told = call(&node, Function::Write, &memory, (0, 8), &mut data).unwrap();
    assert_eq!((told.done, told.faults), (8, 0));
}

#[test]
fn other_memory_at_an_address_is_other_memory() {
    let world = World::open();
    let node = world.node();
    for round in 0..200_u8 {
        let mut memory = Memory::map(4, world.page);
        let mut data = vec![0; 4 * world.page];
        memory.fill(round);
        let told = call(&node, Function::Read, &memory, (0, 4), &mut data).unwrap();
        assert_eq!((told.done, told.faults), (4, 1), "round {round}");
        assert_eq!(data, memory.bytes(), "round {round}");
    }
}

#[test]
fn exclusive_pages_are_so_until_the_processor_touches_them() {
    let world = World::open();
    let node = world.node();
    let mut memory = Memory::map(4, world.page);
    let mut data = vec![0; 4 * world.page];
    memory.fill(4);
    let check = |data: &mut [u8], memory: &Memory| {
        call(&node, Function::CheckExclusive, memory, (0, 4), data).map(|_| ())
    };
    assert_eq!(check(&mut data, &memory), Ok(()));
    let told = call(&node, Function::Exclusive, &memory, (0, 4), &mut data).unwrap();
    assert_eq!(told.done, 4);
    assert_eq!(check(&mut data, &memory), Err(Error::NotPermitted));
    assert_eq!(data, memory.bytes());
    assert_eq!(check(&mut data, &memory), Ok(()));
}

#[test]
fn what_cannot_be_is_refused_as_the_kernel_does() {
    let world = World::open();
    let (node, other) = (world.node(), world.node());
    let memory = Memory::map(8, world.page);
    let mut data = vec![0; 8 * world.page];
    let mut at = |node: &Node<'_>, function, pages| call(node, function, &memory, pages, &mut data);
    let no_access = libc::PROT_NONE;

    // Ranges.
    let run = |address: u64, pages: u64| {
        let mut command = Command { address, pages, ..Command::default() };
        // SAFETY: no page is touched.
        unsafe { node.run(Function::Read, &mut command) }
    };
    for (address, pages) in [(0x1001, 1), (0x1000, 0), (u64::MAX - 4095, 2), (0x1000, u64::MAX)] {
        assert_eq!(run(address, pages), Err(Error::Invalid), "{address:#x}, {pages}");
    }
    // A request that there is none of, and structures and buffers that are not there.
    // SAFETY: no page is touched.
    assert_eq!(unsafe { node.call(0x1234, 0) }, Err(Error::Invalid));
    // SAFETY: as above.
    assert_eq!(unsafe { node.call(Function::Read.request(), 8) }, Err(Error::Fault));

    // Areas.
    memory.protect(0, 1, no_access);
    memory.unmap(1, 1);
    memory.protect(2, 1, libc::PROT_READ);
    assert_eq!(at(&node, Function::MigrateToDevice, (0, 1)), Err(Error::Invalid));
    assert_eq!(at(&node, Function::MigrateToDevice, (1, 1)), Err(Error::Invalid));
    assert_eq!(at(&node, Function::MigrateToSystem, (0, 8)), Err(Error::Invalid));
    assert_eq!(at(&node, Function::Read, (0, 1)), Err(Error::Fault));
    assert_eq!(at(&node, Function::Read, (1, 1)), Err(Error::Fault));
    assert_eq!(at(&node, Function::Write, (2, 1)), Err(Error::NotPermitted));
    assert_eq!(at(&node, Function::Read, (2, 1)).map(|told| told.done), Ok(1));

    // What is on one device another leaves there.
    assert_eq!(at(&node, Function::MigrateToDevice, (4, 2)).map(|told| told.done), Ok(2));
    assert_eq!(at(&other, Function::MigrateToDevice, (4, 2)), Err(Error::NothingMoved));
    let mut bytes = [0; 8];
    call(&other, Function::Snapshot, &memory, (0, 8), &mut bytes).unwrap();
    assert_eq!(bytes[..2], [seen::ERROR; 2]);
    assert_eq!(bytes[4..6], [seen::NONE; 2]);

    // Shared memory is nobody's alone.
    let shared = Memory::of(2, world.page, libc::MAP_SHARED);
    let refused = call(&node, Function::MigrateToDevice, &shared, (0, 2), &mut bytes);
    assert_eq!(refused, Err(Error::NothingMoved));
}
