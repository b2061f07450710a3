//! What a scope's body owns ends before the scope does: it cannot be lent.

fn main() {
    let device = device();
    let _ = device.scope(|scope| {
        let mut numbers = [0_u64; 8];
        scope.launch(
            0..8,
            |worker, item, numbers| numbers.set(worker, item, 1),
            &mut numbers[..],
        );
        Ok(())
    });
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
