//! The queues of one device miss pages at the same time: they are served in batches, by each other or by a
//! thread, wait where the buffer is full, and are cancelled alone.

use shuttle::thread;
use uhmm::{
    Attachment, FaultAccess, FaultBatch, FaultFailure, QueueCancelled, QueueNumber,
    ServedElsewhere, Service, StayCause, mm::model::Model, units::PageNumber,
};

use crate::{
    device::{QueueWorker, TestDevice},
    explore::explore,
    world::{World, load, pages, store, word},
};

const QUEUES: usize = 3;

/// So many that a batch has room for a few.
const FRAMES: usize = 32;

/// Nothing is mapped there.
const NOWHERE: PageNumber = PageNumber(20);

fn serve(device: &Attachment<TestDevice, Model>) -> impl FnMut(FaultBatch<'_>) {
    move |batch| {
        device.serve_faults(batch, |_, _| Service::Migrate);
    }
}

fn cancelled(queue: usize) -> QueueCancelled {
    QueueCancelled {
        queue: QueueNumber(queue),
        address: word(NOWHERE, queue),
        access: FaultAccess::Write,
        failure: FaultFailure::Stays(StayCause::NotAdopted),
    }
}

/// Queues add to the same pages, each to a word of its own, and serve each other's faults. The last of them
/// touches what is not there in between, and goes on after it was told.
fn serve_each_other(name: &'static str, entries: usize, met: &[&'static str]) {
    explore(name, met, move || {
        let range = pages(0, 3);
        let world = World::with(range);
        let device = world.attach(FRAMES, QUEUES);
        let buffer = device.fault_buffer(QUEUES, entries).unwrap();
        thread::scope(|scope| {
            for queue in 0..QUEUES {
                let (device, buffer) = (&device, &buffer);
                scope.spawn(move || {
                    let mut worker = QueueWorker::new(device, buffer, queue, serve(device));
                    for (number, page) in range.pages().chain(range.pages()).enumerate() {
                        worker.add(word(page, queue), 1).unwrap();
                        if queue == QUEUES - 1 && number == 1 {
                            let told = worker.add(word(NOWHERE, queue), 1);
                            assert_eq!(told, Err(cancelled(queue)));
                        }
                    }
                });
            }
            scope.spawn(|| {
                for page in range.pages() {
                    world.model.fetch_add(word(page, QUEUES), 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            let words = core::array::from_fn(|number| load(&world.model, word(page, number)));
            assert_eq!(words, [2, 2, 2, 1], "{page:?}");
        }
        drop(buffer);
        drop(device);
        world.end()
    });
}

#[test]
fn queues_serve_each_other() {
    let met = ["fault_batches", "faults_merged", "queues_cancelled", "cpu_faults"];
    serve_each_other("queues serve each other", 2 * QUEUES, &met);
}

#[test]
fn queues_are_held_back_and_nothing_is_lost() {
    let met = ["faults_held_back", "queues_cancelled", "cpu_faults"];
    serve_each_other("queues are held back", 1, &met);
}

/// A thread serves queues that serve nothing themselves; they say what they will want, more than there is room
/// for.
#[test]
fn a_thread_serves_what_queues_say_and_miss() {
    let met = ["fault_batches", "faults_held_back", "faults_stale"];
    explore("a thread serves", &met, || {
        let range = pages(0, 3);
        let world = World::with(range);
        for page in range.pages() {
            store(&world.model, word(page, 0), page.0 as u64 + 1);
        }
        let device = world.attach(FRAMES, 2);
        let buffer = device.fault_buffer(2, 2).unwrap();
        thread::scope(|scope| {
            let (device, buffer) = (&device, &buffer);
            scope.spawn(move || {
                let mut serve = serve(device);
                while let Some(batch) = buffer.next_batch() {
                    serve(batch);
                }
            });
            scope.spawn(move || {
                thread::scope(|scope| {
                    for queue in 0..2 {
                        scope.spawn(move || {
                            let mut worker =
                                QueueWorker::new(device, buffer, queue, ServedElsewhere);
                            for page in range.pages().chain([NOWHERE]) {
                                worker.queue.enter(word(page, 0), FaultAccess::Prefetch).unwrap();
                            }
                            for page in range.pages() {
                                worker.add(word(page, queue + 1), 1).unwrap();
                            }
                            let told = worker.add(word(NOWHERE, queue), 1);
                            assert_eq!(told, Err(cancelled(queue)));
                        });
                    }
                });
                buffer.end();
            });
        });
        for page in range.pages() {
            let words: [u64; 3] = core::array::from_fn(|at| load(&world.model, word(page, at)));
            assert_eq!(words, [page.0 as u64 + 1, 1, 1]);
        }
        drop(buffer);
        drop(device);
        world.end()
    });
}

/// Several faults of a queue at a time; a hint is served by the thread, or by who waits, and the batch that
/// finds a queue gone drops what is left of it.
#[test]
fn several_faults_of_a_queue_and_a_queue_that_goes() {
    let met = ["fault_batches", "queues_cancelled", "faults_stale"];
    explore("several faults of a queue", &met, || {
        let range = pages(0, 4);
        let world = World::with(range);
        let device = world.attach(FRAMES, 2);
        let buffer = device.fault_buffer(2, 3).unwrap();
        thread::scope(|scope| {
            let (device, buffer) = (&device, &buffer);
            scope.spawn(move || {
                let mut serve = serve(device);
                while let Some(batch) = buffer.next_batch() {
                    serve(batch);
                }
            });
            scope.spawn(move || {
                thread::scope(|scope| {
                    scope.spawn(move || {
                        let mut worker = QueueWorker::new(device, buffer, 0, serve(device));
                        // It is told of the first of those that cannot be had, wherever it is then.
                        let told = [range.start(), NOWHERE, PageNumber(NOWHERE.0 + 1)]
                            .into_iter()
                            .try_for_each(|page| {
                                worker.queue.enter(word(page, 0), FaultAccess::Write)
                            })
                            .and_then(|()| worker.queue.wait());
                        assert_eq!(told, Err(cancelled(0)));
                        assert_eq!(worker.queue.wait(), Ok(()));
                        worker.add(word(range.start(), 0), 1).unwrap();
                    });
                    scope.spawn(move || {
                        for _ in 0..2 {
                            let mut worker = QueueWorker::new(device, buffer, 1, serve(device));
                            worker.add(word(range.start(), 1), 1).unwrap();
                            for page in range.pages() {
                                worker.queue.enter(word(page, 0), FaultAccess::Prefetch).unwrap();
                            }
                        }
                    });
                });
                buffer.end();
            });
        });
        assert_eq!([0, 1].map(|at| load(&world.model, word(range.start(), at))), [1, 2]);
        drop(buffer);
        drop(device);
        world.end()
    });
}
