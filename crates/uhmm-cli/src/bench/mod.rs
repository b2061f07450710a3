//! `uhmm bench`: what the engine costs, beside the bare calls of the kernel in the same run.
//!
//! Each measure has two sides, *ours* and the *floor*, that do the same to memory of their own of
//! the same make. They run in turns, round by round, the one first in every other round, so that
//! what disturbs the machine disturbs both; a row is the median of many rounds of each, its
//! quartiles, and the ratio of the medians. All threads of a measure, the handlers of either side
//! included, run on one CPU. *Quiet* has nothing else in the process; *busy* has a thread on another
//! CPU that goes over memory of its own, so that every change of the page tables has to interrupt
//! that CPU.
//!
//! [`migrate`], [`copy`], [`fault`], [`cpu_scan`], [`range`] and [`oversubscribe`] say how their floors
//! are made, [`metadata`], [`invalidate`] and [`contention`] what they count. Where something was promised
//! instead, that stands for the floor. A last line says from what size on it pays to migrate, as
//! [`break_even`] measures it.

mod break_even;
mod busy;
mod contention;
mod copy;
mod cpu_scan;
mod engine;
mod error;
mod fault;
mod handler;
mod invalidate;
mod machine;
mod memory;
mod metadata;
mod migrate;
mod null;
mod oversubscribe;
mod range;
mod report;
mod rounds;
mod scan;
mod userfault;
mod waits;

use std::io::Write;

use clap::ValueEnum;
use uhmm::units::PageSize;

pub(crate) use engine::KERNELS;

use crate::failure::Failure;
use crate::interrupt::Stop;
use crate::progress::{Phase, Progress, Unit};
use break_even::BreakEven;
use busy::BusyThread;
use error::BenchError;
use machine::Cpus;
use report::{Row, Rows};
use rounds::{Pair, Round, Spread};

/// Measure what the engine costs, beside the bare calls of the kernel in the same run.
///
/// Ours and the floor do the same to memory of the same make, in turns, on one CPU: `quiet`, and
/// `busy` with another thread of this process at work on a second CPU. Figures are medians, with
/// quartiles in parentheses.
///
/// migrate_4k: base pages go to a device and come back, in calls of 512 and of 64 pages, all touched
/// before. Floor: UFFDIO_MOVE of the same batches between two areas and back.
///
/// migrate_huge: the same with huge pages, one a call and eight, checked to be whole on either side.
/// The floor of eight is one UFFDIO_MOVE. Ours makes eight, as it locks one huge page at a time, so
/// there is no bound; the floor of one a call is what each of eight bare calls costs.
///
/// migrate_copy: base pages are copied into a device's own memory and come back, a block a call; with
/// the device in this process, and in one of its own, having written to every page; and in either, having
/// written to none. Floor: memcpy of the same blocks from one area to
/// another and back, by the same thread.
///
/// migrate_copy_huge: the same with huge pages.
///
/// cpu_fault: a thread reads pages that are away, one here, one there. Floor: a thread that polls a
/// userfaultfd, reads one message, copies the page there, and begins again.
///
/// cpu_scan: a thread goes through pages that are away, one load a page. Floor: the same handler,
/// which moves 512 pages back with each fault, as many as the engine does at most.
///
/// range_fault_first: a device without memory asks for 8 MiB that are present, for the first time.
/// Floor: MADV_POPULATE_READ or _WRITE and PAGEMAP_SCAN, a block a call; beside the look, the second
/// alone. And for one page of an area that is not watched yet: the floor registers one too.
///
/// range_fault_again: the same request again, nothing having changed. Floor: what was promised.
///
/// invalidate_1m: a page changes that one of a million mirrors has, from when the change is known to
/// the end of the callback. Floor: what was promised; the same among ten thousand mirrors.
///
/// contention: two devices and two threads use the same 4 MiB for two seconds while parts of it move
/// about; how long single accesses take, the median and what one of a thousand exceeds. Beside it
/// stands one fault of the floor of cpu_fault. And the most turns that anybody waited for in the queue
/// of a block, and of these the most that were of threads. Floor: what was promised, two turns of each
/// other side, and one of each thread.
///
/// oversubscribe_stream: a device goes through four times as much as its memory holds. Floor: two
/// buffers, a thread that copies parts in and out, and one that works on them.
///
/// oversubscribe_random: the same at random, one number a page. Floors: a loop that moves the page
/// there and the oldest one back by UFFDIO_MOVE, as who misses it; and a thread that faults on what is
/// not there, and a handler that makes the same two calls.
///
/// metadata: bytes of engine memory for a page that is away, and for a block of which none is.
/// Floor: what was promised.
///
/// In JSON each row has, in this order: name, ours, floor, unit, ratio, better ("lower" or "higher");
/// then case, setting, at_most, and the quartiles. What was skipped has nulls, and says why.
///
/// The last line says below what size a copy to a device and back beats a migration on this machine. It
/// goes to standard error with --json.
#[derive(clap::Args)]
#[expect(clippy::doc_markdown, reason = "it is the text of the help")]
pub(crate) struct Args {
    /// What to measure [default: all].
    #[arg(value_enum, value_name = "NAME")]
    names: Vec<Name>,

