//! Jobs, which own their buffers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use uhmm_soft::{AccessError, RunError, Worker};

use crate::{Machine, PLACEMENTS, add_one};

#[test]
fn a_job_gives_its_buffers_back() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let factors: Vec<u64> = (0..50_000).collect();
        let numbers = vec![2_u64; factors.len()];
        machine.place(&factors, placement);
        machine.place(&numbers, placement);
        let first = (factors.as_ptr(), numbers.as_ptr());
        let job = machine.device.start_job(
            0..factors.len(),
            |worker, item, (factors, numbers)| {
                let factor: u64 = factors.get(worker, item)?;
                let number: u64 = numbers.get(worker, item)?;
                numbers.set(worker, item, factor * number)
            },
            (factors, numbers),
        );
        let ((factors, numbers), result) = job.join();
        result.unwrap();
        assert_eq!((factors.as_ptr(), numbers.as_ptr()), first);
        assert!(numbers.iter().zip(&factors).all(|(number, factor)| *number == 2 * factor));
    }
}

#[test]
fn a_job_that_fails_gives_its_buffers_back_too() {
    let machine = Machine::start(1 << 20);
    let job = machine.device.start_job(0..4, add_one, vec![0_u64; 3]);
    let (numbers, result) = job.join();
    let error = AccessError::OutOfBounds { first: 3, count: 1, len: 3 };
    assert_eq!(result, Err(RunError::Item { item: 3, error }));
    assert_eq!(numbers.len(), 3);
}

#[test]
fn jobs_are_joined_in_any_order_on_any_thread() {
    let machine = Machine::start(1 << 20);
    let jobs: Vec<_> =
        (0..20).map(|_| machine.device.start_job(0..1000, add_one, vec![0_u64; 1000])).collect();
    for job in jobs.into_iter().rev() {
        let numbers = thread::spawn(move || job.join().0).join().unwrap();
        assert!(numbers.iter().all(|&number| number == 1));
    }
}

#[test]
fn jobs_end_before_their_device_does() {
    let mut machine = Machine::start(1 << 20);
    let released = Arc::new(AtomicBool::new(false));
    let counted: Arc<[AtomicU64]> = Arc::from([AtomicU64::new(0)]);
    let count = |worker: &mut Worker<'_>, _, counted: &uhmm_soft::Atomics<AtomicU64>| {
        counted.fetch_add(worker, 0, 1).map(drop)
    };
    let waits = machine.device.start_job(
        0..1,
        {
            let released = released.clone();
            move |_, _, &()| {
                while !released.load(Relaxed) {
                    thread::yield_now();
                }
                Ok(())
            }
        },
        (),
    );
    assert!(!waits.is_finished());
    // Nobody joins these.
    std::mem::forget(machine.device.start_job(0..100, count, counted.clone()));
    let dropped = machine.device.start_job(0..100, count, counted.clone());
    let joined = machine.device.start_job(0..100, add_one, vec![1_u64; 100]);
    released.store(true, Relaxed);
    drop(dropped);
    assert!(waits.is_finished());
    assert_eq!(counted[0].load(Relaxed), 200);
    std::mem::forget(machine.device.start_job(0..100, count, counted.clone()));
    let space = &machine.space;
    let other = uhmm_soft::Soft::start(space, uhmm_soft::Options::new(1 << 20)).unwrap();
    drop(std::mem::replace(&mut machine.device, other));
    assert_eq!(counted[0].load(Relaxed), 300);
    assert!(joined.is_finished());
    let (numbers, result) = joined.join();
    assert_eq!((numbers, result), (vec![2; 100], Ok(())));
    assert_eq!(waits.join().1, Ok(()));
}
