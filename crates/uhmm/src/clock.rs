//! The time of an event.

/// When something began, as [`now`] says it, if that is recorded: else 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Began(pub(crate) u64);

/// Nanoseconds on the system's monotonic clock, which is read without entering the kernel.
#[cfg(not(any(shuttle, miri, loom)))]
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It counts from a start of the system.
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// A clock that ticks when it is looked at, so that what is told of the same steps is the same.
#[cfg(any(shuttle, miri, loom))]
pub(crate) fn now() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static TICKS: AtomicU64 = AtomicU64::new(0);
    TICKS.fetch_add(1, Relaxed) + 1
}

/// The processor that the calling thread runs on now.
pub(crate) fn processor() -> u16 {
    #[cfg(not(any(shuttle, miri, loom)))]
    return u16::try_from(rustix::thread::sched_getcpu()).unwrap_or(u16::MAX);
    #[cfg(any(shuttle, miri, loom))]
    return 0;
}
