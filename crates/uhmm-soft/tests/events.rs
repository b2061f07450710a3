//! What is recorded is what happened: who reads all events knows where each page is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uhmm::{
    AddressSpace, CpuFaultOutcome, DeviceFaultOutcome, Event, Histogram, Holder, Latency,
    MoveCause, PageLocation, RecordError, Recording, What,
    mm::Access,
    units::{AddressRange, PageSize},
};
use uhmm_soft::{Options, Soft};

const PAGES: usize = 1024;

/// A process has one address space.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mapping of its own, unmapped at the end.
struct Memory {
    start: usize,
    page: usize,
    pages: usize,
}

impl Memory {
    fn map(page: usize, pages: usize) -> Self {
        // SAFETY: a new mapping at a place of the system's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.expose_provenance(), page, pages }
    }

    fn range(&self, first: usize, pages: usize) -> AddressRange {
        assert!(first + pages <= self.pages);
        AddressRange::new(self.start + first * self.page, pages * self.page).unwrap()
    }

    fn write(&self, page: usize, value: u64) {
        let at = std::ptr::with_exposed_provenance_mut::<u64>(self.range(page, 1).start());
        // SAFETY: the place is in the mapping and aligned.
        unsafe { at.write_volatile(value) };
    }

    fn read(&self, page: usize) -> u64 {
        let at = std::ptr::with_exposed_provenance::<u64>(self.range(page, 1).start());
        // SAFETY: the place is in the mapping and aligned.
        unsafe { at.read_volatile() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = std::ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the mapping is this value's, and nobody has a reference into it.
        unsafe { libc::munmap(start, self.pages * self.page) };
    }
}

fn all(recording: &mut Recording) -> Vec<Event> {
    std::iter::from_fn(|| recording.take()).collect()
}

/// Follows moves: who holds each page, which is system memory unless told.
#[derive(Default)]
struct Holders(HashMap<usize, Holder>);

impl Holders {
    /// Those of one block are told in their order, which those of two blocks need not be.
    fn follow(&mut self, events: &[Event]) {
        for event in events {
            let What::Moved { from, to, .. } = event.what else { continue };
            for page in event.pages.pages() {
                let before = self.0.insert(page.0, to).unwrap_or(Holder::System);
                let expected = match from {
                    // It may have been touched again, which is no move.
                    Holder::System | Holder::Nobody => Holder::System,
                    device @ Holder::Device(_) => device,
                };
                let before = if before == Holder::Nobody { Holder::System } else { before };
                assert_eq!(before, expected, "{event:?}");
            }
        }
    }

    fn check(&self, space: &AddressSpace, memory: &Memory, size: PageSize) -> usize {
        let mut away = 0;
        for page in 0..memory.pages {
            let address = memory.range(page, 1).start();
            let told = self.0.get(&size.page_of(address).0).copied().unwrap_or(Holder::System);
            match space.locate(address) {
                PageLocation::Device(device) => {
                    assert_eq!(told, Holder::Device(device), "page {page}");
                    away += 1;
                }
                PageLocation::System | PageLocation::Poisoned => {
                    assert!(!matches!(told, Holder::Device(_)), "page {page}: {told:?}");
                }
            }
        }
        away
    }
}

/// The histogram of CPU faults, once it counts as many as were told in `told` and since then.
///
/// A fault that two handlers read is told by the later one when it finds that, which nobody waits for.
fn cpu_faults_when_all_are_told(
    recording: &mut Recording,
    holders: &mut Holders,
    told: &[Event],
) -> Histogram {
    let faults_of = |events: &[Event]| {
        events.iter().filter(|event| matches!(event.what, What::CpuFault { .. })).count()
    };
    let (mut served, asked) = (faults_of(told), Instant::now());
    loop {
        let later = all(recording);
        holders.follow(&later);
        served += faults_of(&later);
        let histogram = recording.histogram(Latency::CpuFault);
        if histogram.count() == served as u64 {
            return histogram;
        }
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{served} told, {} counted",
            histogram.count()
        );
    }
}

