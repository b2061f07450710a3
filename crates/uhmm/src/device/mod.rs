//! What the core keeps of a device: its memory, frame by frame, and which blocks have pages there.
//!
//! Which page is in which frame the blocks know. Here is which frames are free, reserved, or twins of what
//! a page of transit has, what peers were granted, and the clock that says which block gives its frames up.

mod ahead;
mod bits;
mod clock;
mod coherent;
mod copying;
mod frames;
mod given_back;
mod grants;
mod kind;
mod reservation;
mod reserved;
mod state;
mod transit;
mod twins;

use ahead::Ahead;
pub(crate) use bits::Bits;
pub(crate) use clock::Clock;
pub(crate) use coherent::{Coherent, set_aside};
pub(crate) use copying::{Copying, FrameMemory, Place};
pub(crate) use frames::{FramePool, FrameRun};
use given_back::GivenBack;
use grants::Grants;
pub(crate) use kind::Kind;
pub(crate) use reservation::Reservation;
pub(crate) use reserved::{Reserved, ReservedRun};
pub(crate) use state::{DeviceState, Devices};
pub(crate) use transit::{Borrowed, Transit};
