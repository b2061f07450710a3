//! `range_fault_first` and `range_fault_again`: a device asks for a range for the first time, and for
//! what it has.
//!
//! All pages are present, and the device keeps no page table, so that both sides do the kernel's work
//! and what is above it is the engine's. The first request of a mirror looks at each page and enters
//! it; a round has a mirror of its own, made before the time. The floor is `MADV_POPULATE_READ` (for
//! writing `MADV_POPULATE_WRITE`) and `PAGEMAP_SCAN`, a block a call as ours is. That a page which is
//! there need not be populated is ours to know, so ours may be below. A device that holds on to what
//! it writes has the pages populated in any case, and the look alone is a floor too: neither leaves
//! ours anything to win.
//!
//! The first request of all for an area registers it, once for as long as the area lives. Other cases
//! have an area that another mirror has had registered. With an area of a single page each time both
//! are measured, and there the floor registers one too; nothing is promised for a page alone.

use std::hint::black_box;
use std::time::Instant;

use uhmm::units::{AddressRange, BLOCK_PAGES};
use uhmm::{AddressSpace, Mirror, PageTable, RangeReport, Request, Want};

use super::engine::{close_space, open_space};
use super::memory::{Area, Backing};
use super::null::{Null, Pinning};
use super::report::Rows;
use super::rounds::{Pair, Spread};
use super::scan::Pagemap;
use super::userfault::Userfault;
use super::{BenchError, Context, NewRow};

/// Blocks of a first request: few, so that a round is short and seldom disturbed. The names of the
/// cases say so too.
const BLOCKS: usize = 4;

const PAGES: usize = BLOCKS * BLOCK_PAGES;

/// What a block of a request that was answered before may cost, in nanoseconds.
const PER_BLOCK: f64 = 20.0;

/// What the floor does to each block.
#[derive(Clone, Copy)]
enum Bare {
    Populate { write: bool },
    Nothing,
}

/// Requests for what the device was not given yet.
pub(super) fn first(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let areas = || -> Result<[Area; 2], BenchError> {
        let map = || Area::map(PAGES, context.page, Backing::BasePages);
        let areas = [map()?, map()?];
        areas.iter().for_each(Area::fill);
        Ok(areas)
    };
    let [ours, floor] = areas()?;
    let space = open_space()?;
    context.cpus.main.bind_handlers()?;
    let sides = Sides { space: &space, ours, floor, pagemap: Pagemap::open()? };
    sides.watch()?;
    let read = Bare::Populate { write: false };
    let write = Bare::Populate { write: true };
    let cases = [
        ("8 MiB, read", sides.pair(context, || Null, Want::Read, read)?),
        ("8 MiB, write", sides.pair(context, || Null, Want::Write, write)?),
        ("8 MiB, write, held on to", sides.pair(context, || Pinning, Want::Write, write)?),
        ("8 MiB, read, beside the look", sides.pair(context, || Null, Want::Read, Bare::Nothing)?),
    ];
    for (case, pair) in cases {
        rows.add(row(case, "ns a page", Some(1.2)).measured(pair));
    }
    drop(sides);
    for (case, pair) in ["one page, area not watched yet", "one page, area watched"]
        .into_iter()
        .zip(one_page(context, &space)?)
    {
        rows.add(row(case, "ns a fault", None).measured(pair));
    }
    close_space(space)
}

/// Both sides of a first request. All pages of both are present.
struct Sides<'a> {
    space: &'a AddressSpace,
    ours: Area,
    floor: Area,
    pagemap: Pagemap,
}

impl Sides<'_> {
    /// Has the area watched, on behalf of a mirror that goes.
    fn watch(&self) -> Result<(), BenchError> {
        let mirror = mirror(self.space, self.ours.all()?, Null)?;
        entered(1, &fault(&mirror, self.ours.range(0, 1)?, Want::Read)?)
    }

    /// Nanoseconds a page.
    fn pair<T: PageTable>(
        &self,
        context: &Context<'_>,
        table: impl Fn() -> T,
        want: Want,
        bare: Bare,
    ) -> Result<Pair, BenchError> {
        let range = self.ours.all()?;
        let mut ours = || {
            let mirror = mirror(self.space, range, table())?;
            let start = Instant::now();
            let report = fault(&mirror, range, want)?;
            let time = start.elapsed();
            entered(PAGES, &report)?;
            Ok([time.as_secs_f64() * 1e9])
        };
        let mut floor = || {
            let start = Instant::now();
            for first in (0..PAGES).step_by(BLOCK_PAGES) {
                if let Bare::Populate { write } = bare {
                    self.floor.populate(first, BLOCK_PAGES, write)?;
                }
                self.pagemap.scan(&self.floor, first, BLOCK_PAGES)?;
            }
            Ok([start.elapsed().as_secs_f64() * 1e9])
        };
        let [pair] = context.in_turns(&mut ours, &mut floor)?;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand pages")]
        Ok(pair.divided_by(PAGES as f64))
    }
}

