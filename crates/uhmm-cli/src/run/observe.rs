//! The files of `--stats` and `--trace`. Here they say that nothing happened; the library that is loaded into
//! the program replaces them once something has.

use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use uhmm::CounterValues;
use uhmm_record::{EMPTY_TRACE, Stage, Stats};

use super::RunError;
use crate::output::Output;

/// What is to be written, by the paths that the program finds it by wherever it goes.
pub(super) struct Observed {
    stats: Option<PathBuf>,
    trace: Option<PathBuf>,
}

/// Creates the files, so that one that cannot be written is told before the program begins.
pub(super) fn prepare(stats: Option<&Path>, trace: Option<&Path>) -> Result<Observed, RunError> {
    let whole = |path: Option<&Path>| {
        path.map(|path| {
            absolute(path).map_err(|error| RunError::NoPath { path: path.to_owned(), error })
        })
        .transpose()
    };
    let observed = Observed { stats: whole(stats)?, trace: whole(trace)? };
    if let Some(path) = &observed.stats {
        // This process becomes the program.
        let process = std::process::id();
        let nothing =
            Stats { process, stage: Stage::NotOpened, counters: CounterValues::default() };
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        Output::create(path)?
            .write(|out| if is_json { nothing.write_json(out) } else { nothing.write_text(out) })?;
    }
    if let Some(path) = &observed.trace {
        Output::create(path)?.write(|out| out.write_all(EMPTY_TRACE.as_bytes()))?;
    }
    Ok(observed)
}

impl Observed {
    /// Asks the library for them.
    pub(super) fn ask(&self, command: &mut Command) {
        for (name, path) in [("UHMM_RUN_STATS", &self.stats), ("UHMM_RUN_TRACE", &self.trace)] {
            match path {
                Some(path) => command.env(name, path),
                None => command.env_remove(name),
            };
        }
        command.env("UHMM_RUN_PROCESS", std::process::id().to_string());
    }
}
