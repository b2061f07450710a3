//! `cpu_scan`: a thread goes through memory that is away, one load a page.
//!
//! The engine sees that faults follow one another, and brings more and more pages with each. The floor
//! is a handler that knows it all along: with each fault it moves back as many pages as the engine
//! does at most, from the one that was touched on. The figure is the time of all faults and loads for
//! each page. Before each round all pages go away again, outside of the time.

use std::thread;
use std::time::Instant;

use uhmm::units::BLOCK_PAGES;

use super::engine::Engine;
use super::handler::Handler;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::{BenchError, Context, NewRow};

const PAGES: usize = 32 * BLOCK_PAGES;

/// Pages that the engine brings with a fault at most, where faults follow one another.
const WINDOW: usize = BLOCK_PAGES;

/// Scans, forward.
pub(super) fn forward(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    // One page more ends the handler.
    let [ours, system] = Area::filled([PAGES, PAGES + 1], context.page, Backing::BasePages)?;
    let engine = Engine::open(ours, context)?;
    let bare = Handler::open(system, context)?;
    let Handler { descriptor, system, device, .. } = &bare;
    let answer = |page: usize| {
        let end = if page < PAGES { (page + WINDOW).min(PAGES) } else { page + 1 };
        descriptor.move_pages(device, system, page, end - page)
    };
    let [pair] = bare.served(PAGES, answer, || {
        let mut ours = || {
            engine.migrate(0, PAGES)?;
            scan(engine.area())
        };
        let mut is_first = true;
        let mut floor = || {
            if !std::mem::take(&mut is_first) {
                descriptor.move_pages(system, device, 0, PAGES)?;
            }
            scan(system)
        };
        context.in_turns(&mut ours, &mut floor)
    })?;
    engine.close()?;
    rows.add(row("one load a page", "ns a page", Some(1.15)).measured(pair));
    Ok(())
}

/// Nanoseconds a page.
fn scan(area: &Area) -> Result<[f64; 1], BenchError> {
    thread::yield_now();
    let start = Instant::now();
    (0..PAGES).try_for_each(|page| area.touch(page))?;
    #[expect(clippy::cast_precision_loss, reason = "a few pages")]
    Ok([start.elapsed().as_secs_f64() * 1e9 / PAGES as f64])
}
