//! What a driver implements, and what it is told: the one seam above the core.
//!
//! A device is a protocol of plain data. The core says which pages to prepare for, which entries to
//! commit and which translations end; the device keeps a page table of its own, which is a
//! [`PageTable`]. A [`Device`] has memory as well, of one of three kinds: pages of staging, into which
//! pages move and which the device reaches through the pointers that a commit hands it;
//! [`CopyingMemory`], which is the device's own and has pages copied in and out; or coherent memory,
//! whose frames the CPU maps too.
//!
//! Nothing here knows of the engine, so all that is above can name devices, their frames and their errors.

mod access;
mod device;
mod memory;
mod names;
mod page_table;

pub use access::FaultAccess;
pub use device::{Device, Use};
pub use memory::{Begun, CopyingMemory, Frames, Ticket, Transfer, TransferError, copy_bytes};
pub(crate) use names::FrameNumber;
pub use names::{DeviceIndex, MAX_DEVICES, MirrorId};
pub use page_table::{
    Entries, Export, Importer, Invalidation, InvalidationKind, PageTable, PrepareError, Translation,
};
