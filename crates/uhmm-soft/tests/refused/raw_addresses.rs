//! A worker reaches memory by addresses in unsafe code only.

fn main() {
    let device = device();
    let _ = device.launch(0..8, |worker, _, ()| worker.store(0x1000, 1_u64), ());
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
