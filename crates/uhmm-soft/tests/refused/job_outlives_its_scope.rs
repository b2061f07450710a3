//! A job in a scope ends with the scope.

fn main() {
    let device = device();
    let mut numbers = [0_u64; 8];
    let _job = device.scope(|scope| {
        Ok(scope.launch(
            0..8,
            |worker, item, numbers| numbers.set(worker, item, 1),
            &mut numbers[..],
        ))
    });
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
