//! How long many accesses took, in memory of a fixed size that several threads count in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::rounds::Spread;

/// Each power of two of nanoseconds is divided into so many parts, as a power of two: a time is known
/// to a sixteenth.
const PARTS_LOG: u32 = 4;
const PARTS: u64 = 1 << PARTS_LOG;

const PLACES: usize = ((u64::BITS - PARTS_LOG + 1) as usize) << PARTS_LOG;

/// Counts of times, by their length.
pub(super) struct Waits([AtomicU64; PLACES]);

impl Waits {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }

    /// Counts one.
    pub(super) fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0[place_of(nanoseconds)].fetch_add(1, Relaxed);
    }

    /// Counts all of others.
    pub(super) fn add_all(&self, others: &Self) {
        for (count, other) in self.0.iter().zip(&others.0) {
            count.fetch_add(other.load(Relaxed), Relaxed);
        }
    }

    /// The time in microseconds below which so many of a thousand lie.
    fn per_mille(&self, part: u64) -> f64 {
        let counts = || self.0.iter().map(|count| count.load(Relaxed));
        let all: u64 = counts().sum();
        let mut before = 0;
        for (place, count) in counts().enumerate() {
            before += count;
            if before * 1000 >= all * part && count > 0 {
                return microseconds(place);
            }
        }
        0.0
    }

    /// The middle half, in microseconds.
    pub(super) fn middle(&self) -> Spread {
        Spread {
            lower_quartile: self.per_mille(250),
            median: self.per_mille(500),
            upper_quartile: self.per_mille(750),
        }
    }

    /// What one in a thousand exceeds, in microseconds.
    pub(super) fn rare(&self) -> Spread {
        Spread::known(self.per_mille(999))
    }
}

/// Where a time is counted.
const fn place_of(nanoseconds: u64) -> usize {
    let log = (nanoseconds | PARTS).ilog2();
    let shift = log - PARTS_LOG;
    let part = (nanoseconds >> shift) & (PARTS - 1);
    let row = if nanoseconds < PARTS { 0 } else { shift + 1 };
    (row as usize) << PARTS_LOG | part as usize
}

/// The shortest time that is counted at a place.
#[expect(clippy::cast_precision_loss, reason = "times of a measurement")]
fn microseconds(place: usize) -> f64 {
    let (row, part) = (place >> PARTS_LOG, (place as u64) & (PARTS - 1));
    let nanoseconds = if row == 0 { part } else { (PARTS + part) << (row - 1) };
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_a_sixteenth() {
        let numbers = (0..u64::BITS).flat_map(|log| {
            let power = 1_u64 << log;
            [power, power + power / 3, power + power / 2, power + (power - 1)]
        });
        for number in numbers.chain([0]) {
            #[expect(clippy::cast_precision_loss, reason = "a sixteenth is asked for")]
            let (exact, found) = (number as f64, microseconds(place_of(number)) * 1e3);
            assert!(found <= exact * 1.000_001 && exact <= found * 17.0 / 16.0 + 0.001, "{number}");
        }
    }

    #[test]
    fn shares_are_of_all_that_was_counted() {
        let waits = Waits::new();
        for number in 0..1000 {
            let slow = number >= 998;
            waits.add(Duration::from_micros(if slow { 4096 } else { 1 }));
        }
        let middle = waits.middle();
        assert!(middle.lower_quartile <= 1.0 && middle.upper_quartile <= 1.0);
        assert!(waits.rare().median > 4000.0);
    }
}