#[test]
fn who_reads_all_events_knows_where_each_page_is() {
    let _alone = alone();
    let space = AddressSpace::open().unwrap();
    let size = space.page_size();
    let memory = Memory::map(size.bytes(), PAGES);
    let target = Memory::map(size.bytes(), PAGES);
    (0..PAGES).for_each(|page| memory.write(page, page as u64));
    space.adopt(memory.range(0, PAGES)).unwrap();
    let device = Soft::start(&space, Options::new(PAGES / 2 * size.bytes()).workers(1)).unwrap();
    let other = Soft::start(&space, Options::new(PAGES * size.bytes())).unwrap();

    let mut recording = space.record(1 << 16).unwrap();
    assert_eq!(space.record(1).unwrap_err(), RecordError::AlreadyRecording);
    let before = space.counters();
    let mut holders = Holders::default();

    // By request, with eviction, and back on faults.
    device.migrate(memory.range(0, PAGES / 2)).unwrap();
    let start = memory.start;
    let page = size.bytes();
    // SAFETY: the kernel touches the mapping through its worker alone, and nobody else does meanwhile.
    unsafe {
        device.run(0..PAGES, move |worker, item| {
            let at = start + item * page;
            let value: u64 = worker.load(at)?;
            worker.store(at, value + 1)
        })
    }
    .unwrap();
    for page in (0..PAGES).rev().step_by(3) {
        assert_eq!(memory.read(page), page as u64 + 1);
    }
    // To another device, discarded, moved to other addresses, unmapped.
    other.migrate(memory.range(PAGES / 4, PAGES / 2)).unwrap();
    let part = memory.range(PAGES / 2, 16);
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.start());
    // SAFETY: the mapping holds numbers, of which any may become zero.
    assert_eq!(unsafe { libc::madvise(at, part.len(), libc::MADV_DONTNEED) }, 0);
    let part = memory.range(PAGES / 4, 64);
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.start());
    let to = std::ptr::with_exposed_provenance_mut::<libc::c_void>(target.start);
    // SAFETY: both are mappings of the test without references into them.
    let moved = unsafe {
        libc::mremap(at, part.len(), part.len(), libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to)
    };
    assert_eq!(moved, to);
    let part = memory.range(PAGES / 2 + 32, 32);
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.start());
    // SAFETY: nobody has a reference into it.
    assert_eq!(unsafe { libc::munmap(at, part.len()) }, 0);

    space.locate(memory.start);
    let events = all(&mut recording);
    holders.follow(&events);
    assert!(holders.check(&space, &memory, size) > 0);
    assert_eq!(holders.check(&space, &target, size), 64);

    let pages_by = |wanted: MoveCause| -> usize {
        let moves = events
            .iter()
            .filter(|event| matches!(event.what, What::Moved { cause, .. } if cause == wanted));
        moves.map(|event| event.pages.len()).sum()
    };
    let now = space.counters();
    let since = |counter: fn(&uhmm::CounterValues) -> u64| {
        usize::try_from(counter(&now) - counter(&before)).unwrap()
    };
    assert_eq!(pages_by(MoveCause::Eviction), since(|counters| counters.to_system_eviction));
    assert_eq!(pages_by(MoveCause::Discarded), since(|counters| counters.ended_by_discard));
    assert_eq!(pages_by(MoveCause::Unmapped), since(|counters| counters.ended_by_unmap));
    // Out of the one place, into the other.
    assert_eq!(pages_by(MoveCause::Remapped), 2 * since(|counters| counters.remapped));
    assert_eq!(pages_by(MoveCause::Request), since(|counters| counters.to_device_request));
    assert_eq!(
        pages_by(MoveCause::Fault) + pages_by(MoveCause::Neighbour),
        since(|counters| {
            counters.to_device_fault
                + counters.to_device_neighbour
                + counters.to_system_fault
                + counters.to_system_neighbour
        })
    );
    let count = |wanted: fn(What) -> bool| events.iter().filter(|event| wanted(event.what)).count();
    let brought_back = |what| {
        let outcome = CpuFaultOutcome::BroughtBack;
        what == What::CpuFault { access: Access::Read, outcome }
    };
    assert_eq!(count(brought_back), since(|counters| counters.cpu_faults));
    let by_device =
        |what| matches!(what, What::DeviceFault { outcome: DeviceFaultOutcome::Migrated, .. });
    assert_eq!(count(by_device), since(|counters| counters.device_faults));

    // Histograms count the same.
    let cpu = cpu_faults_when_all_are_told(&mut recording, &mut holders, &events);
    assert!(cpu.per_mille(500) > Duration::ZERO && cpu.per_mille(500) <= cpu.per_mille(999));
    assert_eq!(recording.histogram(Latency::DeviceFault).count(), count(by_device) as u64);
    assert!(recording.histogram(Latency::ToSystem).count() > 0);

    // A device that is lost, and all that comes back.
    other.lose();
    drop(device);
    recording.stop();
    holders.follow(&all(&mut recording));
    assert_eq!(holders.check(&space, &memory, size) + holders.check(&space, &target, size), 0);
    assert_eq!(recording.lost(), 0);
    let (cpus, first) = (std::thread::available_parallelism().unwrap().get(), events[0]);
    assert!(events.iter().all(|event| usize::from(event.processor) < cpus.max(4096)));
    assert!(events.iter().all(|event| event.thread != 0 && event.began + 1_000_000 > first.began));
    drop((recording, other));
    space.close().unwrap();
}

