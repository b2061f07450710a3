//! Handles: what drivers and programs hold of an address space, and by which they ask of it.
//!
//! A driver has an [`Attachment`] for a device with memory, has faults served by it and reserves
//! [areas](DeviceArea) by it; for a device without memory it has a [`Mirror`]. Who wants to know what happens
//! has a [`Recording`]. Each keeps the engine, and what it stands for ends as the last of it is dropped.

mod area;
mod attach;
mod attachment;
mod faults;
mod mirror;
mod recording;

pub use area::{DeviceArea, ReserveError};
pub use attach::AttachError;
pub use attachment::{Attachment, DeviceFaultError, MapError};
pub use faults::Service;
pub use mirror::Mirror;
pub use recording::{RecordError, Recording};
