//! How a worker of a device process finds pages, notes what it does with them, and asks the program for those that it
//! misses.

use core::ptr::NonNull;

use uhmm::{
    DeviceFaultError, FaultAccess,
    ring::{Order, Receiver, Report},
    units::PageNumber,
};

use super::device::{Device, Exit};
use crate::{errors::AccessError, table::Leaf, worker::Asks};

/// The side of a worker that asks.
pub(super) struct Asking<'a> {
    pub(super) device: &'static Device,
    /// The worker's.
    pub(super) number: usize,
    pub(super) orders: &'a mut Receiver<'static>,
}

impl Asks for Asking<'_> {
    fn leaf(&self, page: PageNumber) -> Option<&'static Leaf> {
        self.device.leaf(page)
    }

    fn note(&self, memory: NonNull<u8>, write: bool) {
        self.device.note(memory, write);
    }

    /// Where the program is gone, or does not keep to the protocol, the process ends.
    fn fault(&mut self, address: usize, access: FaultAccess) -> Result<(), AccessError> {
        self.ask(address, access);
        match self.device.next_order(self.orders) {
            Order::Served { commands } => {
                // The program counts them by 32 bits, as this process does.
                let [one, two, three, four, ..] = commands.to_le_bytes();
                self.device.wait_for_commands(u32::from_le_bytes([one, two, three, four]));
                Ok(())
            }
            Order::Refused { cause: Some(cause) } => {
                Err(DeviceFaultError { address, cause }.into())
            }
            Order::Refused { cause: None } => Err(AccessError::NotNamed { address }),
            Order::Launch { .. } => Exit::Protocol.now(),
        }
    }

    fn hint(&self, address: usize) {
        self.ask(address, FaultAccess::Prefetch);
    }
}

impl Asking<'_> {
    fn ask(&self, address: usize, access: FaultAccess) {
        self.device.report(Report::Fault { worker: self.number, address, access });
    }
}
