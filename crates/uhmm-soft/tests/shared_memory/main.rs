//! Shared memory migrates, and its content never leaves its file: whoever else has it sees what the
//! device does.
#![cfg(not(any(shuttle, miri)))]

mod changes;
#[path = "../../../uhmm/tests/support/child.rs"]
mod child;
mod devices;
mod files;
mod forks;
#[path = "../../../uhmm/tests/support/huge_pages.rs"]
mod huge_pages;
#[path = "../../../uhmm/tests/support/nobody.rs"]
mod nobody;
mod place;
mod pool;
mod processes;
mod random;
#[path = "../../../uhmm/tests/support/random_numbers.rs"]
mod random_numbers;
#[path = "../../../uhmm/tests/support/skip.rs"]
mod skip;
#[path = "../../../uhmm/tests/support/small_tmpfs.rs"]
mod small_tmpfs;
#[path = "../../../uhmm/tests/support/swap.rs"]
mod swap;
mod swapping;
mod there_and_back;

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
