//! A device in software: worker threads that run Rust kernels over addresses of the program.
//!
//! The workers reach memory only through the device's own page table. A miss is a device fault: the
//! page and its neighbours move into the device's memory, which is of a set size, and the access
//! goes on. Several such devices can be attached to one address space.
//!
//! ```
//! use uhmm::AddressSpace;
//! use uhmm_soft::{Options, Soft};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let space = AddressSpace::open()?;
//!
//!     // An ordinary vector, from the ordinary allocator, and an ordinary array on the stack.
//!     let mut numbers: Vec<u64> = (0..1 << 17).collect();
//!     let factors = [3, 5, 7, 9];
//!
//!     // Devices may take all that can migrate: the heap. Else they would work on it where it is.
//!     space.adopt_everything()?;
//!
//!     // A device whose memory holds half of the vector. Pages come when they are touched.
//!     let device = Soft::start(&space, Options::new(size_of_val(&numbers[..]) / 2).workers(2))?;
//!     device.launch(
//!         0..numbers.len(),
//!         |worker, index, (numbers, factors)| {
//!             let factor: u64 = factors.get(worker, index % factors.len())?;
//!             let number = numbers.get(worker, index)?;
//!             numbers.set(worker, index, factor * number)
//!         },
//!         (&mut numbers[..], &factors[..]),
//!     )?;
//!     assert!(device.memory_used() > 0);
//!
//!     // The program reads on. Each page that is away comes back as it is touched.
//!     for (index, &number) in numbers.iter().enumerate() {
//!         assert_eq!(number, factors[index % 4] * index as u64);
//!     }
//!     drop(device);
//!     Ok(space.close()?)
//! }
//! ```
//!
//! # Launches
//! [`Soft::launch`] borrows what a kernel works on, and returns when the device is done. In a
//! [`Soft::scope`] several launches are in flight, over memory that is borrowed. A [`Job`] owns its
//! buffers, outlives the call that started it, and gives them back. [`Soft::run`] is for kernels that
//! reach memory by addresses, and is unsafe. What a kernel may do is told [there](Soft#kernels).
//!
//! A [`KernelDevice`] runs kernels of a list, functions that reach memory by addresses, in the program or in a
//! process of its own, by a flag.
//!
//! Arguments of launches are slices of [`Element`]s, types of plain bytes, and of [`Atomic`]s, which CPU threads
//! and devices can use at the same time. The kernel sees them as [`In`], [`InOut`] and [`Atomics`], which
//! know their bounds.
//!
//! # A driver
//! The crate is also the example of a driver. Its modules are `table`, the page table with the calls
//! of [`uhmm::Device`]; `memory`, a memory of the device's own behind a `bus`, with those of
//! [`uhmm::CopyingMemory`]; `worker`, what runs on the device's threads; `faults`, how
//! what they miss is served; `queue` and `launch`, how work
//! comes to them; `device`, `scope` and `job`, what a program holds; `arguments`, `views`, `element` and
//! `plain`, what a kernel reaches.

/// The repository's README, whose code is tested as that of these pages.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

mod arguments;
mod bus;
mod device;
mod element;
mod errors;
mod exports;
mod faults;
mod given;
mod job;
mod kernel_device;
mod kernels;
mod launch;
mod limits;
mod memory;
mod placement;
mod plain;
mod process;
mod queue;
mod scope;
mod sharing;
mod table;
mod views;
mod worker;

pub use arguments::Arguments;
pub use bus::Bus;
pub use device::{Options, Soft};
pub use element::Element;
pub use errors::{AccessError, KernelRunError, KernelStartError, PlaceError, RunError, StartError};
pub use job::Job;
pub use kernel_device::{Home, KernelDevice};
pub use kernels::{ARGUMENTS, Kernel};
pub use placement::Placement;
pub use plain::{Counter, Plain};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use process::fuzzing;
pub use process::{ProcessOptions, serve_if_asked};
pub use scope::{Scope, ScopedJob};
pub use table::Table;
pub use views::{Atomic, Atomics, In, InOut};
pub use worker::Worker;
pub use zerocopy;
