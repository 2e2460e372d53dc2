//! What a person types: the demonstration, training rows, models.

use std::process::ExitCode;

use bliss_service::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::exit_code(cli::Ctl::parse().run())
}
