//! A fork sees its moment: a child has what its parent had on a device, or lacks it loudly.
//!
//! Each test runs in a process of its own, where it is the only one to have an address space: as the
//! user who runs the tests, told of forks, and as an ordinary user, who is not.

mod children;
mod costs;
mod others;
mod place;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
mod spaces;
