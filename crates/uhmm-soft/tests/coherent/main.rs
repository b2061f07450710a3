//! A device with coherent memory on Linux: the program reads and writes there with no fault, and what it
//! does to its memory means what it always does.
#![cfg(not(any(shuttle, miri)))]

mod changes;
#[path = "../../../uhmm/tests/support/child.rs"]
mod child;
mod forks;
#[path = "../../../uhmm/tests/support/huge_bytes.rs"]
mod huge_bytes;
mod place;
mod set_aside;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
mod there;
