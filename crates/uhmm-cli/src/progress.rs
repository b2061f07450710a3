//! What a person sees on standard error while a subcommand runs: bars on a terminal, plain
//! lines elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// Plain lines that one phase writes at most while it runs.
const LINES: u64 = 10;

/// What a phase counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
}

/// Reports phases.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Bars,
    Lines,
    #[cfg(test)]
    Silent,
}

impl Progress {
    /// Reports on standard error.
    pub(crate) fn on_stderr() -> Self {
        let how = if std::io::stderr().is_terminal() { How::Bars } else { How::Lines };
        Self { how }
    }

    /// Reports nothing.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { how: How::Silent }
    }

    /// Starts a phase that counts up to `total`.
    pub(crate) fn phase(self, what: impl Into<String>, total: u64, unit: Unit) -> Phase {
        let what = what.into();
        let bar = (self.how == How::Bars).then(|| bar(&what, total, unit));
        if bar.is_none() {
            self.line(&format_args!("{what} ..."));
        }
        Phase {
            progress: self,
            bar,
            what,
            total,
            stride: (total / LINES).max(1),
            started: Instant::now(),
        }
    }

    /// Says something that is no phase.
    pub(crate) fn line(self, text: &dyn Display) {
        if matches!(self.how, How::Bars | How::Lines) {
            // With standard error closed nobody watches, and the work goes on.
            let _ = writeln!(std::io::stderr(), "uhmm: {text}");
        }
    }
}

fn bar(what: &str, total: u64, unit: Unit) -> ProgressBar {
    let template = match unit {
        Unit::Count => "{msg} {wide_bar} {human_pos}/{human_len} {elapsed}",
        Unit::Bytes => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {elapsed}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(what.to_owned())
        .with_finish(ProgressFinish::AndClear)
}

/// A phase that runs. Dropped before [`Phase::done`], it leaves no bar behind.
pub(crate) struct Phase {
    progress: Progress,
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    stride: u64,
    started: Instant,
}

impl Phase {
    /// Shows how far the phase is.
    pub(crate) fn at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Shows how far the phase is and what is known so far; as plain lines, a few of them only.
    pub(crate) fn at_with(&self, position: u64, note: &dyn Display) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{}, {note}", self.what));
                bar.set_position(position);
            }
            None if position.is_multiple_of(self.stride) => {
                let Self { what, total, .. } = self;
                self.progress.line(&format_args!("{what}: {position} of {total}, {note}"));
            }
            None => {}
        }
    }

    /// Ends the phase; one line says what it brought and how long it took.
    pub(crate) fn done(self, result: &dyn Display) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.line(&format_args!("{}: {result}, {seconds:.2} s", self.what));
        seconds
    }
}
