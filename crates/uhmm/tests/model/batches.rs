//! Random batches of faults, served on the model: who is cancelled, for which address and why, against what
//! an oracle says of each fault alone. What is served is there, and no content is lost.
//!
//! `UHMM_FAULT_BATCHES` says how many batches, `UHMM_SEED` which.

use uhmm::{
    Attachment, FaultAccess, FaultBatch, FaultFailure, PageError, QueueCancelled, QueueNumber,
    ServedElsewhere, Service, StayCause,
    mm::{Access, model::Model},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    device::{QueueWorker, TestDevice},
    random_numbers::Random,
    world::{READ_ONLY, World, bytes, load, map, pages, store, word},
};

const QUEUES: usize = 4;

/// The most faults of one batch: the device has room for the pages of all.
const MOST: usize = 24;

const ACCESSES: [FaultAccess; 5] = [
    FaultAccess::Prefetch,
    FaultAccess::Read,
    FaultAccess::Read,
    FaultAccess::Write,
    FaultAccess::Atomic,
];

/// What a program has at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Memory that devices may take.
    Adopted,
    /// That, where nothing may be written.
    ReadOnly,
    /// Memory that stays where it is.
    NotAdopted,
    /// Nothing.
    Nothing,
}

/// What lies where, across edges between blocks.
fn kinds() -> [(Kind, PageRange); 4] {
    [
        (Kind::Adopted, pages(BLOCK_PAGES - 4, BLOCK_PAGES + 3)),
        (Kind::ReadOnly, pages(BLOCK_PAGES + 3, BLOCK_PAGES + 5)),
        (Kind::NotAdopted, pages(2 * BLOCK_PAGES - 2, 2 * BLOCK_PAGES + 2)),
        (Kind::Nothing, pages(3 * BLOCK_PAGES, 3 * BLOCK_PAGES + 2)),
    ]
}

fn one_of<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len())]
}

/// Why a fault cannot be served, if so: of itself, whatever else is in the batch.
fn failure(kind: Kind, how: Service, access: FaultAccess) -> Option<FaultFailure> {
    let writes = access.access() == Access::Write;
    let mapped = match kind {
        Kind::ReadOnly if writes => Some(FaultFailure::NotMapped(PageError::Protection)),
        Kind::Nothing => Some(FaultFailure::NotMapped(PageError::NoArea)),
        _ => None,
    };
    let stays = match kind {
        Kind::Adopted => return None,
        Kind::ReadOnly => StayCause::Protection,
        Kind::NotAdopted | Kind::Nothing => StayCause::NotAdopted,
    };
    match how {
        Service::Map | Service::MigrateOrMap => mapped,
        Service::Migrate | Service::Exclusive => Some(FaultFailure::Stays(stays)),
    }
}

/// How pages are served in one batch: by their number.
fn how(seed: u64, page: PageNumber) -> Service {
    let all = [Service::Migrate, Service::MigrateOrMap, Service::Map, Service::Exclusive];
    one_of(&mut Random::new(seed ^ page.0 as u64), &all)
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
}

#[test]
fn batches_are_served_as_each_fault_would_be() {
    let batches = number_of("UHMM_FAULT_BATCHES", if cfg!(miri) { 8 } else { 3000 });
    let seed = number_of("UHMM_SEED", 1);
    println!("UHMM_SEED={seed}");
    let mut random = Random::new(seed);
    let world = World::open();
    for (kind, range) in kinds() {
        if kind != Kind::Nothing {
            map(&world.model, range);
        }
        if matches!(kind, Kind::Adopted | Kind::ReadOnly) {
            world.space.adopt(bytes(range)).unwrap();
        }
        for page in range.pages().filter(|_| kind != Kind::Nothing) {
            store(&world.model, word(page, 0), page.0 as u64);
        }
        if kind == Kind::ReadOnly {
            world.model.protect(range, READ_ONLY).unwrap();
            world.space.protection_changed(bytes(range)).unwrap();
        }
    }
    let device = world.attach(8 * MOST, QUEUES);
    let buffer = device.fault_buffer(QUEUES, MOST).unwrap();
    let mut workers: Vec<_> = (0..QUEUES)
        .map(|queue| QueueWorker::new(&device, &buffer, queue, ServedElsewhere))
        .collect();
    let (mut merged, mut cancelled) = (0, 0);
    for batch in 0..batches {
        let seed = random.next();
        let mut expected: [Option<QueueCancelled>; QUEUES] = [None; QUEUES];
        let mut faulted = Vec::new();
        for _ in 0..=random.below(MOST) {
            let queue = one_of(&mut random, &[0, 1, 2, 3]);
            let (kind, range) = one_of(&mut random, &kinds());
            let page = range.start().plus(random.below(range.len()));
            let access = one_of(&mut random, &ACCESSES);
            let address = word(page, random.below(8));
            workers[queue].queue.enter(address, access).unwrap();
            faulted.push((page, access));
            if let Some(failure) = failure(kind, how(seed, page), access)
                && !access.is_hint()
                && expected[queue].is_none()
            {
                let queue = QueueNumber(queue);
                expected[queue.0] = Some(QueueCancelled { queue, address, access, failure });
            }
        }
        let faults = buffer.drain().expect("there is a fault at least");
        let replayed = device.serve_faults(faults, |page, _| how(seed, page));
        assert_eq!(replayed.faults, faulted.len(), "batch {batch}");
        assert_eq!(replayed.cancelled, expected.iter().flatten().count(), "batch {batch}");
        assert!(buffer.drain().is_none(), "all came in one batch");
        for (worker, expected) in workers.iter_mut().zip(expected) {
            assert_eq!(worker.queue.wait(), expected.map_or(Ok(()), Err), "batch {batch}");
        }
        check_there(&device, seed, &faulted, batch);
        faulted.sort_by_key(|(page, _)| *page);
        let all = faulted.len();
        faulted.dedup_by_key(|(page, _)| *page);
        merged += all - faulted.len();
        cancelled += replayed.cancelled;
        // Something is taken away again, by the one way or the other.
        let (_, range) = kinds()[0];
        let page = range.start().plus(random.below(range.len()));
        match random.below(3) {
            0 => {
                assert_eq!(load(&world.model, word(page, 0)), page.0 as u64);
                // Waits for the handler that served it, which brings its neighbours too.
                world.space.locate(word(page, 0));
            }
            1 => {
                device.bring_all_back();
            }
            _ => {}
        }
    }
    let counters = world.space.counters();
    assert_eq!(counters.fault_batches, batches);
    assert_eq!(
        (counters.faults_merged, counters.queues_cancelled),
        (merged as u64, cancelled as u64)
    );
    assert!(counters.faults_stale > 0 && cancelled > 0 && merged > 0);
    drop(workers);
    for (_, range) in &kinds()[..3] {
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), page.0 as u64, "{page:?}");
        }
    }
    drop(buffer);
    drop(device);
    world.end();
}

