//! `uhmm top`: what goes on between a running program and its devices, second by second.

mod picture;
mod sample;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use uhmm::{ObserveError, Observer};

use crate::failure::Failure;
use crate::interrupt::Stop;
use sample::{Change, Sample};

/// Watch a running program: faults, migrations and their causes a second, and who holds what.
///
/// The program runs on; nothing waits. To be run as its user or as root. `q` ends it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process.
    #[arg(value_name = "PID")]
    process: u32,

    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    interval: f64,

    /// Look twice, print one picture as text, and end.
    #[arg(long)]
    once: bool,
}

/// Why an interval is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give seconds, from 0.05 to 3600")]
struct NotAnInterval;

fn parse_seconds(text: &str) -> Result<f64, NotAnInterval> {
    let seconds: f64 = text.parse().map_err(|_| NotAnInterval)?;
    if (0.05..=3600.0).contains(&seconds) { Ok(seconds) } else { Err(NotAnInterval) }
}

/// Why a program cannot be watched.
#[derive(Debug, thiserror::Error)]
enum TopError {
    /// The process shows nothing.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The terminal fails.
    #[error("the terminal cannot be drawn on: {0}")]
    Terminal(io::Error),
    /// There is no terminal.
    #[error("standard output is no terminal: use --once")]
    NoTerminal,
}

impl From<TopError> for Failure {
    fn from(error: TopError) -> Self {
        Self::new(error)
    }
}

/// The size of what `--once` prints.
const ONCE: (u16, u16) = (100, 32);

/// Runs the subcommand.
pub(crate) fn run(args: &Args, stop: &Stop) -> Result<(), Failure> {
    let seen = Observer::of(args.process).map_err(TopError::from)?;
    let interval = Duration::from_secs_f64(args.interval);
    if args.once {
        return once(&seen, interval, stop);
    }
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal.into());
    }
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let watched = watch(&seen, interval, stop, &mut terminal);
    // As it was before, whatever happened.
    ratatui::restore();
    watched
}

/// Draws until the user has enough, or the program ends.
fn watch(
    seen: &Observer,
    interval: Duration,
    stop: &Stop,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<(), Failure> {
    let mut before = Sample::take(seen);
    let mut change = Change::between(&before, &before);
    loop {
        terminal
            .draw(|frame| picture::draw(frame, seen.process(), &change, "  q ends"))
            .map_err(TopError::Terminal)?;
        let next = Instant::now() + interval;
        while let Some(rest) = next.checked_duration_since(Instant::now()) {
            stop.check()?;
            // Looked at often enough for the user and for the program's end.
            let wait = rest.min(Duration::from_millis(100));
            if event::poll(wait).map_err(TopError::Terminal)? {
                match event::read().map_err(TopError::Terminal)? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        let control = key.modifiers.contains(KeyModifiers::CONTROL);
                        match key.code {
                            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                            KeyCode::Char('c') if control => return Ok(()),
                            _ => {}
                        }
                    }
                    // Drawn anew in the new size.
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
        let now = Sample::take(seen);
        // Drawn anew for another reason, rates would be of too short a time.
        if now.since(&before) >= interval / 2 || !now.is_alive() {
            change = Change::between(&before, &now);
            before = now;
        }
    }
}

/// Prints one picture.
fn once(seen: &Observer, interval: Duration, stop: &Stop) -> Result<(), Failure> {
    let before = Sample::take(seen);
    let end = Instant::now() + interval;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        stop.check()?;
        std::thread::sleep(rest.min(Duration::from_millis(50)));
    }
    let change = Change::between(&before, &Sample::take(seen));
    let mut out = io::stdout().lock();
    out.write_all(text(seen.process(), &change, ONCE).as_bytes())?;
    Ok(out.flush()?)
}

/// The picture as text, without what is empty at the end of its lines, and of itself.
fn text(process: u32, change: &Change, (width, height): (u16, u16)) -> String {
    // Drawing in memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(drawn) = terminal.draw(|frame| picture::draw(frame, process, change, ""));
    let mut text = String::new();
    for row in 0..height {
        let line: String = (0..width).map(|column| drawn.buffer[(column, row)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let kept = text.trim_end().len();
    text.truncate(kept);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
