//! A device in a process of its own: its heap, its locks and its crashes are not the program's.
//!
//! The process is the program's own executable, started anew: so it has the code of the kernels, and
//! nothing of the program's memory, which a fork would share and thereby keep from moving. It is asked
//! to be a device by its environment, and [`serve_if_asked`], the first thing that `main` calls, is where
//! it becomes one.
//!
//! Both sides map one file in memory (`layout`): numbers, rings ([`uhmm::ring`]), and the device's
//! frames. Pages are copied into frames and out of them by the thread of the program that moves them; the
//! device process is told of translations, asks for pages that it misses, and computes. A kernel is
//! named by its place in a list that both sides have, never by an address.
//!
//! | side | module | what it does |
//! | --- | --- | --- |
//! | program | `host` | starts the process, and ends it |
//! | program | `driver` | has the device attached to the address space, and launches |
//! | program | `link` | sends commands and orders, and sees that the process is gone |
//! | program | `remote` | is what the core has of the device: its page table and its memory |
//! | program | `pages` | knows in which frame each page is |
//! | program | `server` | serves the faults of the process's workers, in batches, and hears of launches |
//! | device | `device` | keeps the page table, and runs kernels |
//! | device | `asking` | asks for pages, on behalf of a worker |
//! | both | `notes` | which frames the device used and wrote |
//! | both | `errors` | why an item failed, as words of a message |
//!
//! What the device process writes is not trusted. It can do with the pages that it was given what it
//! likes, and gets others only of ranges that a launch names. It ends by itself, or is ended when
//! it does not answer: then what it held is marked as lost, and the program lives.

mod asking;
mod device;
mod driver;
mod errors;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
mod layout;
mod link;
mod notes;
mod pages;
mod remote;
mod server;

pub use device::serve_if_asked;
pub(crate) use host::DeviceProcess;
pub use host::ProcessOptions;
pub(crate) use layout::MOST_RANGES;