    /// Rounds of each measurement.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Print the rows as a JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

/// A measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Name {
    #[value(name = "migrate_4k")]
    Migrate4k,
    MigrateHuge,
    MigrateCopy,
    MigrateCopyHuge,
    CpuFault,
    CpuScan,
    RangeFaultFirst,
    RangeFaultAgain,
    #[value(name = "invalidate_1m")]
    Invalidate1m,
    Contention,
    OversubscribeStream,
    OversubscribeRandom,
    Metadata,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::Migrate4k => "migrate_4k",
            Self::MigrateHuge => "migrate_huge",
            Self::MigrateCopy => "migrate_copy",
            Self::MigrateCopyHuge => "migrate_copy_huge",
            Self::CpuFault => "cpu_fault",
            Self::CpuScan => "cpu_scan",
            Self::RangeFaultFirst => "range_fault_first",
            Self::RangeFaultAgain => "range_fault_again",
            Self::Invalidate1m => "invalidate_1m",
            Self::Contention => "contention",
            Self::OversubscribeStream => "oversubscribe_stream",
            Self::OversubscribeRandom => "oversubscribe_random",
            Self::Metadata => "metadata",
        }
    }

    /// The settings in which it is measured: only quiet where page tables do not change,
    /// or both CPUs are used in any case.
    const fn settings(self) -> &'static [Setting] {
        match self {
            Self::Migrate4k
            | Self::MigrateHuge
            | Self::CpuFault
            | Self::CpuScan
            | Self::OversubscribeStream
            | Self::OversubscribeRandom
            | Self::RangeFaultFirst => &[Setting::Quiet, Setting::Busy],
            Self::MigrateCopy
            | Self::MigrateCopyHuge
            | Self::RangeFaultAgain
            | Self::Invalidate1m
            | Self::Contention
            | Self::Metadata => &[Setting::Quiet],
        }
    }
}

/// What else runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Quiet,
    Busy,
}

impl Setting {
    const fn text(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Busy => "busy",
        }
    }
}

/// Runs the measures and prints their rows.
pub(crate) fn run(args: &Args, stop: &Stop) -> Result<(), Failure> {
    let names = if args.names.is_empty() { Name::value_variants() } else { &args.names };
    let cpus = Cpus::find()?;
    cpus.main.bind_this_thread()?;
    let progress = Progress::on_stderr();
    let mut rows = Rows::default();
    for &name in names {
        for &setting in name.settings() {
            stop.check()?;
            measure(name, setting, args.rounds, cpus, progress, stop, &mut rows)?;
        }
    }
    let break_even = break_even(args.rounds, cpus, args.json, progress, stop)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        rows.write_json(&mut out)?;
    } else {
        rows.write_table(&mut out)?;
        writeln!(out, "{break_even}")?;
    }
    Ok(out.flush()?)
}

