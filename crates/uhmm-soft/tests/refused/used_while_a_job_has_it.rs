//! What a job in a scope has cannot be used before the job gives it back.

fn main() {
    let device = device();
    let mut numbers = [0_u64; 8];
    let _ = device.scope(|scope| {
        let job = scope.launch(
            0..8,
            |worker, item, numbers| numbers.set(worker, item, 1),
            &mut numbers[..],
        );
        numbers[0] = 2;
        job.join().map(drop)
    });
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
