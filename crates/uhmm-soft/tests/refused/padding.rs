//! A type with padding has bytes that are no values.

use uhmm_soft::zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes)]
#[zerocopy(crate = "uhmm_soft::zerocopy")]
#[repr(C)]
struct Padded {
    byte: u8,
    word: u32,
}

fn main() {}
