//! Elements are plain bytes: nothing that has values that are none, no references.

#[derive(Clone, Copy)]
enum Colour {
    Red,
}

fn main() {
    let device = device();
    let _ = device.launch(0..1, |_, _, _| Ok(()), &[true][..]);
    let _ = device.launch(0..1, |_, _, _| Ok(()), &[Colour::Red][..]);
    let _ = device.launch(0..1, |_, _, _| Ok(()), &mut [&5_u64][..]);
}

fn device() -> uhmm_soft::Soft {
    unimplemented!()
}
