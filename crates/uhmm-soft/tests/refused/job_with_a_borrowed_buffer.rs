//! A job that outlives the call that started it owns its buffers.

fn main() {
    let device = device();
    let mut numbers = [0_u64; 8];
    let job = device.start_job(
        0..8,
        |worker, item, numbers| numbers.set(worker, item, 1),
        &mut numbers[..],
    );
    drop(job);
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
