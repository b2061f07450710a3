//! A kernel runs on several workers at a time.

use std::cell::Cell;

fn main() {
    let device = device();
    let count = Cell::new(0);
    let _ = device.launch(
        0..8,
        |_, _, ()| {
            count.set(count.get() + 1);
            Ok(())
        },
        (),
    );
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
