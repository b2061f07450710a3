//! What the core keeps of a device: its memory, frame by frame, and which blocks have pages there.
//!
//! Which page is in which frame the blocks know. Here is which frames are free, reserved, or twins of what
//! a page of transit has, what peers were granted, and the clock that says which block gives its frames up.

mod ahead;
mod area;
mod attachment;
mod bits;
mod clock;
mod coherent;
mod copying;
mod faults;
mod frames;
mod given_back;
mod grants;
mod reservation;
mod state;
mod transit;
mod twins;

use ahead::Ahead;
pub use area::{DeviceArea, ReserveError};
pub(crate) use area::{Reserved, ReservedRun};
pub(crate) use attachment::Kind;
pub use attachment::{AttachError, Attachment, DeviceFaultError, MapError};
pub(crate) use bits::Bits;
pub(crate) use clock::Clock;
pub(crate) use coherent::Coherent;
pub(crate) use copying::{Copying, FrameMemory, Place};
pub use faults::Service;
pub(crate) use frames::{FramePool, FrameRun};
use given_back::GivenBack;
use grants::Grants;
pub(crate) use reservation::Reservation;
pub(crate) use state::{DeviceState, Devices};
pub(crate) use transit::{Borrowed, Transit};
