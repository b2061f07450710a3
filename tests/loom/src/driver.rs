//! What the parts know of the names of devices.

/// As in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceIndex(pub(crate) u8);