/// An address space, memory that was written and adopted, and a device that can have all of it.
fn adopted() -> (AddressSpace, Memory, Soft) {
    let space = AddressSpace::open().unwrap();
    let page = space.page_size().bytes();
    let memory = Memory::map(page, PAGES);
    (0..PAGES).for_each(|page| memory.write(page, 1));
    space.adopt(memory.range(0, PAGES)).unwrap();
    let device = Soft::start(&space, Options::new(PAGES * page)).unwrap();
    (space, memory, device)
}

#[test]
fn what_finds_no_room_is_counted_and_the_next_recording_is_empty() {
    let _alone = alone();
    let (space, memory, device) = adopted();
    let mut recording = space.record(8).unwrap();
    for page in (0..PAGES).step_by(4) {
        device.migrate(memory.range(page, 1)).unwrap();
    }
    let events = all(&mut recording);
    assert_eq!(events.len(), 8);
    assert_eq!(recording.lost(), PAGES as u64 / 4 - 8);
    assert_eq!(recording.histogram(Latency::ToDevice).count(), PAGES as u64 / 4);
    // There is room again.
    device.migrate(memory.range(1, 1)).unwrap();
    assert_eq!(all(&mut recording).len(), 1);
    drop(recording);
    device.migrate(memory.range(2, 1)).unwrap();

    let mut recording = space.record(8).unwrap();
    assert_eq!(recording.take(), None);
    assert_eq!((recording.lost(), recording.histogram(Latency::ToDevice).count()), (0, 0));
    device.migrate(memory.range(3, 1)).unwrap();
    recording.stop();
    device.migrate(memory.range(5, 1)).unwrap();
    assert_eq!(all(&mut recording).len(), 1);
    drop((recording, device));
    space.close().unwrap();
}

#[test]
fn recordings_come_and_go_while_pages_move() {
    let _alone = alone();
    let (space, memory, device) = adopted();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                device.migrate(memory.range(0, PAGES)).unwrap();
                (0..PAGES).step_by(7).for_each(|page| memory.write(page, 2));
            }
        });
        let mut recorded = 0;
        while recorded < 200 {
            let mut recording = space.record(64).unwrap();
            std::thread::yield_now();
            recorded += usize::from(recording.take().is_some());
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(device);
    space.close().unwrap();
}
