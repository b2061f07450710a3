//! A device in software: worker threads that run Rust kernels over addresses of the program.
//!
//! The workers reach memory only through the device's own page table. A miss is a device fault: the
//! page and its neighbours move into the device's memory, which is of a set size, and the access
//! goes on. Several such devices can be attached to one address space.
//!
//! The crate is also the example of a driver: [`table`](crate) is the page table with the calls of
//! [`uhmm::Device`], `worker` what runs on the device's threads, `device` what a program holds.

mod device;
mod plain;
mod table;
mod worker;

pub use device::{Options, RunError, Soft, StartError};
pub use plain::Plain;
pub use worker::{AccessError, Worker};
