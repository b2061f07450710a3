//! User-space heterogeneous memory management: one address space for CPU threads and devices.

pub mod abort;
mod block;
mod counters;
mod device;
pub mod engine_memory;
mod migrate;
pub mod mm;
mod policy;
mod report;
mod shared;
mod space;
pub mod sync;
pub mod units;

pub use counters::CounterValues;
pub use device::{
    AttachError, Attachment, Device, DeviceFaultError, DeviceIndex, MAX_DEVICES,
};
pub use report::{Migration, StayCause, Stayed};
pub use space::{
    AddressSpace, AdoptError, Adopted, CloseError, LeftOut, OpenError, Options, PageLocation,
};
