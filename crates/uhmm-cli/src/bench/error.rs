//! Why a measurement ended without a result.

use std::error::Error;

use crate::failure::Failure;
use crate::interrupt::Interrupted;

/// A measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The system, or the engine, refused something.
    #[error("{doing}: {source}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Interrupted(interrupted) => interrupted.into(),
            failed @ BenchError::Failed { .. } => Self::new(failed),
        }
    }
}

impl BenchError {
    /// What went wrong while something was done.
    pub(super) fn failed(
        doing: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { doing, source: source.into() }
    }

    /// The same, for use with `map_err`.
    pub(super) fn while_doing<E: Into<Box<dyn Error + Send + Sync>>>(
        doing: &'static str,
    ) -> impl Fn(E) -> Self + Copy {
        move |source| Self::failed(doing, source)
    }
}
