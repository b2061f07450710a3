//! Shared memory migrates, and its content never leaves its file: whoever else has it sees what the
//! device does.
#![cfg(not(any(shuttle, miri)))]

mod changes;
mod devices;
mod files;
mod forks;
mod place;
mod processes;
mod random;
mod there_and_back;
