//! Ours and the floor in turns, or one side alone, and what came out.

use serde::Serialize;

use super::BenchError;
use crate::interrupt::Stop;
use crate::progress::Phase;

/// Rounds before those that count: page tables are made, code and data are warm.
pub(super) const WARM_UP: u32 = 5;

/// The middle half of many measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    /// A quarter of the measurements lies below.
    pub(super) lower_quartile: f64,
    /// Half of them lies below.
    pub(super) median: f64,
    /// Three quarters of them lie below.
    pub(super) upper_quartile: f64,
}

impl Spread {
    /// The spread of `values`, of which there is at least one.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values[(values.len() - 1) * quarter / 4];
        Self { lower_quartile: at(1), median: at(2), upper_quartile: at(3) }
    }

    /// A number that is known, not measured.
    pub(super) const fn known(value: f64) -> Self {
        Self { lower_quartile: value, median: value, upper_quartile: value }
    }

    /// This as ours, and `floor` as the floor.
    pub(super) const fn beside(self, floor: Self) -> Pair {
        Pair { ours: self, floor }
    }

    /// One of `parts` equal parts.
    pub(super) fn divided_by(self, parts: f64) -> Self {
        Self {
            lower_quartile: self.lower_quartile / parts,
            median: self.median / parts,
            upper_quartile: self.upper_quartile / parts,
        }
    }
}

/// Ours and the floor, of one thing measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) ours: Spread,
    pub(super) floor: Spread,
}

impl Pair {
    /// Both, for one of `parts` equal parts of what was measured.
    pub(super) fn divided_by(self, parts: f64) -> Self {
        self.ours.divided_by(parts).beside(self.floor.divided_by(parts))
    }
}

/// One side's round: `N` measurements, or why there are none.
pub(super) type Round<'a, const N: usize> = &'a mut dyn FnMut() -> Result<[f64; N], BenchError>;

/// Runs both sides in turns, the one first in every other round, and returns the spreads of each of
/// the `N` things that a round measures.
pub(super) fn in_turns<const N: usize>(
    rounds: u32,
    ours: Round<'_, N>,
    floor: Round<'_, N>,
    phase: &Phase,
    stop: &Stop,
) -> Result<[Pair; N], BenchError> {
    let mut all = [const { (Vec::new(), Vec::new()) }; N];
    for round in 0..rounds + WARM_UP {
        stop.check()?;
        let (mine, bare) = if round % 2 == 0 {
            let mine = ours()?;
            (mine, floor()?)
        } else {
            let bare = floor()?;
            (ours()?, bare)
        };
        if round >= WARM_UP {
            phase.at((round - WARM_UP).into());
            for (values, (mine, bare)) in all.iter_mut().zip(mine.into_iter().zip(bare)) {
                values.0.push(mine);
                values.1.push(bare);
            }
        }
    }
    Ok(all.map(|(ours, floor)| Spread::of(ours).beside(Spread::of(floor))))
}

/// Runs one side alone, where what it stands beside cannot take turns with it.
pub(super) fn alone<const N: usize>(
    rounds: u32,
    side: Round<'_, N>,
    phase: &Phase,
    stop: &Stop,
) -> Result<[Spread; N], BenchError> {
    let mut all = [const { Vec::new() }; N];
    for round in 0..rounds + WARM_UP {
        stop.check()?;
        let measured = side()?;
        if round >= WARM_UP {
            phase.at((round - WARM_UP).into());
            for (values, value) in all.iter_mut().zip(measured) {
                values.push(value);
            }
        }
    }
    Ok(all.map(Spread::of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_of_the_sorted_values() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        let expected = Spread { lower_quartile: 2.0, median: 3.0, upper_quartile: 4.0 };
        assert_eq!(spread, expected);
        assert_eq!(Spread::of(vec![7.0]), Spread::known(7.0));
    }
}
