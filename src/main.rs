//! `aljibe`: the storage daemon and the commands that speak to it.

#![forbid(unsafe_code)]

mod address;
mod alerts;
mod cli;
mod client;
mod cmd;
mod config;
mod copy;
mod data_dir;
mod failure;
mod nbd;
mod output;
mod progress;
mod qemu;
mod serve;
mod wiring;

#[cfg(test)]
#[expect(dead_code, reason = "the API's own tests use the rest")]
#[path = "../control/tests/memory/mod.rs"]
mod memory;

use clap::Parser;
use cli::{Cli, Command};
use failure::{Exit, Failure};
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error),
    };
    let output = Output { is_json: cli.json };
    match run(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.show_failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Serve(options) => serve::run(*options),
        Command::Volume(command) => cmd::volume::run(command, output),
        Command::Why(command) => cmd::mirror::why(command, output),
        Command::Site(command) => cmd::site::run(command, output),
        Command::Snapshot(command) => cmd::snapshot::run(command, output),
        Command::Pool(command) => cmd::pool::run(command, output),
        Command::Image(command) => cmd::image::run(command, output),
        Command::Tenant(command) => cmd::tenant::run(command, output),
        Command::Token(command) => cmd::token::run(command, output),
        Command::Operation(command) => cmd::operation::run(command, output),
        Command::Audit(command) => cmd::audit::run(command, output),
        Command::Class(command) => cmd::class::run(command, output),
        Command::Target(command) => cmd::target::run(command, output),
        Command::RateCard(command) => cmd::rate_card::run(command, output),
        Command::Invoice(command) => cmd::invoice::run(command, output),
        Command::Usage(command) => cmd::usage::run(command, output),
        Command::Budget(command) => cmd::budget::run(command, output),
    }
}

/// Answers a command line that cannot be read, or that asks for help.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && is_json {
        // The first paragraph tells what is wrong; usage and hints follow.
        let text = error.to_string();
        let detail = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ").trim_end();
        Output { is_json }.show_failure(&Failure::new(Exit::Usage, "usage", detail));
    } else if error.print().is_err() {
        return Exit::Failure.into();
    }
    if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS }
}
