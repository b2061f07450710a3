//! The program `uhmm`: demonstrations and measurements of user-space heterogeneous memory
//! management.
//!
//! One module per subcommand. A subcommand returns a [`Failure`] or nothing; only this file turns
//! that into a message and an exit status.

mod bench;
mod demo;
mod device_memory;
mod doctor;
mod explain;
mod failure;
mod graph;
mod interrupt;
mod memory;
mod output;
mod pagerank;
mod progress;
mod run;
mod top;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;
use interrupt::Stop;

/// User-space heterogeneous memory management: one address space for CPU threads and devices.
///
/// Exit status: 0 done and verified, 1 failed or not verified, 2 bad usage or input,
/// 130 interrupted.
#[derive(Parser)]
#[command(name = "uhmm", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Run(run::Args),
    Explain(explain::Args),
    Top(top::Args),
}

fn main() -> ExitCode {
    // The devices that `bench` starts run no kernels.
    uhmm_soft::serve_if_asked(bench::KERNELS);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain_usage(&error),
    };
    let stop = Stop::new();
    let outcome = match cli.command {
        // It becomes the program, whose signals are its own.
        Command::Run(args) => run::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Explain(args) => stop.on_ctrl_c().and_then(|()| explain::run(&args)),
        Command::Top(args) => stop.on_ctrl_c().and_then(|()| top::run(&args, &stop)),
        Command::Demo(args) => stop.on_ctrl_c().and_then(|()| demo::run(&args, &stop)),
        Command::Bench(args) => stop.on_ctrl_c().and_then(|()| bench::run(&args, &stop)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Prints help and version as asked for, and mistakes in the manner of all other messages.
fn explain_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away (`uhmm --help | head -1`) is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    ExitCode::from(Failure::BAD_USAGE)
}

/// Writes one message to standard error. With standard error closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "uhmm: {message}");
}
