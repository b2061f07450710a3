//! Atomics, which CPU threads and devices use at the same time.

use std::{
    sync::atomic::{
        AtomicI32, AtomicI64, AtomicIsize, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    thread,
};

use uhmm_soft::{AccessError, Atomics, InOut, Options, Soft, Worker};

use crate::{Machine, PLACEMENTS};

const COUNTERS: usize = 4096;
const ITEMS: usize = 20_000;

fn count(
    worker: &mut Worker<'_>,
    item: usize,
    counters: &Atomics<AtomicU64>,
) -> Result<(), AccessError> {
    counters.fetch_add(worker, item * 7 % COUNTERS, 1)?;
    // The other way to add.
    let place = item * 13 % COUNTERS;
    let mut seen = counters.load(worker, place)?;
    while let Err(now) = counters.compare_exchange(worker, place, seen, seen + 1)? {
        seen = now;
    }
    Ok(())
}

fn count_everywhere(machine: &Machine, counters: &[AtomicU64]) {
    let other = Soft::start(&machine.space, Options::new(1 << 20)).unwrap();
    let before: u64 = counters.iter().map(|counter| counter.load(Relaxed)).sum();
    thread::scope(|scope| {
        for device in [&machine.device, &other] {
            scope.spawn(move || device.launch(0..ITEMS, count, counters).unwrap());
        }
        for thread in 0..2 {
            scope.spawn(move || {
                for item in 0..ITEMS {
                    counters[(item + thread) * 11 % COUNTERS].fetch_add(1, SeqCst);
                }
            });
        }
    });
    let after: u64 = counters.iter().map(|counter| counter.load(Relaxed)).sum();
    assert_eq!(after - before, 6 * ITEMS as u64);
}

#[test]
fn two_devices_and_two_threads_count_in_a_vector() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let counters: Vec<AtomicU64> = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        machine.place(&counters, placement);
        count_everywhere(&machine, &counters);
    }
}

#[test]
fn two_devices_and_two_threads_count_in_a_static() {
    static COUNTED: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];
    let machine = Machine::start(1 << 20);
    count_everywhere(&machine, &COUNTED);
    machine.space.adopt_everything().unwrap();
    count_everywhere(&machine, &COUNTED);
}

#[test]
fn atomics_of_each_type() {
    macro_rules! each {
        ($machine:expr, $($atomic:ident)*) => {
            $({
                let numbers = [const { $atomic::new(0) }; 100];
                $machine
                    .device
                    .launch(
                        0..100,
                        |worker, item, numbers| {
                            let before = numbers.load(worker, item)?;
                            numbers.store(worker, item, before.wrapping_sub(3))?;
                            let minus = numbers.fetch_add(worker, item, 1)?;
                            let now = minus.wrapping_add(1);
                            let right = numbers.compare_exchange(worker, item, now, 40)?;
                            let wrong = numbers.compare_exchange(worker, item, now, 50)?;
                            assert_eq!((right, wrong), (Ok(now), Err(40)));
                            numbers.fetch_add(worker, item, 2)?;
                            Ok(())
                        },
                        &numbers[..],
                    )
                    .unwrap();
                assert!(numbers.iter().all(|number| number.load(Relaxed) == 42));
            })*
        };
    }
    let machine = Machine::start(1 << 20);
    each! { machine, AtomicU32 AtomicU64 AtomicUsize AtomicI32 AtomicI64 AtomicIsize }
}

/// All that items write is one of two patterns; what is wider than a unit can be a mix.
#[test]
fn items_that_race_for_an_element_leave_one_of_their_values() {
    const PATTERNS: [u64; 2] = [0x1111_1111_1111_1111, 0x7777_7777_7777_7777];
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let mut numbers = vec![PATTERNS[0]; 512];
        let mut pairs = vec![[PATTERNS[0]; 2]; 512];
        machine.place(&numbers, placement);
        machine.place(&pairs, placement);
        machine
            .device
            .launch(
                0..50_000,
                |worker, item, (numbers, pairs): &(InOut<u64>, InOut<[u64; 2]>)| {
                    let pattern = PATTERNS[item % 2];
                    let place = item / 2 % 512;
                    let seen = numbers.get(worker, 511 - place)?;
                    assert!(PATTERNS.contains(&seen));
                    numbers.set(worker, place, pattern)?;
                    let seen = pairs.get(worker, 511 - place)?;
                    assert!(seen.iter().all(|half| PATTERNS.contains(half)));
                    pairs.set(worker, place, [pattern; 2])
                },
                (&mut numbers[..], &mut pairs[..]),
            )
            .unwrap();
        assert!(numbers.iter().all(|number| PATTERNS.contains(number)));
        assert!(pairs.iter().flatten().all(|half| PATTERNS.contains(half)));
    }
}
