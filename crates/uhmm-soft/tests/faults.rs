//! What the workers of a device miss: served in batches, whatever room there is; cancelled alone where it
//! cannot be had; and what they will want comes while they compute.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uhmm::{AddressSpace, PageError};
use uhmm_soft::{AccessError, In, InOut, Options, RunError, Soft, Worker};

/// This process's address space, of which there is one at a time.
struct Machine {
    space: AddressSpace,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    fn open() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { space: AddressSpace::open().unwrap(), _alone: alone }
    }

    fn page(&self) -> usize {
        self.space.page_size().bytes()
    }

    fn start(&self, options: Options) -> Soft {
        self.space.adopt_everything().unwrap();
        Soft::start(&self.space, options).unwrap()
    }
}

/// Addresses of `len` bytes where nothing is: mapped without access, and unmapped.
fn nowhere(len: usize) -> usize {
    // SAFETY: a new mapping, which is unmapped before anybody knows of it.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        assert_eq!(libc::munmap(start, len), 0);
        start
    };
    start.addr()
}

fn double(worker: &mut Worker<'_>, item: usize, numbers: &InOut<u64>) -> Result<(), AccessError> {
    let number = numbers.get(worker, item)?;
    numbers.set(worker, item, 2 * number)
}

#[test]
fn a_kernel_that_touches_nothing_is_cancelled_alone() {
    let machine = Machine::open();
    let page = machine.page();
    let mut numbers: Vec<u64> = (0..1 << 16).collect();
    let mut others: Vec<u64> = (0..1 << 16).collect();
    let options = Options::new(256 * page).workers(2);
    let (device, other) = (machine.start(options), machine.start(options));
    let before = machine.space.counters().queues_cancelled;
    let address = nowhere(16 * page) + 8 * page + 24;
    // One launch works on the other device, one fails, and one waits behind it.
    let works = other.start_job(0..1 << 16, double, core::mem::take(&mut others));
    // SAFETY: what is loaded is not there, which is an error and no more.
    let fails = unsafe {
        device.run(0..64, move |worker, item| match item {
            40 => worker.load::<u64>(address).map(drop),
            _ => Ok(()),
        })
    };
    device.launch(0..1 << 16, double, &mut numbers[..]).unwrap();
    let (others, worked) = works.join();
    assert_eq!(worked, Ok(()));
    match fails {
        Err(RunError::Item { item: 40, error: AccessError::Map(error) }) => {
            assert_eq!((error.address, error.error), (address, PageError::NoArea));
        }
        Err(RunError::Item { item: 40, error: AccessError::Fault(error) }) => {
            assert_eq!((error.address, error.cause), (address, uhmm::StayCause::NoArea));
        }
        fails => panic!("{fails:?}"),
    }
    assert_eq!(machine.space.counters().queues_cancelled - before, 1);
    assert!(numbers.iter().zip(0..).all(|(&number, index)| number == 2 * index));
    assert_eq!(others, numbers);
    drop((device, other));
    machine.space.close().unwrap();
}

#[test]
fn a_kernel_can_go_on_without_what_it_cannot_have() {
    let machine = Machine::open();
    let page = machine.page();
    let mut numbers = vec![0_u64; 1 << 12];
    let device = machine.start(Options::new(64 * page).workers(3));
    let before = machine.space.counters().queues_cancelled;
    let start = nowhere(64 * page);
    let kernel = |worker: &mut Worker<'_>, item: usize, numbers: &InOut<u64>| {
        // SAFETY: what is loaded is not there, which is an error and no more.
        let error = unsafe { worker.load::<u64>(start + item * page) }.unwrap_err();
        assert!(error.to_string().contains(&format!("{:#x}", start + item * page)), "{error}");
        numbers.set(worker, item, 1)
    };
    device.launch(0..64, kernel, &mut numbers[..]).unwrap();
    assert_eq!(numbers.iter().sum::<u64>(), 64);
    assert_eq!(machine.space.counters().queues_cancelled - before, 64);
    drop(device);
    machine.space.close().unwrap();
}

/// Many workers want the same pages and others, in a memory that has not room for all, with a buffer that
/// has room for one fault and for many.
#[test]
fn sums_are_right_whatever_room_there_is() {
    let machine = Machine::open();
    let page = machine.page();
    let mut numbers = vec![1_u64; 1 << 17];
    let items = numbers.len() / 64;
    for (workers, entries) in [(1, 1), (4, 1), (8, 3), (16, 256)] {
        let options = Options::new(64 * page).workers(workers).fault_buffer(entries);
        let device = machine.start(options);
        let before = machine.space.counters();
        let kernel = |worker: &mut Worker<'_>, item: usize, numbers: &InOut<u64>| {
            // Those that work at the same time are spread over all pages.
            let place = item * 1237 % items * 64;
            let sum = numbers.get(worker, place)? + numbers.get(worker, place + 63)?;
            numbers.set(worker, place + 1, sum)
        };
        device.launch(0..items, kernel, &mut numbers[..]).unwrap();
        assert!(numbers.iter().skip(1).step_by(64).all(|&sum| sum == 2));
        numbers.fill(1);
        drop(device);
        let after = machine.space.counters();
        assert!(after.fault_batches > before.fault_batches, "they are served in batches");
        assert_eq!(after.queues_cancelled, before.queues_cancelled);
        println!(
            "{workers} workers, {entries} entries: {} batches, {} merged, {} stale, {} held back",
            after.fault_batches - before.fault_batches,
            after.faults_merged - before.faults_merged,
            after.faults_stale - before.faults_stale,
            after.faults_held_back - before.faults_held_back,
        );
    }
    machine.space.close().unwrap();
}

#[test]
fn what_will_be_wanted_comes_meanwhile() {
    let machine = Machine::open();
    let page = machine.page();
    let numbers: Vec<u64> = (0..64 * page as u64 / 8).collect();
    let device = machine.start(Options::new(1024 * page).workers(2).keep_pages());
    let kernel = |worker: &mut Worker<'_>, _: usize, numbers: &In<u64>| {
        // What is not there is not waited for, and nothing fails.
        worker.prefetch(nowhere(page), page);
        worker.prefetch(usize::MAX - 5, 100);
        worker.prefetch(0, 0);
        numbers.prefetch(worker, 0, numbers.len())?;
        let begun = Instant::now();
        while device.memory_used() < 64 * page && begun.elapsed() < Duration::from_secs(30) {
            std::thread::yield_now();
        }
        let error = numbers.prefetch(worker, 1, numbers.len()).unwrap_err();
        assert!(matches!(error, AccessError::OutOfBounds { .. }), "{error}");
        let mut sum = 0;
        for index in (0..numbers.len()).step_by(100) {
            sum += numbers.get(worker, index)?;
        }
        assert_eq!(sum, (0..numbers.len() as u64).step_by(100).sum());
        Ok(())
    };
    let before = machine.space.counters();
    device.launch(0..1, kernel, &numbers[..]).unwrap();
    assert!(device.memory_used() >= 64 * page, "{} bytes", device.memory_used());
    let after = machine.space.counters();
    assert_eq!(after.queues_cancelled, before.queues_cancelled);
    drop(device);
    machine.space.close().unwrap();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
