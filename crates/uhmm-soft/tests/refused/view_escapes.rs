//! A view is the kernel's for one item.

use std::sync::Mutex;

fn main() {
    let device = device();
    let numbers = [0_u64; 8];
    let kept = Mutex::new(None);
    let _ = device.launch(
        0..8,
        |_, _, numbers| {
            *kept.lock().unwrap() = Some(numbers);
            Ok(())
        },
        &numbers[..],
    );
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
