//! uhmm
fn main() {}
