//! User-space heterogeneous memory management: one address space for CPU threads and devices.

pub mod abort;
mod block;
mod counters;
mod device;
pub mod engine_memory;
mod in_flight;
mod migrate;
pub mod mm;
mod policy;
mod report;
mod shared;
mod space;
mod sparse;
pub mod sync;
pub mod units;

pub use counters::CounterValues;
pub use device::{
    AttachError, Attachment, Device, DeviceFaultError, DeviceIndex, MAX_DEVICES, Use,
};
pub use in_flight::{InFlight, Lane};
pub use report::{Migration, StayCause, Stayed};
pub use shared::Shared;
pub use space::{
    AddressSpace, AdoptError, Adopted, CloseError, LeftOut, OpenError, Options, PageLocation,
};
pub use sparse::SparseTable;
