//! From what size on it pays to migrate: pages that go to a device and come back, beside a copy to a
//! buffer of the device and back, size by size.

use std::time::Instant;

use uhmm::units::BLOCK_PAGES;

use super::engine::Engine;
use super::memory::{Area, Backing};
use super::{BenchError, Context};

/// Blocks of the largest size that is tried.
const BLOCKS: usize = 32;

const PAGES: usize = BLOCKS * BLOCK_PAGES;

/// From what size on a migration beats a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakEven {
    /// From so many bytes on.
    From(usize),
    /// Not up to so many bytes.
    NotUpTo(usize),
}

impl std::fmt::Display for BreakEven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::From(bytes) => write!(
                f,
                "break-even of this machine: below {} KiB a copy there and back beats a migration",
                bytes >> 10
            ),
            Self::NotUpTo(bytes) => write!(
                f,
                "break-even of this machine: a copy there and back beats a migration at all sizes \
                 tried, up to {} KiB",
                bytes >> 10
            ),
        }
    }
}

/// Measures each size that is a power of two of pages, both sides in turns. Answers the ratio of each
/// size in bytes, too.
pub(super) fn measure(context: &Context<'_>) -> Result<(BreakEven, Vec<(usize, f64)>), BenchError> {
    let area = Area::map(PAGES, context.page, Backing::BasePages)?;
    area.fill();
    let engine = Engine::open(area, context)?;
    let program = Area::map(PAGES, context.page, Backing::BasePages)?;
    program.fill();
    let mut buffer = vec![1_u64; context.page.bytes_in(PAGES) / size_of::<u64>()];
    let mut ratios = Vec::new();
    for pages in (0..).map(|log| 1_usize << log).take_while(|&pages| pages <= PAGES) {
        let buffer = &mut buffer[..context.page.bytes_in(pages) / size_of::<u64>()];
        let mut migrate = || {
            let start = Instant::now();
            engine.migrate(0, pages)?;
            engine.bring_back(0, pages)?;
            Ok([start.elapsed().as_secs_f64()])
        };
        let mut copy = || {
            let start = Instant::now();
            program.read(0, buffer);
            program.write(0, buffer);
            Ok([start.elapsed().as_secs_f64()])
        };
        let [pair] = context.in_turns(&mut migrate, &mut copy)?;
        ratios.push((context.page.bytes_in(pages), pair.ours.median / pair.floor.median));
    }
    engine.close()?;
    program.check()?;
    Ok((of(&ratios), ratios))
}

/// The smallest size from which on all others, too, are no slower to migrate.
fn of(ratios: &[(usize, f64)]) -> BreakEven {
    let slower = ratios.iter().rposition(|&(_, ratio)| ratio > 1.0);
    match (slower.map_or(ratios.first(), |last| ratios.get(last + 1)), ratios.last()) {
        (Some(&(bytes, _)), _) => BreakEven::From(bytes),
        (None, last) => BreakEven::NotUpTo(last.map_or(0, |&(bytes, _)| bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_migrations_begin_to_win_for_good() {
        let sizes = |ratios: [f64; 4]| {
            of(&[4096, 8192, 16384, 32768].into_iter().zip(ratios).collect::<Vec<_>>())
        };
        assert_eq!(sizes([3.0, 2.0, 0.9, 0.5]), BreakEven::From(16384));
        assert_eq!(sizes([3.0, 0.9, 1.1, 0.5]), BreakEven::From(32768));
        assert_eq!(sizes([0.9, 0.9, 0.9, 0.9]), BreakEven::From(4096));
        assert_eq!(sizes([3.0, 2.0, 1.5, 1.1]), BreakEven::NotUpTo(32768));
    }
}
