//! A device in software: worker threads that run Rust kernels over addresses of the program.
//!
//! The workers reach memory only through the device's own page table. A miss is a device fault: the
//! page and its neighbours move into the device's memory, which is of a set size, and the access
//! goes on. Several such devices can be attached to one address space.
//!
//! ```
//! use uhmm::{AddressSpace, PageLocation, units::AddressRange};
//! use uhmm_soft::{Options, Soft};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let space = AddressSpace::open()?;
//!
//!     // An ordinary vector, from the ordinary allocator.
//!     let mut numbers: Vec<u64> = (0..1 << 17).collect();
//!     let first = numbers.as_mut_ptr().expose_provenance();
//!
//!     // Devices may take the pages that it lies in. Nothing moves yet.
//!     let size = space.page_size();
//!     let pages = AddressRange::of_slice(&numbers)?.pages_touched(size);
//!     let range = AddressRange::new(size.address_of(pages.start()), size.bytes_in(pages.len()))?;
//!     space.adopt(range)?;
//!
//!     // A device whose memory holds half of it. What is not migrated comes when it is touched.
//!     let device = Soft::start(&space, Options::new(range.len() / 2).workers(2))?;
//!     let begin = AddressRange::new(range.start(), size.bytes_in(16))?;
//!     assert_eq!(device.migrate(begin)?.moved(), 16);
//!     assert_eq!(space.locate(range.start()), PageLocation::Device(device.index()));
//!
//!     // SAFETY: the kernel touches the vector through its worker alone, each item its own number,
//!     // and nobody else does until `run` returns. It does not allocate, wait or panic.
//!     unsafe {
//!         device.run(0..numbers.len(), move |worker, index| {
//!             let number: u64 = worker.load(first + 8 * index)?;
//!             worker.store(first + 8 * index, number.wrapping_mul(3))
//!         })?;
//!     }
//!
//!     // The program reads on. Each page that is away comes back as it is touched.
//!     assert!(numbers.iter().enumerate().all(|(index, &number)| number == 3 * index as u64));
//!     drop(device);
//!     Ok(space.close()?)
//! }
//! ```
//!
//! What a kernel must not do is said at [`Soft::run`]. Above all it must not use the process's heap:
//! any page of that may be away, and the worker is a thread of the engine.
//!
//! The crate is also the example of a driver. Its modules are `table`, the page table with the calls
//! of [`uhmm::Device`]; `worker`, what runs on the device's threads; `device`, what a program holds;
//! and `plain`, the numbers that a kernel can load and store.

mod device;
mod placement;
mod plain;
mod sharing;
mod table;
mod worker;

pub use device::{Options, PlaceError, RunError, Soft, StartError};
pub use placement::Placement;
pub use plain::{Counter, Plain};
pub use table::Table;
pub use worker::{AccessError, Worker};
