//! Mirrors: devices' subscriptions to ranges of the address space.
//!
//! A mirror holds the device's page table. The core enters translations into it, by a range fault,
//! and ends them as pages move, change or go. Both happen under the lock of the block that the pages
//! are in, so a translation that is in the table is true, and there is nothing to look at again and
//! no sequence number to check.

mod calling;
mod calls;
mod holds;
mod interval_tree;
mod registry;

pub(crate) use registry::{Mirrors, Registration, Subscriber, Table};
