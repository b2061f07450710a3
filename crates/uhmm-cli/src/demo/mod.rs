//! `uhmm demo`: PageRank by a device over a graph that lies in ordinary heap memory.

mod accelerator;
mod device;
mod report;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{BinaryBytes, HumanCount};

use crate::device_memory::DeviceMemory;
use crate::failure::Failure;
use crate::graph::{self, Graph, GraphError, kronecker};
use crate::interrupt::Stop;
use crate::output::Output;
use crate::pagerank::{self, Ranks};
use crate::progress::{Progress, Unit};
use accelerator::{Accelerator, DeviceError};
use report::Report;
use uhmm_record::Facts;

/// Scale of the generated graph where none is given.
const SCALE: u32 = 16;

/// Seed of the generated graph where none is given.
const SEED: u64 = 1;

/// Compute PageRank on a device over a graph in ordinary heap memory.
///
/// The graph is a vector of vectors from the standard allocator. The device, which has less
/// memory than the graph takes, pulls in the pages that it touches; CPU threads read the ranks
/// and write their shares between steps, which takes pages back. At the end every rank must equal
/// the CPU-only computation bit for bit.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Read the graph from a Matrix Market file or a SNAP edge list.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scale", "seed"])]
    graph: Option<PathBuf>,

    /// Generate a Kronecker graph of 2^N vertices, with Graph500's parameters [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(kronecker::MAX_SCALE)))]
    scale: Option<u32>,

    /// Seed of the generated graph; the same seed gives the same graph [default: 1].
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Iterations of PageRank.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,

    /// Memory of the device: bytes (67108864, 64MiB) or a part of what the graph takes (1/4, 25%,
    /// 0.25).
    #[arg(long, value_name = "SIZE", default_value = "1/4")]
    device_memory: DeviceMemory,

    /// Print the result as one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Record what happens, and write an HTML report of it: who held which addresses when, faults,
    /// latencies. One file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Record what happens, and write a trace of it as Perfetto and Chrome read it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// The result differs from the CPU-only computation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not verified: {differing} of {vertices} ranks differ from the CPU-only computation, \
     the first at vertex {first}"
)]
struct NotVerified {
    /// Ranks that differ in at least one bit.
    differing: usize,
    /// All ranks.
    vertices: usize,
    /// The lowest vertex whose rank differs.
    first: usize,
}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Interrupted(interrupted) => interrupted.into(),
            input => Self::with_status(Self::BAD_USAGE, input),
        }
    }
}

/// Runs the demonstration and prints its result.
pub(crate) fn run(args: &Args, stop: &Stop) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Demo { args, stop, progress: Progress::on_stderr(), colour }.run(device::open, &mut out)
}

struct Demo<'a> {
    args: &'a Args,
    stop: &'a Stop,
    progress: Progress,
    colour: bool,
}

