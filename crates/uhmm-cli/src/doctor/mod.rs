//! `uhmm doctor`: what this machine and this user have of what uhmm needs, and how to get the rest.

mod checks;
mod machine;
mod trial;

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use self::checks::{Check, State};
use crate::failure::Failure;

/// Tell what this machine and this user have of what uhmm needs, and how to get the rest.
///
/// Looks at each feature of the kernel, each privilege and each limit, and then tries: a page goes to a
/// device and comes back. Changes nothing, and works where nothing is available. Exit status 1 where
/// an address space cannot be used.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// All that there is to say. The names of the fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
struct Findings {
    /// Whether a page went to a device and came back.
    works: bool,
    /// What the trial says.
    trial: String,
    checks: Vec<Check>,
}

/// The machine lacks something, which was said.
#[derive(Debug, thiserror::Error)]
#[error("an address space cannot be used here; what to do about it is said above")]
struct DoesNotWork;

/// Runs the subcommand.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let trial = trial::try_all();
    let findings = Findings {
        works: trial.is_ok(),
        trial: trial.unwrap_or_else(|reason| reason),
        checks: checks::all(),
    };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &findings).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        findings.write(&mut out, colour)?;
    }
    out.flush()?;
    if findings.works { Ok(()) } else { Err(Failure::new(DoesNotWork)) }
}

impl Findings {
    fn write(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["", "what", "here", "what it is for"]);
        for check in &self.checks {
            table.add_row([mark(check.state), check.name, &check.found, check.means]);
        }
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        if !io::stdout().is_terminal() {
            table.set_width(120);
        }
        writeln!(out, "{table}")?;
        for (state, title) in [
            (State::Missing, "To get what uhmm does not work without:"),
            (State::Less, "To get the rest, where you want it:"),
        ] {
            let mut of_state = self.checks.iter().filter(|check| check.state == state).peekable();
            if of_state.peek().is_some() {
                writeln!(out, "\n{title}")?;
            }
            for check in of_state {
                writeln!(out, "  {}", check.name)?;
                for line in &check.get {
                    writeln!(out, "    {line}")?;
                }
            }
        }
        let (code, verdict) =
            if self.works { ("32", "It works: ") } else { ("31", "It does not work: ") };
        let (on, off) =
            if colour { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
        writeln!(out, "\n{on}{verdict}{}{off}", self.trial)
    }
}

const fn mark(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Less => "less",
        State::Missing => "missing",
    }
}
