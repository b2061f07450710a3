//! `cpu_fault`: a thread touches a page that is away.
//!
//! All pages of an area are away; a round reads some of them, each far from the one before, so that
//! none is taken for a stream and brings neighbours. Before the next one they go away again, outside
//! of the time.
//! The floor's pages are moved to another area, and a handler, a thread on the same CPU, polls the
//! descriptor, reads one message, copies the page back, which wakes who waits, and begins again. The
//! figure is the time of the round divided by its faults: what a handler does after it woke the
//! thread delays the next fault, and counts.

use std::thread;
use std::time::Instant;

use uhmm::units::BLOCK_PAGES;

use super::engine::Engine;
use super::handler::Handler;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::rounds::{Pair, Spread};
use super::{BenchError, Context, NewRow};

const PAGES: usize = 4 * BLOCK_PAGES;

/// Faults of a round.
const FAULTS: usize = 64;

/// From one fault to the next; with the number of pages it has no common divisor, so that no page
/// is touched twice.
const STRIDE: usize = 797;

/// The pages that a round touches, in order.
fn touched() -> impl Iterator<Item = usize> {
    (0..FAULTS).map(|number| number * STRIDE % PAGES)
}

/// Faults one by one.
pub(super) fn single(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let [ours, system] = Area::filled([PAGES; 2], context.page, Backing::BasePages)?;
    let engine = Engine::open(ours, context)?;
    let bare = Bare::open(system, context)?;
    let pair = bare.served(|| compare(context, &engine, &bare))?;
    let counters = engine.counters();
    engine.close()?;
    if counters.to_system_neighbour > 0 {
        return Err(BenchError::failed("the measurement is void", "faults brought neighbours"));
    }
    rows.add(row("one page", "ns a fault", Some(1.25)).measured(pair));
    Ok(())
}

fn compare(context: &Context<'_>, engine: &Engine, bare: &Bare) -> Result<Pair, BenchError> {
    let mut ours = || {
        engine.migrate(0, PAGES)?;
        timed(engine.area())
    };
    let mut floor = || {
        bare.take_again()?;
        timed(&bare.0.system)
    };
    let [pair] = context.in_turns(&mut ours, &mut floor)?;
    Ok(pair)
}

/// Microseconds of a fault of the floor alone.
pub(super) fn bare(context: &Context<'_>) -> Result<Spread, BenchError> {
    let [system] = Area::filled([PAGES], context.page, Backing::BasePages)?;
    let bare = Bare::open(system, context)?;
    bare.served(|| {
        let [spread] = context.alone(&mut || {
            bare.take_again()?;
            timed(&bare.0.system)
        })?;
        Ok(spread.divided_by(1e3))
    })
}

/// Nanoseconds a fault. Other programs get the CPU before and not within, as far as may be: what
/// prepares a round takes one side longer than the other.
fn timed(area: &Area) -> Result<[f64; 1], BenchError> {
    thread::yield_now();
    let start = Instant::now();
    touched().try_for_each(|page| area.touch(page))?;
    #[expect(clippy::cast_precision_loss, reason = "a few faults")]
    Ok([start.elapsed().as_secs_f64() * 1e9 / FAULTS as f64])
}

/// The floor: pages of one area are away in the other.
struct Bare(Handler);

impl Bare {
    fn open(system: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let bare = Self(Handler::open(system, context)?);
        // All pages are away but those that a round touches, as a round leaves them.
        touched().try_for_each(|page| bare.copy_back(page))?;
        Ok(bare)
    }

    fn copy_back(&self, page: usize) -> Result<(), BenchError> {
        let Handler { descriptor, system, device, .. } = &self.0;
        descriptor.copy(device, system, page, 1)
    }

    /// Moves the pages away that were copied back, in the place of what they were copied from.
    fn take_again(&self) -> Result<(), BenchError> {
        let Handler { descriptor, system, device, .. } = &self.0;
        touched().try_for_each(|page| {
            device.discard(page)?;
            descriptor.move_pages(system, device, page, 1)
        })
    }

    /// Does `work` while a thread serves faults.
    fn served<T>(&self, work: impl FnOnce() -> Result<T, BenchError>) -> Result<T, BenchError> {
        self.0.served(UNTOUCHED, |page| self.copy_back(page), work)
    }
}

/// A page that no round touches.
const UNTOUCHED: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_touched_twice_or_behind_another() {
        let pages: Vec<_> = touched().collect();
        let mut sorted = pages.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), FAULTS);
        assert!(!pages.contains(&UNTOUCHED));
        assert!(pages.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1));
    }
}
