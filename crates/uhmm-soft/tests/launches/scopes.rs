//! Scopes: several launches in flight over what is borrowed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use uhmm_soft::{AccessError, RunError, Worker};

use crate::{Machine, PLACEMENTS, add_one};

#[test]
fn jobs_run_in_order_and_are_joined_in_any() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let (mut one, mut other) = (vec![0_u64; 5000], vec![0_u64; 5000]);
        machine.place(&one, placement);
        machine.place(&other, placement);
        let order = AtomicU64::new(0);
        machine
            .device
            .scope(|scope| {
                let first = scope.launch(
                    0..5000,
                    |worker, item, numbers| {
                        order.fetch_max(1, Relaxed);
                        assert_eq!(order.load(Relaxed), 1);
                        add_one(worker, item, numbers)
                    },
                    &mut one[..],
                );
                let second = scope.launch(
                    0..5000,
                    |worker, item, numbers| {
                        order.store(2, Relaxed);
                        numbers.set(worker, item, 7)
                    },
                    &mut other[..],
                );
                let other = second.join()?;
                assert!(first.is_finished());
                assert!(other.iter().all(|&number| number == 7));
                other.fill(8);
                // What a job gives back another can have.
                let one = first.join()?;
                let again = scope.launch(0..5000, add_one, one);
                let one = again.join()?;
                assert!(one.iter().all(|&number| number == 2));
                Ok(())
            })
            .unwrap();
        assert_eq!((one[0], other[4999]), (2, 8));
    }
}

#[test]
fn a_scope_waits_for_what_nobody_joined() {
    let machine = Machine::start(1 << 20);
    let mut parts = vec![vec![0_u64; 3000]; 40];
    let shared = AtomicU64::new(0);
    let answer = machine
        .device
        .scope(|scope| {
            for (number, part) in parts.iter_mut().enumerate() {
                let job = scope.launch(0..3000, add_one, &mut part[..]);
                if number % 3 == 0 {
                    std::mem::forget(job);
                }
            }
            scope.launch(
                0..3000,
                |_, _, ()| {
                    shared.fetch_add(1, Relaxed);
                    Ok(())
                },
                (),
            );
            Ok(5)
        })
        .unwrap();
    assert_eq!((answer, shared.into_inner()), (5, 3000));
    assert!(parts.iter().flatten().all(|&number| number == 1));
}

#[test]
fn a_scope_that_panics_waits_first() {
    let machine = Machine::start(1 << 20);
    let mut numbers = vec![0_u64; 100_000];
    let caught = catch_unwind(AssertUnwindSafe(|| {
        machine.device.scope(|scope| -> Result<(), RunError> {
            let (one, other) = numbers.split_at_mut(50_000);
            let _job = scope.launch(0..50_000, add_one, one);
            scope.launch(0..50_000, add_one, other);
            std::panic::resume_unwind(Box::new("the body's"));
        })
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"the body's"));
    assert!(numbers.iter().all(|&number| number == 1));
}

#[test]
fn a_failure_is_told_to_who_joins_or_by_the_scope() {
    let machine = Machine::start(1 << 20);
    let mut numbers = [0_u64; 10];
    let past = |item| {
        let error = AccessError::OutOfBounds { first: item, count: 1, len: 10 };
        RunError::Item { item, error }
    };
    let joined = machine.device.scope(|scope| {
        let job = scope.launch(0..20, add_one, &mut numbers[..]);
        Ok(job.join().map(drop))
    });
    assert_eq!(joined, Ok(Err(past(10))));
    let left = machine.device.scope(|scope| {
        scope.launch(15..20, add_one, &mut numbers[..]);
        Ok(())
    });
    assert_eq!(left, Err(past(15)));
    let both = machine.device.scope(|scope| {
        let (one, other) = numbers.split_at_mut(5);
        scope.launch(0..5, add_one, one);
        let job = scope.launch(15..20, add_one, other);
        job.join()?;
        unreachable!("it failed")
    });
    let error = AccessError::OutOfBounds { first: 15, count: 1, len: 5 };
    assert_eq!(both, Err::<(), _>(RunError::Item { item: 15, error }));
}

#[test]
fn a_thousand_launches() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let mut numbers = vec![0_u64; 2000];
        machine.place(&numbers, placement);
        for _ in 0..1000 {
            machine.device.launch(0..20, add_one, &mut numbers[..]).unwrap();
        }
        machine
            .device
            .scope(|scope| {
                let (first, rest) = numbers.split_at_mut(20);
                for part in rest.chunks_mut(2) {
                    if part.len() == 2 {
                        scope.launch(0..2, add_one, part);
                    }
                }
                let mut first = first;
                for _ in 0..1000 {
                    first = scope.launch(0..20, add_one, first).join()?;
                }
                Ok(())
            })
            .unwrap();
        assert!(numbers[..20].iter().all(|&number| number == 2000));
        assert!(numbers[20..].iter().all(|&number| number == 1));
    }
}

/// A scope does not keep what is over: a long one takes no more memory than a short one.
#[test]
fn a_long_scope_drops_what_is_over() {
    struct Counted<'a>(&'a AtomicU64);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    let machine = Machine::start(1 << 20);
    let alive = AtomicU64::new(0);
    let mut most = 0;
    machine
        .device
        .scope(|scope| {
            for _ in 0..500 {
                alive.fetch_add(1, Relaxed);
                let counted = Counted(&alive);
                let kernel = move |_: &mut Worker<'_>, _: usize, (): &()| {
                    assert!(counted.0.load(Relaxed) > 0);
                    Ok(())
                };
                scope.launch(0..1, kernel, ()).join()?;
                most = most.max(alive.load(Relaxed));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(alive.load(Relaxed), 0);
    assert!(most < 50, "{most} kernels at once");
}
