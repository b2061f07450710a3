//! `migrate_copy` and `migrate_copy_huge`: pages are copied into a device's own memory and come back.
//!
//! Ours is `KernelDevice::migrate` and `KernelDevice::bring_back` of an adopted area, a block a call, with a device
//! behind a bus as fast as the processor copies. The floor is one `memcpy` of a block for each of those
//! calls, by the same thread, from an area of the same size and make to another, and back. Before each
//! round every page is read, and its content compared. The first rounds do not count: by then the
//! memory of either device is there, and ours has the pages on the way that it keeps.
//!
//! A device knows what it has written. So that there is something to copy back it writes to every page, between the two
//! measures. Where it does not, nothing is copied back: that has a row of its own for either device, and no bound.
//!
//! Eight blocks are as much as is kept on the way. Of 32 most is not, so those who go there are freed
//! behind, and those who come back are allocated.
//!
//! With a device in a process of its own the pages are copied by the same thread; the process is told of
//! what came, and asked to let go of what is to come back. It runs on the same CPU.

use std::time::Instant;

use uhmm::units::BLOCK_PAGES;
use uhmm_soft::{Bus, Home, Options, ProcessOptions};

use super::engine::Engine;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::rounds::Pair;
use super::{BenchError, Context, NewRow};

/// Where the device runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Here,
    Apart,
}

/// What goes there and back in a round.
struct Case {
    device: Where,
    blocks: usize,
    there: &'static str,
    back: &'static str,
}

/// Back where the device has written nothing.
const UNWRITTEN: [(Where, &str); 2] = [
    (Where::Here, "to system, 32 blocks unwritten"),
    (Where::Apart, "from process, 32 blocks unwritten"),
];

const CASES: [Case; 4] = [
    Case {
        device: Where::Here,
        blocks: 8,
        there: "to device, 8 blocks",
        back: "to system, 8 blocks",
    },
    Case {
        device: Where::Here,
        blocks: 32,
        there: "to device, 32 blocks",
        back: "to system, 32 blocks",
    },
    Case {
        device: Where::Apart,
        blocks: 8,
        there: "to process, 8 blocks",
        back: "from process, 8 blocks",
    },
    Case {
        device: Where::Apart,
        blocks: 32,
        there: "to process, 32 blocks",
        back: "from process, 32 blocks",
    },
];

/// What share of the speed of a device in this process one in its own was promised to have.
const APART: f64 = 0.9;

/// Base pages. What was promised is 0.78 of the speed of `memcpy`.
pub(super) fn base_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    measure(Backing::BasePages, 0.78, context, row, rows)
}

/// Huge pages. What was promised is 0.95 of the speed of `memcpy`.
pub(super) fn huge_pages(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    measure(Backing::HugePages, 0.95, context, row, rows)
}

fn measure(
    backing: Backing,
    share: f64,
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    for Case { device, blocks, there, back } in CASES {
        let share = if device == Where::Apart { share * APART } else { share };
        let pairs = there_and_back(backing, device, blocks, true, context)?;
        for (case, pair) in [there, back].into_iter().zip(pairs) {
            rows.add(row(case, "ns a page", Some(1.0 / share)).measured(pair));
        }
    }
    for (device, case) in UNWRITTEN {
        let [_, back] = there_and_back(backing, device, 32, false, context)?;
        rows.add(row(case, "ns a page", None).measured(back));
    }
    Ok(())
}

/// Nanoseconds for a page to a device and back, which it has `written` there, or not.
fn there_and_back(
    backing: Backing,
    device: Where,
    blocks: usize,
    written: bool,
    context: &Context<'_>,
) -> Result<[Pair; 2], BenchError> {
    let pages = blocks * BLOCK_PAGES;
    let [ours, from, to] = Area::filled([pages; 3], context.page, backing)?;
    let floor = [from, to];
    let memory = context.page.bytes_in(pages + BLOCK_PAGES);
    let home = match device {
        Where::Here => Home::Program(Options::new(memory).keep_pages().behind_bus(Bus::new())),
        Where::Apart => Home::OwnProcess(ProcessOptions::new(memory).keep_pages()),
    };
    let engine = Engine::open_with(ours, home, context)?;
    let pairs = context.in_turns(
        &mut || {
            engine.area().check()?;
            let there = timed(pages, |first| engine.migrate(first, BLOCK_PAGES))?;
            if written {
                engine.rewrite()?;
            }
            Ok([there, timed(pages, |first| engine.bring_back(first, BLOCK_PAGES))?])
        },
        &mut || {
            let [system, device] = &floor;
            system.check()?;
            let copied = |to: &Area, from| {
                timed(pages, |first| {
                    to.copy_from(from, first, BLOCK_PAGES);
                    Ok(())
                })
            };
            Ok([copied(device, system)?, copied(system, device)?])
        },
    )?;
    engine.close()?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand pages")]
    Ok(pairs.map(|pair| pair.divided_by(pages as f64)))
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
