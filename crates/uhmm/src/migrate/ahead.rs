//! The thread that gives up memory of a device before it is wanted.

use crate::{
    device::DeviceState,
    engine::Engine,
    mm::Mm,
    policy,
    sync::SignalsBlocked,
    units::{PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// The work of a device's thread, until it is to end.
    pub(crate) fn evict_in_background(&self, device: &DeviceState, signals: &SignalsBlocked) {
        while device.ahead.wait() {
            self.free_ahead(device, signals);
        }
    }

    /// Evicts until some frames are free. Where nothing can be evicted it is left to who needs a frame,
    /// who says why there is none.
    fn free_ahead(&self, device: &DeviceState, signals: &SignalsBlocked) {
        let nothing = PageRange::of(PageNumber(0), 0);
        let wanted = policy::evict_ahead(device.frames);
        while device.ahead.is_running() && device.refusal().is_none() {
            let free = device.free(signals);
            if free >= wanted {
                return;
            }
            let Ok(mut visit) = self.visit(signals) else { return };
            let evicted = self.evict(device, wanted - free, nothing, &mut visit);
            self.counters.evicted_ahead.add(evicted.freed);
            if evicted.freed == 0 {
                return;
            }
        }
    }
}
