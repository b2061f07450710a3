//! How launches are queued, waited for and given up, on the model, where no kernel reaches memory: its
//! addresses are not the program's. Miri, which has no userfaultfd, runs these (`tests/miri`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use uhmm::{
    Options as SpaceOptions,
    mm::model::{Model, ModelOptions},
};
use uhmm_soft::{AccessError, InOut, Options, RunError, ScopedJob, Soft, Worker};

const ITEMS: usize = if cfg!(miri) { 40 } else { 4000 };

fn device() -> Soft<Model> {
    let model = Model::new(ModelOptions::default());
    let space = SpaceOptions::new().engine_memory(64 << 20).open_on(model).unwrap();
    Soft::start(&space, Options::new(4 * space.page_size().bytes()).workers(2)).unwrap()
}

/// A kernel that touches nothing, or fails.
fn looks(
    worker: &mut Worker<'_, Model>,
    item: usize,
    numbers: &InOut<u64>,
) -> Result<(), AccessError> {
    if item < numbers.len() { Ok(()) } else { numbers.get(worker, item).map(drop) }
}

#[test]
fn a_launch_borrows_and_counts() {
    let device = device();
    let count = AtomicU64::new(0);
    let mut numbers = vec![1_u64; ITEMS];
    for _ in 0..3 {
        device
            .launch(
                0..ITEMS,
                |worker, item, (numbers, _)| {
                    count.fetch_add(1, Relaxed);
                    looks(worker, item, numbers)
                },
                (&mut numbers[..], Box::<[u64]>::from([1, 2])),
            )
            .unwrap();
        numbers[0] += 1;
    }
    assert_eq!((count.into_inner(), numbers[0]), (3 * ITEMS as u64, 4));
    let error = AccessError::OutOfBounds { first: ITEMS, count: 1, len: ITEMS };
    let result = device.launch(0..ITEMS + 5, looks, &mut numbers[..]);
    assert_eq!(result, Err(RunError::Item { item: ITEMS, error }));
}

#[test]
fn jobs_are_joined_dropped_and_forgotten() {
    let device = device();
    let one = device.start_job(0..ITEMS, looks, vec![1_u64; ITEMS]);
    let boxed = device.start_job(0..3, looks, Box::<[u64]>::from([7, 8, 9]));
    let fails = device.start_job(0..ITEMS, looks, vec![2_u64; 2]);
    drop(device.start_job(0..ITEMS, looks, vec![3_u64; ITEMS]));
    let counted: Arc<[AtomicU64]> = Arc::from([AtomicU64::new(5)]);
    let kept = device.start_job(0..9, |_, _, (_, _)| Ok(()), (counted.clone(), vec![1_u8]));
    // What is leaked Miri would find.
    if !cfg!(miri) {
        std::mem::forget(kept);
    }
    let (numbers, result) = fails.join();
    assert!(matches!(result, Err(RunError::Item { item: 2, .. })) && numbers == [2, 2]);
    drop(device);
    let (mut numbers, result) = boxed.join();
    numbers[1] = 1;
    assert_eq!((&*numbers, result), (&[7, 1, 9][..], Ok(())));
    assert!(one.is_finished());
    let numbers = std::thread::spawn(|| one.join().0).join().unwrap();
    assert_eq!(numbers, vec![1; ITEMS]);
}

#[test]
fn a_scope_waits_on_return_and_on_unwind() {
    let device = device();
    let count = AtomicU64::new(0);
    let mut numbers = vec![0_u64; 2 * ITEMS];
    let kernel = |worker: &mut Worker<'_, Model>, item, numbers: &InOut<u64>| {
        count.fetch_add(1, Relaxed);
        looks(worker, item, numbers)
    };
    device
        .scope(|scope| {
            let (one, other) = numbers.split_at_mut(ITEMS);
            let job = scope.launch(0..ITEMS, kernel, one);
            scope.launch(0..ITEMS, kernel, other);
            let one = job.join()?;
            one[3] = 4;
            let mut again = one;
            for _ in 0..40 {
                again = scope.launch(0..2, kernel, again).join()?;
            }
            if !cfg!(miri) {
                std::mem::forget(scope.launch(0..2, |_, _, ()| Ok(()), ()));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!((count.load(Relaxed), numbers[3]), (2 * ITEMS as u64 + 80, 4));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        device.scope(|scope| -> Result<(), RunError> {
            scope.launch(0..ITEMS, kernel, &mut numbers[..]);
            std::panic::resume_unwind(Box::new(5))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(count.load(Relaxed), 3 * ITEMS as u64 + 80);
}

/// A kernel keeps the job of another launch, and is dropped after the scope has ended.
#[test]
fn a_job_can_be_kept_by_a_kernel() {
    let device = device();
    let count = AtomicU64::new(0);
    device
        .scope(|scope| {
            let first = scope.launch(
                0..ITEMS,
                |_, _, _| {
                    count.fetch_add(1, Relaxed);
                    Ok(())
                },
                vec![1_u64],
            );
            let kept: Mutex<Option<ScopedJob<'_, Vec<u64>, Model>>> = Mutex::new(Some(first));
            scope.launch(
                0..ITEMS,
                move |_, _, ()| {
                    assert!(kept.lock().unwrap().as_ref().is_some_and(ScopedJob::is_finished));
                    Ok(())
                },
                (),
            );
            Ok(())
        })
        .unwrap();
    assert_eq!(count.into_inner(), ITEMS as u64);
}
