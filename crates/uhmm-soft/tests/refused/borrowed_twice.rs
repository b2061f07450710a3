//! A slice that is written cannot be two arguments.

fn main() {
    let device = device();
    let mut numbers = [0_u64; 8];
    let _ = device.launch(
        0..8,
        |worker, item, (one, other)| one.set(worker, item, other.len() as u64),
        (&mut numbers[..], &mut numbers[..]),
    );
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
