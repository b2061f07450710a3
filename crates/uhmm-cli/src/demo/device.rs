//! Opens the device that `uhmm demo` computes with.

use super::accelerator::{Accelerator, DeviceError};

/// Opens a device with so many bytes of memory, or the next size that it can have.
pub(super) fn open(_memory_bytes: u64) -> Result<Box<dyn Accelerator>, DeviceError> {
    Err(DeviceError::Failed {
        doing: "cannot open the device",
        source: "the device `soft` is not built into this version of uhmm yet".into(),
    })
}