/// Measures from what size on it pays to migrate; with few rounds, as it is many sizes.
fn break_even(
    rounds: u32,
    cpus: Cpus,
    json: bool,
    progress: Progress,
    stop: &Stop,
) -> Result<BreakEven, Failure> {
    stop.check()?;
    let rounds = rounds.min(20);
    let phase = progress.phase("break-even", rounds.into(), Unit::Count);
    let context = Context { rounds, cpus, stop, phase: &phase, page: page_size()? };
    let (found, ratios) = break_even::measure(&context)?;
    let ratios: Vec<_> =
        ratios.iter().map(|(bytes, ratio)| format!("{} KiB {ratio:.2}", bytes >> 10)).collect();
    phase.done(&format_args!("a migration takes so many times a copy: {}", ratios.join(", ")));
    if json {
        progress.line(&found);
    }
    Ok(found)
}

fn measure(
    name: Name,
    setting: Setting,
    rounds: u32,
    cpus: Cpus,
    progress: Progress,
    stop: &Stop,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let row = |case, unit, at_most| Row::new(name.text(), case, setting.text(), unit, at_most);
    let busy = match (setting, cpus.other) {
        (Setting::Quiet, _) => None,
        (Setting::Busy, Some(cpu)) => Some(BusyThread::start(cpu)?),
        (Setting::Busy, None) => {
            rows.add(row("all", "", None).skipped("this process may run on one CPU only"));
            return Ok(());
        }
    };
    let what = format!("{}, {}", name.text(), setting.text());
    let phase = progress.phase(what, rounds.into(), Unit::Count);
    let context = Context { rounds, cpus, stop, phase: &phase, page: page_size()? };
    let before = rows.len();
    match name {
        Name::Migrate4k => migrate::base_pages(&context, &row, rows)?,
        Name::MigrateHuge => migrate::huge_pages(&context, &row, rows)?,
        Name::MigrateCopy => copy::base_pages(&context, &row, rows)?,
        Name::MigrateCopyHuge => copy::huge_pages(&context, &row, rows)?,
        Name::CpuFault => fault::single(&context, &row, rows)?,
        Name::CpuScan => cpu_scan::forward(&context, &row, rows)?,
        Name::OversubscribeStream => oversubscribe::stream(&context, &row, rows)?,
        Name::OversubscribeRandom => oversubscribe::random(&context, &row, rows)?,
        Name::RangeFaultFirst => range::first(&context, &row, rows)?,
        Name::RangeFaultAgain => range::again(&context, &row, rows)?,
        Name::Invalidate1m => invalidate::one_of_many(&context, &row, rows)?,
        Name::Contention => contention::waits(&context, &row, rows)?,
        Name::Metadata => metadata::bytes(&context, &row, rows)?,
    }
    drop(busy);
    phase.done(&rows.since(before));
    Ok(())
}

/// Makes a row of the measure under way: its case, its unit, and what its ratio should be at most,
/// where there is a bound.
type NewRow<'a> = &'a dyn Fn(&'static str, &'static str, Option<f64>) -> Row;

/// What every measure needs to know.
struct Context<'a> {
    rounds: u32,
    cpus: Cpus,
    stop: &'a Stop,
    phase: &'a Phase,
    page: PageSize,
}

impl Context<'_> {
    fn in_turns<const N: usize>(
        &self,
        ours: Round<'_, N>,
        floor: Round<'_, N>,
    ) -> Result<[Pair; N], BenchError> {
        rounds::in_turns(self.rounds, ours, floor, self.phase, self.stop)
    }

    /// Rounds of each side, those that do not count among them.
    const fn rounds_in_all(&self) -> u32 {
        self.rounds + rounds::WARM_UP
    }

    fn alone<const N: usize>(&self, side: Round<'_, N>) -> Result<[Spread; N], BenchError> {
        rounds::alone(self.rounds, side, self.phase, self.stop)
    }
}

fn page_size() -> Result<PageSize, BenchError> {
    PageSize::new(rustix::param::page_size())
        .ok_or_else(|| BenchError::failed("no measurement", "the page size is no power of two"))
}
