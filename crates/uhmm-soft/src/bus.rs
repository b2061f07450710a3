//! The bus that a device's own memory is behind: it has a set speed, and is the same whether the device lives in
//! the program or in a process of its own.
//!
//! The copying itself is done by the thread that asks. A transfer is over when the bus would have it
//! over: transfers use the bus one after the other, for as long as their bytes take, and each arrives
//! one latency later.

use core::{
    num::NonZeroU64,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};
use std::time::Instant;

use uhmm::{Begun, Ticket, Transfer};

/// How fast pages get to a device's own memory and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bus {
    bandwidth: Option<NonZeroU64>,
    latency: Duration,
}

impl Bus {
    /// One as fast as the processor copies.
    pub const fn new() -> Self {
        Self { bandwidth: None, latency: Duration::ZERO }
    }

    /// Sets how many bytes it carries in a second, in both directions together.
    #[must_use]
    pub const fn bandwidth(self, bytes_a_second: NonZeroU64) -> Self {
        Self { bandwidth: Some(bytes_a_second), ..self }
    }

    /// Sets how long a transfer takes beyond what its bytes take.
    #[must_use]
    pub const fn latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// Nanoseconds that the bus is in use for so many bytes.
    fn occupied_for(self, bytes: usize) -> u64 {
        let Some(bandwidth) = self.bandwidth else { return 0 };
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(bandwidth.get());
        u64::try_from(nanoseconds).unwrap_or(u64::MAX / 2)
    }
}

/// A bus that is there, and until when it is in use.
#[derive(Debug)]
pub(crate) struct BusLine {
    bus: Bus,
    began: Instant,
    /// In nanoseconds from the beginning on.
    in_use_until: AtomicU64,
}

/// How long before a transfer is over a thread that waits for it stops sleeping.
const AWAKE: Duration = Duration::from_micros(60);

impl BusLine {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus, began: Instant::now(), in_use_until: AtomicU64::new(0) }
    }

    /// Whether a transfer takes longer than the processor copies.
    pub(crate) fn is_slow(&self) -> bool {
        self.bus != Bus::new()
    }

    /// Carries what the processor has copied, `len` bytes. What is made of zeros crosses no bus.
    pub(crate) fn carry(&self, transfer: &Transfer, len: usize) -> Begun {
        if !self.is_slow() {
            return Begun::Done;
        }
        let crosses = if matches!(transfer, Transfer::Zero { .. }) { 0 } else { len };
        Begun::UnderWay(Ticket(self.arrival(crosses)))
    }

    /// Returns when what has such a ticket has arrived.
    pub(crate) fn wait(&self, Ticket(arrival): Ticket) {
        loop {
            let left = Duration::from_nanos(arrival.saturating_sub(self.now()));
            if left.is_zero() {
                return;
            }
            match left.checked_sub(AWAKE) {
                Some(sleep) if !sleep.is_zero() => std::thread::sleep(sleep),
                _ => core::hint::spin_loop(),
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// Uses the bus for `bytes` bytes as soon as it is free. Answers when they have arrived.
    fn arrival(&self, bytes: usize) -> u64 {
        let now = self.now();
        let takes = self.bus.occupied_for(bytes);
        let mut until = self.in_use_until.load(Relaxed);
        loop {
            let end = until.max(now).saturating_add(takes);
            match self.in_use_until.compare_exchange_weak(until, end, AcqRel, Relaxed) {
                Ok(_) => {
                    let latency = u64::try_from(self.bus.latency.as_nanos()).unwrap_or(u64::MAX);
                    return end.saturating_add(latency);
                }
                Err(other) => until = other,
            }
        }
    }
}
