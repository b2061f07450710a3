//! A kernel reads what it was lent to read.

fn main() {
    let device = device();
    let numbers = [0_u64; 8];
    let _ = device.launch(
        0..8,
        |worker, item, numbers| numbers.set(worker, item, 1),
        &numbers[..],
    );
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
