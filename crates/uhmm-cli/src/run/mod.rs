//! `uhmm run`: an unmodified program with uhmm's address space and devices.
//!
//! The program is looked at first, and the system is asked for what an address space needs. Then this
//! process becomes the program, with a library preloaded that serves it the devices' nodes. So its process
//! number, streams, exit status and signals are its own.

mod library;
mod observe;
mod program;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use uhmm::mm::linux::{Linux, OpenError};

use self::program::{NotRunnable, Program};
use crate::device_memory::{DeviceMemory, DeviceMemoryError};
use crate::failure::Failure;
use crate::output::OutputError;

/// Run an unmodified program with uhmm's address space and devices.
///
/// The program finds four devices at `/dev/hmm_dmirror0` to 3, the last two with coherent memory, which speak the
/// interface of the kernel's test device for HMM, and at `/sys/kernel/debug/gup_test` an emulation of the kernel's
/// tester of getting pages. Nothing is printed on its streams; its exit status and signals are its own. Other
/// preloaded libraries keep working.
///
/// The files of --stats and --trace are written as the program ends, also by _exit or by becoming another one.
/// A signal that ends it is not announced: then the last second of the counters is missing, and of the trace
/// what came after it was last written, which is done as long as it takes a twentieth of the time. A child that
/// opens a device has files of its own, with its number behind the name.
///
/// Exit status, where the program was not started: 2 bad usage, 125 uhmm cannot serve it here, 126 it is of a
/// kind that no library can be loaded into, 127 it was not found.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How much memory each device has, such as 64M
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = bytes)]
    device_memory: u64,

    /// Migrate random pages of the program to a device and back all the time, so many runs of pages a second
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    chaos: Option<u32>,

    /// Write how often things happened: an object of JSON where the name ends in .json, lines of text else
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,

    /// Write a trace of what happened when, as Perfetto and Chrome read it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// A size in bytes: there is no graph of which it could be a part.
fn bytes(text: &str) -> Result<u64, DeviceMemoryError> {
    match text.parse()? {
        DeviceMemory::Bytes(bytes) => Ok(bytes.get()),
        DeviceMemory::OfGraph { .. } => Err(DeviceMemoryError::NotBytes),
    }
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
enum RunError {
    /// It cannot be run so.
    #[error(transparent)]
    Program(#[from] NotRunnable),
    /// The library is not there.
    #[error(
        "the library {} is not there: build it with `cargo build --release -p uhmm-preload`, or put it beside \
         the program uhmm",
        .0.display()
    )]
    NoLibrary(PathBuf),
    /// Where the library is cannot be said.
    #[error("where this program lies cannot be found out, and so not where its library does: {0}")]
    NoPlace(io::Error),
    /// The path of the library cannot be told to the loader.
    #[error(
        "the library {} cannot be preloaded: its path has a space or a colon, which the dynamic loader takes for \
         the end of a name; put uhmm elsewhere",
        .0.display()
    )]
    BadPlace(PathBuf),
    /// An address space cannot be opened.
    #[error("{0}; `uhmm doctor` tells what is missing")]
    NoAddressSpace(OpenError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] OutputError),
    /// The place of a file cannot be told to the program.
    #[error("where {} is cannot be said to the program: {error}", path.display())]
    NoPath {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system does not start it.
    #[error("{} cannot be started: {error}", path.display())]
    NotStarted {
        /// The program.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl RunError {
    /// The status that the program exits with, as those that run others have it.
    const fn exit_status(&self) -> u8 {
        match self {
            Self::Program(NotRunnable::NotFound { .. }) => 127,
            Self::Program(_) | Self::NotStarted { .. } => 126,
            Self::NoLibrary(_)
            | Self::NoPlace(_)
            | Self::BadPlace(_)
            | Self::NoAddressSpace(_)
            | Self::File(_)
            | Self::NoPath { .. } => 125,
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::with_status(error.exit_status(), error)
    }
}

/// Runs the subcommand. Comes back only where the program was not started.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some((name, arguments)) = args.command.split_first() else { return Ok(()) };
    Err(start(args, name, arguments).into())
}

fn start(args: &Args, name: &OsString, arguments: &[OsString]) -> RunError {
    let prepared = Program::find(name).map_err(RunError::from).and_then(|program| {
        let preload = library::preload()?;
        // What the program's own address space will need of the system. It is let go of at once.
        Linux::open_telling_forks().map_err(RunError::NoAddressSpace)?;
        Ok((program, preload, observe::prepare(args.stats.as_deref(), args.trace.as_deref())?))
    });
    let (program, preload, observed) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let mut command = Command::new(&program.path);
    command
        .arg0(name)
        .args(arguments)
        .env("LD_PRELOAD", preload)
        .env("UHMM_RUN_DEVICE_MEMORY", args.device_memory.to_string())
        .env_remove("UHMM_RUN_CHAOS");
    if let Some(rate) = args.chaos {
        command.env("UHMM_RUN_CHAOS", rate.to_string());
    }
    observed.ask(&mut command);
    let error = command.exec();
    RunError::NotStarted { path: program.path, error }
}