/// Checks that the device has what came to its memory.
fn check_there(
    device: &Attachment<TestDevice, Model>,
    seed: u64,
    faulted: &[(PageNumber, FaultAccess)],
    batch: u64,
) {
    use uhmm::Device;
    let (_, adopted) = kinds()[0];
    for &(page, access) in faulted {
        if adopted.contains(page) && how(seed, page) != Service::Map {
            assert!(device.device().has(page, access), "batch {batch}: {page:?} for {access:?}");
        }
    }
}

#[test]
fn one_look_at_an_area_serves_all_its_blocks() {
    let range = pages(0, 3 * BLOCK_PAGES);
    let world = World::with(range);
    // Room for a batch of nine, an eighth of its frames, and for all pages.
    let device = world.attach((8 * BLOCK_PAGES).max(8 * 9), 2);
    assert_eq!(device.migrate(bytes(range)).unwrap().stayed(), 0);
    device.bring_all_back();
    let buffer = device.fault_buffer(2, 24).unwrap();
    let [mut one, mut other] =
        [0, 1].map(|queue| QueueWorker::new(&device, &buffer, queue, ServedElsewhere));
    let before = world.space.counters();
    // Two pages of each block, from the last to the first; one of them both want.
    for page in [0, BLOCK_PAGES - 1].map(PageNumber) {
        for block in [2, 0, 1] {
            let page = page.plus(block * BLOCK_PAGES);
            one.queue.enter(word(page, 1), FaultAccess::Write).unwrap();
            if page.in_block() == 0 {
                other.queue.enter(word(page, 2), FaultAccess::Read).unwrap();
            }
        }
    }
    let replayed = device.serve_faults(buffer.drain().unwrap(), |_, _| Service::Migrate);
    assert_eq!((replayed.faults, replayed.cancelled), (9, 0));
    assert_eq!((one.queue.wait(), other.queue.wait()), (Ok(()), Ok(())));
    let after = world.space.counters();
    assert_eq!(after.fault_areas - before.fault_areas, 1);
    assert_eq!(after.fault_batches - before.fault_batches, 1);
    assert_eq!(after.faults_merged - before.faults_merged, 3);
    assert_eq!(after.to_device_fault - before.to_device_fault, 6);
    assert_eq!(after.device_faults - before.device_faults, 6);
    drop((one, other));
    drop(buffer);
    drop(device);
    world.end();
}

/// Threads of the program's own are the queues, and serve each other; a batch and the buffer have room for a few.
#[test]
fn queues_of_threads_serve_each_other() {
    let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
    let world = World::with(range);
    let device = world.attach(2 * BLOCK_PAGES, QUEUES);
    let buffer = device.fault_buffer(QUEUES, 2).unwrap();
    let rounds = if cfg!(miri) { 2 } else { 200 };
    std::thread::scope(|scope| {
        for queue in 0..QUEUES {
            let (device, buffer) = (&device, &buffer);
            scope.spawn(move || {
                let serve = |batch: FaultBatch<'_>| {
                    device.serve_faults(batch, |_, _| Service::Migrate);
                };
                let mut worker = QueueWorker::new(device, buffer, queue, serve);
                for round in 0..rounds {
                    for page in range.pages() {
                        assert_eq!(worker.add(word(page, queue), 1), Ok(round));
                    }
                    let nothing = word(PageNumber(3 * BLOCK_PAGES), queue);
                    let told = worker.add(nothing, 1).unwrap_err();
                    assert_eq!((told.queue, told.address), (QueueNumber(queue), nothing));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..rounds {
                for page in range.pages() {
                    world.model.fetch_add(word(page, QUEUES), 1).unwrap();
                }
            }
        });
    });
    for page in range.pages() {
        for queue in 0..=QUEUES {
            assert_eq!(load(&world.model, word(page, queue)), rounds, "{page:?}");
        }
    }
    assert_eq!(world.space.counters().queues_cancelled, QUEUES as u64 * rounds);
    drop(buffer);
    drop(device);
    world.end();
}
