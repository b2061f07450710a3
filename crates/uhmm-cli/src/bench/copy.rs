//! `migrate_copy` and `migrate_copy_huge`: pages are copied into a device's own memory and come back.
//!
//! Ours is `Soft::migrate` and `Soft::bring_back` of an adopted area, a block a call, with a device
//! behind a bus as fast as the processor copies. The floor is one `memcpy` of a block for each of those
//! calls, by the same thread, from an area of the same size and make to another, and back. Before each
//! round every page is read, and its content compared. The first rounds do not count: by then the
//! memory of either device is there, and ours has the pages on the way that it keeps.
//!
//! Half of what goes in a round is more than what is kept on the way, so that both directions pay for
//! what they cannot keep.

use std::time::Instant;

use uhmm::units::BLOCK_PAGES;
use uhmm_soft::{Bus, Options};

use super::engine::Engine;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::{BenchError, Context, NewRow};

/// How much goes there and back in a round, in blocks.
struct Amount {
    blocks: usize,
    there: &'static str,
    back: &'static str,
}

const AMOUNTS: [Amount; 2] = [
    Amount { blocks: 8, there: "to device, 8 blocks", back: "to system, 8 blocks" },
    Amount { blocks: 32, there: "to device, 32 blocks", back: "to system, 32 blocks" },
];

/// Base pages. What was promised is a share of the speed of `memcpy`, 0.78.
pub(super) fn base_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    measure(Backing::BasePages, 1.0 / 0.78, context, row, rows)
}

/// Huge pages. What was promised is 0.95 of the speed of `memcpy`.
pub(super) fn huge_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    measure(Backing::HugePages, 1.0 / 0.95, context, row, rows)
}

fn measure(
    backing: Backing,
    at_most: f64,
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    for Amount { blocks, there, back } in AMOUNTS {
        let pages = blocks * BLOCK_PAGES;
        let [ours, system, device] = [(); 3].map(|()| Area::map(pages, context.page, backing));
        let (ours, floor) = (ours?, [system?, device?]);
        ours.fill();
        floor.iter().for_each(Area::fill);
        let memory = context.page.bytes_in(pages + BLOCK_PAGES);
        let options = Options::new(memory).behind_bus(Bus::new());
        let engine = Engine::open_with(ours, options, context)?;
        let pairs = context.in_turns(
            &mut || {
                engine.area().check()?;
                Ok([
                    timed(pages, |first| engine.migrate(first, BLOCK_PAGES))?,
                    timed(pages, |first| engine.bring_back(first, BLOCK_PAGES))?,
                ])
            },
            &mut || {
                let [system, device] = &floor;
                system.check()?;
                Ok([
                    timed(pages, |first| {
                        device.copy_from(system, first, BLOCK_PAGES);
                        Ok(())
                    })?,
                    timed(pages, |first| {
                        system.copy_from(device, first, BLOCK_PAGES);
                        Ok(())
                    })?,
                ])
            },
        )?;
        for (case, pair) in [there, back].into_iter().zip(pairs) {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand pages")]
            let pair = pair.divided_by(pages as f64);
            rows.add(row(case, "ns a page", Some(at_most)).measured(pair));
        }
        engine.close()?;
    }
    Ok(())
}

/// Nanoseconds for a call for each block of the pages.
fn timed(
    pages: usize,
    mut call: impl FnMut(usize) -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let start = Instant::now();
    for first in (0..pages).step_by(BLOCK_PAGES) {
        call(first)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9)
}
