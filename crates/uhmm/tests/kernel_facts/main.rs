//! What the back end for Linux relies on, shown on the kernel that runs.
//!
//! Each test is a fact that code of `mm::linux` would be wrong without. Where a machine
//! lacks what a test needs the test says `skipped: NAME: reason`; where the variable `CI` is set it
//! fails instead.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand for the program, which has a heap"
)]

mod agreement;
mod areas;
mod aside;
mod costs;
mod events;
mod forks;
#[path = "../support/huge_pages.rs"]
mod huge_pages;
mod hugetlb;
mod in_place;
mod kinds;
mod memory;
mod messages;
mod moves;
mod populating;
mod presence;
mod private_files;
mod protection;
mod replies;
mod shared;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/small_tmpfs.rs"]
mod small_tmpfs;
mod staging;
mod support;
#[path = "../support/swap.rs"]
mod swap;
mod touch;
mod waits;
mod watching;
