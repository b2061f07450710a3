//! How launches end that do not end well.

use std::{
    process::{Command, Stdio},
    sync::{Mutex, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use uhmm_soft::{AccessError, RunError, Worker};

use crate::{Machine, PLACEMENTS, add_one};

#[test]
fn the_first_item_that_fails_is_told_and_what_was_written_stays() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let mut numbers = vec![0_u64; 10_000];
        machine.place(&numbers, placement);
        let result = machine.device.launch(
            0..10_000,
            |worker, item, numbers| {
                if item % 1000 == 77 {
                    return Err(AccessError::GivenUp { address: item });
                }
                add_one(worker, item, numbers)
            },
            &mut numbers[..],
        );
        let Err(RunError::Item { item, error }) = result else { panic!("{result:?}") };
        assert_eq!((item % 1000, error), (77, AccessError::GivenUp { address: item }));
        let batch = item - item % 16..item;
        assert!(numbers[batch].iter().all(|&number| number == 1), "up to {item}");
    }
}

#[test]
fn what_is_out_of_bounds_is_an_error_with_its_numbers() {
    let machine = Machine::start(1 << 20);
    let numbers = [1_u32; 8];
    let asked = AtomicU64::new(0);
    let cases = [(8, 1), (0, 9), (5, 4), (9, 0), (usize::MAX, 2)];
    for (first, count) in cases {
        let result = machine.device.launch(
            0..1,
            |worker, _, numbers| {
                asked.fetch_add(1, Relaxed);
                numbers.read(worker, first, &mut [0; 16][..count])
            },
            &numbers[..],
        );
        let error = AccessError::OutOfBounds { first, count, len: 8 };
        assert_eq!(result, Err(RunError::Item { item: 0, error }));
    }
    let told = AccessError::OutOfBounds { first: 5, count: 4, len: 8 }.to_string();
    assert_eq!(told, "4 elements from 5 on are not in an argument of 8");
    assert_eq!(asked.into_inner(), 5);
}

#[test]
fn items_can_be_any_numbers() {
    let machine = Machine::start(1 << 20);
    let seen = AtomicU64::new(0);
    let last = usize::MAX - 100..usize::MAX;
    machine
        .device
        .launch(
            last.clone(),
            |_, item, ()| {
                assert!(last.contains(&item));
                seen.fetch_add(1, Relaxed);
                Ok(())
            },
            (),
        )
        .unwrap();
    assert_eq!(seen.into_inner(), 100);
}

#[test]
fn a_kernel_cannot_launch() {
    let machine = Machine::start(1 << 20);
    let results = Mutex::new(Vec::new());
    let device = &machine.device;
    device
        .launch(
            0..1,
            |_, _, ()| {
                let call = device.launch(0..1, |_, _, ()| Ok(()), ());
                let job = device.start_job(0..1, |_, _, _| Ok(()), vec![1_u64]).join();
                let scope = device.scope(|scope| {
                    scope.launch(0..1, |_, _, ()| Ok(()), ());
                    Ok(())
                });
                assert_eq!(job.0, [1]);
                results.lock().unwrap().extend([call, job.1, scope]);
                Ok(())
            },
            (),
        )
        .unwrap();
    assert_eq!(results.into_inner().unwrap(), [Err(RunError::FromKernel); 3]);
}

/// Runs a test of this file in a process of its own, as the second life of that test. Answers what
/// it wrote before it ended by an abort.
fn end_of(test: &str) -> Option<String> {
    const SECOND: &str = "UHMM_SECOND_LIFE";
    if std::env::var_os(SECOND).is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(SECOND, "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(libc::SIGABRT));
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_kernel_that_panics_ends_the_process() {
    let Some(told) = end_of("ends::a_kernel_that_panics_ends_the_process") else {
        let machine = Machine::start(1 << 20);
        let _ = machine.device.launch(0..1, |_, _, ()| panic!("as it should"), ());
        unreachable!("the process has ended");
    };
    assert!(told.contains("as it should"), "{told}");
    assert!(told.contains("uhmm: an engine thread panicked: uhmm-soft"), "{told}");
}

#[test]
fn a_kernel_that_waits_for_a_launch_ends_the_process() {
    let Some(told) = end_of("ends::a_kernel_that_waits_for_a_launch_ends_the_process") else {
        let machine = Machine::start(1 << 20);
        machine
            .device
            .scope(|scope| {
                let slot = std::sync::Arc::new(Mutex::new(None));
                let kernel = {
                    let slot = slot.clone();
                    move |_: &mut Worker<'_>, _: usize, (): &()| {
                        let Some(job) = slot.lock().unwrap().take() else { return Ok(()) };
                        let job: uhmm_soft::ScopedJob<'_, ()> = job;
                        job.join().unwrap();
                        Ok(())
                    }
                };
                // The kernel waits for the slot until the job that waits behind it is in there.
                let held = slot.lock().unwrap();
                scope.launch(0..1, kernel, ());
                let behind = scope.launch(0..1, |_, _, ()| Ok(()), ());
                let mut held = held;
                *held = Some(behind);
                Ok(())
            })
            .unwrap();
        unreachable!("the process has ended");
    };
    assert!(told.contains("uhmm: a kernel waits for a launch"), "{told}");
}