impl Demo<'_> {
    /// The reference is computed before the device is opened, so that it stands on memory that
    /// nothing has touched.
    fn run(
        &self,
        open: impl FnOnce(u64) -> Result<Box<dyn Accelerator>, DeviceError>,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        // A path that cannot be written to is told before the work, not after.
        let report_file = self.args.report.as_deref().map(Output::create).transpose()?;
        let trace_file = self.args.trace.as_deref().map(Output::create).transpose()?;
        let (source, graph) = self.graph()?;
        let graph_bytes = graph.bytes();
        let (reference, cpu_only_seconds) = self.reference(&graph)?;

        let mut device = open(self.args.device_memory.bytes(graph_bytes))?;
        let device_bytes = device.memory_bytes();
        let recording =
            if report_file.is_some() || trace_file.is_some() { device.record() } else { Ok(()) };
        let computed = recording.and_then(|()| self.compute(&graph, device.as_mut()));
        let (result, seconds) = match computed {
            Ok(computed) => computed,
            Err(error) => {
                // What went wrong first is what matters.
                let _ = device.close();
                return Err(error.into());
            }
        };
        let difference = compare(&result.ranks, &reference.ranks);
        let counters = device.counters();
        let all_counters = device.all_counters();
        let recorded = device.recorded();
        device.close()?;

        let mut report = Report {
            verified: difference.is_ok(),
            graph: source.to_string(),
            vertices: graph.vertices() as u64,
            edges: graph.edges(),
            graph_bytes,
            device_bytes,
            iterations: self.args.iterations,
            last_change: result.change,
            device_faults: 0,
            cpu_faults: 0,
            migrated_to_device_bytes: 0,
            migrated_to_system_bytes: 0,
            seconds,
            cpu_only_seconds,
        };
        report.count(counters);
        if let Some(recorded) = recorded {
            let title = format!("PageRank of {}", report.graph);
            let rows = report.rows();
            let facts = Facts {
                title: &title,
                verdict: report.verdict(),
                rows: &rows,
                counters: &all_counters,
            };
            if let Some(file) = report_file {
                file.write(|out| recorded.write_report(&facts, out))?;
            }
            if let Some(file) = trace_file {
                file.write(|out| recorded.write_trace(out))?;
            }
        }
        if self.args.json {
            report.write_json(out)?;
        } else {
            report.write_table(out, self.colour)?;
        }
        difference.map_err(Failure::new)
    }

    fn graph(&self) -> Result<(Source<'_>, Graph), Failure> {
        let source = Source::of(self.args);
        let (what, total, unit) = match source {
            Source::File(path) => {
                let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
                ("reading the graph", bytes, Unit::Bytes)
            }
            Source::Kronecker { scale, .. } => {
                ("generating the graph", kronecker::drawn_edges(scale), Unit::Count)
            }
        };
        let phase = self.progress.phase(what, total, unit);
        let mut watch = |position| {
            phase.at(position);
            self.stop.check()
        };
        let graph = match source {
            Source::File(path) => graph::load(path, &mut watch)?,
            Source::Kronecker { scale, seed } => kronecker::generate(scale, seed, &mut watch)?,
        };
        phase.done(&format_args!(
            "{} vertices, {} edges, {}",
            HumanCount(graph.vertices() as u64),
            HumanCount(graph.edges()),
            BinaryBytes(graph.bytes()),
        ));
        Ok((source, graph))
    }

    fn reference(&self, graph: &Graph) -> Result<(Ranks, f64), Failure> {
        let iterations = self.args.iterations;
        let phase =
            self.progress.phase("computing by the CPU alone", iterations.into(), Unit::Count);
        let watch = &mut |done: u32| phase.at(done.into());
        let reference = pagerank::cpu_only(graph, iterations, self.stop, watch)?;
        let seconds = phase.done(&format_args!("{iterations} iterations"));
        Ok((reference, seconds))
    }

    fn compute(
        &self,
        graph: &Graph,
        device: &mut dyn Accelerator,
    ) -> Result<(Ranks, f64), DeviceError> {
        let iterations = self.args.iterations;
        let phase =
            self.progress.phase("computing with the device", iterations.into(), Unit::Count);
        let result = pagerank::run(
            graph,
            iterations,
            |step| {
                self.stop.check()?;
                device.step(step, self.stop)
            },
            |done, change| {
                phase.at_with(done.into(), &format_args!("change {change:.1e}"));
                Ok(self.stop.check()?)
            },
        )?;
        let seconds = phase.done(&format_args!("{iterations} iterations"));
        Ok((result, seconds))
    }
}

/// Where the graph comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    File(&'a Path),
    Kronecker { scale: u32, seed: u64 },
}

impl<'a> Source<'a> {
    fn of(args: &'a Args) -> Self {
        match &args.graph {
            Some(path) => Self::File(path),
            None => Self::Kronecker {
                scale: args.scale.unwrap_or(SCALE),
                seed: args.seed.unwrap_or(SEED),
            },
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Kronecker { scale, seed } => write!(f, "Kronecker, scale {scale}, seed {seed}"),
        }
    }
}

/// An error if any rank differs in any bit.
fn compare(ranks: &[f64], reference: &[f64]) -> Result<(), NotVerified> {
    let mut differing = ranks
        .iter()
        .zip(reference)
        .enumerate()
        .filter(|(_, (rank, reference))| rank.to_bits() != reference.to_bits())
        .map(|(vertex, _)| vertex);
    match differing.next() {
        None => Ok(()),
        Some(first) => {
            Err(NotVerified { differing: 1 + differing.count(), vertices: ranks.len(), first })
        }
    }
}

#[cfg(test)]
mod tests;
