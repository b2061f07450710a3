//! How a subcommand ends other than well: what is told, and the exit status.
//!
//! Each subcommand has errors of its own, and says there which status they have.

use std::error::Error;
use std::io;

/// Why a subcommand did not succeed. The message is what follows `uhmm: ` on standard error.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Failure {
    exit_status: u8,
    error: Box<dyn Error + Send + Sync>,
}

/// The result could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the result to standard output: {0}")]
struct NotPrinted(io::Error);

impl Failure {
    /// Exit status of bad usage and bad input, as clap has it.
    pub(crate) const BAD_USAGE: u8 = 2;

    /// What ends with status 1.
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self::with_status(1, error)
    }

    /// What ends with a status of its own.
    pub(crate) fn with_status(exit_status: u8, error: impl Error + Send + Sync + 'static) -> Self {
        Self { exit_status, error: Box::new(error) }
    }

    /// The status that the program exits with.
    pub(crate) fn exit_status(&self) -> u8 {
        self.exit_status
    }

    /// What went wrong, if it is an `E`.
    #[cfg(test)]
    pub(crate) fn error<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(NotPrinted(error))
    }
}
