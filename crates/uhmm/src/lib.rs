//! User-space heterogeneous memory management: one address space for CPU threads and devices.
//!
//! A device takes pages of the program's memory into its own and works on them at the addresses that
//! the program has for them. Whoever touches a page next gets it back. Pages move by userfaultfd, so
//! the program needs no kernel module and no special allocator. Linux 6.8 or later.
//!
//! # For a program
//! [`AddressSpace::open`] opens the memory of this process; there is one a process.
//! [`adopt`](AddressSpace::adopt) and [`adopt_everything`](AddressSpace::adopt_everything) say which
//! memory devices may take. A device is started by its own crate: `uhmm-soft` has one in software,
//! and an example of all of this that is tested. [`close`](AddressSpace::close) brings everything back.
//!
//! What did not move is no error but a part of the answer: a [`Migration`] says of each page that
//! stayed why it did ([`StayCause`]). [`CounterValues`] says what happened so far, and a [`Recording`]
//! in which order: each [`Event`] says who held which pages from when on, and why.
//!
//! # For a driver
//! [`Device`] is what the core wants of a device: a page table with entries to prepare, commit and
//! invalidate. [`AddressSpace::attach`] takes it and hands out an [`Attachment`], by which the driver
//! has its faults served. All that a fault touches lies in [`engine_memory`]: [`SparseTable`] is a page
//! table's directory there, [`Shared`] counts references, [`RangeSet`] is a set of pages, [`InFlight`] waits for accesses.
//!
//! # Inside
//! From the bottom up: a module names only those that stand before it.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`abort`] | the end of the process where it cannot go on |
//! | `processor` | what takes an instruction of the processor at hand |
//! | [`sync`] | atomics, a word to wait on, a small lock, blocked signals; the lock order |
//! | [`units`] | pages, blocks, and ranges of them, as types |
//! | [`mm`] | the seam to the operating system: `linux`, and `model` for tests |
//! | [`engine_memory`] | the memory, collections and threads of the fault path |
//! | `shared`, `sparse`, `range_set` | counted references, a table whose entries never move, a set of pages |
//! | `in_flight` | who waits for a device's accesses to end |
//! | `clock`, `counters`, `latency` | the time of an event, how often things happened, how long they took |
//! | `policy` | how much moves when one page is touched |
//! | `driver` | the seam to devices: what a driver implements, and what it is told |
//! | `report` | which pages moved, and why others stayed |
//! | `faults` | what the queues of a device miss, and how it is served in batches |
//! | [`ring`] | how a program and a device process talk |
//! | `block` | the record and the lock of 512 pages |
//! | `device` | what the core keeps of a device |
//! | `mirror` | devices' subscriptions |
//! | `view` | what other processes see of it |
//! | `events` | what happened when |
//! | `engine` | what the rest works by: the gate, blocks' locks held, areas looked at and trapped |
//! | `in_place` | a device's accesses to memory where it lies |
//! | `migrate` | pages go, come back, are evicted; faults are served |
//! | `range` | range faults: pages are mapped for devices where they are |
//! | `handles` | what drivers and programs hold |
//! | `space` | opening, adopting, reading and applying changes, forks |
//!
//! The repository's `docs/` tell the protocol, the lock order, the invariants and what is relied on of
//! the kernel.

pub mod abort;
mod block;
mod clock;
mod counters;
mod device;
mod driver;
mod engine;
pub mod engine_memory;
mod events;
mod faults;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
mod in_flight;
mod in_place;
mod latency;
mod migrate;
mod mirror;
pub mod mm;
mod policy;
mod processor;
mod range;
mod range_set;
mod report;
pub mod ring;
mod shared;
mod space;
mod sparse;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod units;
mod view;

/// The guide for authors of devices, whose code is tested as that of these pages.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
pub struct Guide;

pub use counters::CounterValues;
pub use driver::{
    Begun, CopyingMemory, Device, DeviceIndex, Entries, Export, FaultAccess, Frames, Importer,
    Invalidation, InvalidationKind, MAX_DEVICES, MirrorId, PageTable, PrepareError, Ticket,
    Transfer, TransferError, Translation, Use, copy_bytes,
};
pub use events::{CpuFaultOutcome, DeviceFaultOutcome, Event, Holder, MoveCause, What};
pub use faults::{
    Fault, FaultBatch, FaultBuffer, FaultFailure, FaultQueue, FaultedPage, OpenQueueError,
    QueueCancelled, QueueNumber, Replayed, Serve, ServedElsewhere, SortedFaults,
};
pub use handles::{
    AttachError, Attachment, DeviceArea, DeviceFaultError, MapError, Mirror, RecordError,
    Recording, ReserveError, Service,
};
pub use in_flight::{InFlight, Lane};
pub use in_place::{InPlace, Refuser};
pub use latency::{Histogram, Latency};
pub use mm::{AccessorNumber, Refused, Width};
pub use range::{
    Override, PageEntry, PageFailure, PageState, RangeFaultError, RangeReport, Request, Want,
};
pub use range_set::RangeSet;
pub use report::{Migration, PageError, StayCause, Stayed};
pub use shared::Shared;
pub use space::{
    AddressSpace, AdoptError, Adopted, CloseError, LeftOut, MakeAnonymousError, MirrorError,
    OpenError, Options, PageLocation,
};
pub use sparse::SparseTable;
#[cfg(not(any(shuttle, miri)))]
pub use view::{ObserveError, ObservedDevice, ObservedPage, ObservedPlace, Observer};
