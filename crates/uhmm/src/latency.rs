//! How long things took: counts by length, to an eighth.

use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Latency {
    /// A CPU fault, from when the engine read of it to when it was served and its thread woken. The
    /// way through the kernel before and after is not in it.
    CpuFault,
    /// A device fault, as the device's driver waits for it.
    DeviceFault,
    /// A move of pages of one block to a device: translations end, the pages go, the device is told.
    ToDevice,
    /// The same, back to system memory.
    ToSystem,
}

impl Latency {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::CpuFault, Self::DeviceFault, Self::ToDevice, Self::ToSystem];
}

/// Each power of two of nanoseconds is divided into so many, as a power of two.
const PARTS_LOG: u32 = 3;
const PARTS: u64 = 1 << PARTS_LOG;

/// Times of this power of two of nanoseconds and more are counted together: 17 seconds.
const LONGEST_LOG: u32 = 34;

const BINS: usize = ((LONGEST_LOG - PARTS_LOG + 1) as usize) << PARTS_LOG;

fn bin_of(nanoseconds: u64) -> usize {
    let log = (nanoseconds | PARTS).ilog2();
    if log >= LONGEST_LOG {
        return BINS - 1;
    }
    let shift = log - PARTS_LOG;
    let row = if nanoseconds < PARTS { 0 } else { shift + 1 };
    // The parts are few.
    let part = usize::try_from((nanoseconds >> shift) & (PARTS - 1)).unwrap_or(0);
    (row as usize) << PARTS_LOG | part
}

/// The shortest time that is counted in a bin.
fn start_of(bin: usize) -> u64 {
    let (row, part) = (bin >> PARTS_LOG, bin as u64 & (PARTS - 1));
    if row == 0 { part } else { (PARTS + part) << (row - 1) }
}

/// Counts while they are counted.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Bins([AtomicU64; BINS]);

impl Default for Bins {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BINS])
    }
}

impl Bins {
    pub(crate) fn add(&self, nanoseconds: u64) {
        self.0[bin_of(nanoseconds)].fetch_add(1, Relaxed);
    }

    pub(crate) fn values(&self) -> Histogram {
        Histogram(core::array::from_fn(|bin| self.0[bin].load(Relaxed)))
    }
}

/// How many took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram([u64; BINS]);

impl Histogram {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        // Another process may show any numbers.
        self.0.iter().fold(0, |all, count| all.saturating_add(*count))
    }

    /// The time below which, or in the same eighth of a power of two, so many of a thousand lie.
    /// Zero where nothing was counted.
    pub fn per_mille(&self, part: u64) -> Duration {
        let all = self.count();
        let mut before: u64 = 0;
        for (bin, &count) in self.0.iter().enumerate() {
            before = before.saturating_add(count);
            if count > 0 && u128::from(before) * 1000 >= u128::from(all) * u128::from(part) {
                return Duration::from_nanos(start_of(bin));
            }
        }
        Duration::ZERO
    }

    /// The counts that are not zero, shortest times first, each with the times that it is of. The last
    /// possible one is of all longer times too.
    pub fn counts(&self) -> impl Iterator<Item = (Range<Duration>, u64)> {
        let edge = |bin| Duration::from_nanos(start_of(bin));
        self.0
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(move |(bin, &count)| (edge(bin)..edge(bin + 1), count))
    }

    /// What was counted since `earlier`, of the same thing.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(core::array::from_fn(|bin| self.0[bin].saturating_sub(earlier.0[bin])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_an_eighth() {
        let lengths = (0..LONGEST_LOG).flat_map(|log| {
            let power = 1_u64 << log;
            [power - 1, power, power + power / 3, power + (power - 1)]
        });
        for length in lengths {
            let bin = bin_of(length);
            assert!(start_of(bin) <= length && length < start_of(bin + 1), "{length}");
            assert!(start_of(bin + 1) - start_of(bin) <= (length / 8).max(1), "{length}");
        }
        assert_eq!(bin_of(u64::MAX), BINS - 1);
    }

    #[test]
    fn shares_are_of_all_that_was_counted() {
        let bins = Bins::default();
        assert_eq!(bins.values().per_mille(999), Duration::ZERO);
        for number in 0..1000 {
            bins.add(if number >= 998 { 4096 } else { 1000 });
        }
        let first = bins.values();
        assert_eq!(first.count(), 1000);
        assert_eq!(first.per_mille(500), Duration::from_nanos(960));
        assert_eq!(first.per_mille(999), Duration::from_nanos(4096));
        // What no engine counts, another process may show.
        let any = Histogram([u64::MAX; BINS]);
        assert_eq!((any.count(), any.per_mille(1)), (u64::MAX, Duration::ZERO));
        bins.add(4096);
        let later = bins.values().since(&first);
        let only = (Duration::from_nanos(4096)..Duration::from_nanos(4608), 1);
        assert!(later.counts().eq([only]));
    }
}
