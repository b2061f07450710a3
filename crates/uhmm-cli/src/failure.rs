//! How a subcommand can end other than well, and the exit status of each way.

use std::io;

use crate::bench::BenchError;
use crate::demo::DeviceError;
use crate::explain::ExplainError;
use crate::graph::GraphError;
use crate::interrupt::Interrupted;
use crate::output::OutputError;
use crate::run::RunError;
use crate::top::TopError;

/// Why a subcommand did not succeed. The message is what follows `uhmm: ` on standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The input cannot be used.
    #[error(transparent)]
    Input(GraphError),
    /// The device failed.
    #[error(transparent)]
    Device(DeviceError),
    /// A measurement failed.
    #[error(transparent)]
    Bench(BenchError),
    /// The result differs from the CPU-only computation.
    #[error(
        "not verified: {differing} of {vertices} ranks differ from the CPU-only computation, \
         the first at vertex {first}"
    )]
    NotVerified {
        /// Ranks that differ in at least one bit.
        differing: usize,
        /// All ranks.
        vertices: usize,
        /// The lowest vertex whose rank differs.
        first: usize,
    },
    /// The machine lacks something, which was said.
    #[error("an address space cannot be used here; what to do about it is said above")]
    DoesNotWork,
    /// A program was not started.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The result could not be written.
    #[error("cannot write the result to standard output: {0}")]
    Output(#[from] io::Error),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] OutputError),
    /// An address could not be explained.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// A program could not be watched.
    #[error(transparent)]
    Top(#[from] TopError),
    /// Ctrl-C could not be prepared for.
    #[error("cannot listen for Ctrl-C: {0}")]
    Signals(#[from] ctrlc::Error),
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Failure {
    /// Exit status of bad usage and bad input, as clap has it.
    pub(crate) const BAD_USAGE: u8 = 2;

    /// The status that the program exits with.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Input(_) => Self::BAD_USAGE,
            Self::Device(_)
            | Self::Bench(_)
            | Self::NotVerified { .. }
            | Self::DoesNotWork
            | Self::Output(_)
            | Self::File(_)
            | Self::Explain(_)
            | Self::Top(_)
            | Self::Signals(_) => 1,
            Self::Run(error) => error.exit_status(),
            Self::Interrupted(_) => 130,
        }
    }
}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            other => Self::Input(other),
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            failed @ DeviceError::Failed { .. } => Self::Device(failed),
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            failed @ BenchError::Failed { .. } => Self::Bench(failed),
        }
    }
}