/// One page: the first request of all for its area, and the first of another mirror after it. The
/// difference is what it costs to have the area's changes told.
fn one_page(context: &Context<'_>, space: &AddressSpace) -> Result<[Pair; 2], BenchError> {
    let (userfault, pagemap) = (Userfault::open()?, Pagemap::open()?);
    let area = || {
        let area = Area::map(1, context.page, Backing::BasePages)?;
        area.fill();
        Ok::<_, BenchError>(area)
    };
    let mut ours = || {
        let area = area()?;
        let range = area.all()?;
        let mirrors = [mirror(space, range, Null)?, mirror(space, range, Null)?];
        let timed = |mirror| {
            let start = Instant::now();
            let report = fault(mirror, range, Want::Read)?;
            let time = start.elapsed();
            entered(1, &report)?;
            Ok::<_, BenchError>(time.as_secs_f64() * 1e9)
        };
        let [first, second] = &mirrors;
        Ok([timed(first)?, timed(second)?])
    };
    let mut floor = || {
        let area = area()?;
        let look = || {
            area.populate(0, 1, false)?;
            pagemap.scan(&area, 0, 1)
        };
        let start = Instant::now();
        userfault.watch(&area)?;
        look()?;
        let first = start.elapsed();
        let start = Instant::now();
        look()?;
        Ok([first, start.elapsed()].map(|time| time.as_secs_f64() * 1e9))
    };
    context.in_turns(&mut ours, &mut floor)
}

/// Requests for what the device has.
pub(super) fn again(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let space = open_space()?;
    context.cpus.main.bind_handlers()?;
    for (blocks, calls, case) in [
        (32, 16, "64 MiB, 32 blocks a call"),
        (512, 1, "1 GiB, 512 blocks a call"),
        (1, 512, "2 MiB, one block a call"),
    ] {
        // Pages of zeros do: what is there does not matter to one who does not look again.
        let area = Area::map(blocks * BLOCK_PAGES, context.page, Backing::BasePages)?;
        let range = area.all()?;
        let mirror = mirror(&space, range, Null)?;
        entered(area.pages(), &fault(&mirror, range, Want::Read)?)?;
        let mut side = || {
            let start = Instant::now();
            for _ in 0..calls {
                let report = fault(&mirror, black_box(range), Want::Read)?;
                if report.held() != area.pages() {
                    return Err(BenchError::failed(
                        "the measurement is void",
                        format!("{} of {} pages were held", report.held(), area.pages()),
                    ));
                }
            }
            Ok([start.elapsed().as_secs_f64() * 1e9])
        };
        let [ours] = context.alone(&mut side)?;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred blocks")]
        let ours = ours.divided_by((blocks * calls) as f64);
        let pair = ours.beside(Spread::known(PER_BLOCK));
        rows.add(row(case, "ns a block", Some(1.0)).measured(pair));
    }
    close_space(space)
}

fn mirror<T: PageTable>(
    space: &AddressSpace,
    range: AddressRange,
    table: T,
) -> Result<Mirror<T>, BenchError> {
    space.mirror(range, table).map_err(BenchError::while_doing("the mirror cannot be made"))
}

fn fault<T: PageTable>(
    mirror: &Mirror<T>,
    range: AddressRange,
    want: Want,
) -> Result<RangeReport, BenchError> {
    mirror
        .fault(&Request::new(range, want))
        .map_err(BenchError::while_doing("the range cannot be faulted"))
}

/// An error where not all of `pages` pages were entered.
fn entered(pages: usize, report: &RangeReport) -> Result<(), BenchError> {
    if report.entered() == pages {
        return Ok(());
    }
    let cause = match report.failures().next() {
        Some(failure) => format!("{}: {}", failure.pages, failure.error),
        None => format!("{} of {pages} pages", report.entered()),
    };
    Err(BenchError::failed("pages were not entered", cause))
}
